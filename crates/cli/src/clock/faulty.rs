//! What is not as it should be: a time source that drifts, steps and races, and a clock service with two faces.

use std::sync::Arc;

use mainstay_base::service::{In, Logged, Never, Out, Service, Start};
use mainstay_base::{Channel, Duration, Instant, Machine, NodeId};
use mainstay_clock::sync::Message;
use mainstay_clock::sync::global::{Command, Config, Event, Global, Limit, Past, Status};
use mainstay_runtime::{LocalFuture, LocalReader, TimeSource, TokioTime};

use super::Wrong;

/// When the fault begins.
const AFTER: Duration = Duration::from_millis(1_500);
/// How far a face may be off: what all algorithms have to withstand.
const LIE: i64 = 15_000_000;

/// The time of the machine, with a drift and perhaps a fault.
#[derive(Clone, Copy)]
pub(super) struct Injected {
    time: TokioTime,
    drift: i64,
    wrong: Option<Wrong>,
}

impl Injected {
    pub(super) fn new(drift: i64, wrong: Option<Wrong>) -> Self {
        Self { time: TokioTime::new(), drift, wrong }
    }

    fn local(&self, real: Instant) -> Instant {
        let nanos = i128::from(real.as_nanos());
        let drifted = nanos + nanos * i128::from(self.drift) / 1_000_000_000;
        let late = real.saturating_since(Instant::ZERO + AFTER).as_nanos() as i128;
        let more = match self.wrong {
            Some(Wrong::Offset) if late > 0 => 1_000_000_000,
            Some(Wrong::Race) => late,
            _ => 0,
        };
        Instant::from_nanos(u64::try_from(drifted + more).unwrap_or(0))
    }
}

impl TimeSource for Injected {
    fn now(&self) -> Instant {
        self.local(self.time.now())
    }

    fn sleep_until(&self, deadline: Instant) -> LocalFuture<()> {
        let it = *self;
        Box::pin(async move {
            // A second look: a clock that races or steps is there earlier than it seems.
            while it.now() < deadline {
                let left = deadline.saturating_since(it.now());
                let step = left.min(Duration::from_millis(20)).max(Duration::from_micros(50));
                it.time.sleep_until(it.time.now() + step).await;
            }
        })
    }

    fn reader(&self) -> Option<LocalReader> {
        let it = *self;
        Some(Arc::new(move || it.now()))
    }
}

/// A clock service that says something else to every second node.
pub(super) struct TwoFaced {
    inner: Global,
    nodes: Arc<[NodeId]>,
}

impl TwoFaced {
    fn face(&self, to: NodeId, message: Message) -> Message {
        let place = self.nodes.iter().position(|node| *node == to).unwrap_or(0);
        let lie = if place.is_multiple_of(2) { LIE } else { -LIE };
        match message {
            Message::Tick { round, value, sure, pull } => {
                Message::Tick { round, value: value + lie, sure, pull }
            }
            Message::Reply { nonce, value, error, term, held } => {
                Message::Reply { nonce, value: value + lie, error, term, held }
            }
            other => other,
        }
    }
}

impl Machine for TwoFaced {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, now: Instant, input: In<Self>) {
        let input = match input {
            In::Datagram { at, from, message } => In::Datagram { at, from, message },
            In::Command(command) => In::Command(command),
            In::Written(io) => In::Written(io),
            In::Compact { upto } => In::Compact { upto },
            _ => return,
        };
        self.inner.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }

    fn end_turn(&mut self, now: Instant) {
        self.inner.end_turn(now);
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        Some(match self.inner.poll_output()? {
            Out::Datagram { to, message } => Out::Datagram { to, message: self.face(to, message) },
            Out::Persist { io, record } => Out::Persist { io, record },
            Out::Event { to, event } => Out::Event { to, event },
            _ => Out::Again,
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }
}

impl Service for TwoFaced {
    const CHANNEL: Channel = Global::CHANNEL;
    const NAME: &'static str = Global::NAME;
    const CLASS: mainstay_base::service::Class = Global::CLASS;
    type Message = Message;
    type Record = Limit;
    type Command = Command;
    type Event = Event;
    type Job = Never;
    type Done = Never;
    type Past = Past;
    type Config = Config;
    type Status = Status;

    fn fold(past: &mut Past, logged: Logged<Limit>) {
        Global::fold(past, logged);
    }

    fn recover(config: Config, start: Start<Past>) -> Self {
        Self { nodes: Arc::clone(&config.mount.nodes), inner: Global::recover(config, start) }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn status(&self) -> Status {
        self.inner.status()
    }
}
