//! The host: clients at a RESP port, the directory, [`Replicated`].
//!
//! Runs on the node's `LocalSet`, a task for each client. Bounded: [`Options::clients_max`] clients, the others wait to be
//! accepted; each as its [`Connection`] is. A client that reads no answers is not read either, and goes after a while
//! ([`Options::write_within`]).

use std::cell::Cell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use mainstay::{Fate, NotDone, Replicated};
use mainstay_runtime::{ClientListener, ClientStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, WriteHalf, split};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::command::{self, Read};
use crate::connection::{ANSWER_BYTES_MAX, REQUESTS_MAX};
use crate::resp::{ProtocolError, write};
use crate::{Answer, Connection, Directory, NoRoom, Request};

/// Most clients at once, if nothing else is wanted.
pub const CLIENTS_MAX: usize = 512;
/// How long it waits for the system to have sockets again.
const PAUSE: Duration = Duration::from_millis(100);
/// HTTP at the port is warned of at most so often: a page may have it sent for as long as it is open.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Clients that may have an answer of more than 1 MiB at once. Values in it stay in memory until they are written, whatever becomes of
/// their keys.
const LARGE_ANSWERS_MAX: usize = 4;
/// Most bytes of one read of a socket (16 KiB).
const READ_BYTES: usize = 16 << 10;
/// What all clients together may have parsed between two turns of the node: 1,024 steps of 1 KiB, or a part of one.
const INTAKE_STEPS: usize = 1 << 10;
const STEP_BYTES: usize = 1 << 10;
/// Room for a command that grows by so much at once counts as what is parsed: the first touch of fresh memory, of huge pages above all, takes
/// as long as many reads.
const GROWN_BYTES: usize = 64 << 10;

/// Serves clients for ever; dropping the future ends the accepting, but not the clients that are connected. A client
/// that fails is nobody's error; while the system gives no more sockets, clients wait.
///
/// # Panics
/// Outside a `LocalSet` of a tokio runtime with time.
pub async fn serve(node: Replicated<Directory>, listener: Box<dyn ClientListener>) {
    serve_with(node, listener, Options::default(), Rc::default()).await;
}

/// What may be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Most clients at once; the others wait to be accepted. Default [`CLIENTS_MAX`].
    pub clients_max: usize,
    /// How long a client may read nothing of the answers that are written to it; then its connection is closed. One that
    /// sends on and on before it reads would wait for ever otherwise, for it is not read either. An answer of more than 1 MiB has to be
    /// read to its end within that time, for others wait for its place. Default 60 s.
    pub write_within: Duration,
    /// How long a client may rest while it reads an answer of more than 1 MiB; then its connection is closed. Clients that ask for such answers and
    /// read nothing keep others from theirs for so long at most. Default 2 s.
    pub large_rest: Duration,
    /// Whether commands may be lines of words, as people type them and as a page in a browser could smuggle them in.
    /// Programs need them not. Default true, as in Redis.
    pub inline: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clients_max: CLIENTS_MAX,
            write_within: Duration::from_secs(60),
            large_rest: Duration::from_secs(2),
            inline: true,
        }
    }
}

/// As [`serve`], with options, and with counters that the caller can look at.
///
/// # Panics
/// Outside a `LocalSet` of a tokio runtime with time.
pub async fn serve_with(
    node: Replicated<Directory>,
    mut listener: Box<dyn ClientListener>,
    options: Options,
    counted: Rc<Counted>,
) {
    let intake = Rc::new(Intake::new());
    let accepting = async {
        let places = Arc::new(Semaphore::new(options.clients_max));
        let large = Arc::new(Semaphore::new(LARGE_ANSWERS_MAX));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let Ok(stream) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (node, counted, intake) = (node.clone(), Rc::clone(&counted), Rc::clone(&intake));
            let large = Arc::clone(&large);
            tokio::task::spawn_local(async move {
                counted.connected();
                // Whatever ends a client ends it alone.
                let client = Client::new(node, options, &counted, &intake, large);
                let _ = client.converse(stream).await;
                counted.gone();
                drop(place);
            });
        }
    };
    // It goes on for clients that are connected when this future is dropped.
    tokio::task::spawn_local(refill(Rc::downgrade(&intake), Rc::clone(&intake.short)));
    accepting.await;
}

/// What all clients together give the node to parse between two of its turns: as many as there are, they do not keep the
/// thread.
struct Intake {
    /// In steps of [`STEP_BYTES`]; who waits gets them in the order of waiting.
    steps: Semaphore,
    short: Rc<Notify>,
}

impl Intake {
    fn new() -> Self {
        Self { steps: Semaphore::new(INTAKE_STEPS), short: Rc::default() }
    }

    async fn take(&self, bytes: usize) {
        let steps = bytes.div_ceil(STEP_BYTES).min(INTAKE_STEPS) as u32;
        let taken = match self.steps.try_acquire_many(steps) {
            Ok(taken) => Ok(taken),
            Err(_) => {
                self.short.notify_one();
                self.steps.acquire_many(steps).await
            }
        };
        // It is never closed.
        taken.into_iter().for_each(SemaphorePermit::forget);
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.short.notify_one();
    }
}

/// When there is nothing left, all that is ready has its turn before there is more, until nobody waits any more.
async fn refill(intake: Weak<Intake>, short: Rc<Notify>) {
    loop {
        short.notified().await;
        loop {
            tokio::task::yield_now().await;
            let Some(intake) = intake.upgrade() else { return };
            let left = intake.steps.available_permits();
            intake.steps.add_permits(INTAKE_STEPS.saturating_sub(left));
            // Who waits has them now: then nothing is left.
            if intake.steps.available_permits() > 0 {
                break;
            }
        }
    }
}

/// What INFO says of the clients.
#[derive(Debug, Default)]
pub struct Counted {
    connected: Cell<u64>,
    received: Cell<u64>,
    protocol_errors: Cell<u64>,
    http: Cell<u64>,
    unread: Cell<u64>,
    /// When HTTP was last warned of.
    warned: Cell<Option<Instant>>,
}

impl Counted {
    /// Connections that were closed, by reason: `resp` for what is not the protocol, `resp-http` for what is HTTP,
    /// `resp-unread` for answers that nobody read in time. None with a count of 0.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { protocol_errors, http, unread, .. } = self;
        [("resp", protocol_errors), ("resp-http", http), ("resp-unread", unread)]
            .map(|(reason, count)| (reason, count.get()))
            .into_iter()
            .filter(|(_, count)| *count > 0)
    }

    fn failed(&self, failure: ProtocolError) {
        if failure != ProtocolError::Http {
            return self.protocol_errors.update(|count| count + 1);
        }
        self.http.update(|count| count + 1);
        let now = Instant::now();
        if self.warned.get().is_none_or(|at| now - at >= WARN_EVERY) {
            self.warned.set(Some(now));
            tracing::warn!(
                count = self.http.get(),
                "possible attack: HTTP at the port for clients, closed before anything behind it was executed"
            );
        }
    }

    fn connected(&self) {
        self.connected.update(|count| count + 1);
        self.received.update(|count| count + 1);
    }

    fn gone(&self) {
        self.connected.update(|count| count - 1);
    }

    fn text(&self) -> String {
        let Self { connected, received, protocol_errors, http, unread, .. } = self;
        format!(
            "# Clients\r\nconnected_clients:{}\r\n# Stats\r\ntotal_connections_received:{}\r\nprotocol_errors:{}\r\nhttp_closed:{}\r\nunread_closed:{}\r\n",
            connected.get(),
            received.get(),
            protocol_errors.get(),
            http.get(),
            unread.get(),
        )
    }
}

type Answers = mpsc::Sender<(u64, Told)>;

/// What came of a request.
enum Told {
    Answer(Answer),
    /// The answer would be so long, more than there is room for.
    NoRoom {
        read: Read,
        local: bool,
        size: usize,
    },
}

/// A read that is out. If the node ends before it is evaluated the client is told so.
struct Reading {
    ticket: u64,
    answers: Answers,
    answered: bool,
}

impl Reading {
    fn tell(mut self, told: Told) {
        self.answered = true;
        send(&self.answers, self.ticket, told);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.answered {
            let down = Bytes::from_static(command::CLUSTER_DOWN);
            send(&self.answers, self.ticket, Told::Answer(down.into()));
        }
    }
}

/// There is a place for each request that may be out: it fails only if the client is gone.
fn send(answers: &Answers, ticket: u64, told: Told) {
    let _ = answers.try_send((ticket, told));
}

struct Client<'a> {
    node: Replicated<Directory>,
    options: Options,
    counted: &'a Counted,
    intake: &'a Intake,
    connection: Connection,
    /// Requests without an answer.
    open: usize,
    answers: Answers,
    answered: mpsc::Receiver<(u64, Told)>,
    large: Large,
}

/// An answer of more than 1 MiB on its way to one client.
struct Large {
    places: Arc<Semaphore>,
    place: Option<OwnedSemaphorePermit>,
    /// The read that needs a place, until it is answered.
    ticket: Option<u64>,
    /// When the answer has to be read, once it is there.
    until: Option<Instant>,
}

impl Large {
    fn waits(&self) -> bool {
        self.ticket.is_some() && self.place.is_none()
    }

    /// Most bytes of an answer to this read.
    fn room(&self, wanted: usize) -> usize {
        if self.place.is_some() { wanted } else { wanted.min(ANSWER_BYTES_MAX) }
    }

    /// All that there was is written.
    fn written(&mut self) {
        if self.ticket.is_none() {
            (self.place, self.until) = (None, None);
        }
    }
}

impl<'a> Client<'a> {
    fn new(
        node: Replicated<Directory>,
        options: Options,
        counted: &'a Counted,
        intake: &'a Intake,
        places: Arc<Semaphore>,
    ) -> Self {
        let (answers, answered) = mpsc::channel(REQUESTS_MAX);
        let connection =
            if options.inline { Connection::new() } else { Connection::without_inline() };
        let large = Large { places, place: None, ticket: None, until: None };
        Self { node, options, counted, intake, connection, open: 0, answers, answered, large }
    }

    /// Until the client goes, or asks to be let go. What a client sent before it closed its side is still answered.
    async fn converse(mut self, stream: Box<dyn ClientStream>) -> io::Result<()> {
        let (mut reader, mut writer) = split(stream);
        let mut buffer = vec![0; READ_BYTES];
        let mut ended = false;
        loop {
            while !self.large.waits()
                && let Some(request) = self.connection.poll_request()
            {
                self.open += 1;
                self.perform(request).await;
            }
            if self.connection.output().has_remaining() {
                self.write(&mut writer).await?;
                // There is room for more requests now.
                continue;
            }
            self.large.written();
            if self.connection.is_closed()
                && let Some(failure) = self.connection.failure()
            {
                self.counted.failed(failure);
            }
            if self.connection.is_closed() || (ended && self.open == 0) {
                return writer.shutdown().await;
            }
            tokio::select! {
                biased;
                Some((ticket, told)) = self.answered.recv() => {
                    self.take_in(ticket, told);
                    self.take_in_all();
                }
                Ok(place) = Arc::clone(&self.large.places).acquire_owned(), if self.large.waits() => {
                    self.large.place = Some(place);
                    self.large.until = Some(Instant::now() + self.options.write_within);
                }
                size = reader.read(&mut buffer), if !ended && self.connection.wants_input() => {
                    let size = size?;
                    ended = size == 0;
                    self.intake.take(size).await;
                    let grown = self.connection.receive(&buffer[..size]);
                    if grown >= GROWN_BYTES {
                        self.intake.take(grown).await;
                    }
                    // There may be more at once: the node, and other clients, have their turn before.
                    if size == READ_BYTES {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    /// Writes a piece of the output: others on this thread have their turn before the next one.
    async fn write(&mut self, writer: &mut WriteHalf<Box<dyn ClientStream>>) -> io::Result<()> {
        let writing = writer.write_buf(self.connection.output());
        let until = Instant::now() + self.options.write_within;
        let until = self
            .large
            .until
            .map_or(until, |large| large.min(until).min(Instant::now() + self.options.large_rest));
        let Ok(written) = timeout_at(until, writing).await else {
            self.counted.unread.update(|count| count + 1);
            return Err(io::ErrorKind::TimedOut.into());
        };
        if written? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.take_in_all();
        if self.connection.output().has_remaining() {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn take_in(&mut self, ticket: u64, told: Told) {
        self.open = self.open.saturating_sub(1);
        match told {
            Told::Answer(answer) => {
                if self.large.ticket == Some(ticket) {
                    self.large.ticket = None;
                    self.large.until = Some(Instant::now() + self.options.write_within);
                }
                self.connection.answer(ticket, answer);
            }
            Told::NoRoom { read, local, size } => {
                if size > ANSWER_BYTES_MAX {
                    self.large.ticket.get_or_insert(ticket);
                }
                self.connection.put_back(ticket, read, local, size);
            }
        }
    }

    fn take_in_all(&mut self) {
        while let Ok((ticket, told)) = self.answered.try_recv() {
            self.take_in(ticket, told);
        }
    }

    /// Hands a request to the node, as soon as that has room: meanwhile the client is not read.
    async fn perform(&self, request: Request) {
        let answers = self.answers.clone();
        match request {
            Request::Write { ticket, payload } => {
                let tell = move |fate| send(&answers, ticket, Told::Answer(reply_to(&fate).into()));
                self.node.submit_when_room(payload, tell).await;
            }
            Request::Read { ticket, read, local, room } => {
                let room = self.large.room(room);
                let reading = Reading { ticket, answers, answered: false };
                self.read(reading, read, local, room).await;
            }
            Request::Info { ticket } => {
                // One at a time: a client that asks for nothing else does not fill the node's mailbox.
                let mut reply = Vec::new();
                // On the heap: it is much larger than what every other request needs.
                let info = Box::pin(info(&self.node)).await;
                let text = format!("{info}{}", self.counted.text());
                write::bulk(&mut reply, text.as_bytes());
                send(&answers, ticket, Told::Answer(Bytes::from(reply).into()));
            }
        }
    }

    async fn read(&self, reading: Reading, read: Read, local: bool, room: usize) {
        let evaluate = move |state: Result<&Directory, NotDone>| match state {
            Ok(directory) => reading.tell(match directory.read(&read, room) {
                Ok(answer) => Told::Answer(answer),
                Err(NoRoom { size }) => Told::NoRoom { read, local, size },
            }),
            Err(reason) => reading.tell(Told::Answer(down(reason).into())),
        };
        self.node.submit_read_when_room(local, evaluate).await;
    }
}

fn reply_to(fate: &Fate) -> Bytes {
    match fate {
        Fate::Ordered(outcome) => command::reply_to(outcome),
        Fate::NotDone(reason) => down(*reason),
        Fate::Unknown => Bytes::from_static(command::UNKNOWN_FATE),
    }
}

/// Nothing was executed, and nothing will be.
fn down(reason: NotDone) -> Bytes {
    let code = match reason {
        NotDone::TooLarge | NotDone::Malformed => "ERR",
        NotDone::DiskShort => "MISCONF",
        _ => "CLUSTERDOWN",
    };
    let mut reply = Vec::new();
    write::error(&mut reply, &format!("{code} {reason}; nothing was executed"));
    reply.into()
}

/// The text of INFO.
async fn info(node: &Replicated<Directory>) -> String {
    match node.status().await {
        Ok(status) => {
            let stack = status.site.stack.as_ref();
            let (view, members) =
                stack.map_or((0, 0), |stack| (stack.view.number, stack.members.len()));
            let position = status.replica.position.0;
            format!("# Mainstay\r\nview:{view}\r\nmembers:{members}\r\nposition:{position}\r\n")
        }
        Err(reason) => format!("# Mainstay\r\nstopped:{reason}\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All who wait for their share get it, also when they ask for many times what there is at once.
    #[tokio::test]
    async fn all_who_wait_get_their_share() {
        let run = async {
            let intake = Rc::new(Intake::new());
            tokio::task::spawn_local(refill(Rc::downgrade(&intake), Rc::clone(&intake.short)));
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..512 {
                let intake = Rc::clone(&intake);
                clients.spawn_local(async move { intake.take(READ_BYTES).await });
            }
            let all = async { while clients.join_next().await.is_some() {} };
            let within = tokio::time::timeout(Duration::from_secs(20), all).await;
            assert!(within.is_ok(), "nobody waits for ever");
        };
        tokio::task::LocalSet::new().run_until(run).await;
    }
}
