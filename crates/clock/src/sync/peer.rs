//! The clock of another node as a reference, read by a round trip (Cristian 1989).
//!
//! *Idea.* Who is asked says its time and how far that may be wrong. When the answer arrives, that time is later by something between min and what
//! the round trip took less min. The middle is taken; half of the rest adds to the error.
//!
//! *What is followed* is what the other node follows: the true time, a master, or the common time of clocks that are kept together. Only the first one runs as real
//! time does. Another one runs away from it at a rate that the answer has as well, until the next answer comes or the clock is lost: that is added at once, so that
//! the error grows by the drift alone from then on.

use mainstay_base::{Instant, Rng, fault};

use super::algorithm::Referred;
use super::config::{Config, Kind, long};
use super::core::Rejected;
use super::corrected::BILLION;
use super::reading::{round_trip, stamps_error};

/// What another node says of its clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Said {
    pub(super) nonce: u64,
    pub(super) value: i64,
    pub(super) error: u64,
    pub(super) rate: u64,
    pub(super) held: u64,
}

/// Asks another node. One question is open at a time.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its nonce, and when it was asked.
    open: Option<(u64, Instant)>,
    rng: Rng,
}

impl Peer {
    pub(super) fn new(rng: Rng) -> Self {
        Self { open: None, rng }
    }

    /// The nonce of another question, which takes the place of the open one.
    pub(super) fn ask(&mut self, now: Instant) -> u64 {
        let nonce = self.rng.next_u64();
        self.open = Some((nonce, now));
        nonce
    }

    /// What an answer tells that came at `at` and is taken in at `now`. One that tells nothing is counted.
    pub(super) fn on_reply(
        &mut self,
        config: &Config,
        (now, at): (Instant, Instant),
        said: &Said,
        rejected: &mut Rejected,
    ) -> Option<Referred> {
        let Some((_, asked)) = self.open.take_if(|(nonce, _)| *nonce == said.nonce) else {
            rejected.untimely += 1;
            return None;
        };
        // A time that runs away from the true one is none that an interval holds, nor one to which a master pulls.
        if said.rate > 0 && !matches!(config.kind, Kind::External { .. }) {
            rejected.foreign += 1;
            return None;
        }
        let Some((later, wrong)) = round_trip(config, asked, at, said.held, false) else {
            rejected.untimely += 1;
            return None;
        };
        let wrong = wrong.saturating_add(stamps_error(now, at, said.held));
        let patience = long(config.period).saturating_mul(i64::from(config.misses_max.max(1)));
        let span = config.drift.stretch(patience).saturating_add(later.saturating_add(wrong));
        let runs = i128::from(span) * i128::from(said.rate) / i128::from(BILLION) + 1;
        let mut error = wrong.saturating_add(i64::try_from(runs).unwrap_or(i64::MAX));
        if !fault!(config, ForgetsPeerError) {
            error = error.saturating_add(i64::try_from(said.error).unwrap_or(i64::MAX));
        }
        let value = said.value.saturating_add(later);
        Some(Referred { at, value, error: Some(error), rate: said.rate })
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::Duration;

    use super::*;

    fn config() -> Config {
        Config::lan(Kind::External { error: Duration::from_millis(50) }, 1, 0)
    }

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }

    fn said(nonce: u64) -> Said {
        Said { nonce, value: 7_000_000, error: 1_000_000, rate: 0, held: 0 }
    }

    #[test]
    fn an_answer_tells_the_time_and_how_far_it_is_wrong() {
        let (config, mut rejected) = (config(), Rejected::default());
        let mut peer = Peer::new(Rng::new(1));
        let nonce = peer.ask(at(1_000));
        let read = peer.on_reply(&config, (at(1_500), at(1_500)), &said(nonce), &mut rejected);
        let Referred { at: when, value, error, rate } = read.expect("it answers the question");
        // 500 us on the way, 50 at least in each direction: the middle is 250 later, and wrong by 200.
        assert_eq!((when, rate, rejected), (at(1_500), 0, Rejected::default()));
        assert!((value - 7_250_000).abs() < 300, "{value}");
        assert!((1_200_000..1_201_000).contains(&error.expect("it has one")), "{error:?}");
    }

    /// What the runtime believes of a stamp that is wrong is in the error, of both ends.
    #[test]
    fn a_stamp_may_be_wrong() {
        let (config, mut rejected) = (config(), Rejected::default());
        let mut peer = Peer::new(Rng::new(1));
        let mut error = |now: Instant, held: u64| {
            let nonce = peer.ask(at(1_000));
            let said = Said { held, ..said(nonce) };
            let read = peer.on_reply(&config, (now, at(1_500)), &said, &mut rejected);
            read.and_then(|it| it.error).expect("it answers the question")
        };
        let exact = error(at(1_500), 0);
        assert!(error(at(3_500), 0) >= exact + 100_000);
        assert!(error(at(1_500), 1_000) >= exact + 99_000);
    }

    #[test]
    fn a_time_that_runs_away_costs_what_it_may_run() {
        let (config, mut rejected) = (config(), Rejected::default());
        let mut peer = Peer::new(Rng::new(1));
        let nonce = peer.ask(at(1_000));
        let away = Said { rate: 100_000, ..said(nonce) };
        let read = peer
            .on_reply(&config, (at(1_500), at(1_500)), &away, &mut rejected)
            .expect("it is taken");
        // 100 ppm for the 3 s after which a reference is lost.
        let error = read.error.expect("it has one");
        assert!((1_500_000..1_502_000).contains(&error), "{error}");
        let interval = Config { kind: Kind::interval(Duration::from_millis(50)), ..config };
        let nonce = peer.ask(at(2_000));
        let away = Said { nonce, ..away };
        assert_eq!(peer.on_reply(&interval, (at(2_500), at(2_500)), &away, &mut rejected), None);
        assert_eq!(rejected.foreign, 1);
    }

    #[test]
    fn what_answers_nothing_is_counted() {
        let (config, mut rejected) = (config(), Rejected::default());
        let mut peer = Peer::new(Rng::new(1));
        assert_eq!(peer.on_reply(&config, (at(0), at(0)), &said(0), &mut rejected), None);
        let (old, new) = (peer.ask(at(1_000)), peer.ask(at(2_000)));
        assert_eq!(peer.on_reply(&config, (at(2_500), at(2_500)), &said(old), &mut rejected), None);
        // Sooner than two messages can be (CLK-26), and after that a second time.
        assert_eq!(peer.on_reply(&config, (at(2_001), at(2_001)), &said(new), &mut rejected), None);
        assert_eq!(peer.on_reply(&config, (at(2_500), at(2_500)), &said(new), &mut rejected), None);
        assert_eq!(rejected.untimely, 4);
    }
}
