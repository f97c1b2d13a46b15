//! A service mounted beside the group: it streams to one peer at a fixed rate, as fast as it can, or does nothing.

use bytes::Bytes;
use mainstay_base::service::{
    Class, In, Logged, Never, Out, Outbox, PeerChange, Service, Start, Wire,
};
use mainstay_base::{BootId, Channel, Duration, Instant, Machine};
use serde::{Deserialize, Serialize};

/// Bytes of a message: what goes into one frame.
const BODY: usize = 60_000;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    #[serde(skip)]
    body: Bytes,
}

impl Wire for Piece {
    fn payload(&self) -> Bytes {
        self.body.clone()
    }

    fn with_payload(self, body: Bytes) -> Option<Self> {
        Some(Self { body })
    }
}

/// What is streamed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Bytes a second, on average; 0: nothing, `u64::MAX`: what the link takes.
    pub rate: u64,
    /// Messages at once.
    pub burst: u32,
}

/// Streams to the first peer that is up. `BELOW` the groups, as bulk is; else in their class, for a test that shows what that costs.
pub(super) struct Bulk<const BELOW: bool = true> {
    load: Load,
    to: Option<BootId>,
    full: bool,
    due: Option<Instant>,
    body: Bytes,
    received: u64,
    out: Outbox<Self>,
}

impl<const BELOW: bool> Bulk<BELOW> {
    fn pause(&self) -> Duration {
        if self.load.rate == u64::MAX {
            return Duration::from_micros(1);
        }
        let bytes = BODY as u64 * u64::from(self.load.burst);
        Duration::from_nanos(bytes * 1_000_000_000 / self.load.rate.max(1))
    }
}

impl<const BELOW: bool> Machine for Bulk<BELOW> {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, now: Instant, input: In<Self>) {
        match input {
            In::Peer(PeerChange::Up { boot }) if self.load.rate > 0 && self.to.is_none() => {
                self.to = Some(boot);
                self.due = Some(now);
            }
            In::Message { message, .. } => self.received += message.body.len() as u64,
            In::Full { .. } => {
                self.full = true;
                if self.load.rate == u64::MAX {
                    self.due = None;
                }
            }
            In::Room { .. } => {
                self.full = false;
                self.due.get_or_insert(now);
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, now: Instant) {
        let Some(to) = self.to else { return };
        while let Some(due) = self.due.filter(|due| *due <= now) {
            // What the link does not take at that rate is not sent later.
            for _ in 0..if self.full { 0 } else { self.load.burst } {
                self.out.send(to, Piece { body: self.body.clone() });
            }
            let from = if self.load.rate == u64::MAX { now } else { due };
            self.due = Some(from + self.pause());
        }
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

impl<const BELOW: bool> Service for Bulk<BELOW> {
    const CHANNEL: Channel = Channel(0x4010 + BELOW as u16);
    const NAME: &'static str = "bulk";
    const CLASS: Class = if BELOW { Class::Bulk } else { Class::Groups };
    type Message = Piece;
    type Record = Never;
    type Command = Never;
    type Event = Never;
    type Job = Never;
    type Done = Never;
    type Past = ();
    type Config = Load;
    /// Bytes received.
    type Status = u64;

    fn fold((): &mut (), _: Logged<Never>) {}

    fn recover(load: Load, _: Start<()>) -> Self {
        let body = Bytes::from(vec![7; BODY]);
        Self { load, to: None, full: false, due: None, body, received: 0, out: Outbox::default() }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn status(&self) -> u64 {
        self.received
    }
}
