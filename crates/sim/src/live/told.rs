//! What is told of a room: counters, faults left out, and why a run ended.

use std::cell::RefCell;
use std::rc::Rc;

use mainstay_base::Duration;
use thiserror::Error;

use crate::{Beyond, FaultEvent};

/// What happened in a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Faults that took place.
    pub faults: u64,
    /// Faults left out ([`Room::left_out`](super::Room::left_out)).
    pub skipped: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes of the machine, and not of the process alone.
    pub power: u64,
    /// Crashes with a forced write unfinished.
    pub unfinished: u64,
    /// Disks lost.
    pub lost: u64,
}

/// A run does not get on as it should.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Stuck {
    /// A node did not start: the reason that it gave.
    #[error("node {node} does not start: {reason}")]
    Start {
        /// Which.
        node: usize,
        /// What it said.
        reason: String,
    },
    /// A node always has something to do, so that time does not pass: a timer that is set for the past, or two tasks
    /// that wake each other without end.
    #[error("node {node} has been polled {polls} times and time has not passed")]
    Spins {
        /// Which.
        node: usize,
        /// How often.
        polls: u32,
    },
    /// A node ended by itself, and says why.
    #[error("node {node} halted: {reason}")]
    Halted {
        /// Which.
        node: usize,
        /// What it said.
        reason: String,
    },
    /// A fault of the script is beyond the model, in a [strict](super::Room::strict) room.
    #[error("the fault {fault:?} is beyond the model: {why}")]
    Beyond {
        /// Which, as it is printed.
        fault: String,
        /// What is against it.
        why: Beyond,
    },
    /// What was waited for did not come in time.
    #[error("not within {0:?}")]
    Late(Duration),
}

/// The faults that were left out of a run, and why.
pub type LeftOut = Rc<RefCell<Vec<(FaultEvent, Beyond)>>>;
