//! A service mounted beside the group: it streams to one peer at a fixed rate, or does nothing.

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

/// Streams `rate` bytes a second to the first peer that is up; none if that is 0.
pub(super) struct Bulk {
    rate: u64,
    to: Option<BootId>,
    full: bool,
    due: Option<Instant>,
    body: Bytes,
    out: Outbox<Self>,
}

impl Bulk {
    fn pause(&self) -> Duration {
        Duration::from_nanos(BODY as u64 * 1_000_000_000 / self.rate.max(1))
    }
}

impl Machine for Bulk {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, now: Instant, input: In<Self>) {
        match input {
            In::Peer(PeerChange::Up { boot }) if self.rate > 0 && self.to.is_none() => {
                self.to = Some(boot);
                self.due = Some(now);
            }
            In::Full { .. } => self.full = true,
            In::Room { .. } => self.full = false,
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn end_turn(&mut self, now: Instant) {
        let Some(to) = self.to else { return };
        while let Some(due) = self.due.filter(|due| *due <= now) {
            // What the link does not take at that rate is not sent later.
            if !self.full {
                self.out.send(to, Piece { body: self.body.clone() });
            }
            self.due = Some(due + self.pause());
        }
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

impl Service for Bulk {
    const CHANNEL: Channel = Channel(0x4010);
    const NAME: &'static str = "bulk";
    const CLASS: Class = Class::Bulk;
    type Message = Piece;
    type Record = Never;
    type Command = Never;
    type Event = Never;
    type Job = Never;
    type Done = Never;
    type Past = ();
    /// Bytes a second.
    type Config = u64;
    type Status = ();

    fn fold((): &mut (), _: Logged<Never>) {}

    fn recover(rate: u64, _: Start<()>) -> Self {
        let body = Bytes::from(vec![7; BODY]);
        Self { rate, to: None, full: false, due: None, body, out: Outbox::default() }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn status(&self) {}
}
