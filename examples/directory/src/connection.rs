//! The server's side of a client's connection.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};

use crate::answer::{Answer, Output};
use crate::command::{Action, Read, classify};
use crate::resp::{COMMAND_BYTES_MAX, CommandParser, ProtocolError, write};

/// Most requests that are out at once.
pub(crate) const REQUESTS_MAX: usize = 1_024;
/// With so many keys and values in the requests that are out no command is begun: what a client has evaluated in one go takes a few
/// milliseconds at most.
const KEYS_OUT_MAX: usize = 2_048;
/// With so many bytes of requests that are out no command is begun (1 MiB).
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of answers that are written, waiting for their turn, or expected (1 MiB).
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What a value in an answer is expected to take at first, and at least.
const VALUE_BYTES_FIRST: usize = 1 << 10;
const VALUE_BYTES_MIN: usize = 128;

/// What the host does for a connection; the ticket goes back with the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Cast to the group. Writes of a connection are cast in the order of their requests.
    Write {
        /// Names the request in its connection.
        ticket: u64,
        /// The payload of the message.
        payload: Bytes,
    },
    /// Evaluate on the state.
    Read {
        /// Names the request in its connection.
        ticket: u64,
        /// What to read.
        read: Read,
        /// The client asked for local reads: no probe, the state as it is, perhaps an old one.
        local: bool,
        /// Most bytes of the answer. A longer one is not given; instead the read is
        /// [put back](Connection::put_back) and comes again when there is room.
        room: usize,
    },
    /// Give the text of INFO to [`Connection::answer_info`].
    Info {
        /// Names the request in its connection.
        ticket: u64,
    },
}

/// Which requests may be out together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reads,
    Writes,
}

/// A command that was taken up.
struct Slot {
    /// Not there yet: `None`.
    answer: Option<Answer>,
    /// What the request counts for while it is out.
    keys: usize,
    bytes: usize,
    /// Room that is kept for its answer.
    expected: usize,
}

/// A command that was parsed.
struct Next {
    action: Action,
    keys: usize,
    bytes: usize,
}

/// A read whose answer did not fit.
struct PutBack {
    ticket: u64,
    read: Read,
    local: bool,
    size: usize,
}

/// A connection without its socket: bytes in, requests out, answers in, bytes out.
///
/// Answers leave in the order of the commands, whatever the order they come in. A client that pipelines sees its
/// commands executed in order: requests that are out are all reads or all writes, so a read sees the writes before it
/// and none behind it.
///
/// Bounded. Requests that are out: 1,024; 2,048 keys and values and 1 MiB, and one command more. Answers: 1 MiB, or one that is
/// longer, over those that wait for the socket, those that wait for their turn, and those that are on their way; an
/// answer that is longer than the rest of that is evaluated again when there is room, which a client sees as a read that
/// took longer. And 1 MiB of commands that came and are not begun. Beyond, it asks for no input.
pub struct Connection {
    parser: CommandParser,
    /// The oldest commands without an answer in the output. The first one has the number `first`.
    slots: VecDeque<Slot>,
    first: u64,
    /// Of the requests that are out.
    phase: Phase,
    keys_out: usize,
    bytes_out: usize,
    /// Bytes of answers in `slots`, there or expected.
    answer_bytes: usize,
    /// Expected of a value in an answer: follows what came.
    value_bytes: usize,
    /// By ascending ticket.
    put_back: VecDeque<PutBack>,
    /// A command that waits for requests of the other phase, or for room.
    next: Option<Next>,
    local_reads: bool,
    /// No command is taken any more.
    closing: bool,
    /// What came were not commands.
    failed: Option<ProtocolError>,
    output: Output,
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    /// A connection just opened.
    #[must_use]
    pub fn new() -> Self {
        Self {
            parser: CommandParser::new(),
            slots: VecDeque::new(),
            first: 0,
            phase: Phase::Writes,
            keys_out: 0,
            bytes_out: 0,
            answer_bytes: 0,
            value_bytes: VALUE_BYTES_FIRST,
            put_back: VecDeque::new(),
            next: None,
            local_reads: false,
            closing: false,
            failed: None,
            output: Output::default(),
        }
    }

    /// A connection just opened that takes no inline commands.
    #[must_use]
    pub fn without_inline() -> Self {
        Self { parser: CommandParser::without_inline(), ..Self::new() }
    }

    /// Takes in what came from the client. Call it only while [`wants_input`](Self::wants_input), with at most what
    /// one read of the socket gives. Answers by how many bytes the memory for what came has grown.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        if self.closing { 0 } else { self.parser.feed(bytes) }
    }

    /// Whether the socket is to be read. False while commands that came are held back.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.closing && self.next.is_none() && self.parser.buffered() < COMMAND_BYTES_MAX
    }

    /// The next request. Drain to `None` after input, answers and when output was taken.
    #[must_use]
    pub fn poll_request(&mut self) -> Option<Request> {
        if !self.put_back.is_empty() {
            return self.again();
        }
        while self.has_room() {
            let next = match self.next.take() {
                Some(next) => next,
                None => self.parse()?,
            };
            let phase = match next.action {
                Action::Read(_) => Some(Phase::Reads),
                Action::Write(_) => Some(Phase::Writes),
                _ => None,
            };
            let waits = phase.is_some_and(|phase| phase != self.phase) && !self.slots.is_empty();
            let expected = self.expected(&next.action);
            if waits || self.unwritten() > 0 && self.unwritten() + expected > ANSWER_BYTES_MAX {
                self.next = Some(next);
                return None;
            }
            self.phase = phase.unwrap_or(self.phase);
            if let Some(request) = self.begin(next, expected) {
                return Some(request);
            }
        }
        None
    }

    /// Answers a request, as RESP. A ticket that is not open is ignored: the answer came twice.
    pub fn answer(&mut self, ticket: u64, reply: impl Into<Answer>) {
        let Some(slot) = open(&mut self.slots, self.first, ticket) else { return };
        let answer = reply.into();
        let size = answer.len();
        (self.keys_out, self.bytes_out) = (self.keys_out - slot.keys, self.bytes_out - slot.bytes);
        self.answer_bytes = self.answer_bytes - slot.expected + size;
        if self.phase == Phase::Reads {
            let value = size / slot.keys.max(1);
            self.value_bytes =
                (value + value / 4).max(self.value_bytes / 8 * 7).max(VALUE_BYTES_MIN);
        }
        slot.answer = Some(answer);
        self.release();
    }

    /// The answer to a read would be `size` bytes long, more than its room. The read comes again when there is room, at
    /// the latest when it is the oldest one and all before it is written.
    pub fn put_back(&mut self, ticket: u64, read: Read, local: bool, size: usize) {
        let Some(slot) = open(&mut self.slots, self.first, ticket) else { return };
        self.answer_bytes -= std::mem::take(&mut slot.expected);
        self.value_bytes = self.value_bytes.max(size / slot.keys.max(1));
        let at = self.put_back.partition_point(|other| other.ticket < ticket);
        self.put_back.insert(at, PutBack { ticket, read, local, size });
    }

    /// Answers [`Request::Info`].
    pub fn answer_info(&mut self, ticket: u64, text: &str) {
        let mut reply = Vec::new();
        write::bulk(&mut reply, text.as_bytes());
        self.answer(ticket, Bytes::from(reply));
    }

    /// What is to be written to the socket; advance it by what was.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// All that is to be written to the socket, in one piece; empty if there is nothing.
    #[must_use]
    pub fn take_output(&mut self) -> Bytes {
        self.output.copy_to_bytes(self.output.remaining())
    }

    /// Whether the socket is to be closed: all is answered, the output is taken, and no more commands are read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closing && self.slots.is_empty() && !self.output.has_remaining()
    }

    /// Why it ends, if what came were not commands. Nothing that followed is executed. The client is told, but for one
    /// that spoke HTTP; count it.
    #[must_use]
    pub fn failure(&self) -> Option<ProtocolError> {
        self.failed
    }

    /// Bytes of answers that are there or expected.
    fn unwritten(&self) -> usize {
        self.output.remaining() + self.answer_bytes
    }

    fn has_room(&self) -> bool {
        !self.closing
            && self.slots.len() < REQUESTS_MAX
            && self.keys_out < KEYS_OUT_MAX
            && self.bytes_out < REQUEST_BYTES_MAX
            && self.unwritten() < ANSWER_BYTES_MAX
    }

    /// The room that is kept for the answer. Of what is no read the answers are short, or there at once.
    fn expected(&self, action: &Action) -> usize {
        match action {
            Action::Read(read) => read.answer_bytes(self.value_bytes).min(ANSWER_BYTES_MAX),
            _ => 0,
        }
    }

    /// The oldest read that was put back, if there is room for it now.
    fn again(&mut self) -> Option<Request> {
        let oldest = self.put_back.front()?;
        let alone = oldest.ticket == self.first && !self.output.has_remaining();
        if !alone && self.unwritten() + oldest.size > ANSWER_BYTES_MAX {
            return None;
        }
        let PutBack { ticket, read, local, size } = self.put_back.pop_front()?;
        if let Some(slot) = open(&mut self.slots, self.first, ticket) {
            slot.expected = size;
            self.answer_bytes += size;
        }
        let room = if alone { usize::MAX } else { size };
        Some(Request::Read { ticket, read, local, room })
    }

    fn parse(&mut self) -> Option<Next> {
        match self.parser.next_command() {
            Ok(command) => command.map(|command| {
                let (keys, bytes) = (command.len() - 1, command.size());
                Next { action: classify(command), keys, bytes }
            }),
            Err(error) => {
                (self.closing, self.failed) = (true, Some(error));
                if error != ProtocolError::Http {
                    let mut reply = Vec::new();
                    write::error(&mut reply, &format!("ERR Protocol error: {error}"));
                    self.push(Bytes::from(reply));
                }
                None
            }
        }
    }

    /// Takes a command up: it has a place among the answers from here on.
    fn begin(&mut self, next: Next, expected: usize) -> Option<Request> {
        let ticket = self.first + self.slots.len() as u64;
        let Next { action, keys, bytes } = next;
        let request = match action {
            Action::Write(payload) => Request::Write { ticket, payload },
            Action::Read(read) => {
                let room = if self.unwritten() == 0 { usize::MAX } else { expected };
                Request::Read { ticket, read, local: self.local_reads, room }
            }
            Action::Info => Request::Info { ticket },
            Action::Reply(reply) => {
                self.push(reply);
                return None;
            }
            Action::LocalReads(on) => {
                self.local_reads = on;
                self.push(Bytes::from_static(OK));
                return None;
            }
            Action::Quit => {
                self.closing = true;
                self.push(Bytes::from_static(OK));
                return None;
            }
        };
        self.slots.push_back(Slot { answer: None, keys, bytes, expected });
        self.keys_out += keys;
        self.bytes_out += bytes;
        self.answer_bytes += expected;
        Some(request)
    }

    /// Answers a command for which nobody else is needed.
    fn push(&mut self, reply: Bytes) {
        self.answer_bytes += reply.len();
        self.slots.push_back(Slot { answer: Some(reply.into()), keys: 0, bytes: 0, expected: 0 });
        self.release();
    }

    /// Moves the answers that have their turn to the output.
    fn release(&mut self) {
        while let Some(answer) = self.slots.front_mut().and_then(|slot| slot.answer.take()) {
            self.slots.pop_front();
            self.first += 1;
            self.answer_bytes -= answer.len();
            self.output.push(answer);
        }
    }
}

/// The slot of a request that is out.
fn open(slots: &mut VecDeque<Slot>, first: u64, ticket: u64) -> Option<&mut Slot> {
    let index = usize::try_from(ticket.checked_sub(first)?).ok()?;
    slots.get_mut(index).filter(|slot| slot.answer.is_none())
}

const OK: &[u8] = b"+OK\r\n";
