//! The server's side of a client's connection.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::command::{Action, Read, classify};
use crate::resp::{COMMAND_BYTES_MAX, CommandParser, write};

/// Most requests that are out at once.
pub(crate) const REQUESTS_MAX: usize = 1_024;
/// With so many bytes of answers waiting for the socket no command is begun (1 MiB).
const OUTPUT_BYTES_MAX: usize = 1 << 20;

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

/// A connection without its socket: bytes in, requests out, answers in, bytes out.
///
/// Answers leave in the order of the commands, whatever the order they come in. A client that pipelines sees its
/// commands executed in order: requests that are out are all reads or all writes, so a read sees the writes before it
/// and none behind it.
///
/// Bounded: 1,024 requests, one command not whole, and 1 MiB of answers or one that is larger; beyond, it asks for no
/// input.
pub struct Connection {
    parser: CommandParser,
    /// The answers to the oldest commands; `None`: not there yet. The first one has the number `first`.
    answers: VecDeque<Option<Bytes>>,
    first: u64,
    /// Of the requests that are out.
    phase: Phase,
    /// A request that waits for those of the other phase.
    next: Option<Action>,
    local_reads: bool,
    /// No command is taken any more.
    closing: bool,
    /// What came were not commands.
    failed: bool,
    output: Vec<u8>,
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
            answers: VecDeque::new(),
            first: 0,
            phase: Phase::Writes,
            next: None,
            local_reads: false,
            closing: false,
            failed: false,
            output: Vec::new(),
        }
    }

    /// Takes in what came from the client. Call it only while [`wants_input`](Self::wants_input), with at most what
    /// one read of the socket gives.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.closing {
            self.parser.feed(bytes);
        }
    }

    /// Whether the socket is to be read. False while commands that came are held back.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.closing && self.next.is_none() && self.parser.buffered() < COMMAND_BYTES_MAX
    }

    /// The next request. Drain to `None` after input, answers and [`take_output`](Self::take_output).
    #[must_use]
    pub fn poll_request(&mut self) -> Option<Request> {
        while self.has_room() {
            let action = match self.next.take() {
                Some(action) => action,
                None => self.parse()?,
            };
            let phase = match action {
                Action::Read(_) => Some(Phase::Reads),
                Action::Write(_) => Some(Phase::Writes),
                _ => None,
            };
            if let Some(phase) = phase.filter(|phase| *phase != self.phase) {
                if !self.answers.is_empty() {
                    self.next = Some(action);
                    return None;
                }
                self.phase = phase;
            }
            if let Some(request) = self.begin(action) {
                return Some(request);
            }
        }
        None
    }

    /// Answers a request, as RESP. A ticket that is not open is ignored: the answer came twice.
    pub fn answer(&mut self, ticket: u64, reply: Bytes) {
        let index = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(answer) = index.and_then(|index| self.answers.get_mut(index)) {
            answer.get_or_insert(reply);
            self.release();
        }
    }

    /// Answers [`Request::Info`].
    pub fn answer_info(&mut self, ticket: u64, text: &str) {
        let mut reply = Vec::new();
        write::bulk(&mut reply, text.as_bytes());
        self.answer(ticket, reply.into());
    }

    /// What is to be written to the socket; empty if there is nothing.
    #[must_use]
    pub fn take_output(&mut self) -> Bytes {
        std::mem::take(&mut self.output).into()
    }

    /// Whether the socket is to be closed: all is answered, the output is taken, and no more commands are read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closing && self.answers.is_empty() && self.output.is_empty()
    }

    /// Whether it ends because what came were not commands. The client is told; count it.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    fn has_room(&self) -> bool {
        !self.closing && self.answers.len() < REQUESTS_MAX && self.output.len() < OUTPUT_BYTES_MAX
    }

    fn parse(&mut self) -> Option<Action> {
        match self.parser.next_command() {
            Ok(command) => command.map(classify),
            Err(error) => {
                (self.closing, self.failed) = (true, true);
                let mut reply = Vec::new();
                write::error(&mut reply, &format!("ERR Protocol error: {error}"));
                self.push(Some(reply.into()));
                None
            }
        }
    }

    /// Takes a command up: it has a place among the answers from here on.
    fn begin(&mut self, action: Action) -> Option<Request> {
        let ticket = self.first + self.answers.len() as u64;
        let request = match action {
            Action::Write(payload) => Request::Write { ticket, payload },
            Action::Read(read) => Request::Read { ticket, read, local: self.local_reads },
            Action::Info => Request::Info { ticket },
            Action::Reply(reply) => {
                self.push(Some(reply));
                return None;
            }
            Action::LocalReads(on) => {
                self.local_reads = on;
                self.push(Some(Bytes::from_static(OK)));
                return None;
            }
            Action::Quit => {
                self.closing = true;
                self.push(Some(Bytes::from_static(OK)));
                return None;
            }
        };
        self.push(None);
        Some(request)
    }

    fn push(&mut self, answer: Option<Bytes>) {
        self.answers.push_back(answer);
        self.release();
    }

    /// Moves the answers that have their turn to the output.
    fn release(&mut self) {
        while let Some(Some(_)) = self.answers.front() {
            if let Some(reply) = self.answers.pop_front().flatten() {
                self.output.extend_from_slice(&reply);
                self.first += 1;
            }
        }
    }
}

const OK: &[u8] = b"+OK\r\n";
