//! When a datagram came: the kernel stamps it by the wall clock, the node counts by its own.
//!
//! A datagram that waits in the socket while the node has a turn came before it is read. How long before is the wall clock's present
//! reading less the stamp. The wall clock may be set in between, so its word counts only as far as the node's own clock bears it out: what
//! is read now came after the socket was last found empty, and if since then the wall clock has gained or lost more on the node's
//! clock than the two looks may differ by, the moment of reading counts, as where there are no stamps. The node's clock is slewed as the wall clock is, so
//! only a step parts them.

use mainstay_base::{Duration, Instant};

/// Both clocks, looked at so shortly one after the other that [`TOLERATED`] covers it twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) local: Instant,
    pub(super) wall: Duration,
}

/// What two looks may differ by though nobody has set the wall clock: the time between the reads of both clocks.
const TOLERATED: Duration = Duration::from_micros(100);
/// So often both clocks are looked at until nothing has come between.
const LOOKS: usize = 3;

impl Look {
    /// Looks at both. If the thread was held up between them each time, the wall clock counts for nothing.
    pub(super) fn take(local: impl Fn() -> Instant, wall: impl Fn() -> Duration) -> Self {
        let mut before = local();
        for _ in 0..LOOKS {
            let wall = wall();
            let after = local();
            if after.saturating_since(before) < TOLERATED / 2 {
                return Self { local: before, wall };
            }
            before = after;
        }
        Self { local: before, wall: Duration::MAX }
    }
}

/// When a datagram with that stamp came: not before the socket was `empty`, and not after it is read `now`.
pub(super) fn arrival(empty: Look, now: Look, stamp: Option<Duration>) -> Instant {
    let Some(stamp) = stamp else { return now.local };
    let since = now.local.saturating_since(empty.local);
    let was_set = match now.wall.checked_sub(empty.wall) {
        Some(passed) => passed.abs_diff(since) > TOLERATED,
        None => true,
    };
    let Some(waited) = now.wall.checked_sub(stamp).filter(|_| !was_set) else { return now.local };
    // It is stamped a moment before the socket has it; what is older by more was stamped by another clock.
    if waited > since + TOLERATED {
        return now.local;
    }
    empty.local + since.saturating_sub(waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000_000_000_000;

    fn look(local: u64, wall: u64) -> Look {
        Look { local: Instant::from_nanos(local), wall: Duration::from_nanos(wall) }
    }

    fn micros(micros: u64) -> u64 {
        micros * 1_000
    }

    /// In microseconds after the socket was empty; the wall clock was set by `step` somewhere between.
    fn came(read: u64, stamp: u64, step: i64) -> u64 {
        let empty = look(micros(50_000), WALL);
        let now =
            look(micros(50_000 + read), (WALL + micros(read)).saturating_add_signed(step * 1_000));
        let at = arrival(empty, now, Some(Duration::from_nanos(WALL + micros(stamp))));
        at.saturating_since(empty.local).as_micros() as u64
    }

    #[test]
    fn what_waited_came_when_it_was_stamped() {
        assert_eq!(came(3_000, 1_000, 0), 1_000);
        assert_eq!(came(3_000, 0, 0), 0);
        // Without a stamp, when it is read.
        let (empty, now) = (look(0, WALL), look(7, WALL + 7));
        assert_eq!(arrival(empty, now, None), now.local);
        // It was stamped just before the socket was found empty.
        let early = Some(Duration::from_nanos(WALL - micros(20)));
        assert_eq!(arrival(empty, look(micros(90), WALL + micros(90)), early), empty.local);
    }

    /// Whatever the wall clock does, it came between the last look at an empty socket and now; where it was set, now.
    #[test]
    fn a_wall_clock_that_is_set_counts_for_nothing() {
        for step in [-3_600_000_000, -10_000, -2_000, 2_000, 10_000, 3_600_000_000_i64] {
            assert_eq!(came(3_000, 1_000, step), 3_000, "{step} us");
        }
        // Set before: the stamp is of the clock as it is now.
        let empty = look(0, WALL);
        let now = look(micros(3_000), 5);
        assert_eq!(arrival(empty, now, Some(Duration::ZERO)), now.local);
        // A stamp of the future, and one of long ago.
        assert_eq!(came(3_000, 9_000, 0), 3_000);
        let old = Some(Duration::from_nanos(WALL - micros(5_000)));
        let now = look(micros(3_000), WALL + micros(3_000));
        assert_eq!(arrival(empty, now, old), now.local);
    }

    /// A thread that is held up between the clocks takes neither for the other: it looks again, and in the end believes no stamp.
    #[test]
    fn clocks_are_looked_at_together() {
        let held_up = |times: usize| {
            let (reads, now) = (std::cell::Cell::new(0), std::cell::Cell::new(micros(10)));
            let wall = || {
                reads.set(reads.get() + 1);
                now.set(now.get() + if reads.get() <= times { micros(1_000) } else { 0 });
                Duration::from_nanos(WALL + now.get())
            };
            Look::take(|| Instant::from_nanos(now.get()), wall)
        };
        let look = held_up(0);
        assert_eq!(
            (look.local, look.wall),
            (Instant::from_nanos(micros(10)), Duration::from_nanos(WALL + micros(10)))
        );
        let look = held_up(2);
        assert_eq!(look.wall.as_nanos() - u128::from(WALL), u128::from(micros(2_010)));
        let blind = held_up(LOOKS);
        assert_eq!(blind.wall, Duration::MAX);
        let empty = self::look(0, WALL);
        assert_eq!(arrival(empty, blind, Some(Duration::from_nanos(WALL))), blind.local);
        assert_eq!(
            arrival(blind, self::look(micros(9_000), WALL), Some(Duration::from_nanos(WALL))),
            Instant::from_nanos(micros(9_000))
        );
    }

    #[test]
    fn a_step_too_small_to_be_seen_moves_it_by_no_more_than_that() {
        for step in [-90_i64, 90] {
            assert!(came(3_000, 1_000, step).abs_diff(1_000) <= 90);
        }
    }
}
