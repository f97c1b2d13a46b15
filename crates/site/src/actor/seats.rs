//! The applications of a site, each on its group.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mainstay_base::{Duration, GroupId, Instant, Work};

use super::application::{AppPort, Application};
use super::machine::Output;
use super::trace::Recording;
use crate::stack::Stack;

/// What all applications together may do in a turn, nominally: once it is spent, what waits at the others does so until the next one.
const TURN_WORK: Duration = Duration::from_millis(2);

struct Seat {
    app: Box<dyn Application>,
    /// It was called in this turn, or wants one.
    touched: bool,
    /// As it said at the end of its last turn.
    due: Option<Instant>,
}

/// What of a site applications are given a part of.
pub(super) struct Parts<'a> {
    pub(super) stack: Option<&'a mut Stack>,
    pub(super) recording: Option<&'a mut Recording>,
    pub(super) outputs: &'a mut VecDeque<Output>,
    pub(super) checkpoints: &'a mut BTreeMap<GroupId, Vec<Bytes>>,
    /// As in [`AppPort`].
    pub(super) stack_given: &'a mut bool,
}

impl<'a> Parts<'a> {
    fn port(
        self,
        now: Instant,
        group: GroupId,
        again: &'a mut bool,
        is_spent: bool,
    ) -> AppPort<'a> {
        let Parts { stack, recording, outputs, checkpoints, stack_given } = self;
        AppPort { now, group, stack, recording, outputs, checkpoints, stack_given, again, is_spent }
    }
}

/// One application for each group of the site. Only those that were touched, are due or wait are turned, another one first each time.
pub(super) struct Seats {
    seats: BTreeMap<GroupId, Seat>,
    /// What was done in this turn.
    work: Work,
    turns: usize,
}

impl Seats {
    pub(super) fn new(apps: impl IntoIterator<Item = (GroupId, Box<dyn Application>)>) -> Self {
        let seat = |(group, app)| (group, Seat { app, touched: true, due: None });
        Self { seats: apps.into_iter().map(seat).collect(), work: Work::default(), turns: 0 }
    }

    /// Calls the application of a group. Nothing happens if there is none.
    pub(super) fn call(
        &mut self,
        now: Instant,
        group: GroupId,
        parts: Parts<'_>,
        call: impl FnOnce(&mut dyn Application, &mut AppPort<'_>),
    ) {
        let Some(seat) = self.seats.get_mut(&group) else { return };
        let mut again = false;
        let is_spent = self.work.nominal >= TURN_WORK;
        let mut port = parts.port(now, group, &mut again, is_spent);
        call(&mut *seat.app, &mut port);
        seat.touched = true;
    }

    /// Each application by itself, for what has no answer.
    pub(super) fn each(&mut self, mut call: impl FnMut(&mut dyn Application)) {
        for seat in self.seats.values_mut() {
            call(&mut *seat.app);
            seat.touched = true;
        }
    }

    /// The groups whose applications are to be turned now.
    pub(super) fn wanted(&mut self, now: Instant) -> Vec<GroupId> {
        let is_wanted = |seat: &Seat| {
            seat.touched || seat.due.is_some_and(|due| due <= now) || seat.app.waits()
        };
        let wanted = self.seats.iter().filter(|(_, seat)| is_wanted(seat));
        let mut groups: Vec<_> = wanted.map(|(group, _)| *group).collect();
        if !groups.is_empty() {
            self.turns = self.turns.wrapping_add(1);
            let first = self.turns % groups.len();
            groups.rotate_left(first);
        }
        groups
    }

    /// Ends the turn of one. True: it wants another one.
    pub(super) fn end_turn(&mut self, now: Instant, group: GroupId, parts: Parts<'_>) -> bool {
        let Some(seat) = self.seats.get_mut(&group) else { return false };
        let mut wants = false;
        let is_spent = self.work.nominal >= TURN_WORK;
        let mut port = parts.port(now, group, &mut wants, is_spent);
        seat.app.end_turn(&mut port);
        self.work.add(seat.app.take_work());
        seat.due = seat.app.poll_timeout();
        seat.touched = wants;
        wants
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.seats.values().filter_map(|seat| seat.due).min()
    }

    pub(super) fn are_ready(&self) -> bool {
        self.seats.values().all(|seat| seat.app.is_ready())
    }

    pub(super) fn take_work(&mut self) -> Work {
        let mut sum = std::mem::take(&mut self.work);
        self.seats.values_mut().for_each(|seat| sum.add(seat.app.take_work()));
        sum
    }

    pub(super) fn intake_bytes_max(&self) -> usize {
        let most = self.seats.values().map(|seat| seat.app.intake_bytes_max());
        most.min().unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use mainstay_base::ClusterId;
    use mainstay_multicast as multicast;

    use super::*;

    /// It has work without end, and notes how much it did.
    struct Busy {
        done: Rc<RefCell<Vec<Work>>>,
        index: usize,
        turn: Work,
    }

    impl Application for Busy {
        fn on_event(&mut self, _: multicast::Event, _: &mut AppPort<'_>) {}

        fn end_turn(&mut self, port: &mut AppPort<'_>) {
            let step = Work::step(Duration::from_micros(100), 1);
            while self.turn.nominal < TURN_WORK && !port.is_spent() {
                self.turn.add(step);
            }
            self.done.borrow_mut()[self.index].add(self.turn);
            port.again();
        }

        fn woken(&mut self, _: &mut AppPort<'_>) {}

        fn restarted(&mut self, _: Instant) {}

        fn poll_timeout(&self) -> Option<Instant> {
            None
        }

        fn take_work(&mut self) -> Work {
            std::mem::take(&mut self.turn)
        }
    }

    /// However many applications have much to do, a turn is as long as one of them makes it; and none gets more of the turns than the
    /// others.
    #[test]
    fn a_turn_is_bounded_for_all_together() {
        const APPS: u64 = 16;
        let done = Rc::new(RefCell::new(vec![Work::default(); APPS as usize]));
        let app = |index: u64| {
            let busy =
                Busy { done: Rc::clone(&done), index: index as usize, turn: Work::default() };
            let group = GroupId::new(ClusterId::from_entropy(1), &index.to_string());
            (group, Box::new(busy) as Box<dyn Application>)
        };
        let mut seats = Seats::new((0..APPS).map(app));
        let (mut outputs, mut checkpoints, mut stack_given) =
            (VecDeque::new(), BTreeMap::new(), false);
        for _ in 0..160 {
            let wanted = seats.wanted(Instant::ZERO);
            assert_eq!(wanted.len(), APPS as usize);
            for group in wanted {
                let parts = Parts {
                    stack: None,
                    recording: None,
                    outputs: &mut outputs,
                    checkpoints: &mut checkpoints,
                    stack_given: &mut stack_given,
                };
                assert!(seats.end_turn(Instant::ZERO, group, parts));
            }
            assert_eq!(seats.take_work().nominal, TURN_WORK);
        }
        let done = done.borrow();
        assert!(done.iter().all(|it| it.steps == done[0].steps), "{done:?}");
    }
}
