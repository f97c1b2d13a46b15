//! What the group has said and the replica has not done yet.

use std::collections::VecDeque;

use bytes::Bytes;
use mainstay_base::{Departures, Position, SiteId};
use mainstay_multicast::Delivery;
use mainstay_paradigm::client::NotDone;

/// Bytes of messages from which on a node takes in no more than it works off (16 MiB).
const BYTES_MAX: usize = 16 << 20;
/// It takes in so much all the same: among it is the word that its peers are alive.
const INTAKE_MIN: usize = 16 << 10;
/// What a message counts beside its payload.
const MESSAGE: usize = 64;

/// The next thing for the replica to do.
pub(crate) enum Step {
    Deliver(Delivery),
    /// Messages, one after the other.
    Batch(std::vec::IntoIter<Delivery>),
    /// Number and members, by rank.
    View(u64, Vec<SiteId>, Departures),
    Read(u64, Position),
    Snapshot(Position),
    /// The state is void: another one comes, from the own checkpoint or from a sponsor.
    BeginRestore,
    /// Of the own checkpoint.
    Chunk(Bytes),
    /// Chunks, one after the other.
    Chunks(std::vec::IntoIter<Bytes>),
    /// Of a sponsor's state.
    Part {
        position: Position,
        offset: u64,
        bytes: Bytes,
    },
    Restored(Position, From),
    /// Messages of the own log, one after the other.
    Entries(std::vec::IntoIter<Delivery>),
}

/// Where a state comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Disk,
    Sponsor,
}

/// A local read that found the turn spent: its token, and why it fails if there is no state.
pub(crate) struct Look(pub(crate) u64, pub(crate) NotDone);

/// Steps in the order in which the group said them. A turn does some of them; see [`Replica::is_spent`].
///
/// [`Replica::is_spent`]: mainstay_paradigm::Replica::is_spent
#[derive(Default)]
pub(crate) struct Backlog {
    steps: VecDeque<Step>,
    /// Local reads, in their order; they wait for no step.
    pub(crate) looks: VecDeque<Look>,
    /// Of the messages in it, those of the own log excepted: they are here all at once.
    bytes: usize,
    /// Of the messages that were taken out in this turn.
    worked_off: usize,
}

impl Backlog {
    pub(crate) fn push(&mut self, step: Step) {
        self.steps.push_back(step);
    }

    pub(crate) fn deliver(&mut self, batch: Vec<Delivery>) {
        self.bytes += batch.iter().map(weight).sum::<usize>();
        self.push(Step::Batch(batch.into_iter()));
    }

    pub(crate) fn begin_turn(&mut self) {
        self.worked_off = 0;
    }

    pub(crate) fn pop(&mut self) -> Option<Step> {
        loop {
            let one = match self.steps.front_mut()? {
                Step::Chunks(chunks) => chunks.next().map(Step::Chunk),
                Step::Entries(entries) => entries.next().map(Step::Deliver),
                Step::Batch(batch) => batch.next().map(|delivery| {
                    let weight = weight(&delivery);
                    self.bytes -= weight;
                    self.worked_off += weight;
                    Step::Deliver(delivery)
                }),
                _ => return self.steps.pop_front(),
            };
            if one.is_some() {
                return one;
            }
            self.steps.pop_front();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.looks.is_empty()
    }

    /// How much the next turn may take in. A node that is too far behind holds its peers back: they keep what it has not
    /// acknowledged, and take no more from their clients than they can keep.
    pub(crate) fn intake_bytes_max(&self) -> usize {
        if self.bytes < BYTES_MAX { usize::MAX } else { self.worked_off.max(INTAKE_MIN) }
    }
}

fn weight(delivery: &Delivery) -> usize {
    MESSAGE + delivery.payload.len()
}
