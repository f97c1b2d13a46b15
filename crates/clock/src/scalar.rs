//! Scalar stamps: Lamport's logical clock, and the total order made of it (Lamport 1978).
//!
//! The steps of the paper. Each process has a counter. IR1: it is raised before each event. IR2: a message carries the
//! counter of its sending; who receives it raises his own above it before the receipt. So if a happened before b then
//! C(a) < C(b) (CLK-30): along each step of the chain the counter grew. The converse does not hold (CLK-33): two
//! processes that never spoke have counters, too.
//!
//! Counters of two processes may be equal; the process breaks the tie. [`Stamp`] is ordered so, and as a process gives no
//! counter twice this is a strict total order that extends *happened before* (CLK-31).
//!
//! On the wire is [`Stamp::counter`] alone, where the frame says who sent it.

use std::fmt;

use mainstay_base::{SiteId, service::Wire};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::COUNT_MAX;

/// An event's place in the total order: by counter, then by process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Lamport's C.
    pub counter: u64,
    /// Whose event it is.
    pub site: SiteId,
}

impl Wire for Stamp {}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.counter, self.site)
    }
}

/// A counter that was received is refused. The clock is as before; a retry is refused again; the sender is at fault.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("counter {0} is more than any that counting reaches")]
pub struct TooLarge(pub u64);

/// Lamport's clock of one process: one number.
///
/// A restarted process is another incarnation, so its stamps differ from those of its former life (CLK-37) though it
/// counts from 0 again.
///
/// ```
/// use mainstay_base::{ClusterId, Incarnation, NodeId, SiteId};
/// use mainstay_clock::scalar::Clock;
///
/// let cluster = ClusterId::from_entropy(1);
/// let site = |name| SiteId { node: NodeId::new(cluster, name), incarnation: Incarnation(1) };
/// let (mut a, mut b) = (Clock::new(site("a")), Clock::new(site("b")));
/// let sent = a.tick();
/// let received = b.observe(sent.counter)?;
/// let answered = b.tick();
/// assert!(sent < received && received < answered);
///
/// // Two events of which neither knows the other have an order as well: it says nothing of them.
/// let elsewhere = a.tick();
/// assert!(elsewhere < answered);
/// # Ok::<(), mainstay_clock::scalar::TooLarge>(())
/// ```
#[derive(Clone, Debug)]
pub struct Clock {
    site: SiteId,
    counter: u64,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
}

impl Clock {
    /// The clock of `site` before its first event.
    #[must_use]
    pub fn new(site: SiteId) -> Self {
        Self {
            site,
            counter: 0,
            #[cfg(feature = "test-util")]
            fault: None,
        }
    }

    /// Breaks it.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    #[must_use]
    pub fn broken(self, fault: Option<crate::fault::Fault>) -> Self {
        Self { fault, ..self }
    }

    /// Stamps an event, or the sending of a message.
    pub fn tick(&mut self) -> Stamp {
        if !(mainstay_base::fault!(self, ScalarRepeats) && self.counter > 0) {
            self.counter =
                self.counter.checked_add(1).expect("fewer than 2^63 events of a process");
        }
        Stamp { counter: self.counter, site: self.site }
    }

    /// Stamps the receipt of a message with that counter; of a copy, too.
    ///
    /// # Errors
    /// [`TooLarge`]: the counter is above [`COUNT_MAX`], which no counting reaches.
    pub fn observe(&mut self, counter: u64) -> Result<Stamp, TooLarge> {
        if counter > COUNT_MAX {
            return Err(TooLarge(counter));
        }
        if !mainstay_base::fault!(self, ScalarForgetsReceived) {
            self.counter = self.counter.max(counter);
        }
        Ok(self.tick())
    }

    /// The counter of the last event; 0: there was none.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter
    }
}
