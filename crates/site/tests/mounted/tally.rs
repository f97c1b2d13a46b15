//! A service that sums up what it is given: with a log, checkpoints of its own accord, and jobs that a test holds up.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use mainstay_base::codec;
use mainstay_base::service::{
    Chunks, Class, In, Io, Logged, Never, Out, Outbox, Service, Start, Wire,
};
use mainstay_base::{BootNonce, Channel, Instant, Machine};
use serde::{Deserialize, Serialize};

/// A checkpoint after so many records.
pub const EVERY: u64 = 8;

#[derive(Debug, Serialize, Deserialize)]
pub struct Added(u64);
impl Wire for Added {}

pub enum Command {
    Add(u64),
    /// To be done when the test says so.
    Job(Receiver<()>),
    /// A job that panics.
    Panic,
}

/// A number is stable, here; it is the so-manieth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stable {
    pub count: u64,
    pub number: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// All numbers, in order.
    pub numbers: Vec<u64>,
    /// The boot began from a checkpoint as of this record.
    pub from: Option<u64>,
    /// The last checkpoint of this boot.
    pub checkpoint: u64,
    /// Jobs of this boot that are done, and those of another one.
    pub done: (u64, u64),
}

pub struct Tally {
    nonce: BootNonce,
    status: Status,
    /// What the log has behind the checkpoint.
    behind: Vec<u64>,
    ready: bool,
    /// It has come before all was read.
    early: Vec<u64>,
    /// Not stable yet.
    unstable: VecDeque<(Io, u64)>,
    writing: Option<u64>,
    keeps: Io,
    out: Outbox<Self>,
}

struct One(Option<Bytes>);

impl Chunks for One {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
        Ok(self.0.take())
    }
}

impl Tally {
    fn add(&mut self, number: u64) {
        self.status.numbers.push(number);
        let io = self.out.persist(Added(number));
        self.unstable.push_back((io, number));
    }

    fn on_written(&mut self, upto: Io) {
        while let Some((io, number)) = self.unstable.front().copied().filter(|it| it.0 <= upto) {
            self.unstable.pop_front();
            self.out.tell(Stable { count: io.0, number });
        }
        self.checkpoint_if_due();
    }

    /// One at a time, of what is stable: in the end the last one is of at least all but [`EVERY`].
    fn checkpoint_if_due(&mut self) {
        let last = self.out.last().0;
        let is_due = last >= self.keeps.0 + EVERY && self.unstable.is_empty();
        if is_due && self.writing.is_none() {
            self.writing = Some(last);
            let source = Box::new(One(Some(codec::encode(&self.status.numbers))));
            self.out.put(Out::Checkpoint { position: last, alone: false, source });
        }
    }
}

impl Machine for Tally {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        match input {
            In::Command(Command::Add(number)) => {
                if self.ready {
                    self.add(number)
                } else {
                    self.early.push(number)
                }
            }
            In::Command(Command::Job(gate)) => {
                self.out.put(Out::Work((self.nonce, Some(gate))));
            }
            In::Command(Command::Panic) => self.out.put(Out::Work((self.nonce, None))),
            In::Done(nonce) if nonce == self.nonce => self.status.done.0 += 1,
            In::Done(_) => self.status.done.1 += 1,
            In::Written(io) => self.on_written(io),
            In::Checkpointed { position, written } => {
                assert_eq!(self.writing.take(), Some(position), "its own checkpoint");
                assert!(written);
                self.keeps = Io(position + 1);
                self.status.checkpoint = position;
                self.checkpoint_if_due();
            }
            In::Chunk(Some(chunk)) => {
                self.status.numbers = codec::decode(&chunk).expect("its own checkpoint");
                self.out.put(Out::NextChunk);
            }
            In::Chunk(None) => {
                self.status.numbers.append(&mut self.behind);
                self.ready = true;
                std::mem::take(&mut self.early).into_iter().for_each(|number| self.add(number));
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}
    fn end_turn(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl Service for Tally {
    const CHANNEL: Channel = Channel(0x4010);
    const NAME: &'static str = "tally";
    const CLASS: Class = Class::Calls;
    type Message = Never;
    type Record = Added;
    type Command = Command;
    type Event = Stable;
    type Job = (BootNonce, Option<Receiver<()>>);
    type Done = BootNonce;
    type Past = Vec<(Io, u64)>;
    type Config = ();
    type Status = Status;

    fn fold(past: &mut Self::Past, logged: Logged<Added>) {
        if let Logged::Record(io, Added(number)) = logged {
            past.push((io, number));
        }
    }

    fn recover((): (), start: Start<Self::Past>) -> Self {
        let position = start.checkpoint.unwrap_or(0);
        let last = start.past.last().map_or(Io(position), |(io, _)| (*io).max(Io(position)));
        let behind = start.past.into_iter().filter(|(io, _)| io.0 > position);
        let mut tally = Self {
            nonce: start.me.nonce,
            status: Status { from: start.checkpoint, ..Status::default() },
            behind: behind.map(|(_, number)| number).collect(),
            ready: false,
            early: Vec::new(),
            unstable: VecDeque::new(),
            writing: None,
            keeps: Io(position + 1),
            out: Outbox::new(last),
        };
        match start.checkpoint {
            Some(_) => tally.out.put(Out::NextChunk),
            None => tally.handle(start.now, In::Chunk(None)),
        }
        tally
    }

    fn work((nonce, gate): Self::Job) -> BootNonce {
        // The test may have ended.
        let _ = gate.expect("it is told to panic").recv();
        nonce
    }

    fn keeps(&self) -> Io {
        self.keeps
    }

    fn status(&self) -> Status {
        self.status.clone()
    }
}
