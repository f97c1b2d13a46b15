//! What all algorithms have: the clock that they correct, what they say, and what they refuse.

use std::collections::VecDeque;
use std::sync::Arc;

use mainstay_base::{Duration, Instant};

use super::config::Plan;
use super::corrected::{Corrected, nanos};
use super::message::Message;

/// What an algorithm says, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// A datagram to the node at this place of the list.
    Send {
        /// To whom.
        to: usize,
        /// What.
        message: Message,
    },
    /// The clock is corrected.
    Correct(Correction),
    /// From here on the clock is within the bounds of the plan. Said once, until it is lost.
    Synchronised,
    /// From here on nothing is promised of the clock: who needs the common time takes no new work.
    Lost(Loss),
    /// Who is followed has changed; `None`: nobody is.
    Master(Option<usize>),
}

/// A correction of the corrected clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Correction {
    /// Higher than that of any earlier one of this process.
    pub version: u64,
    /// The local time from which it holds.
    pub at: Instant,
    /// Added to the clock, in nanoseconds; may be negative.
    pub by: i64,
    /// What the clock says at `at` once it is corrected, in nanoseconds.
    pub to: i64,
    /// How much faster than local time the clock runs from here on, in parts of a billion.
    pub rate: i64,
    /// How far the clock may be from the one that it follows (the master, the true time, the reference), where there is one. It
    /// grows by the drift of both until the next correction.
    pub error: Option<Duration>,
}

/// Why a clock is no longer synchronised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Loss {
    /// It has just begun, and knows no time yet.
    Began,
    /// Local time went back: the hardware is faulty.
    WentBack,
    /// The process woke up long after it should have.
    Overslept,
    /// So many others are rounds ahead that the own clock must be behind.
    Behind,
    /// The correction is larger than that of any correct clock.
    Outside,
    /// Too few answers, several rounds in a row.
    Silence,
    /// No answer was good enough, as often as it was tried.
    Unread,
    /// There is no master.
    NoMaster,
    /// The intervals have nothing in common: more than allowed are wrong.
    Inconsistent,
}

impl Loss {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::WentBack => "went-back",
            Self::Overslept => "overslept",
            Self::Behind => "behind",
            Self::Outside => "outside",
            Self::Silence => "silence",
            Self::Unread => "unread",
            Self::NoMaster => "no-master",
            Self::Inconsistent => "inconsistent",
        }
    }
}

/// Datagrams that were refused, by reason. None of them moved a clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Rejected {
    /// From nobody on the list, or from itself.
    pub unknown: u64,
    /// A word of another algorithm.
    pub foreign: u64,
    /// Of a round that is over, or a second one of the same.
    pub replayed: u64,
    /// Of a round, or with a reading, that no correct clock can have reached.
    pub future: u64,
    /// A signature is missing, wrong, or there twice.
    pub unsigned: u64,
    /// Sooner or later than the network allows, or an answer to nothing that was asked.
    pub untimely: u64,
    /// Of another master, or of one that is no longer.
    pub usurped: u64,
    /// A reference that is further off than the plan says of references.
    pub inaccurate: u64,
    /// Of the wrong shape.
    pub malformed: u64,
}

impl Rejected {
    /// How many there are of each reason.
    #[must_use]
    pub const fn by_reason(&self) -> [(&'static str, u64); 9] {
        [
            ("unknown", self.unknown),
            ("foreign", self.foreign),
            ("replayed", self.replayed),
            ("future", self.future),
            ("unsigned", self.unsigned),
            ("untimely", self.untimely),
            ("usurped", self.usurped),
            ("inaccurate", self.inaccurate),
            ("malformed", self.malformed),
        ]
    }
}

/// Another clock, as it was read last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// Its place in the list of nodes.
    pub place: usize,
    /// How much it was ahead of the own clock of the algorithm, in nanoseconds.
    pub offset: i64,
    /// How far that may be wrong.
    pub error: u64,
    /// How long ago it was read.
    pub age: Duration,
    /// How often it was read.
    pub reads: u64,
    /// What it is good for.
    pub verdict: Verdict,
}

/// Whether the reading of another clock can be that of a correct one, by the bounds of the plan, or by what the others say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It is used.
    Used,
    /// It is further away than a correct clock can be: the algorithm gives it no weight, as long as no more than planned are so.
    Far,
    /// Its interval has nothing in common with what enough others agree on: it counts for nothing.
    Outvoted,
    /// It was not read for two periods.
    Silent,
}

impl Verdict {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Far => "far",
            Self::Outvoted => "outvoted",
            Self::Silent => "silent",
        }
    }
}

/// What is kept of a reading.
#[derive(Clone, Copy, Debug)]
struct Read {
    offset: i64,
    error: i64,
    at: Instant,
    reads: u64,
    outvoted: bool,
}

/// The part that all algorithms share.
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) plan: Arc<Plan>,
    pub(super) me: usize,
    pub(super) clock: Corrected,
    version: u64,
    synchronised: bool,
    pub(super) rejected: Rejected,
    out: VecDeque<Output>,
    last: Instant,
    reads: Vec<Option<Read>>,
}

impl Core {
    pub(super) fn new(plan: Arc<Plan>, me: usize, offset: i64, now: Instant) -> Self {
        Self {
            reads: vec![None; plan.config().nodes],
            plan,
            me,
            clock: Corrected::new(offset),
            version: 0,
            synchronised: false,
            rejected: Rejected::default(),
            out: VecDeque::new(),
            last: now,
        }
    }

    pub(super) fn nodes(&self) -> usize {
        self.plan.config().nodes
    }

    pub(super) fn faulty(&self) -> usize {
        self.plan.config().faulty
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.me;
        (0..self.nodes()).filter(move |peer| *peer != me)
    }

    pub(super) fn nanos(&self, local: Instant) -> i64 {
        self.clock.nanos(local)
    }

    /// Notes the time; whether it went back.
    pub(super) fn pass(&mut self, now: Instant) -> bool {
        let back = now < self.last;
        self.last = now;
        back
    }

    pub(super) fn send(&mut self, to: usize, message: Message) {
        self.out.push_back(Output::Send { to, message });
    }

    pub(super) fn send_all(&mut self, message: &Message) {
        for to in self.peers() {
            self.send(to, message.clone());
        }
    }

    /// Corrects the clock. The version is `version`, or the next one if that has been.
    pub(super) fn correct(
        &mut self,
        at: Instant,
        by: i64,
        rate: i64,
        version: u64,
        error: Option<Duration>,
    ) {
        self.clock.correct(at, by, rate);
        self.version = version.max(self.version + 1);
        let to = self.clock.nanos(at);
        self.out.push_back(Output::Correct(Correction {
            version: self.version,
            at,
            by,
            to,
            rate,
            error,
        }));
    }

    /// Another clock was read: for people, the algorithm does not look at it.
    pub(super) fn note(&mut self, from: usize, at: Instant, offset: i64, error: i64) {
        let reads = self.reads[from].map_or(0, |read| read.reads) + 1;
        self.reads[from] = Some(Read { offset, error, at, reads, outvoted: false });
    }

    /// The vote has left out what was read of another clock, or not.
    pub(super) fn vote(&mut self, of: usize, outvoted: bool) {
        if let Some(read) = &mut self.reads[of] {
            read.outvoted = outvoted;
        }
    }

    /// The other clocks that were ever read, as of the last input.
    pub(super) fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        let (bounds, period) = (self.plan.bounds(), self.plan.config().period);
        let near = bounds.precision_nanos().saturating_add(super::config::long(bounds.reading));
        let source = move |(place, read): (usize, &Option<Read>)| {
            let Read { offset, error, at, reads, outvoted } = (*read)?;
            let age = self.last.saturating_since(at);
            let verdict = if age > period * 2 {
                Verdict::Silent
            } else if outvoted {
                Verdict::Outvoted
            } else if offset.saturating_abs() > near {
                Verdict::Far
            } else {
                Verdict::Used
            };
            Some(Source { place, offset, error: error.unsigned_abs(), age, reads, verdict })
        };
        self.reads.iter().enumerate().filter_map(source)
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn is_synchronised(&self) -> bool {
        self.synchronised
    }

    pub(super) fn found(&mut self) {
        if !self.synchronised {
            self.synchronised = true;
            self.out.push_back(Output::Synchronised);
        }
    }

    pub(super) fn lose(&mut self, why: Loss) {
        if self.synchronised || why == Loss::Began {
            self.synchronised = false;
            self.out.push_back(Output::Lost(why));
        }
    }

    pub(super) fn say(&mut self, output: Output) {
        self.out.push_back(output);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(super) fn last(&self) -> i64 {
        nanos(self.last)
    }
}
