//! A service that sums up what it is given: with a log, checkpoints of its own accord, and jobs that a test holds up.

use std::sync::mpsc::Receiver;

use bytes::Bytes;
use mainstay_base::codec;
use mainstay_base::service::{
    Chunks, Class, In, Io, Logged, Never, Out, Outbox, Service, Start, Wire,
};
use mainstay_base::{BootNonce, Channel, Instant, Machine};
use serde::{Deserialize, Serialize};

/// A checkpoint after so many records.
const EVERY: u64 = 8;

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

/// So many numbers are stable, here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stable(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    pub count: u64,
    pub sum: u64,
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
        self.status.count += 1;
        self.status.sum += number;
    }

    fn on_written(&mut self, io: Io) {
        self.out.tell(Stable(io.0));
        if io.0 >= self.keeps.0 + EVERY && io == self.out.last() && self.writing.is_none() {
            self.writing = Some(io.0);
            let Status { count, sum, .. } = self.status;
            let source = Box::new(One(Some(codec::encode(&(count, sum)))));
            self.out.put(Out::Checkpoint { position: io.0, alone: false, source });
        }
    }
}

impl Machine for Tally {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Instant, input: In<Self>) {
        match input {
            In::Command(Command::Add(number)) => {
                self.add(number);
                self.out.persist(Added(number));
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
            }
            In::Chunk(Some(chunk)) => {
                let (count, sum): (u64, u64) = codec::decode(&chunk).expect("its own checkpoint");
                (self.status.count, self.status.sum) = (count, sum);
                self.out.put(Out::NextChunk);
            }
            In::Chunk(None) => {
                std::mem::take(&mut self.behind).into_iter().for_each(|number| self.add(number));
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
        self.status
    }
}
