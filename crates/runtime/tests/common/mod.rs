//! A machine that records its turns, and a performer that writes them down.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use mainstay_base::{Instant, Machine};
use mainstay_runtime::{LocalFuture, Perform, Port};

/// What the tests say to a [`Probe`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Counts as its number.
    Item(u64),
    /// Counts as its number, and weighs so many bytes.
    Heavy(u64, usize),
    /// Sets the deadline.
    Arm(Option<Instant>),
    /// Panics there from now on.
    Panic(Place),
    /// Puts out `Echo`, upon which the performer feeds `Item` back.
    Echo(u64),
}

/// Where a [`Probe`] can be made to panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Handle,
    Timeout,
    EndTurn,
    PollOutput,
    PollTimeout,
    Perform,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// The items of a turn.
    Turn(Vec<u64>),
    Echo(u64),
    Tick(Instant),
    Bang,
}

#[derive(Default)]
pub(crate) struct Probe {
    items: Vec<u64>,
    outputs: VecDeque<Output>,
    deadline: Option<Instant>,
    panics: Option<Place>,
    draining: bool,
}

impl Probe {
    fn pass(&self, place: Place) {
        assert!(self.panics != Some(place), "told to panic at {place:?}");
    }
}

impl Machine for Probe {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, _now: Instant, input: Input) {
        assert!(!self.draining, "the host must not handle inside a drain");
        match input {
            Input::Item(item) | Input::Heavy(item, _) => self.items.push(item),
            Input::Arm(deadline) => self.deadline = deadline,
            Input::Echo(item) => self.outputs.push_back(Output::Echo(item)),
            Input::Panic(Place::Perform) => self.outputs.push_back(Output::Bang),
            Input::Panic(place) => self.panics = Some(place),
        }
        self.pass(Place::Handle);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.pass(Place::Timeout);
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.outputs.push_back(Output::Tick(now));
        }
    }

    fn end_turn(&mut self, _now: Instant) {
        self.pass(Place::EndTurn);
        self.draining = true;
        if !self.items.is_empty() {
            self.outputs.push_back(Output::Turn(std::mem::take(&mut self.items)));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.pass(Place::PollOutput);
        let output = self.outputs.pop_front();
        self.draining = output.is_some();
        output
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.pass(Place::PollTimeout);
        self.deadline
    }
}

/// What a [`Writer`] saw.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) outputs: Vec<Output>,
    /// The value of `others` at each output.
    pub(crate) others: Vec<u64>,
    /// Counted by another task of the thread.
    pub(crate) others_ran: u64,
    pub(crate) closing_at: Option<Instant>,
    /// The first turn has begun.
    pub(crate) started: bool,
}

impl Log {
    /// The items of each turn.
    pub(crate) fn turns(&self) -> Vec<&[u64]> {
        self.outputs
            .iter()
            .filter_map(|output| match output {
                Output::Turn(items) => Some(&items[..]),
                _ => None,
            })
            .collect()
    }

    /// All items, in order.
    pub(crate) fn items(&self) -> Vec<u64> {
        self.turns().concat()
    }

    pub(crate) fn ticks(&self) -> Vec<Instant> {
        self.outputs
            .iter()
            .filter_map(|output| match output {
                Output::Tick(now) => Some(*now),
                _ => None,
            })
            .collect()
    }
}

/// Writes outputs down, and closes after `closes_after`.
pub(crate) struct Writer {
    pub(crate) log: Rc<RefCell<Log>>,
    pub(crate) closes_after: Duration,
}

impl Perform<Probe> for Writer {
    fn started(&mut self, _port: &mut Port<'_, Probe>) {
        self.log.borrow_mut().started = true;
    }

    fn perform(&mut self, output: Output, port: &mut Port<'_, Probe>) {
        match &output {
            Output::Bang => panic!("told to panic at Perform"),
            Output::Echo(item) => port.feed(Input::Item(*item)),
            _ => {}
        }
        let mut log = self.log.borrow_mut();
        log.outputs.push(output);
        let others = log.others_ran;
        log.others.push(others);
    }

    fn closing(&mut self, deadline: Instant) -> LocalFuture<()> {
        self.log.borrow_mut().closing_at = Some(deadline);
        Box::pin(tokio::time::sleep(self.closes_after))
    }

    fn weigh(input: &Input) -> usize {
        match input {
            Input::Heavy(_, bytes) => *bytes,
            _ => 1,
        }
    }
}
