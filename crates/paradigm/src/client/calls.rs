//! The calls that have no outcome yet, and the numbers of those that are commands.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_base::Instant;

use super::outcome::NotDone;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Execute(Bytes),
    Read { query: Bytes, local: bool },
}

impl Ask {
    fn len(&self) -> usize {
        match self {
            Self::Execute(bytes) | Self::Read { query: bytes, .. } => bytes.len(),
        }
    }
}

/// The number of a command in one of the client's sessions, which are counted as epochs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) epoch: u64,
    pub(super) number: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) token: u64,
    pub(super) ask: Ask,
    pub(super) deadline: Instant,
    /// Where the command has its place; given at the first try and kept for the others.
    pub(super) place: Option<Place>,
    /// When the next try is due, if none is out.
    at: Instant,
    /// A try is without an answer.
    pub(super) out: bool,
    /// A try may have been executed, or may still be, and no answer to it will come.
    pub(super) lost: bool,
    /// What the last node that refused it said.
    pub(super) reason: Option<NotDone>,
    pub(super) refusals: u32,
}

impl Call {
    pub(super) fn is_read(&self) -> bool {
        matches!(self.ask, Ask::Read { .. })
    }

    /// Nobody can rule out that it is executed.
    pub(super) fn is_uncertain(&self) -> bool {
        !self.is_read() && (self.lost || self.out)
    }
}

/// All calls, by a number of this client's own.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    calls: BTreeMap<u64, Call>,
    by_deadline: BTreeSet<(Instant, u64)>,
    /// Those with no try out, by the time of the next one.
    waiting: BTreeSet<(Instant, u64)>,
    next: u64,
    bytes: usize,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Bytes of commands and queries.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, now: Instant, token: u64, ask: Ask, deadline: Instant) {
        let id = self.next;
        self.next += 1;
        self.bytes += ask.len();
        self.by_deadline.insert((deadline, id));
        self.waiting.insert((now, id));
        let call = Call {
            token,
            ask,
            deadline,
            place: None,
            at: now,
            out: false,
            lost: false,
            reason: None,
            refusals: 0,
        };
        self.calls.insert(id, call);
    }

    pub(super) fn get(&self, id: u64) -> Option<&Call> {
        self.calls.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Call> {
        self.calls.get_mut(&id)
    }

    /// The call has no try out; the next one is at `at`.
    pub(super) fn wait(&mut self, id: u64, at: Instant) {
        if let Some(call) = self.calls.get_mut(&id) {
            (call.out, call.at) = (false, at);
            self.waiting.insert((at, id));
        }
    }

    /// A try of a waiting call goes out.
    pub(super) fn went(&mut self, id: u64) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.out = true;
            self.waiting.remove(&(call.at, id));
        }
    }

    /// The waiting calls that are due, by the time of their next try.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = u64> + '_ {
        self.waiting.range(..=(now, u64::MAX)).map(|(_, id)| *id)
    }

    /// All waiting calls.
    pub(super) fn waiting(&self) -> Vec<u64> {
        self.waiting.iter().map(|(_, id)| *id).collect()
    }

    /// A call whose deadline has come.
    pub(super) fn expired(&self, now: Instant) -> Option<u64> {
        self.by_deadline.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.bytes -= call.ask.len();
        self.by_deadline.remove(&(call.deadline, id));
        self.waiting.remove(&(call.at, id));
        Some(call)
    }

    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// When the next waiting call is due, if that is after `now`.
    pub(super) fn next_try(&self, now: Instant) -> Option<Instant> {
        self.waiting.range((now, u64::MAX)..).next().map(|(at, _)| *at)
    }
}

/// The numbers of the present session.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    pub(super) epoch: u64,
    last: u64,
    /// Given, and without an outcome.
    open: BTreeSet<u64>,
}

impl Numbers {
    /// The client waits for no answer up to here.
    pub(super) fn acked_upto(&self) -> u64 {
        self.open.first().map_or(self.last, |first| first - 1)
    }

    /// The next number, unless that would be more than `window` above what is acknowledged.
    pub(super) fn next(&mut self, window: u64) -> Option<Place> {
        if self.last - self.acked_upto() >= window {
            return None;
        }
        self.last += 1;
        self.open.insert(self.last);
        Some(Place { epoch: self.epoch, number: self.last })
    }

    /// The command at this place has its outcome.
    pub(super) fn finish(&mut self, place: Place) {
        if place.epoch == self.epoch {
            self.open.remove(&place.number);
        }
    }

    /// Begins anew, in another session.
    pub(super) fn renew(&mut self) {
        *self = Self { epoch: self.epoch + 1, ..Self::default() };
    }
}
