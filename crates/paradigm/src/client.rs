//! The client of a replicated state machine, for processes outside the group: a pure machine.
//!
//! A [`Client`] keeps one connection at a time, to one of the nodes it was told, and goes on with another one when that
//! fails or cannot serve. Commands are numbered in a session; a command whose answer does not come is sent again under
//! the same session and number, so that it is executed once however often it is sent (PD-22). By its deadline each call
//! has one [`Outcome`]:
//!
//! - `Done`: it was executed once (a read: answered), and this is the answer.
//! - `NotDone`: it was never sent, or every try of it was answered with *not executed*. Nothing of it is under way.
//! - `Unknown`: at least one try may have been executed, or may still be.
//!
//! Calls that are under way at the same time are in no order; who needs one waits for the first outcome. The messages and
//! the argument are in `docs/protocols/client.md` of the repository.

mod calls;
mod config;
mod endpoints;
#[cfg(feature = "test-util")]
mod fault;
pub mod message;
mod outcome;
mod tries;

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher as _;

use bytes::Bytes;
use mainstay_base::{ConnId, Fingerprinter, Frame, Instant, Machine, NodeId, Rng};

use crate::envelope::Session;
use calls::{Ask, Calls, Numbers};
use endpoints::Endpoints;
use message::{PAYLOAD_BYTES_MAX, Request};
use tries::{Link, Try};

pub use config::{Config, ConfigError};
#[cfg(feature = "test-util")]
pub use fault::Fault;
pub use outcome::{Failed, NotDone, Outcome};

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Somebody wants a command executed.
    Execute {
        /// Comes back with the outcome.
        token: u64,
        /// The user's bytes.
        command: Bytes,
        /// When the outcome is due.
        deadline: Instant,
    },
    /// Somebody wants a query answered.
    Read {
        /// Comes back with the outcome.
        token: u64,
        /// The user's bytes.
        query: Bytes,
        /// From the state as it is at some node, perhaps an old one; otherwise linearisable.
        local: bool,
        /// When the outcome is due.
        deadline: Instant,
    },
    /// No calls follow. Those under way get their outcomes, the session is closed, then comes [`Output::Ended`].
    Close,
    /// A dial succeeded.
    Connected {
        /// Which.
        conn: ConnId,
    },
    /// A frame came, checked by its checksum.
    Received {
        /// On which connection.
        conn: ConnId,
        /// The frame.
        frame: Frame,
    },
    /// A dial failed, or a connection is gone.
    Disconnected {
        /// Which.
        conn: ConnId,
    },
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Open a connection; answered by `Connected` or `Disconnected`.
    Dial {
        /// Its name, never used again.
        conn: ConnId,
        /// To this node.
        node: NodeId,
    },
    /// Write a frame.
    Transmit {
        /// On this connection.
        conn: ConnId,
        /// The frame.
        frame: Frame,
    },
    /// Close a connection, or give up a dial; what it says from here on is passed over.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// A call has its outcome; once for each call.
    Answer {
        /// The caller's.
        token: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// Closed: nothing follows.
    Ended,
}

/// What a client has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Connections on which a node said welcome.
    pub connected: u64,
    /// Connections given up: broken, silent, or to a node that cannot serve.
    pub left: u64,
    /// Tries sent.
    pub tries: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Frames that are no messages of this protocol, or contradict it.
    pub malformed: u64,
}

/// The machine. The host dials, writes and closes; the client never waits for it.
#[derive(Clone, Debug)]
pub struct Client {
    config: Config,
    rng: Rng,
    /// What session ids are drawn from.
    entropy: u128,
    endpoints: Endpoints,
    link: Link,
    /// Tries without an answer on the present connection, by ticket.
    tries: BTreeMap<u64, (Try, Instant)>,
    ticket: u64,
    conn: u64,
    /// The connection is of no more use: the turn ends it, so that all that came in the turn is taken in.
    leaving: bool,
    session: Option<Session>,
    numbers: Numbers,
    /// When the session was used last, and when the last turn sent what was due.
    used: Instant,
    sent_at: Instant,
    calls: Calls,
    closing: Option<Closing>,
    outputs: VecDeque<Output>,
    stats: Stats,
    #[cfg(feature = "test-util")]
    fault: Option<Fault>,
}

/// How far the client has got with closing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    Asked,
    SessionSent,
    Over,
}

impl Client {
    /// A client that begins to connect in its first turn. `entropy` makes the ids of its sessions, 128 bits that nobody
    /// else has; `seed` fixes the order of nodes and the jitter.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: Config, entropy: u128, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rng = Rng::new(seed).stream("client");
        Ok(Self {
            endpoints: Endpoints::new(&config.nodes, &mut rng),
            config,
            rng,
            entropy,
            link: Link::None,
            tries: BTreeMap::new(),
            ticket: 0,
            conn: 0,
            leaving: false,
            session: None,
            numbers: Numbers::default(),
            used: Instant::ZERO,
            sent_at: Instant::ZERO,
            calls: Calls::default(),
            closing: None,
            outputs: VecDeque::new(),
            stats: Stats::default(),
            #[cfg(feature = "test-util")]
            fault: None,
        })
    }

    /// The node that it is connected to and that serves.
    #[must_use]
    pub fn connected_to(&self) -> Option<NodeId> {
        match self.link {
            Link::Ready { node, .. } => Some(node),
            _ => None,
        }
    }

    /// The newest view that it was told: its number and members.
    #[must_use]
    pub fn view(&self) -> (u64, Vec<NodeId>) {
        let (view, members) = self.endpoints.members();
        (view, members.iter().copied().collect())
    }

    /// Calls without an outcome.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The id of the present session, or of the one to be opened.
    fn session_id(&self) -> u128 {
        let mut hasher = Fingerprinter::new();
        hasher.write_u128(self.entropy);
        hasher.write_u64(self.numbers.epoch);
        hasher.finish128()
    }

    fn on_call(&mut self, now: Instant, token: u64, ask: Ask, deadline: Instant) {
        let (Ask::Execute(bytes) | Ask::Read { query: bytes, .. }) = &ask;
        let bytes_after = self.calls.bytes().saturating_add(bytes.len());
        let refusals = [
            (self.closing.is_some(), NotDone::Closed),
            (bytes.len() > PAYLOAD_BYTES_MAX, NotDone::TooLarge),
            (self.calls.len() >= self.config.calls_max, NotDone::Full),
            (bytes_after > self.config.bytes_max, NotDone::Full),
            (deadline <= now, NotDone::Late),
        ];
        match refusals.into_iter().find(|(holds, _)| *holds) {
            Some((_, reason)) => self.answer(token, Outcome::NotDone(reason)),
            None => self.calls.add(now, token, ask, deadline),
        }
    }

    fn answer(&mut self, token: u64, outcome: Outcome) {
        self.outputs.push_back(Output::Answer { token, outcome });
    }

    /// The call has its outcome.
    fn finish(&mut self, id: u64, outcome: Outcome) {
        let Some(call) = self.calls.take(id) else { return };
        if let Some(place) = call.place {
            self.numbers.finish(place);
        }
        self.answer(call.token, outcome);
    }

    /// The calls whose time is over: what may have been executed is unknown, the others are not done.
    fn expire(&mut self, now: Instant) {
        while let Some(id) = self.calls.expired(now) {
            let Some(call) = self.calls.get(id) else { return };
            let outcome = if call.is_uncertain() && !self.says_not_done_of_lost() {
                Outcome::Unknown
            } else {
                Outcome::NotDone(call.reason.unwrap_or(NotDone::Late))
            };
            self.finish(id, outcome);
        }
    }

    /// Tells the nodes that the session is over, then ends.
    fn close(&mut self, now: Instant) {
        if self.closing == Some(Closing::Asked) && self.calls.len() == 0 {
            self.closing = Some(Closing::SessionSent);
            if let (Link::Ready { .. }, Some(session)) = (&self.link, self.session) {
                self.try_now(now, Try::Close, |ticket| Request::Close { ticket, session });
            }
        }
        let answered = !self.tries.values().any(|(it, _)| *it == Try::Close);
        if self.closing == Some(Closing::SessionSent) && answered {
            self.closing = Some(Closing::Over);
            self.drop_link();
            self.outputs.push_back(Output::Ended);
        }
    }

    #[cfg(not(feature = "test-util"))]
    fn says_not_done_of_lost(&self) -> bool {
        false
    }

    #[cfg(not(feature = "test-util"))]
    fn forgets_places(&self) -> bool {
        false
    }
}

impl Machine for Client {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Execute { token, command, deadline } => {
                self.on_call(now, token, Ask::Execute(command), deadline);
            }
            Input::Read { token, query, local, deadline } => {
                self.on_call(now, token, Ask::Read { query, local }, deadline);
            }
            Input::Close => self.closing = self.closing.or(Some(Closing::Asked)),
            Input::Connected { conn } => self.on_connected(now, conn),
            Input::Received { conn, frame } => self.on_frame(now, conn, frame),
            Input::Disconnected { conn } if self.link.conn() == Some(conn) => {
                self.leaving = true;
            }
            Input::Disconnected { .. } => {}
        }
    }

    /// What is due is done at the end of the turn.
    fn handle_timeout(&mut self, _now: Instant) {}

    fn end_turn(&mut self, now: Instant) {
        if self.closing == Some(Closing::Over) {
            return;
        }
        self.expire(now);
        self.watch(now);
        if std::mem::take(&mut self.leaving) {
            self.leave(now);
        }
        self.connect(now);
        self.send(now);
        self.close(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.closing == Some(Closing::Over) {
            return None;
        }
        [self.calls.first_deadline(), self.link_timeout()].into_iter().flatten().min()
    }
}
