//! How a remote clock is read. Every algorithm that reads clocks takes one of these ways, and some have the choice ([`Kind::named`](super::Kind::named)).
//!
//! | way | messages | what is known of an answer | error, at worst | gains |
//! |---|---|---|---|---|
//! | [`Way::Arrival`] | 1 | when it came | half of max - min | half the messages, no question |
//! | [`Way::RoundTrip`] | 2 | when it was asked for, and when it came | half of max - min, and mostly less | each reading knows its own error, and one that is too slow is seen |
//!
//! | stamp | what counts as delay | gains |
//! |---|---|---|
//! | [`Stamp::Turn`] | network, queues and the turns of the process | nothing to ask for |
//! | [`Stamp::Kernel`] | network only: the socket says when a datagram came | max - min without the queue of the receiver |
//!
//! A unit that stamps at the port, as that of MARS, is [`Stamp::Kernel`] with a max - min of microseconds.

use mainstay_base::{Instant, fault};

use super::config::{Config, ConfigError, Delay, Drift, long};
use super::core::Core;
use super::corrected::nanos;
use super::message::Message;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Each node says its clock unasked; the time of arrival is what it is compared with.
    Arrival,
    /// A node asks, and compares the answer with the middle of the round trip (Cristian).
    RoundTrip,
}

/// Which moment counts as the arrival of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stamp {
    /// When the machine takes it in.
    Turn,
    /// When the socket got it. Over UDP on Linux the runtime has the stamps of the kernel, over connections, and elsewhere, it has none: there
    /// this is when the message was read, and the delay has to have the node's turns in it all the same.
    Kernel,
}

/// How clocks are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Who asks.
    pub way: Way,
    /// What counts as arrival.
    pub stamp: Stamp,
}

impl Reading {
    /// By arrival, as the machine sees it.
    pub const ARRIVAL: Self = Self { way: Way::Arrival, stamp: Stamp::Turn };
    /// By round trip, as the machine sees it.
    pub const ROUND_TRIP: Self = Self { way: Way::RoundTrip, stamp: Stamp::Turn };
    /// By arrival, stamped where it comes in.
    pub const STAMPED: Self = Self { way: Way::Arrival, stamp: Stamp::Kernel };

    /// By round trip, stamped where it comes in.
    pub const STAMPED_ROUND_TRIP: Self = Self { way: Way::RoundTrip, stamp: Stamp::Kernel };

    /// All of them.
    pub(super) const ALL: [Self; 4] =
        [Self::ARRIVAL, Self::ROUND_TRIP, Self::STAMPED, Self::STAMPED_ROUND_TRIP];

    /// The names that [`named`](Self::named) knows.
    pub const NAMES: &'static [&'static str] =
        &["arrival", "round-trip", "stamped", "stamped-round-trip"];

    /// The way of that name, for configurations in text.
    ///
    /// # Errors
    /// [`ConfigError::UnknownReading`].
    pub fn named(name: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.into_iter().find(|it| it.name() == name);
        found.ok_or_else(|| ConfigError::UnknownReading(name.to_owned()))
    }

    /// What it is called in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.way, self.stamp) {
            (Way::Arrival, Stamp::Turn) => "arrival",
            (Way::RoundTrip, Stamp::Turn) => "round-trip",
            (Way::Arrival, Stamp::Kernel) => "stamped",
            (Way::RoundTrip, Stamp::Kernel) => "stamped-round-trip",
        }
    }

    /// The largest error of a reading of a correct clock.
    pub(super) fn error(self, delay: Delay, drift: Drift) -> i64 {
        let spread = delay.max_nanos() - delay.min_nanos();
        let trips = if self.way == Way::Arrival { 1 } else { 3 };
        // Half of an odd number, and the roundings of both clocks.
        spread / 2 + trips * drift.of(delay.max_nanos()) + 4
    }

    /// How long after it was asked for, or was due, an answer may be taken in, by the own clock.
    pub(super) fn span(self, config: &Config) -> i64 {
        let trips = if self.way == Way::Arrival { 1 } else { 2 };
        config.drift.stretch(trips * (config.delay.max_nanos() + self.stamp.queue(config))) + 2
    }
}

impl Stamp {
    /// When a word counts as come, for which the runtime says `at` and which is taken in at `now`.
    pub(super) fn arrival(self, now: Instant, at: Instant) -> Instant {
        if self == Self::Kernel { at } else { now }
    }

    /// How long what is stamped may wait.
    pub(super) fn queue(self, config: &Config) -> i64 {
        if self == Self::Kernel { long(config.queue) } else { 0 }
    }
}

/// A clock that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    /// How much it is ahead of the own one.
    pub(super) difference: i64,
    /// How far that may be wrong.
    pub(super) error: i64,
}

/// The largest difference that is computed with: 73 years.
const FAR: i64 = 1 << 61;

/// A difference; one beyond the largest is that. A clock that is corrected by it is not right yet, see [`is_far`].
pub(super) fn far(difference: i64) -> i64 {
    difference.clamp(-FAR, FAR)
}

/// Whether a difference, or one that an interval around it was made of, may be larger than what is computed with.
pub(super) fn is_far(difference: i64) -> bool {
    difference.unsigned_abs() >= FAR.unsigned_abs() / 2
}

/// What is known of a reading by its arrival: the sender's clock was `value` when it was sent.
pub(super) fn by_arrival(core: &Core, at: Instant, value: i64) -> Sample {
    let config = core.plan.config();
    let (min, max) = (config.delay.min_nanos(), config.delay.max_nanos());
    let middle = min + (max - min) / 2;
    let difference = far(value.saturating_add(middle).saturating_sub(core.nanos(at)));
    Sample { difference, error: Reading::ARRIVAL.error(config.delay, config.drift) }
}

/// What is known of a reading by its round trip. `None`: it came sooner than two messages can (CLK-26).
pub(super) fn by_round_trip(
    core: &Core,
    asked: Instant,
    at: Instant,
    (value, held): (i64, u64),
    may_be_impossible: bool,
) -> Option<Sample> {
    let config = core.plan.config();
    let (middle, error) = round_trip(config, asked, at, held, may_be_impossible)?;
    let difference = far(value.saturating_add(middle).saturating_sub(core.nanos(at)));
    Some(Sample { difference, error })
}

/// How much later than what an answer says the clock that was asked is when the answer arrives, and how far that may be wrong. `None`: it came sooner than two
/// messages can.
///
/// With T for the round trip by the own clock and H for the wait by that of the other node, the clock that said v says between v + min(1-ρ) and
/// v + T(1+ρ)² - H - min(1+ρ) when the answer arrives: all of T may have been longer than it was measured, whatever was waited in it.
/// H is taken for as short as it may have been.
pub(super) fn round_trip(
    config: &Config,
    asked: Instant,
    at: Instant,
    held: u64,
    may_be_impossible: bool,
) -> Option<(i64, i64)> {
    let (min, drift) = (config.delay.min_nanos(), config.drift);
    let held = i64::try_from(held).unwrap_or(i64::MAX);
    let (took, said) = (nanos(at) - nanos(asked), held);
    let held = drift.shrink(drift.shrink(said));
    let trip = took.saturating_sub(held);
    // A fast local clock makes a round trip longer, a slow one shorter.
    if trip < drift.shrink(2 * min) && !(may_be_impossible && trip >= 0) {
        return None;
    }
    let most = match fault!(config, BelievesHeld) {
        true => drift.stretch(drift.stretch(took - drift.shrink(said))),
        false => drift.stretch(drift.stretch(took)) - held,
    };
    let (low, high) = (min - drift.of(min), most - min + drift.of(min) + 1);
    Some((low + (high - low) / 2, (high - low) / 2 + 1))
}

/// How far the stamps of an answer may be off, which came at `at` to a question that waited `held`.
pub(super) fn stamps_error(now: Instant, at: Instant, held: u64) -> i64 {
    let held = i64::try_from(held).unwrap_or(i64::MAX);
    stamp_error(nanos(now) - nanos(at)).saturating_add(stamp_error(held))
}

/// How far the stamp of a datagram may be off that was taken in so long after it: the runtime believes stamps of a wall clock that is set by no more than
/// 100 µs while the datagram waits. One that did not wait has no stamp, or an exact one.
fn stamp_error(waited: i64) -> i64 {
    if waited <= 0 { 0 } else { 100_000 }
}

/// The question that is open, and who has answered it.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    nonce: u64,
    asked: Instant,
    answered: Vec<bool>,
}

impl Question {
    /// Asks all others.
    pub(super) fn ask(&mut self, core: &mut Core, now: Instant, nonce: u64) {
        self.open(core, now, nonce);
        core.send_all(&Message::Request { nonce });
    }

    /// Asks one.
    pub(super) fn ask_one(&mut self, core: &mut Core, now: Instant, nonce: u64, to: usize) {
        self.open(core, now, nonce);
        core.send(to, Message::Request { nonce });
    }

    fn open(&mut self, core: &Core, now: Instant, nonce: u64) {
        *self = Self { nonce, asked: now, answered: vec![false; core.nodes()] };
    }

    /// No answer counts any more.
    pub(super) fn close(&mut self) {
        self.answered.clear();
    }

    /// When the open question was asked.
    pub(super) fn asked(&self) -> Instant {
        self.asked
    }

    /// Whether this is the first answer of `from` to the open question; else it is counted.
    pub(super) fn take(&mut self, core: &mut Core, from: usize, nonce: u64) -> bool {
        match self.answered.get_mut(from) {
            Some(answered)
                if (self.nonce == nonce && !*answered)
                    || fault!(core.plan.config(), BelievesAnyReply) =>
            {
                *answered = true;
                true
            }
            Some(_) if self.nonce == nonce => {
                core.rejected.replayed += 1;
                false
            }
            _ => {
                core.rejected.untimely += 1;
                false
            }
        }
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use mainstay_base::{Duration, Rng};

    use super::super::config::Kind;
    use super::super::corrected::BILLION;
    use super::*;

    /// Real delays and rates are drawn; what was computed has to hold for them.
    fn holds(seed: u64, broken: bool) -> Result<(), String> {
        let mut rng = Rng::new(seed);
        let mut config = Config::lan(Kind::External { error: Duration::from_secs(1) }, 1, 0);
        let parts = *rng.pick(&[0, 200_000, 10_000_000]).expect("three");
        config.drift = Drift::per_billion(parts as u32);
        config.fault = broken.then_some(crate::fault::Fault::BelievesHeld);
        let min = config.delay.min_nanos();
        let one = i128::from(BILLION);
        // A clock of the fastest, the slowest or the right rate.
        let mut rate = || {
            *rng.pick(&[(one + i128::from(parts), one), (one, one + i128::from(parts)), (one, one)])
                .expect("three")
        };
        let (own, other) = (rate(), rate());
        let by = |(to, of): (i128, i128), real: i64| (i128::from(real) * to / of) as i64;
        let mut draw = |most: u64| rng.below(most) as i64;
        let (there, back) = (min + 200 * draw(2), min + draw(200_000));
        let wait = if draw(2) == 0 { draw(100_000_000) } else { 0 };
        let at = Instant::from_nanos(by(own, there + wait + back).unsigned_abs());
        let held = by(other, wait).unsigned_abs();
        let Some((later, wrong)) = round_trip(&config, Instant::ZERO, at, held, false) else {
            return Err("CLK-26: a right answer is refused".to_owned());
        };
        let off = (by(other, back) - later).abs();
        match off <= wrong + 2 {
            true => Ok(()),
            false => Err(format!("CLK-4: {off} off, and {wrong} is said")),
        }
    }

    /// Checks CLK-4: a reading is as wrong as it says at most, however long the question waited.
    #[test]
    fn a_round_trip_is_no_more_wrong_than_it_says() {
        for seed in 0..20_000 {
            holds(seed, false).unwrap_or_else(|why| panic!("{seed}: {why}"));
        }
        let found = (0..20_000).find_map(|seed| holds(seed, true).err()).expect("it is noticed");
        assert!(found.starts_with("CLK-4: "), "{found}");
    }
}
