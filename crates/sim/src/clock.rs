//! The clock of a simulated node: what its hardware says the time is.
//!
//! A clock drifts: it gains so many parts of a billion. Faults make it step, stop, race, or stop while the node is suspended, as that of
//! a virtual machine does. Beside it there is the wall clock, which goes on meanwhile. Nodes of [services](crate::service) see
//! local time and nothing else; other nodes see the time of the world.

use mainstay_base::{Duration, Instant};
use serde::{Deserialize, Serialize};

const BILLION: i128 = 1_000_000_000;

/// What can go wrong with a clock, for as long as the [fault](crate::Fault::Clock) lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClockFault {
    /// It steps by so many nanoseconds at once, forward or back; it does not step back at the end.
    Step(i64),
    /// It stands still.
    Freeze,
    /// It gains this in addition, in parts of a billion: 1,000,000,000 is twice as fast.
    Race(i64),
    /// The wall clock alone steps by so many nanoseconds.
    StepWall(i64),
}

/// Local time of a node as a function of the time of the world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clock {
    /// The last change.
    since: Instant,
    /// What it said then.
    local: i128,
    /// What it gains, in parts of a billion.
    drift: i64,
    /// What faults add to that.
    race: i64,
    /// Faults under way that stop it.
    stopped: u32,
    wall: i64,
}

impl Default for Clock {
    /// The time of the world.
    fn default() -> Self {
        let since = Instant::ZERO;
        Self { since, local: 0, drift: 0, race: 0, stopped: 0, wall: 0 }
    }
}

impl Clock {
    /// A clock that says `offset` when the world begins, and gains `drift` parts of a billion.
    #[must_use]
    pub fn new(offset: Duration, drift: i64) -> Self {
        Self { local: offset.as_nanos() as i128, drift, ..Self::default() }
    }

    /// What it gains from `now` on, in parts of a billion.
    pub fn set_drift(&mut self, now: Instant, drift: i64) {
        self.rebase(now);
        self.drift = drift;
    }

    /// Local time at the time `now` of the world.
    #[must_use]
    pub fn local(&self, now: Instant) -> Instant {
        let since = i128::from(now.as_nanos()) - i128::from(self.since.as_nanos());
        let local = self.local + (since * self.rate()).div_euclid(BILLION);
        Instant::from_nanos(u64::try_from(local.max(0)).unwrap_or(u64::MAX))
    }

    /// The first time of the world, from `now` on, at which local time is `local`; `None`: never, as things are.
    #[must_use]
    pub fn real(&self, now: Instant, local: Instant) -> Option<Instant> {
        let ahead = i128::from(local.as_nanos()) - i128::from(self.local(now).as_nanos());
        if ahead <= 0 {
            return Some(now);
        }
        let rate = self.rate();
        if rate <= 0 {
            return None;
        }
        let wait = u64::try_from((ahead * BILLION + rate - 1) / rate).ok()?;
        let mut real = Instant::from_nanos(now.as_nanos().checked_add(wait)?);
        // What is read is rounded down.
        while self.local(real) < local {
            real = Instant::from_nanos(real.as_nanos().checked_add(1)?);
        }
        Some(real)
    }

    /// The wall clock at the time `now` of the world, in nanoseconds: right but for its steps.
    #[must_use]
    pub fn wall(&self, now: Instant) -> i64 {
        now.as_nanos() as i64 + self.wall
    }

    /// A fault begins.
    pub fn begin(&mut self, now: Instant, fault: ClockFault) {
        self.rebase(now);
        match fault {
            ClockFault::Step(by) => self.local += i128::from(by),
            ClockFault::Freeze => self.stopped += 1,
            ClockFault::Race(by) => self.race += by,
            ClockFault::StepWall(by) => self.wall += by,
        }
    }

    /// A fault ends.
    pub fn end(&mut self, now: Instant, fault: ClockFault) {
        self.rebase(now);
        match fault {
            ClockFault::Step(_) | ClockFault::StepWall(_) => {}
            ClockFault::Freeze => self.stopped = self.stopped.saturating_sub(1),
            ClockFault::Race(by) => self.race -= by,
        }
    }

    fn rate(&self) -> i128 {
        let gained = i128::from(self.drift) + i128::from(self.race);
        if self.stopped > 0 { 0 } else { (BILLION + gained).max(0) }
    }

    fn rebase(&mut self, now: Instant) {
        self.local = i128::from(self.local(now).as_nanos());
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_clock_drifts_races_stops_and_steps() {
        let mut clock = Clock::new(Duration::from_millis(5), 1_000_000);
        assert_eq!(clock.local(at(1_000)), at(1_006));
        clock.begin(at(1_000), ClockFault::Race(1_000_000_000));
        assert_eq!(clock.local(at(2_000)), at(3_007));
        clock.end(at(2_000), ClockFault::Race(1_000_000_000));
        clock.begin(at(2_000), ClockFault::Freeze);
        assert_eq!((clock.local(at(9_000)), clock.real(at(9_000), at(3_008))), (at(3_007), None));
        clock.end(at(9_000), ClockFault::Freeze);
        clock.begin(at(9_000), ClockFault::Step(-7_000_000));
        assert_eq!(clock.local(at(9_000)), at(3_000));
    }

    #[test]
    fn the_moment_of_a_reading_is_the_first_one() {
        for drift in [-10_000_000, -7, 0, 3, 10_000_000] {
            let clock = Clock::new(Duration::from_nanos(17), drift);
            for local in [18, 1_000, 123_456_789] {
                let local = Instant::from_nanos(local);
                let real = clock.real(Instant::ZERO, local).expect("it runs");
                assert!(clock.local(real) >= local);
                assert!(clock.local(Instant::from_nanos(real.as_nanos() - 1)) < local);
            }
        }
    }
}
