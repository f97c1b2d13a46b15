//! What a node knows of a boot, and the streams to and from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::Instant;
use mainstay_base::service::{Address, Class};

use super::stream::{Incoming, Outgoing};
use super::wire::Entry;
use super::{DATAGRAM_BYTES, FRAME_COST, GUEST_WINDOW, TELL_AFTER, peer_window};

/// What is on the way to a peer counts for one of these: a class, or the datagrams.
pub(super) const LANES: usize = 5;
/// The lane of datagrams; those of the classes are in front of it.
pub(super) const DATAGRAMS: usize = 4;

/// A boot that the link has a session with.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) connected: bool,
    /// One of the two ends is a guest.
    pub(super) guest: bool,
    /// What it has mounted, as far as it has said so.
    pub(super) mounted: BTreeMap<Address, Entry>,
    /// Instances that were told that it is up.
    pub(super) up: BTreeSet<Address>,
    pub(super) out: BTreeMap<Address, Outgoing>,
    pub(super) incoming: BTreeMap<Address, Incoming>,
    /// Streams with something to send, by class.
    pub(super) running: [VecDeque<Address>; 4],
    /// What was taken in and is not told yet, by class.
    pub(super) untold: [u64; 4],
    /// When it is told at the latest.
    pub(super) tell_at: Option<Instant>,
    /// What is mounted here has changed since it was told.
    pub(super) stale: bool,
    /// It has not answered the last list.
    pub(super) unseen: bool,
    /// Its list is to be answered.
    pub(super) owes_seen: bool,
    /// Instances of which nothing is taken before they have heard of something, and there is room.
    pub(super) latched: BTreeMap<Address, Latch>,
    /// Of each class, the stream to the peer that is within a message of several frames: one at a time.
    pub(super) large: [Option<Address>; 4],
    /// The same of the streams from the peer.
    pub(super) partial: [Option<Address>; 4],
    /// What is on the way, each way.
    pub(super) lanes: [Lane; LANES],
    /// The link could not take what was meant for it: no stream is whole any more, and nothing is sent.
    pub(super) broken: bool,
}

/// Nothing is taken of an instance: a message was given back, or one beside the node does not know yet that the peer is up.
#[derive(Clone, Copy)]
pub(super) struct Latch {
    /// What it has to hear of: the end of the turn with this number, or so many words if it is beside the node.
    pub(super) at: u64,
    /// A message was given back: then it is told that there is room.
    pub(super) refused: bool,
}

/// Bytes of one class, or of datagrams, each way, since the two boots met. A stream that is void changes nothing of them.
#[derive(Default)]
pub(super) struct Lane {
    /// Handed to the link.
    pub(super) sent: u64,
    /// Of `sent`, what has come at the other end, as far as it has said so: `arrived <= sent`.
    pub(super) arrived: u64,
    /// From the peer.
    pub(super) came: u64,
    /// Of `came`, what the other end was told of.
    pub(super) told: u64,
}

impl Lane {
    /// Bytes on the way to the peer.
    pub(super) fn flight(&self) -> u64 {
        self.sent - self.arrived
    }
}

impl Peer {
    /// Most bytes of a class on the way, and most of a stream that were sent and not taken in.
    pub(super) fn window(&self, class: Class) -> u64 {
        peer_window(class, self.guest)
    }

    /// Most bytes of datagrams on the way.
    pub(super) fn datagrams(&self) -> u64 {
        if self.guest { GUEST_WINDOW } else { DATAGRAM_BYTES }
    }

    /// Bytes have come, and will be told.
    pub(super) fn count(&mut self, now: Instant, lane: usize, body: usize) {
        self.lanes[lane].came += (FRAME_COST + body) as u64;
        self.tell_at = self.tell_at.or(Some(now + TELL_AFTER));
    }

    /// Takes a message, or gives it back. `latch`: if it is given back.
    pub(super) fn push(
        &mut self,
        latch: Latch,
        of: Address,
        view: u64,
        meta: Bytes,
        payload: Bytes,
    ) -> Result<(), (Bytes, Bytes)> {
        let is_open = self.up.contains(&of) && !self.latched.contains_key(&of);
        let out =
            self.out.get_mut(&of).filter(|out| is_open && out.fits(meta.len() + payload.len()));
        let Some(out) = out else {
            let now = self.latched.entry(of).or_insert(latch);
            // What one beside the node has still to hear of grows with each; a mounted one hears of all at once.
            *now = Latch { at: now.at.max(latch.at), refused: true };
            return Err((meta, payload));
        };
        out.push(view, meta, payload);
        if !out.runs && out.may_send() {
            out.runs = true;
            self.running[out.class as usize].push_back(of);
        }
        Ok(())
    }

    /// Instances that have room again and were refused before. One that has not heard that a message was given back is not among them: what
    /// it sends before it does is given back as well.
    pub(super) fn release(&mut self, has_heard: impl Fn(&Address, u64) -> bool) -> Vec<Address> {
        let (up, out) = (&self.up, &self.out);
        let has_room = |of: &Address, at: u64| {
            has_heard(of, at) && up.contains(of) && out.get(of).is_some_and(Outgoing::is_roomy)
        };
        let latched = self.latched.iter();
        let free: Vec<(Address, Latch)> = latched
            .filter(|(of, latch)| has_room(of, latch.at))
            .map(|(of, latch)| (*of, *latch))
            .collect();
        self.latched.retain(|of, _| free.iter().all(|(it, _)| it != of));
        free.into_iter().filter(|(_, latch)| latch.refused).map(|(of, _)| of).collect()
    }

    /// The streams of an instance are void.
    pub(super) fn forget(&mut self, of: Address) {
        self.up.remove(&of);
        self.incoming.remove(&of);
        self.latched.remove(&of);
        let slots = self.large.iter_mut().chain(&mut self.partial);
        slots.filter(|it| **it == Some(of)).for_each(|it| *it = None);
        if let Some(out) = self.out.remove(&of).filter(|out| out.runs) {
            self.running[out.class as usize].retain(|it| *it != of);
        }
    }
}
