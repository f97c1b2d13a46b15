//! What is not as it should be: a time source that drifts, steps and races, and a clock service that has two faces or falls silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_base::service::{In, Logged, Out, Service, Start};
use mainstay_base::{Channel, Duration, Instant, Machine, NodeId};
use mainstay_clock::sync::Message;
use mainstay_clock::sync::global::{
    Command, Config, Event, Global, Limit, Look, Looked, Past, Status,
};
use mainstay_runtime::{LocalFuture, LocalReader, TimeSource, TokioTime};

use super::Wrong;

/// When the fault begins.
pub(super) const AFTER: Duration = Duration::from_millis(1_500);
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

/// A clock service that says something else to every second node, or nothing to any, and counts that.
pub(super) struct Liar {
    inner: Global,
    nodes: Arc<[NodeId]>,
    wrong: Wrong,
    now: Instant,
    lies: Lies,
}

/// How many words were changed, or not said where others wait for them.
pub(super) type Lies = Arc<AtomicU64>;

impl Liar {
    /// What is said to one of the others.
    fn said(&self, to: NodeId, message: Message) -> Option<Message> {
        let (is_awaited, before) = (Self::is_awaited(&message), message.clone());
        let said = match self.wrong {
            Wrong::TwoFaced => Self::face(&self.nodes, to, message),
            Wrong::Silent => (self.now <= Instant::ZERO + AFTER).then_some(message),
            Wrong::Offset | Wrong::Race => Some(message),
        };
        if is_awaited && said.as_ref() != Some(&before) {
            self.lies.fetch_add(1, Ordering::Relaxed);
        }
        said
    }

    /// Whether others go by it: a question, or a voice for somebody else, is missed by nobody. The master alone says that it is one.
    fn is_awaited(message: &Message) -> bool {
        !matches!(
            message,
            Message::Request { .. }
                | Message::PeerRequest { .. }
                | Message::Candidate { .. }
                | Message::Vote { .. }
                | Message::Ahead { .. }
                | Message::Follow { .. }
        )
    }

    /// What one of the others hears: to one half the clock is ahead, to the other one behind; of a round one half hears that it is a later one, and of what is
    /// signed nothing.
    fn face(nodes: &[NodeId], to: NodeId, message: Message) -> Option<Message> {
        let place = nodes.iter().position(|node| *node == to).unwrap_or(0);
        let is_ahead = place.is_multiple_of(2);
        let lie = if is_ahead { LIE } else { -LIE };
        let later = |round: u64| if is_ahead { round.saturating_add(1) } else { round };
        Some(match message {
            Message::Signed { .. } | Message::Vouched { .. } if !is_ahead => return None,
            Message::Tick { round, value, sure, pull } => {
                Message::Tick { round, value: value + lie, sure, pull }
            }
            Message::Reply { nonce, value, error, term, held } => {
                Message::Reply { nonce, value: value + lie, error, term, held }
            }
            Message::PeerReply { nonce, value, error, rate, held } => {
                Message::PeerReply { nonce, value: value + lie, error, rate, held }
            }
            Message::Relay { round, hop, values } => {
                let values = values.into_iter().map(|it| it.map(|it| it.saturating_add(lie)));
                Message::Relay { round, hop, values: values.collect() }
            }
            Message::Init { round } => Message::Init { round: later(round) },
            Message::Echo { round } => Message::Echo { round: later(round) },
            other => other,
        })
    }
}

impl Machine for Liar {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, now: Instant, input: In<Self>) {
        let input = match input {
            In::Datagram { at, from, message } => In::Datagram { at, from, message },
            In::Command(command) => In::Command(command),
            In::Written(io) => In::Written(io),
            In::Compact { upto } => In::Compact { upto },
            In::Done(looked) => In::Done(looked),
            _ => return,
        };
        self.inner.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }

    fn end_turn(&mut self, now: Instant) {
        self.now = now;
        self.inner.end_turn(now);
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        loop {
            return Some(match self.inner.poll_output()? {
                Out::Datagram { to, message } => match self.said(to, message) {
                    Some(message) => Out::Datagram { to, message },
                    None => continue,
                },
                Out::Persist { io, record } => Out::Persist { io, record },
                Out::Event { to, event } => Out::Event { to, event },
                Out::Work(look) => Out::Work(look),
                _ => Out::Again,
            });
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }
}

impl Service for Liar {
    const CHANNEL: Channel = Global::CHANNEL;
    const NAME: &'static str = Global::NAME;
    const CLASS: mainstay_base::service::Class = Global::CLASS;
    type Message = Message;
    type Record = Limit;
    type Command = Command;
    type Event = Event;
    type Job = Look;
    type Done = Looked;
    type Past = Past;
    type Config = (Config, Wrong, Lies);
    type Status = Status;

    fn fold(past: &mut Past, logged: Logged<Limit>) {
        Global::fold(past, logged);
    }

    fn recover((config, wrong, lies): (Config, Wrong, Lies), start: Start<Past>) -> Self {
        let (nodes, now) = (Arc::clone(&config.mount.nodes), start.now);
        Self { inner: Global::recover(config, start), nodes, wrong, now, lies }
    }

    fn work(look: Look) -> Looked {
        Global::work(look)
    }

    fn status(&self) -> Status {
        self.inner.status()
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::ClusterId;

    use super::*;

    /// Each word by which an algorithm of the demo tells the time has two faces.
    #[test]
    fn what_is_said_of_time_is_another_thing_to_each() {
        let node = |name| NodeId::new(ClusterId::from_entropy(1), name);
        let nodes = ["a", "b", "c"].map(node);
        let said = [
            Message::Tick { round: 1, value: 5, sure: true, pull: None },
            Message::Reply { nonce: 1, value: 5, error: 0, term: 0, held: 0 },
            Message::Relay { round: 1, hop: 2, values: vec![Some(5), None] },
            Message::PeerReply { nonce: 1, value: 5, error: 0, rate: 0, held: 0 },
            Message::Init { round: 7 },
            Message::Echo { round: 7 },
            Message::Signed { round: 7, chain: Vec::new() },
            Message::Vouched { round: 7, of: 1, value: 5, chain: Vec::new() },
        ];
        for message in said {
            let faces = nodes.map(|to| Liar::face(&nodes, to, message.clone()));
            assert_ne!(faces[0], faces[1], "{message:?}");
            assert_eq!(faces[0], faces[2], "{message:?}");
        }
    }
}
