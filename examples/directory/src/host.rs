//! The host: clients at a RESP port, the directory on a [`Node`].
//!
//! Runs on the node's `LocalSet`, a task for each client. Bounded: [`CLIENTS_MAX`] clients, or as many as are wanted, the
//! others wait to be accepted; each as its [`Connection`] is.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay::{Fate, Node, NotDone};
use mainstay_runtime::{ClientListener, ClientStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::sync::{Semaphore, mpsc};

use crate::command::{self, Read};
use crate::connection::REQUESTS_MAX;
use crate::resp::write;
use crate::{Connection, Directory, Request};

/// Most clients at once, if nothing else is wanted.
pub const CLIENTS_MAX: usize = 512;
/// How long it waits for the system to have sockets again.
const PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of one read of a socket (16 KiB).
const READ_BYTES: usize = 16 << 10;

/// Serves clients for ever; dropping the future ends the accepting, but not the clients that are connected. A client
/// that fails is nobody's error; while the system gives no more sockets, clients wait.
///
/// # Panics
/// Outside a `LocalSet` of a tokio runtime with time.
pub async fn serve(node: Node<Directory>, listener: Box<dyn ClientListener>) {
    serve_counted(node, listener, CLIENTS_MAX, Rc::default()).await;
}

/// As [`serve`], with at most `clients_max` clients at once and with counters that the caller can look at.
///
/// # Panics
/// Outside a `LocalSet` of a tokio runtime with time.
pub async fn serve_counted(
    node: Node<Directory>,
    mut listener: Box<dyn ClientListener>,
    clients_max: usize,
    counted: Rc<Counted>,
) {
    let places = Arc::new(Semaphore::new(clients_max));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok(stream) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (node, counted) = (node.clone(), Rc::clone(&counted));
        tokio::task::spawn_local(async move {
            counted.connected();
            // Whatever ends a client ends it alone.
            let _ = Client::new(node, &counted).converse(stream).await;
            counted.gone();
            drop(place);
        });
    }
}

/// What INFO says of the clients.
#[derive(Debug, Default)]
pub struct Counted {
    connected: Cell<u64>,
    received: Cell<u64>,
    protocol_errors: Cell<u64>,
}

impl Counted {
    /// Clients whose connection was closed since what they sent is not the protocol.
    #[must_use]
    pub fn protocol_errors(&self) -> u64 {
        self.protocol_errors.get()
    }

    fn connected(&self) {
        self.connected.update(|count| count + 1);
        self.received.update(|count| count + 1);
    }

    fn gone(&self) {
        self.connected.update(|count| count - 1);
    }

    fn text(&self) -> String {
        let Self { connected, received, protocol_errors } = self;
        format!(
            "# Clients\r\nconnected_clients:{}\r\n# Stats\r\ntotal_connections_received:{}\r\nprotocol_errors:{}\r\n",
            connected.get(),
            received.get(),
            protocol_errors.get(),
        )
    }
}

type Answers = mpsc::Sender<(u64, Bytes)>;

/// A read that is out. If the node ends before it is evaluated the client is told so.
struct Reading {
    ticket: u64,
    answers: Answers,
    answered: bool,
}

impl Reading {
    fn tell(mut self, reply: Bytes) {
        self.answered = true;
        send(&self.answers, self.ticket, reply);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.answered {
            send(&self.answers, self.ticket, Bytes::from_static(command::CLUSTER_DOWN));
        }
    }
}

/// There is a place for each request that may be out: it fails only if the client is gone.
fn send(answers: &Answers, ticket: u64, reply: Bytes) {
    let _ = answers.try_send((ticket, reply));
}

struct Client<'a> {
    node: Node<Directory>,
    counted: &'a Counted,
    connection: Connection,
    /// Requests without an answer.
    open: usize,
    answers: Answers,
    answered: mpsc::Receiver<(u64, Bytes)>,
}

impl<'a> Client<'a> {
    fn new(node: Node<Directory>, counted: &'a Counted) -> Self {
        let (answers, answered) = mpsc::channel(REQUESTS_MAX);
        let connection = Connection::new();
        Self { node, counted, connection, open: 0, answers, answered }
    }

    /// Until the client goes, or asks to be let go. What a client sent before it closed its side is still answered.
    async fn converse(mut self, stream: Box<dyn ClientStream>) -> io::Result<()> {
        let (mut reader, mut writer) = split(stream);
        let mut buffer = vec![0; READ_BYTES];
        let mut ended = false;
        loop {
            while let Some(request) = self.connection.poll_request() {
                self.open += 1;
                self.perform(request);
            }
            let output = self.connection.take_output();
            if !output.is_empty() {
                writer.write_all(&output).await?;
                // There is room for more requests now.
                continue;
            }
            if self.connection.is_closed() && self.connection.has_failed() {
                self.counted.protocol_errors.update(|count| count + 1);
            }
            if self.connection.is_closed() || (ended && self.open == 0) {
                return writer.shutdown().await;
            }
            tokio::select! {
                biased;
                Some((ticket, reply)) = self.answered.recv() => {
                    self.answer(ticket, reply);
                    while let Ok((ticket, reply)) = self.answered.try_recv() {
                        self.answer(ticket, reply);
                    }
                }
                size = reader.read(&mut buffer), if !ended && self.connection.wants_input() => {
                    let size = size?;
                    ended = size == 0;
                    self.connection.receive(&buffer[..size]);
                }
            }
        }
    }

    fn answer(&mut self, ticket: u64, reply: Bytes) {
        self.open = self.open.saturating_sub(1);
        self.connection.answer(ticket, reply);
    }

    fn perform(&self, request: Request) {
        let answers = self.answers.clone();
        match request {
            Request::Write { ticket, payload } => {
                self.node.submit(payload, move |fate| send(&answers, ticket, reply_to(&fate)));
            }
            Request::Read { ticket, read, local } => {
                self.read(Reading { ticket, answers, answered: false }, read, local);
            }
            Request::Info { ticket } => {
                let (node, counted) = (self.node.clone(), self.counted.text());
                tokio::task::spawn_local(async move {
                    let mut reply = Vec::new();
                    let text = format!("{}{counted}", info(&node).await);
                    write::bulk(&mut reply, text.as_bytes());
                    send(&answers, ticket, reply.into());
                });
            }
        }
    }

    fn read(&self, reading: Reading, read: Read, local: bool) {
        self.node.submit_read(local, move |state| match state {
            Ok(directory) => reading.tell(directory.read(&read)),
            Err(reason) => reading.tell(down(reason)),
        });
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
        _ => "CLUSTERDOWN",
    };
    let mut reply = Vec::new();
    write::error(&mut reply, &format!("{code} {reason}; nothing was executed"));
    reply.into()
}

/// The text of INFO.
async fn info(node: &Node<Directory>) -> String {
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
