//! Where a clock service has its reference from: a clock of the own node, or the clock of another node; and what it says to those who follow it.

use std::fmt;
use std::sync::Arc;

use mainstay_base::{Duration, Instant, NodeId, Rng, fault};

use super::super::algorithm::{Algorithm, Referred};
use super::super::config::{Kind, Plan, long};
use super::super::core::{Rejected, Verdict};
use super::super::corrected::nanos;
use super::super::message::Message;
use super::super::peer::{Peer, Said};
use super::words::ReferenceState;

/// Reads a clock of the own node, from any thread: when by the local clock, what it said in nanoseconds, and how far that may be from the true time. `None`: it cannot be
/// read now.
pub type ReadClock = Arc<dyn Fn() -> Option<(Instant, i64, Duration)> + Send + Sync>;

/// A reference that the service reads by itself, twice a period. For [`Kind::External`], the master of [`Kind::Hardware`] and sources of
/// [`Kind::Interval`]; others leave it.
#[derive(Clone)]
pub enum ReferenceClock {
    /// A clock of this node, which is not believed where its error is more than the plan says of references. It is read beside the turns.
    Own(ReadClock),
    /// The clock of this other node, whose service [answers](super::Config::answers). It need not be one of those that are kept together. It
    /// says how far it may be wrong, and is not believed where that and the error of the reading are more than the plan says of references.
    Peer(NodeId),
}

impl fmt::Debug for ReferenceClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(_) => f.write_str("Own"),
            Self::Peer(node) => f.debug_tuple("Peer").field(node).finish(),
        }
    }
}

/// A clock of the own node is to be read: a job, so that what it said is an input of the service as everything else.
pub struct Look(ReadClock);

/// What it said.
pub struct Looked(Option<(Instant, i64, Duration)>);

impl Look {
    pub(super) fn work(self) -> Looked {
        Looked((self.0)())
    }
}

/// What is to be done for a reference.
pub(super) enum Wanted {
    Look(Look),
    Ask(NodeId, Message),
}

enum Source {
    Own(ReadClock),
    Peer(NodeId, Box<Peer>),
}

/// The reference of a clock service.
pub(super) struct References {
    source: Option<Source>,
    next: Instant,
    /// A look is under way.
    looks: bool,
    reads: u64,
    /// The last one: when, what it was ahead of the algorithm's clock, and its error.
    last: Option<(Instant, i64, i64)>,
}

impl References {
    pub(super) fn new(of: Option<ReferenceClock>, now: Instant, seed: u64) -> Self {
        let source = of.map(|of| match of {
            ReferenceClock::Own(read) => Source::Own(read),
            ReferenceClock::Peer(node) => {
                Source::Peer(node, Box::new(Peer::new(Rng::new(seed).stream("reference"))))
            }
        });
        Self { source, next: now, looks: false, reads: 0, last: None }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.source.as_ref().filter(|_| !self.looks).map(|_| self.next)
    }

    /// What is to be done at `now`, if it is time.
    pub(super) fn wanted(&mut self, now: Instant, plan: &Plan) -> Option<Wanted> {
        if self.deadline().is_none_or(|due| due > now) {
            return None;
        }
        self.next = now + plan.config().period / 2;
        match self.source.as_mut()? {
            Source::Own(read) => {
                self.looks = true;
                Some(Wanted::Look(Look(Arc::clone(read))))
            }
            Source::Peer(node, peer) => {
                Some(Wanted::Ask(*node, Message::PeerRequest { nonce: peer.ask(now) }))
            }
        }
    }

    /// A look is over.
    pub(super) fn on_looked(&mut self, Looked(said): Looked) -> Option<Referred> {
        self.looks = false;
        let (at, value, error) = said?;
        self.reads += 1;
        Some(Referred { at, value, error: Some(long(error)), rate: 0 })
    }

    /// Whether this node is followed.
    pub(super) fn asks(&self, node: NodeId) -> bool {
        matches!(&self.source, Some(Source::Peer(of, _)) if *of == node)
    }

    /// The node that is followed has answered.
    pub(super) fn on_reply(
        &mut self,
        plan: &Plan,
        (now, at): (Instant, Instant),
        said: &Said,
        rejected: &mut Rejected,
    ) -> Option<Referred> {
        let Some(Source::Peer(_, peer)) = &mut self.source else { return None };
        let read = peer.on_reply(plan.config(), (now, at), said, rejected)?;
        self.reads += 1;
        Some(read)
    }

    /// What was read was so much ahead of the algorithm's clock.
    pub(super) fn note(&mut self, read: &Referred, ahead: i64) {
        self.last = Some((read.at, ahead, read.error.unwrap_or(0)));
    }

    /// The reference as it was read last.
    pub(super) fn state(&self, algorithm: &Algorithm) -> Option<ReferenceState> {
        let (plan, now) = (algorithm.plan(), algorithm.last());
        let node = match self.source.as_ref()? {
            Source::Own(_) => None,
            Source::Peer(node, _) => Some(*node),
        };
        let within = match plan.config().kind {
            Kind::External { error } | Kind::Hardware { error, .. } => long(error),
            _ => i64::MAX,
        };
        let age = self.last.map_or(Duration::MAX, |(at, ..)| now.saturating_since(at));
        let (_, offset, error) = self.last.unwrap_or((now, 0, 0));
        let verdict = if age > plan.config().period * 2 {
            Verdict::Silent
        } else if algorithm.outvotes_reference() {
            Verdict::Outvoted
        } else if error > within {
            Verdict::Far
        } else {
            Verdict::Used
        };
        let (error, reads) = (error.unsigned_abs(), self.reads);
        Some(ReferenceState { node, offset, error, age, reads, verdict })
    }

    /// References that were read so far.
    pub(super) fn reads(&self) -> u64 {
        self.reads
    }
}

/// What a clock of a plan says of itself to one who follows it: how far it is from what is followed with it, and how fast that may run away from
/// real time, in parts of a billion. That is what it follows, which runs away at the rate `follows`; where it follows nothing it is the common time,
/// within `error` of which it is.
pub(super) fn stated(plan: &Plan, follows: Option<u64>, error: i64) -> (u64, u64) {
    let (config, bounds) = (plan.config(), plan.bounds());
    let drift = u64::from(config.drift.parts());
    let (more, rate) = match (&config.kind, follows) {
        // Another master may take the place of this one.
        (Kind::Probabilistic { .. }, _) => (long(bounds.agreed), drift),
        (_, Some(_)) if fault!(config, ForgetsRate) => (0, 0),
        (_, Some(rate)) => (0, rate),
        // All together go as far as one period takes them, at once.
        _ => {
            let rate = bounds.rate.unwrap_or(drift);
            let period = i128::from(long(config.period)) * i128::from(rate) / 1_000_000_000 + 1;
            (i64::try_from(period).unwrap_or(i64::MAX), rate)
        }
    };
    (error.saturating_add(more).unsigned_abs(), rate)
}

/// How long a question waited that came at `at` and is answered at `now`.
pub(super) fn held(now: Instant, at: Instant) -> u64 {
    (nanos(now) - nanos(at)).max(0).unsigned_abs()
}
