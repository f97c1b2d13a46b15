//! The settings of calls, and what theory forbids of them.

use mainstay_base::Duration;
use thiserror::Error;

/// How calls travel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Carrier {
    /// Over the connections of the link: nothing is lost or doubled while both boots live.
    Link,
    /// As datagrams of at most [`DATAGRAM_BYTES_MAX`], which may be lost, doubled and reordered; what is larger goes over the link. A call is
    /// sent again until there is a sign of it (BN84, PS88).
    Datagrams,
}

/// Most bytes of arguments or results in a datagram.
pub const DATAGRAM_BYTES_MAX: usize = 1_100;

/// How orphans are found: executions whose client has failed or given up. In each the crash count of the client ends executions of its
/// former lives as soon as the server hears of the new one (RPC-21, RPC-22), and the deadline of a call ends its execution (RPC-20).
/// For calls that [nobody answers](crate::Semantics::Maybe) there is nothing else, but the terminator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Orphans {
    /// PS88: a terminator asks the nodes of clients so often whether they live the same life, and ends what runs for one that it
    /// has not heard for `lease` (RPC-71).
    Terminator {
        /// Between two questions.
        period: Duration,
        /// How long a client may be silent.
        lease: Duration,
    },
    /// Nel81, extermination: a client that is restarted has all nodes end what runs for it, and what that has called. One that
    /// does not come back leaves orphans until their deadlines.
    Extermination,
    /// Nel81, expiration: an execution is granted so much time, and goes on only if its client grants it more.
    Expiration {
        /// What is granted at a time.
        quantum: Duration,
    },
    /// Nel81, reincarnation: a client that is restarted begins a new epoch, and all executions for others of former epochs are
    /// ended everywhere, whoever their clients are.
    Reincarnation,
    /// Nel81, gentle reincarnation: in a new epoch each server asks for the clients of what it executes, and ends what nobody owns up
    /// to within `patience`.
    Gentle {
        /// How long a client may take to answer.
        patience: Duration,
    },
    /// RC89, adoption: an execution whose call has a [name](crate::Request::name) goes on when its client dies, up to its deadline. Whoever calls by that
    /// name, the client in its next life or another node that stands in for it, has the result of that execution and not of a second one (RPC-24, RPC-25). What an
    /// execution with a name calls is named by its number, so executions that are repeated have to make the same calls in the same order up to where
    /// the first one came; their calls are not executed again (RPC-72). Calls without names die with their client's life.
    ///
    /// Names are kept in memory: a server that is restarted has forgotten them, so this survives the crash of those who call, and not
    /// that of the last one in a chain at the same time. At-least-once calls have no names. A call with a name to the own node is not executed
    /// ([`Reason::ToSelf`](crate::Reason::ToSelf)). One that an execution makes to its own node has a number like its other calls, and no result is kept of it: it is
    /// executed again with the execution that makes it, while what it calls itself at other nodes is not.
    ///
    /// A name is a capability (see [`CallName::new`](crate::CallName::new)): [`Interceptor::admit`](crate::Interceptor::admit) is asked once for each execution, with its first caller,
    /// and not for those that adopt it. The server does not know which of its clients are guests: an instance that is open to
    /// guests should have another policy.
    Adoption {
        /// A result is kept by its name for so long, from its end; at least two of the longest deadlines, and the same at all nodes. A call that is repeated
        /// under its name has to be over within this time from when it was first made: whoever stands in calls by the names of nested calls up to its own
        /// deadline. [`Among::adopted`](crate::Among::adopted) sees to that.
        keep: Duration,
        /// Most names that a server knows. Beyond, a call with a new name is refused ([`Refusal::Busy`](crate::Refusal::Busy)). So is that of a client that has begun more
        /// of the names that are known than as many as are still free: one client alone may have half of them, and leaves room for others.
        names_max: usize,
        /// Most bytes of results that it keeps by names; of what one client has begun no more than is still free. One that does not fit goes to its client; a
        /// repeated call is told [`Refusal::ResultTooLarge`](crate::Refusal::ResultTooLarge).
        bytes_max: usize,
    },
}

impl Orphans {
    /// How long results are kept by names.
    pub(crate) const fn keep(self) -> Option<Duration> {
        match self {
            Self::Adoption { keep, .. } => Some(keep),
            _ => None,
        }
    }

    /// Both ends have the same.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Terminator { .. } => 0,
            Self::Extermination => 1,
            Self::Expiration { .. } => 2,
            Self::Reincarnation => 3,
            Self::Gentle { .. } => 4,
            Self::Adoption { .. } => 5,
        }
    }
}

/// What a service of calls is mounted with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// How calls travel. Default [`Carrier::Link`].
    pub carrier: Carrier,
    /// The crash count of this node. No two starts may have the same. Where something is [stored](Self::stored) it is at least one more than the
    /// stored one; else the wall clock at the start serves, also one that was set back.
    pub life: u64,
    /// Results, and what had begun, are written to the disk of the node, in one forced write for all of a turn: a call that was answered
    /// is not executed again after a restart, and one that has not begun is. A call waits for one forced write, and takes another one that it
    /// does not wait for. While less of the disk than its reserve is free calls that would be written are not taken in:
    /// their clients ask again, until there is room or the deadline has come. Default false: a restart
    /// ends all bindings (RPC-15).
    pub stored: bool,
    /// How orphans are found. Default: a terminator, 1 s and 3 s.
    pub orphans: Orphans,
    /// Most calls of this node that are open, those that wait for a connection included. Default 65,536.
    pub calls_max: usize,
    /// Most calls of one client that a server holds, executes or keeps the result of (RPC-17). Clients keep to it. Default 4,096.
    pub window: u32,
    /// With so many bytes of arguments and results of one client a server takes no more. Results of what it has taken come on top, as many bytes again at
    /// most: the call of one that does not fit is told that its result is too large; it was executed. Default 64 MiB.
    pub client_bytes_max: usize,
    /// Most clients that a server which stores results remembers. For another one it forgets the one that was heard longest ago, of those that are not connected and for
    /// whom nothing is executed; connected ones are remembered in any case. A client that was forgotten and comes back with open calls is told that
    /// the server is [lost](crate::Reason::ServerLost), and what is known of their execution; they are not executed again. Default 65,536.
    pub clients_max: usize,
    /// Most calls that a server executes at a time; others wait for their turn. An execution holds its place while it waits for calls of its own: where two nodes call each
    /// other back, as many chains of calls as there are places, each of which needs another place at the same node, stand still until their deadlines. So it is larger than the number of chains that
    /// come back at a time, times how often each does. Default 1,024.
    pub executions_max: usize,
    /// Most bytes of the arguments and the context, or of the result, of a call. The ids of its trace are not counted. Default and limit [`BODY_BYTES_MAX`].
    pub body_bytes_max: usize,
    /// The longest deadline of a call; a longer one is cut to it. Default an hour.
    pub deadline_max: Duration,
    /// What a message takes at most between two nodes while the network is well. A server is given that much less than the deadline, twice, so that
    /// it has ended an execution before its client gives up. Default 5 ms.
    pub transit_max: Duration,
    /// How far the clock of a server may be off in its rate, in millionths. Default 200.
    pub drift_ppm: u32,
    /// After so long without a sign of a call its client sends it again, or asks. The interval doubles from attempt to attempt up to 32 times
    /// this, with jitter. Default 200 ms.
    pub retry: Duration,
    /// After so many attempts without a sign a call has failed. Default 8.
    pub attempts: u32,
    /// Results that came are acknowledged after so long if no call says so before. Default 50 ms.
    pub acknowledge: Duration,
    /// A defect, for tests.
    #[cfg(feature = "test-util")]
    pub fault: Option<crate::fault::Fault>,
}

impl Config {
    /// The defaults, for a node with this crash count.
    #[must_use]
    pub fn new(life: u64) -> Self {
        Self {
            carrier: Carrier::Link,
            life,
            stored: false,
            orphans: Orphans::Terminator {
                period: Duration::from_secs(1),
                lease: Duration::from_secs(3),
            },
            calls_max: 65_536,
            window: 4_096,
            client_bytes_max: 64 << 20,
            clients_max: 65_536,
            executions_max: 1_024,
            body_bytes_max: BODY_BYTES_MAX,
            deadline_max: Duration::from_secs(3_600),
            transit_max: Duration::from_millis(5),
            drift_ppm: 200,
            retry: Duration::from_millis(200),
            attempts: 8,
            acknowledge: Duration::from_millis(50),
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
            self.calls_max,
            self.window as usize,
            self.executions_max,
            self.body_bytes_max,
            self.clients_max,
        ];
        if counts.contains(&0) || self.attempts == 0 || self.life == 0 {
            return Err(ConfigError::Zero);
        }
        if self.body_bytes_max > BODY_BYTES_MAX || self.client_bytes_max < self.body_bytes_max {
            return Err(ConfigError::Bytes);
        }
        let spans = match self.orphans {
            Orphans::Terminator { period, lease } => [period, lease],
            Orphans::Expiration { quantum: span } | Orphans::Gentle { patience: span } => [span; 2],
            // None.
            Orphans::Extermination | Orphans::Reincarnation => [Duration::MAX; 2],
            Orphans::Adoption { keep, .. } => [keep; 2],
        };
        if let Orphans::Adoption { keep, names_max, bytes_max } = self.orphans {
            if names_max == 0 || bytes_max == 0 {
                return Err(ConfigError::Zero);
            }
            if self.stored || self.deadline_max.saturating_mul(2) > keep {
                return Err(ConfigError::Adoption);
            }
        }
        if self.retry.is_zero() || self.acknowledge.is_zero() || spans.contains(&Duration::ZERO) {
            return Err(ConfigError::NoTime);
        }
        let is_short = |span: Duration| span <= self.transit_max.saturating_mul(2);
        if self.retry <= self.transit_max || spans.into_iter().any(is_short) {
            return Err(ConfigError::Transit);
        }
        let all = [self.retry, self.acknowledge, self.transit_max, self.deadline_max];
        let bounded = spans.into_iter().filter(|span| *span < Duration::MAX);
        if all.into_iter().chain(bounded).any(|span| span > SPAN_MAX) || self.life == u64::MAX {
            return Err(ConfigError::TooLong);
        }
        if self.drift_ppm >= 1_000_000 {
            return Err(ConfigError::Drift);
        }
        Ok(())
    }

    /// What a server may take if the client gives up after `deadline`: so that the server has ended before, although the call takes its
    /// time and the server's clock is slow (RPC-20). `None`: too little is left.
    pub(crate) fn budget(&self, deadline: Duration) -> Option<Duration> {
        let left = deadline.checked_sub(self.transit_max.saturating_mul(2))?;
        let slow = left.mul_f64(f64::from(self.drift_ppm) / 1e6);
        left.checked_sub(slow).filter(|left| left.as_micros() > 0)
    }

    /// How long until the next attempt after so many; `draw` is below 2^16.
    pub(crate) fn backoff(&self, attempts: u32, draw: u64) -> Duration {
        let longest = self.retry * (1 << attempts.min(5));
        // From three quarters to five quarters, so that clients that lost their server at once do not come back at once.
        longest / 4 * 3 + longest.mul_f64(draw as f64 / f64::from(1u32 << 16) / 2.0)
    }
}

/// What a trace takes before the context of a call: not counted, so that a call fits in whether or not there are spans.
pub(crate) const TRACE_BYTES: usize = 1 + 16 + 8;

/// Most bytes of a body whatever the configuration (8 MiB): a record of the log holds no more, with what belongs to it.
pub const BODY_BYTES_MAX: usize = (8 << 20) - (64 << 10);

/// No span of the settings is longer.
const SPAN_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// Why settings are refused.
#[derive(Error, Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number of calls, clients, attempts or bytes is 0, or the crash count is.
    #[error("numbers of calls, clients, attempts and bytes, and the crash count, are at least 1")]
    Zero,
    /// A body has at most [`BODY_BYTES_MAX`], and one client's share holds at least one body.
    #[error("a body has at most {BODY_BYTES_MAX} bytes, and a client's share holds at least one")]
    Bytes,
    /// A span of time is zero.
    #[error("spans of time are longer than nothing")]
    NoTime,
    /// What is asked again before an answer can have come is asked for nothing, and what is taken for dead may live.
    #[error("attempts and questions leave time for a message there, and answers for one back")]
    Transit,
    /// What lasts longer than ten years was meant as never, and there is no such span; nor is there a last crash count.
    #[error("spans of time are at most ten years, and a crash count is not the last number")]
    TooLong,
    /// Names are not stored, and have to be known for as long as who stands in for another one may call by them.
    #[error(
        "adoption is for results that are not stored, and keeps them for two of the longest deadlines"
    )]
    Adoption,
    /// A clock that may stand still measures nothing.
    #[error("the drift of a clock is less than its rate")]
    Drift,
}
