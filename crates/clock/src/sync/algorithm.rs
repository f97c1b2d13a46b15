//! One algorithm, whichever it is: what it is given, and what it says.

use std::sync::Arc;

use mainstay_base::{Instant, Rng, fault};

use super::config::{ConfigError, Kind, Plan};
use super::core::{Core, Loss, Output, Rejected, Source};
use super::corrected::Corrected;
use super::message::Message;

/// What a clock knows when it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It is within [`Config::initial`](super::Config::initial) of the others: it says local time and so many nanoseconds.
    Together(i64),
    /// It says local time and so many nanoseconds, which mean nothing: it has to learn the time from others first. For a start after a
    /// crash, and for a clock that is added.
    Apart(i64),
}

/// A reference that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Referred {
    /// When, by local time.
    pub(super) at: Instant,
    /// What it said, in nanoseconds.
    pub(super) value: i64,
    /// How far that may be from the true time, where it is not what the plan says of references.
    pub(super) error: Option<i64>,
    /// How fast it may run away from real time, in parts of a billion: 0 of the true time.
    pub(super) rate: u64,
}

/// What each family has.
pub(super) trait Part {
    /// A word of the node at place `from`, which is not the own one.
    fn on_message(
        &mut self,
        core: &mut Core,
        now: Instant,
        at: Instant,
        from: usize,
        message: Message,
    );
    /// The deadline has come.
    fn on_deadline(&mut self, core: &mut Core, now: Instant);
    /// When something is to be done.
    fn deadline(&self, core: &Core) -> Option<Instant>;
    /// The clock is not to be relied on any more: it is to be learnt anew.
    fn begin_anew(&mut self, core: &mut Core, now: Instant);
    /// A reference was read.
    fn on_reference(&mut self, _core: &mut Core, _now: Instant, _read: Referred) {}
    /// Whether it goes by its own clock, though not synchronised, because nobody is there to learn from.
    fn is_unsure(&self) -> bool {
        false
    }
    /// How far the clock may be from what it follows, where there is something.
    fn error(&self, _core: &Core, _now: Instant) -> Option<i64> {
        None
    }
    /// How fast what it follows may run away from real time, in parts of a billion: 0 of the true time.
    fn runs(&self) -> u64 {
        0
    }
    /// Whether the others have voted out what the own reference says.
    fn outvotes_reference(&self) -> bool {
        false
    }
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it for each clock")]
enum Family {
    #[cfg(feature = "averaging")]
    Averaging(super::averaging::Averaging),
    #[cfg(feature = "agreement")]
    Agreement(super::agreement::Agreement),
    #[cfg(feature = "synchroniser")]
    Srikanth(super::srikanth::Srikanth),
    #[cfg(feature = "synchroniser")]
    Halpern(super::halpern::Halpern),
    #[cfg(feature = "probabilistic")]
    Probabilistic(Box<super::probabilistic::Probabilistic>),
    #[cfg(feature = "interval")]
    Interval(super::interval::Interval),
    #[cfg(feature = "external")]
    External(super::external::External),
}

impl Family {
    fn part(&mut self) -> &mut dyn Part {
        match *self {
            #[cfg(feature = "averaging")]
            Self::Averaging(ref mut part) => part,
            #[cfg(feature = "agreement")]
            Self::Agreement(ref mut part) => part,
            #[cfg(feature = "synchroniser")]
            Self::Srikanth(ref mut part) => part,
            #[cfg(feature = "synchroniser")]
            Self::Halpern(ref mut part) => part,
            #[cfg(feature = "probabilistic")]
            Self::Probabilistic(ref mut part) => &mut **part,
            #[cfg(feature = "interval")]
            Self::Interval(ref mut part) => part,
            #[cfg(feature = "external")]
            Self::External(ref mut part) => part,
        }
    }

    fn part_ref(&self) -> &dyn Part {
        match *self {
            #[cfg(feature = "averaging")]
            Self::Averaging(ref part) => part,
            #[cfg(feature = "agreement")]
            Self::Agreement(ref part) => part,
            #[cfg(feature = "synchroniser")]
            Self::Srikanth(ref part) => part,
            #[cfg(feature = "synchroniser")]
            Self::Halpern(ref part) => part,
            #[cfg(feature = "probabilistic")]
            Self::Probabilistic(ref part) => &**part,
            #[cfg(feature = "interval")]
            Self::Interval(ref part) => part,
            #[cfg(feature = "external")]
            Self::External(ref part) => part,
        }
    }
}

/// A clock synchronisation algorithm at one node: a pure machine over datagrams.
///
/// Its owner gives it datagrams, the time at its [deadline](Self::deadline), and readings of a reference if there is one, and
/// then takes its [outputs](Self::poll). Nodes are named by their place in a list that all have alike.
#[derive(Clone, Debug)]
pub struct Algorithm {
    core: Core,
    family: Family,
}

/// Everything that an algorithm begins with.
#[derive(Clone, Debug)]
pub struct Begin {
    /// What to do, checked.
    pub plan: Arc<Plan>,
    /// The own place in the list of nodes.
    pub me: usize,
    /// What the clock knows.
    pub origin: Origin,
    /// Local time.
    pub now: Instant,
    /// For questions that nobody can foresee.
    pub seed: u64,
    /// The keys, for algorithms with signatures.
    #[cfg(any(feature = "synchroniser", feature = "agreement"))]
    pub keys: Option<mainstay_agreement::sign::Keyring>,
}

impl Algorithm {
    /// An algorithm that begins.
    ///
    /// # Errors
    /// [`ConfigError`]: the place is none, keys are missing, or this build lacks the algorithm.
    pub fn new(begin: Begin) -> Result<Self, ConfigError> {
        let Begin { plan, me, origin, now, seed, .. } = begin;
        if me >= plan.config().nodes {
            return Err(ConfigError::Place(me));
        }
        let (Origin::Together(offset) | Origin::Apart(offset)) = origin;
        let mut core = Core::new(Arc::clone(&plan), me, offset, now);
        let rng = Rng::new(seed).stream("clock");
        #[cfg(any(feature = "synchroniser", feature = "agreement"))]
        let keys = super::keys::checked(begin.keys, me, &plan)?;
        let mut family = match plan.config().kind {
            #[cfg(feature = "averaging")]
            Kind::Averaging { .. } | Kind::Hardware { .. } => {
                Family::Averaging(super::averaging::Averaging::new(&core, now, rng))
            }
            #[cfg(feature = "agreement")]
            Kind::Agreement { signed, stamp } => Family::Agreement(
                super::agreement::Agreement::new(&core, now, (signed, stamp), keys),
            ),
            #[cfg(feature = "synchroniser")]
            Kind::Srikanth { signed } => {
                Family::Srikanth(super::srikanth::Srikanth::new(&core, now, signed, keys))
            }
            #[cfg(feature = "synchroniser")]
            Kind::Halpern => Family::Halpern(super::halpern::Halpern::new(&core, now, keys)),
            #[cfg(feature = "probabilistic")]
            Kind::Probabilistic { .. } => {
                let made = super::probabilistic::Probabilistic::new(&core, now, rng);
                Family::Probabilistic(Box::new(made))
            }
            #[cfg(feature = "interval")]
            Kind::Interval { error, stamp } => {
                Family::Interval(super::interval::Interval::new(&core, now, (error, stamp), rng))
            }
            #[cfg(feature = "external")]
            Kind::External { .. } => Family::External(super::external::External::new(now)),
            #[allow(
                unreachable_patterns,
                reason = "which patterns are left depends on the features"
            )]
            ref kind => return Err(ConfigError::NotBuilt(feature_of(kind))),
        };
        // Clocks that are together are not yet near a reference.
        let is_external = matches!(plan.config().kind, Kind::External { .. });
        match origin {
            Origin::Together(_) if !is_external => core.found(),
            _ => {
                core.lose(Loss::Began);
                family.part().begin_anew(&mut core, now);
            }
        }
        Ok(Self { core, family })
    }

    /// A datagram came from the node at place `from`: at `at`, and is taken in at `now`.
    pub fn on_datagram(&mut self, now: Instant, at: Instant, from: usize, message: Message) {
        self.wake(now);
        if from >= self.core.nodes() || from == self.core.me {
            self.core.rejected.unknown += 1;
            return;
        }
        if !message.is_sane() {
            self.core.rejected.future += 1;
            return;
        }
        // What is due comes before what is said later.
        self.run_due(now);
        let at = at.min(now);
        self.family.part().on_message(&mut self.core, now, at, from, message);
    }

    /// Time has passed. Early calls are harmless.
    pub fn on_deadline(&mut self, now: Instant) {
        self.wake(now);
        self.run_due(now);
    }

    /// A deadline may bring the next one, as after a long sleep.
    fn run_due(&mut self, now: Instant) {
        for _ in 0..DUE_MAX {
            if self.deadline().is_none_or(|due| due > now) {
                break;
            }
            self.family.part().on_deadline(&mut self.core, now);
        }
    }

    /// A reference of this node was read: at local time `at` it said `value`. For [`Kind::External`], the master of
    /// [`Kind::Hardware`], and sources of [`Kind::Interval`]; others leave it.
    pub fn on_reference(&mut self, now: Instant, at: Instant, value: i64) {
        self.refer(now, Referred { at, value, error: None, rate: 0 });
    }

    /// The same, of a reference that says itself how far it may be from the true time, and may run away from real time. Where it is further than the plan
    /// says of references it is refused, and counted as inaccurate; [`Kind::Interval`] takes any that is better than what it has.
    pub(super) fn refer(&mut self, now: Instant, read: Referred) {
        self.wake(now);
        let read = Referred { at: read.at.min(now), ..read };
        self.family.part().on_reference(&mut self.core, now, read);
    }

    /// Where refused datagrams are counted.
    pub(super) fn rejected_mut(&mut self) -> &mut Rejected {
        &mut self.core.rejected
    }

    /// Somebody nobody knows sent something: counted.
    pub fn on_unknown(&mut self) {
        self.core.rejected.unknown += 1;
    }

    /// When [`on_deadline`](Self::on_deadline) wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.family.part_ref().deadline(&self.core)
    }

    /// The next thing to be done or told.
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        self.core.poll()
    }

    /// The last local time that it was told.
    pub(super) fn last(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.core.last()).unwrap_or(0))
    }

    /// The corrected clock.
    #[must_use]
    pub fn clock(&self) -> &Corrected {
        &self.core.clock
    }

    /// The version of the last correction; 0 before the first.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.core.version()
    }

    /// Whether the bounds of the plan hold for this clock, as far as it can know.
    #[must_use]
    pub fn is_synchronised(&self) -> bool {
        self.core.is_synchronised()
    }

    /// Whether what the clock says is what its algorithm goes by. A time that was learnt, and that nothing has confirmed yet, is not: it may be
    /// the word of a liar.
    pub(super) fn is_confirmed(&self) -> bool {
        self.core.is_synchronised() || self.family.part_ref().is_unsure()
    }

    /// How far the clock may be from what it follows at `now`, in nanoseconds; `None` if it follows nothing.
    #[must_use]
    pub fn error(&self, now: Instant) -> Option<i64> {
        self.family.part_ref().error(&self.core, now)
    }

    /// How fast what is followed may run away from real time, in parts of a billion.
    pub(super) fn runs(&self) -> u64 {
        self.family.part_ref().runs()
    }

    /// Whether the others have voted out what the own reference says.
    pub(super) fn outvotes_reference(&self) -> bool {
        self.family.part_ref().outvotes_reference()
    }

    /// The other clocks that were read: used or not and why, offset, error, age. Synchronisers read them by who says that a round has come, and when.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.core.sources()
    }

    /// What was refused so far.
    #[must_use]
    pub fn rejected(&self) -> Rejected {
        self.core.rejected
    }

    /// What it does, and what follows from that.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.core.plan
    }

    /// The vector that was agreed last, with its run: what each clock was ahead of this one, as it is corrected by the run.
    #[cfg(all(feature = "test-util", feature = "agreement"))]
    #[doc(hidden)]
    #[must_use]
    pub fn vector(&self) -> Option<(u64, &[Option<i64>])> {
        match &self.family {
            Family::Agreement(part) => Some(part.vector()),
            #[allow(
                unreachable_patterns,
                reason = "which patterns are left depends on the features"
            )]
            _ => None,
        }
    }

    /// Panics if it is not as it should be.
    pub fn check_invariants(&self) {
        let most = i64::from(self.core.plan.config().drift.parts());
        let rate = self.core.clock.rate();
        assert!(
            rate.abs() <= most,
            "a clock is not corrected by more than hardware drifts: {rate}"
        );
        let listens = !self.core.is_synchronised();
        assert!(self.deadline().is_some() || listens, "a synchronised clock waits for something");
    }

    /// Looks whether time went back, or whether this is long after a deadline.
    fn wake(&mut self, now: Instant) {
        let went_back = self.core.pass(now);
        let tolerated = self.core.plan.config().period / 2;
        let overslept = self.deadline().is_some_and(|due| now.saturating_since(due) > tolerated);
        let why = if went_back && !fault!(self.core.plan.config(), IgnoresStepBack) {
            Loss::WentBack
        } else if overslept {
            Loss::Overslept
        } else {
            return;
        };
        self.core.lose(why);
        self.family.part().begin_anew(&mut self.core, now);
    }
}

/// Deadlines that are dealt with in one call.
const DUE_MAX: usize = 8;

fn feature_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Averaging { .. } | Kind::Hardware { .. } => "averaging",
        Kind::Agreement { .. } => "agreement",
        Kind::Srikanth { .. } | Kind::Halpern => "synchroniser",
        Kind::Probabilistic { .. } => "probabilistic",
        Kind::Interval { .. } => "interval",
        Kind::External { .. } => "external",
    }
}
