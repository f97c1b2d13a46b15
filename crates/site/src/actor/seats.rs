//! The applications of a site, each on its group.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mainstay_base::{GroupId, Instant, Work};

use super::application::{AppPort, Application};
use super::machine::Output;
use super::trace::Recording;
use crate::stack::Stack;

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

/// One application for each group of the site. Only those that were touched, are due or wait are turned.
pub(super) struct Seats {
    seats: BTreeMap<GroupId, Seat>,
}

impl Seats {
    pub(super) fn new(apps: impl IntoIterator<Item = (GroupId, Box<dyn Application>)>) -> Self {
        let seat = |(group, app)| (group, Seat { app, touched: true, due: None });
        Self { seats: apps.into_iter().map(seat).collect() }
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
        let Parts { stack, recording, outputs, checkpoints, stack_given } = parts;
        let mut again = false;
        let again = &mut again;
        let mut port =
            AppPort { now, group, stack, recording, outputs, checkpoints, stack_given, again };
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
    pub(super) fn to_turn(&self, now: Instant) -> Vec<GroupId> {
        let is_wanted = |seat: &Seat| {
            seat.touched || seat.due.is_some_and(|due| due <= now) || seat.app.waits()
        };
        let wanted = self.seats.iter().filter(|(_, seat)| is_wanted(seat));
        wanted.map(|(group, _)| *group).collect()
    }

    /// Ends the turn of one. True: it wants another one.
    pub(super) fn end_turn(&mut self, now: Instant, group: GroupId, parts: Parts<'_>) -> bool {
        let Some(seat) = self.seats.get_mut(&group) else { return false };
        let Parts { stack, recording, outputs, checkpoints, stack_given } = parts;
        let mut wants = false;
        let again = &mut wants;
        let mut port =
            AppPort { now, group, stack, recording, outputs, checkpoints, stack_given, again };
        seat.app.end_turn(&mut port);
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
        let mut sum = Work::default();
        self.seats.values_mut().for_each(|seat| sum.add(seat.app.take_work()));
        sum
    }

    pub(super) fn intake_bytes_max(&self) -> usize {
        let most = self.seats.values().map(|seat| seat.app.intake_bytes_max());
        most.min().unwrap_or(usize::MAX)
    }
}
