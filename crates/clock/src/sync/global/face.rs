//! The user's side of the clock service: what waits, and what it is mounted with on a node.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;

use mainstay_base::{Duration, Instant, NodeId};
use mainstay_runtime::{ActorMessage, LocalReader, Recipient, wall_clock};
use mainstay_service::{Mounting, ReachError, ServiceHandle};
use thiserror::Error;

use super::alarms::Rung;
use super::clock::{Bounded, GlobalClock, Now, Unsynchronised};
use super::references::ReferenceClock;
use super::service::{Config, Global};
use super::words::Command;
use crate::Time;
use crate::sync::corrected::nanos;
use crate::sync::{ConfigError, Kind, Mount, Origin, Plan, Stamp};

/// A clock to be mounted on a node.
#[derive(Clone, Debug)]
pub struct Setup {
    plan: Arc<Plan>,
    clock: GlobalClock,
    /// The wall clocks of the nodes are within [`Config::initial`](crate::sync::Config::initial) of each other at their first start: so they begin synchronised.
    /// A node that comes back, with its disk or in the same process, learns the time all the same: the common one has gone its own way since. Default
    /// false: a node learns the time from others first, and where nobody is to learn from for some periods (three, with averaging) speaks by its own wall
    /// clock, so that clocks that begin together find each other; it is synchronised when enough others are near.
    pub together: bool,
    /// As [`Config::reserve`].
    pub reserve: Option<Duration>,
    /// What is followed, for [`Kind::External`](crate::sync::Kind::External), the master of [`Kind::Hardware`](crate::sync::Kind::Hardware) and sources of
    /// [`Kind::Interval`](crate::sync::Kind::Interval). Default none: [`ClockHandle::reference`] is called by who reads one.
    pub reference: Option<Follow>,
    /// As [`Config::answers`].
    pub answers: bool,
    /// The node has datagrams by UDP (`mainstay::Config::datagrams`, `SiteParts::datagrams`), which Linux stamps. Default false: [`check`](Self::check)
    /// refuses what reads stamps.
    pub stamps: bool,
    /// The nodes whose clocks are kept together, in an order that all have alike. Default: all of the roster.
    pub group: Option<Arc<[NodeId]>>,
    /// The keys, for algorithms with signatures: in the order of the [group](Self::group), or of the roster where there is none.
    #[cfg(any(feature = "synchroniser", feature = "agreement"))]
    pub keys: Option<mainstay_agreement::sign::Keyring>,
}

/// A reference that a node reads by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// The wall clock of the operating system.
    SystemClock {
        /// How far it may be from the true time. The reading adds [`LOOK_ERROR`] at most; both together may be no more than the plan says of references.
        error: Duration,
    },
    /// The clock of that node, which must [answer](Setup::answers). It says how far it is from what it follows. Where that is the true time, this clock
    /// follows it as well; where clocks are only kept together, it follows their common time.
    Peer(NodeId),
}

/// A reading of the wall clock that takes longer is made again.
const LOOK_MAX: Duration = Duration::from_micros(50);
/// How often; a machine that is so busy is asked again half a period later.
const LOOKS_MAX: usize = 16;

/// By how much the look at a wall clock may be wrong.
pub const LOOK_ERROR: Duration = Duration::from_micros(25);

/// Reads the wall clock, which may be wrong by `error`, between two looks at the local one.
fn system_clock(local: LocalReader, error: Duration) -> ReferenceClock {
    let look = move || {
        let (before, value, after) = (local(), wall_clock(), local());
        let took = after.saturating_since(before);
        let value = i64::try_from(value.as_nanos()).unwrap_or(i64::MAX);
        (took <= LOOK_MAX).then(|| (before + took / 2, value, error.saturating_add(took / 2)))
    };
    ReferenceClock::Own(Arc::new(move || (0..LOOKS_MAX).find_map(|_| look())))
}

impl Setup {
    /// A clock that does what is planned, with the defaults.
    ///
    /// # Errors
    /// [`ConfigError`]: the corrections of the plan are too large to be walked off.
    pub fn new(plan: Plan) -> Result<Self, ConfigError> {
        super::adjusted::Promise::of(&plan)?;
        Ok(Self {
            plan: Arc::new(plan),
            clock: GlobalClock::new(),
            together: false,
            reserve: Some(Duration::from_secs(10)),
            reference: None,
            answers: false,
            stamps: false,
            group: None,
            #[cfg(any(feature = "synchroniser", feature = "agreement"))]
            keys: None,
        })
    }

    /// Its readers' handle. It can be handed out before the node starts.
    #[must_use]
    pub fn clock(&self) -> &GlobalClock {
        &self.clock
    }

    /// Whether the node `me` of a roster can mount it: what is set after [`new`](Self::new) is looked at here. Nothing is read or changed.
    ///
    /// # Errors
    /// [`ConfigError`]: the group is not that of the plan, or without the node; keys are missing or of another place; it reads [stamps](Self::stamps), and there are none; the reference has no use, is further off than the
    /// plan says, is the node itself or no node of the roster, or is asked more often than it can answer.
    pub fn check(&self, me: NodeId, roster: &[NodeId]) -> Result<(), ConfigError> {
        let config = self.plan.config();
        let group = self.group.as_deref().unwrap_or(roster);
        if group.len() != config.nodes {
            return Err(ConfigError::Group { nodes: group.len(), planned: config.nodes });
        }
        let place = group.iter().position(|node| *node == me);
        let place = place.ok_or(ConfigError::Place(group.len()))?;
        #[cfg(any(feature = "synchroniser", feature = "agreement"))]
        crate::sync::keys::checked(self.keys.clone(), place, &self.plan)?;
        if let Some(reading) = config.kind.reading()
            && reading.stamp == Stamp::Kernel
            && !self.stamps
        {
            return Err(ConfigError::Unstamped(config.kind.name(), reading));
        }
        let Some(reference) = self.reference else { return Ok(()) };
        let within = match config.kind {
            Kind::External { error } => error,
            Kind::Hardware { master: Some(master), error, .. } if master == place => error,
            Kind::Interval { .. } => Duration::MAX,
            _ => return Err(ConfigError::NoReference(config.kind.name())),
        };
        match reference {
            Follow::SystemClock { error } => {
                let least = error.saturating_add(LOOK_ERROR);
                match least > within {
                    true => Err(ConfigError::Reference { error: within, least }),
                    false => Ok(()),
                }
            }
            Follow::Peer(node) if node == me || !roster.contains(&node) => {
                Err(ConfigError::NoPeer(node))
            }
            // It is asked twice a period; the next question takes the place of one that is open.
            Follow::Peer(_) => {
                let least = config.delay.max.saturating_mul(4);
                match config.period < least {
                    true => Err(ConfigError::Period { period: config.period, least }),
                    false => Ok(()),
                }
            }
        }
    }

    /// What a boot of the node mounts. A setup that [`check`](Self::check) refuses may make the node panic when it boots, or its clock never synchronise. The clocks of all nodes of the roster, or of the [group](Self::group), are kept together, so there must be as many as
    /// planned. On a node whose clock belongs to its thread nobody can read it, nor the wall clock beside it.
    #[must_use]
    pub fn config(&self, node: &Mounting<'_>) -> Config {
        let local = node.local.as_ref().map(|local| {
            self.clock.attach(Arc::clone(local));
            nanos(local())
        });
        let offset = wall_clock().as_nanos() as i64 - local.unwrap_or(0);
        let origin = match self.together {
            true => Origin::Together(offset),
            false => Origin::Apart(offset),
        };
        let mount = Mount {
            plan: Arc::clone(&self.plan),
            nodes: self.group.clone().unwrap_or_else(|| node.roster.clone().into()),
            origin,
            #[cfg(any(feature = "synchroniser", feature = "agreement"))]
            keys: self.keys.clone(),
        };
        let reference = self.reference.and_then(|reference| match reference {
            Follow::SystemClock { error } => {
                node.local.clone().map(|local| system_clock(local, error))
            }
            Follow::Peer(node) => Some(ReferenceClock::Peer(node)),
        });
        let config = Config::new(mount, self.clock.clone()).expect("it was checked");
        Config { reserve: self.reserve, reference, answers: self.answers, ..config }
    }

    /// The handle, once the service has one.
    #[must_use]
    pub fn handle(&self, service: ServiceHandle<Global>) -> ClockHandle {
        ClockHandle { clock: self.clock.clone(), service }
    }
}

/// The clock of a node, and its service: `Send`, `Sync`, cheap to clone. It reads as the [`GlobalClock`] that it derefs to.
#[derive(Clone)]
pub struct ClockHandle {
    clock: GlobalClock,
    service: ServiceHandle<Global>,
}

/// Why a wait has ended. What was waited for may have come or not.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// The service was not reached.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// As many wait as may. Trying again later may help.
    #[error("as many wait for the clock as may")]
    TooMany,
    /// The service has ended: its node has, or was declared dead and begins anew.
    #[error("the clock service has ended")]
    Ended,
    /// The clock is not synchronised: nobody can say when it is surely past.
    #[error(transparent)]
    Unsynchronised(#[from] Unsynchronised),
}

/// Names a message that was set for a reading of the clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AlarmId(u64);

impl ClockHandle {
    /// The clock alone, which needs no service to be read.
    #[must_use]
    pub fn clock(&self) -> &GlobalClock {
        &self.clock
    }

    /// The service: its status, and its events for any actor.
    #[must_use]
    pub fn service(&self) -> &ServiceHandle<Global> {
        &self.service
    }

    /// A reference of this node was read: it said `value` nanoseconds at the local time `at`.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn reference(&self, at: Instant, value: i64) -> Result<(), ReachError> {
        self.service.send(Command::Reference { at, value }).await
    }

    /// Waits until the clock says `at` or more (CLK-40), synchronised or not. Dropping the future cancels the wait.
    ///
    /// # Errors
    /// [`WaitError`], not `Unsynchronised`.
    pub async fn sleep_until(&self, at: Time) -> Result<Now, WaitError> {
        let now = self.clock.read();
        if now.time >= at {
            return Ok(now);
        }
        let alarm = Alarm { of: self, id: self.clock.alarms().waiting() };
        self.service.send(Command::Alarm { id: alarm.id, at }).await?;
        match poll_fn(|context| self.clock.alarms().poll(alarm.id, context.waker())).await {
            Rung::Due => Ok(self.clock.read()),
            Rung::Refused => Err(WaitError::TooMany),
            Rung::Ended => Err(WaitError::Ended),
        }
    }

    /// Waits until `at` has surely passed at every correct node: what commits with this stamp may be shown after that. Dropping the
    /// future cancels the wait.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn wait_until_past(&self, at: Time) -> Result<Bounded, WaitError> {
        loop {
            let now = self.clock.now_bounded()?;
            if now.earliest > at {
                return Ok(now);
            }
            let width = now.latest.saturating_since(now.earliest) / 2;
            self.sleep_until(at.saturating_add(width + Duration::from_nanos(1))).await?;
        }
    }

    /// Ticks whenever the clock has passed another multiple of `period`: at about the same time at all nodes. Ticks that nobody waited for
    /// are left out.
    ///
    /// # Panics
    /// If the period is zero.
    #[must_use]
    pub fn interval(&self, period: Duration) -> Ticks {
        assert!(!period.is_zero(), "time passes between two ticks");
        Ticks { clock: self.clone(), period, last: self.clock.now().0 }
    }

    /// Sends a message to an actor when the clock says `at` or more: once, for as long as the service lives. When it ends, what
    /// [reads its events](ServiceHandle::subscribe) is told, and sets what it still wants anew. Dropping the future takes the message back, if it is
    /// not set yet.
    ///
    /// # Errors
    /// [`WaitError`], not `Unsynchronised`: it will not be sent.
    pub async fn at<M>(&self, at: Time, to: Recipient<M>, message: M) -> Result<AlarmId, WaitError>
    where
        M: ActorMessage + Send + 'static,
        M::Result: Send,
    {
        let id = self.clock.alarms().doing(move |rung| {
            if rung == Rung::Due {
                to.do_send(message);
            }
        });
        let alarm = Alarm { of: self, id };
        self.service.send(Command::Alarm { id, at }).await?;
        match poll_fn(|context| self.clock.alarms().poll_placed(id, context.waker())).await {
            Ok(()) => {
                std::mem::forget(alarm);
                Ok(AlarmId(id))
            }
            Err(Rung::Refused) => Err(WaitError::TooMany),
            Err(_) => Err(WaitError::Ended),
        }
    }

    /// Takes a message back. False: it was sent, or could not be set.
    #[must_use = "it may have been sent"]
    pub fn cancel(&self, AlarmId(id): AlarmId) -> bool {
        let is_set = self.clock.alarms().remove(id);
        self.silence(id);
        is_set
    }

    /// The service need not wake anybody. One that has no room for the word rings an alarm that is not there any more, which does no harm.
    fn silence(&self, id: u64) {
        let _ = self.service.try_send(Command::Silence { id });
    }
}

impl Deref for ClockHandle {
    type Target = GlobalClock;

    fn deref(&self) -> &GlobalClock {
        &self.clock
    }
}

impl fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClockHandle").field(&self.clock).finish()
    }
}

/// Somebody waits; dropped: not any more.
struct Alarm<'a> {
    of: &'a ClockHandle,
    id: u64,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if self.of.clock.alarms().remove(self.id) {
            self.of.silence(self.id);
        }
    }
}

/// See [`ClockHandle::interval`].
#[derive(Debug)]
pub struct Ticks {
    clock: ClockHandle,
    period: Duration,
    last: Time,
}

impl Ticks {
    /// The next tick: the multiple of the period that has passed. Dropping the future loses no tick.
    ///
    /// # Errors
    /// [`WaitError`], not `Unsynchronised`.
    pub async fn tick(&mut self) -> Result<Time, WaitError> {
        let period = u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX);
        let next = (self.last.as_nanos() / period + 1).saturating_mul(period);
        let now = self.clock.sleep_until(Time::from_nanos(next)).await?;
        self.last = now.time;
        Ok(Time::from_nanos(now.time.as_nanos() / period * period))
    }
}
