//! Commands that wait for room in the group, in the order in which they came.

use std::collections::VecDeque;

use bytes::Bytes;
use mainstay_base::{Duration, Instant};
use mainstay_multicast::MESSAGE_OVERHEAD;
use mainstay_paradigm::client::NotDone;
use mainstay_runtime::Place;

use crate::config::UNSTABLE_BYTES;
use crate::outcome::{Answer, Fate};

/// Most bytes of commands of a node that are not cast yet (8 MiB).
pub(crate) const QUEUE_BYTES: usize = 8 << 20;
/// The group's budget, less what the members' hashes may take of it.
const ROOM: usize = UNSTABLE_BYTES - (64 << 10);

/// A command that is certainly not cast.
pub(crate) struct Submitted {
    pub(crate) payload: Bytes,
    pub(crate) answer: Answer,
    /// Its share of [`QUEUE_BYTES`].
    pub(crate) _place: Place,
}

/// What a command counts in the group's budget and in [`QUEUE_BYTES`].
pub(crate) fn cost(payload: &Bytes) -> usize {
    payload.len() + MESSAGE_OVERHEAD
}

/// In front of the group: what it has no room for waits here until it has. Only when it has taken nothing for the whole
/// of a command's deadline is what waits refused. Bounded by the places that the commands bring along.
#[derive(Default)]
pub(crate) struct Queue {
    commands: VecDeque<Submitted>,
    /// No less than what the group has in its budget.
    used_max: usize,
    /// When the group took something last, or there was nothing to take.
    moved: Instant,
}

impl Queue {
    pub(crate) fn push(&mut self, now: Instant, command: Submitted) {
        if self.commands.is_empty() && self.fits(&command) {
            self.moved = now;
        }
        self.commands.push_back(command);
    }

    pub(crate) fn len(&self) -> usize {
        self.commands.len()
    }

    fn fits(&self, command: &Submitted) -> bool {
        self.used_max + cost(&command.payload) <= ROOM
    }

    /// The next command, if there is room for it. `used` is asked what the group has in its budget.
    pub(crate) fn next(&mut self, now: Instant, used: impl FnOnce() -> usize) -> Option<Submitted> {
        if !self.fits(self.commands.front()?) {
            self.used_max = used();
        }
        if !self.fits(self.commands.front()?) {
            return None;
        }
        self.moved = now;
        let command = self.commands.pop_front()?;
        self.used_max += cost(&command.payload);
        Some(command)
    }

    /// Refuses all that waits; to try again is safe.
    pub(crate) fn refuse(&mut self, reason: NotDone) {
        for command in self.commands.drain(..) {
            command.answer.tell(Fate::NotDone(reason));
        }
    }

    /// The boot that was asked is dead. What waits was never cast.
    pub(crate) fn restarted(&mut self) {
        self.refuse(NotDone::Restarting);
        self.used_max = 0;
    }

    pub(crate) fn expire(&mut self, now: Instant, patience: Duration) {
        if self.deadline(patience).is_some_and(|at| at <= now) {
            self.refuse(NotDone::Full);
        }
    }

    pub(crate) fn deadline(&self, patience: Duration) -> Option<Instant> {
        (!self.commands.is_empty()).then(|| self.moved + patience)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.refuse(NotDone::Closed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::sync::{Arc, Mutex};

    use mainstay_runtime::{Bell, inbox};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    type Told = Arc<Mutex<Vec<(usize, Fate)>>>;

    fn submitted(told: &Told, size: usize) -> Submitted {
        let told = Arc::clone(told);
        let answer = Answer::new(move |fate| told.lock().unwrap().push((size, fate)));
        let (inbox, mut intake) = inbox::<(), ()>(&Bell::new(), (), 1);
        inbox.try_send(1, ()).unwrap();
        let mut taken = Vec::new();
        intake.take(1, &mut taken);
        let (_, _place) = taken.remove(0);
        Submitted { payload: Bytes::from(vec![0; size]), answer, _place }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// Casts all that there is room for; their sizes.
    fn cast(queue: &mut Queue, now: Instant, used: usize) -> Vec<usize> {
        let (mut sizes, mut used) = (Vec::new(), used);
        while let Some(command) = queue.next(now, || used) {
            used += cost(&command.payload);
            sizes.push(command.payload.len());
            command.answer.tell(Fate::Unknown);
        }
        sizes
    }

    /// What does not fit waits, and with it all behind it, however small: commands keep their order. Room that the group
    /// gives back is used, and room that it has been asked for is not used twice.
    #[test]
    fn what_does_not_fit_waits_in_order() {
        let (mut queue, told) = (Queue::default(), Told::default());
        let (large, small) = (5 << 20, 1_000);
        for size in [large, large + 1, small, small + 1] {
            queue.push(at(0), submitted(&told, size));
        }
        assert_eq!(cast(&mut queue, at(0), 0), [large]);
        assert_eq!(queue.len(), 3);
        assert_eq!(cast(&mut queue, at(1), large + 64), []);
        let rest = [large + 1, small, small + 1];
        assert_eq!(cast(&mut queue, at(2), 0), rest);
        assert!(told.lock().unwrap().iter().all(|(_, fate)| *fate == Fate::Unknown));
        assert_eq!(queue.deadline(PATIENCE), None);
    }

    /// What waits is refused when nothing could be done for the whole deadline, and not while the group takes anything;
    /// then what comes is refused at once until there is room again.
    #[test]
    fn what_waits_is_refused_only_when_nothing_moves() {
        let (mut queue, told) = (Queue::default(), Told::default());
        for size in [7 << 20, 6 << 20, 5 << 20] {
            queue.push(at(0), submitted(&told, size));
        }
        assert_eq!(cast(&mut queue, at(0), 0), [7 << 20]);
        // One of them goes on after most of the deadline: the other's begins anew.
        assert_eq!(cast(&mut queue, at(1_900), 0), [6 << 20]);
        told.lock().unwrap().clear();
        queue.expire(at(3_899), PATIENCE);
        assert_eq!((queue.len(), queue.deadline(PATIENCE)), (1, Some(at(3_900))));
        queue.expire(at(3_900), PATIENCE);
        let full = Fate::NotDone(NotDone::Full);
        assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [(5 << 20, full.clone())]);
        queue.push(at(9_000), submitted(&told, 4 << 20));
        assert_eq!(cast(&mut queue, at(9_000), 6 << 20), []);
        queue.expire(at(9_000), PATIENCE);
        assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [(4 << 20, full)]);
        queue.push(at(9_001), submitted(&told, 3 << 20));
        assert_eq!(cast(&mut queue, at(9_001), 0), [3 << 20]);
    }

    /// A boot that dies has not cast what waits.
    #[test]
    fn what_waits_at_a_dead_boot_is_not_done() {
        let (mut queue, told) = (Queue::default(), Told::default());
        queue.push(at(0), submitted(&told, 7 << 20));
        queue.push(at(0), submitted(&told, 6 << 20));
        cast(&mut queue, at(0), 0);
        told.lock().unwrap().clear();
        queue.restarted();
        let restarting = Fate::NotDone(NotDone::Restarting);
        assert_eq!(*told.lock().unwrap(), [(6 << 20, restarting)]);
        queue.push(at(1), submitted(&told, 7 << 20));
        assert_eq!(cast(&mut queue, at(1), 0), [7 << 20]);
        queue.push(at(1), submitted(&told, 5 << 20));
        told.lock().unwrap().clear();
        drop(queue);
        assert_eq!(*told.lock().unwrap(), [(5 << 20, Fate::NotDone(NotDone::Closed))]);
    }
}
