//! Timers of a clock service: those of users, by their tokens, and those of who waits outside.

use std::collections::BTreeMap;

use crate::Time;
use crate::timers::{TimerId, Timers};

/// Whose timer it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Whose {
    /// That of a command, with its token.
    Token(u64),
    /// That of somebody who waits.
    Alarm(u64),
}

/// The timers that are set, one for each of whom.
#[derive(Debug)]
pub(super) struct Rings {
    timers: Timers<Whose>,
    set: BTreeMap<Whose, TimerId>,
}

impl Rings {
    pub(super) fn new(timers: Timers<Whose>) -> Self {
        Self { timers, set: BTreeMap::new() }
    }

    /// Sets it, in place of a former one of the same. False: as many are set as may be.
    pub(super) fn set(&mut self, whose: Whose, at: Time) -> bool {
        self.cancel(whose);
        let id = self.timers.set(at, whose).ok();
        self.set.extend(id.map(|id| (whose, id)));
        id.is_some()
    }

    pub(super) fn cancel(&mut self, whose: Whose) {
        if let Some(id) = self.set.remove(&whose) {
            self.timers.cancel(id);
        }
    }

    /// The next one that is due at `reading`, and for which reading it was set (CLK-40).
    pub(super) fn fire(&mut self, reading: Time) -> Option<(Time, Whose)> {
        let (at, whose) = self.timers.fire(reading)?;
        self.set.remove(&whose);
        Some((at, whose))
    }

    pub(super) fn earliest(&self) -> Option<Time> {
        self.timers.earliest()
    }

    pub(super) fn len(&self) -> usize {
        self.timers.len()
    }
}
