//! The settings of troupes.

use mainstay_base::{Duration, NodeId};
use thiserror::Error;

/// Most bytes of arguments, of a result or of a state, whatever the configuration (8 MiB less what belongs to them).
pub const BODY_BYTES_MAX: usize = (8 << 20) - (64 << 10);

/// What a service of troupes is mounted with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The node of the binding agent, the Ringmaster of Circus: it says who belongs to each troupe. The same at all nodes.
    pub binder: NodeId,
    /// No two starts of the binding agent have the same: the wall clock at the start serves. Of no meaning at other nodes.
    pub life: u64,
    /// After its start the binding agent takes so long to learn from members what was before, and changes nothing until then. Default 250 ms.
    pub settle: Duration,
    /// A member that the binding agent has not heard for so long is taken out, unless it is the last one of its troupe, or the agent hears less
    /// than half of the nodes that it knows. Default 5 s.
    pub patience: Duration,
    /// Most troupes that a node is a member of, calls, or is called by. Default 1,024.
    pub troupes_max: usize,
    /// Most calls of this node that some server has not answered yet, those that wait included. Default 65,536.
    pub calls_max: usize,
    /// Most of these that are sent to one troupe at a time; the others wait. Default 256.
    pub window: u32,
    /// While a server keeps so many results of one troupe of clients it begins nothing more for it: the fast replicas of a client wait for the
    /// slow ones. Default 1,024.
    pub retained_max: u32,
    /// The same in bytes of arguments and results. Default 64 MiB.
    pub retained_bytes_max: usize,
    /// A result that a replica of the client has not fetched for so long is dropped; it is told so if it comes. A call that not enough replicas of
    /// the client have sent for so long is refused. Default 60 s.
    pub retain: Duration,
    /// A replica of the client that has not fetched a result for so long is asked whether it wants it. A server that is to give its state to a new member
    /// begins nothing, but for what is ready if its executions have not ended after so long, then after twice that, and so on. Default 1 s.
    pub probe: Duration,
    /// Answers are acknowledged after so long, if no call to the server says so before. Default 50 ms.
    pub acknowledge: Duration,
    /// Most bytes of the arguments, of a result, or of a state. Default and limit [`BODY_BYTES_MAX`].
    pub body_bytes_max: usize,
    /// The longest deadline of a call; a longer one is cut to it. Default an hour.
    pub deadline_max: Duration,
    /// Troupe commit: so long a client waits for all servers to come to its call before it has it undone and tried again. Default 100 ms.
    pub commit_within: Duration,
    /// Order by casts: a call that a member has seen and the order has not brought is cast by it, too, after so long. Default 500 ms.
    pub cast_again: Duration,
    /// A defect, for tests.
    #[cfg(feature = "test-util")]
    pub fault: Option<crate::fault::Fault>,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(binder: NodeId, life: u64) -> Self {
        Self {
            binder,
            life,
            settle: Duration::from_millis(250),
            patience: Duration::from_secs(5),
            troupes_max: 1_024,
            calls_max: 65_536,
            window: 256,
            retained_max: 1_024,
            retained_bytes_max: 64 << 20,
            retain: Duration::from_secs(60),
            probe: Duration::from_secs(1),
            acknowledge: Duration::from_millis(50),
            body_bytes_max: BODY_BYTES_MAX,
            deadline_max: Duration::from_secs(3_600),
            commit_within: Duration::from_millis(100),
            cast_again: Duration::from_millis(500),
            #[cfg(feature = "test-util")]
            fault: None,
        }
    }

    /// Checks that the numbers fit together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            self.troupes_max,
            self.calls_max,
            self.window as usize,
            self.retained_max as usize,
            self.body_bytes_max,
        ];
        if counts.contains(&0) || self.life == 0 {
            return Err(ConfigError::Zero);
        }
        if self.body_bytes_max > BODY_BYTES_MAX || self.retained_bytes_max < self.body_bytes_max {
            return Err(ConfigError::Bytes);
        }
        let spans = [
            self.settle,
            self.patience,
            self.retain,
            self.probe,
            self.acknowledge,
            self.deadline_max,
            self.commit_within,
            self.cast_again,
        ];
        if spans[1..].iter().any(Duration::is_zero) {
            return Err(ConfigError::NoTime);
        }
        if spans.iter().any(|span| *span > SPAN_MAX) {
            return Err(ConfigError::TooLong);
        }
        Ok(())
    }
}

/// No span of the settings is longer.
const SPAN_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// Why settings are refused.
#[derive(Error, Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number of troupes, calls or bytes is 0, or the life of the binding agent is.
    #[error("numbers of troupes, calls and bytes, and the life, are at least 1")]
    Zero,
    /// A body has at most [`BODY_BYTES_MAX`], and what is kept of one troupe holds at least one body.
    #[error("a body has at most {BODY_BYTES_MAX} bytes, and what is kept of a troupe at least one")]
    Bytes,
    /// A span of time but `settle` is zero.
    #[error("spans of time are longer than nothing")]
    NoTime,
    /// What lasts longer than ten years was meant as never.
    #[error("spans of time are at most ten years")]
    TooLong,
}
