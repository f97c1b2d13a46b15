//! A service that sends as much as it may to all others, and demands that streams have no hole.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_base::service::{
    Class, In, Io, Logged, Never, Out, Outbox, PeerChange, Service, Start, Wire,
};
use mainstay_base::{BootId, Channel, Duration, Instant, Machine};
use serde::{Deserialize, Serialize};

const EVERY: Duration = Duration::from_millis(2);
const BYTES: usize = 12_000;

#[derive(Debug, Serialize, Deserialize)]
pub struct Numbered {
    number: u64,
    #[serde(skip)]
    body: Bytes,
}

impl Wire for Numbered {
    fn payload(&self) -> Bytes {
        self.body.clone()
    }

    fn with_payload(mut self, payload: Bytes) -> Option<Self> {
        self.body = payload;
        Some(self)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Tick;

impl Wire for Tick {}

#[derive(Default)]
struct Stream {
    up: bool,
    full: bool,
    sent: u64,
    got: u64,
}

/// What a node of it has seen.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    pub sent: u64,
    pub got: u64,
    pub refused: u64,
    pub views: u64,
    /// Records of former boots.
    pub past: u64,
    pub written: u64,
}

pub struct Flood {
    out: Outbox<Self>,
    next: Instant,
    streams: BTreeMap<BootId, Stream>,
    view: u64,
    seen: Seen,
    wrong: Option<String>,
}

impl Flood {
    fn flood(&mut self, now: Instant) {
        self.next = now + EVERY;
        for (boot, stream) in self.streams.iter_mut().filter(|(_, it)| it.up && !it.full) {
            stream.sent += 1;
            self.seen.sent += 1;
            let body = Bytes::from(vec![stream.sent as u8; BYTES]);
            self.out.send(*boot, Numbered { number: stream.sent, body });
        }
        if self.seen.sent.is_multiple_of(50) {
            self.out.persist(Tick);
        }
    }

    fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }
}

impl Machine for Flood {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        match input {
            In::Peer(PeerChange::Up { boot }) => self.streams.entry(boot).or_default().up = true,
            In::Peer(PeerChange::Down { boot }) => self.streams.entry(boot).or_default().up = false,
            In::Peer(PeerChange::Ended { boot } | PeerChange::Replaced { old: boot, .. }) => {
                self.streams.remove(&boot);
            }
            In::Message { from, message, .. } => {
                let stream = self.streams.entry(from).or_default();
                let expected = stream.got + 1;
                stream.got = message.number;
                self.seen.got += 1;
                self.demand(message.number == expected, || {
                    format!("{} came in place of {expected}", message.number)
                });
                let is_whole = message.body.len() == BYTES
                    && message.body.iter().all(|byte| *byte == message.number as u8);
                self.demand(is_whole, || "a message is not what was sent".to_owned());
            }
            In::Full { to, message } => {
                let stream = self.streams.entry(to).or_default();
                stream.full = true;
                // It was not sent: the next one has its number.
                stream.sent = stream.sent.min(message.number - 1);
                self.seen.refused += 1;
            }
            In::Room { to } => self.streams.entry(to).or_default().full = false,
            In::View(view) => {
                self.demand(view.id.number > self.view, || "views go back".to_owned());
                self.view = view.id.number;
                self.seen.views += 1;
            }
            In::Written(io) => {
                self.demand(io.0 > self.seen.written, || "written twice".to_owned());
                self.seen.written = io.0;
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.flood(now);
    }

    fn end_turn(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.next)
    }
}

impl Service for Flood {
    const CHANNEL: Channel = Channel(0x4003);
    const NAME: &'static str = "flood";
    const CLASS: Class = Class::Bulk;
    type Message = Numbered;
    type Record = Tick;
    type Command = Never;
    type Event = Never;
    type Job = Never;
    type Done = Never;
    type Past = Io;
    type Config = ();
    type Status = Seen;

    fn fold(past: &mut Io, logged: Logged<Tick>) {
        if let Logged::Record(io, Tick) = logged {
            assert_eq!(io, past.next(), "records have no gap");
            *past = io;
        }
    }

    fn recover((): (), start: Start<Io>) -> Self {
        Self {
            out: Outbox::new(start.past),
            next: start.now + EVERY,
            streams: BTreeMap::new(),
            view: 0,
            seen: Seen { past: start.past.0, written: start.past.0, ..Seen::default() },
            wrong: None,
        }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn keeps(&self) -> Io {
        Io(1)
    }

    fn status(&self) -> Seen {
        self.seen
    }

    fn check_invariants(&self) {
        assert_eq!(self.wrong, None);
    }
}
