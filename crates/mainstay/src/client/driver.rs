//! The task of a client: the machine's inputs, turns and outputs, by the law of driving.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::{ConnId, Machine, NodeId};
use mainstay_paradigm::client::{Input, Output};
use mainstay_runtime::{ClientDialer, ClientStream, LocalFuture, TimeSource};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::{Hosted, Posted};
use crate::framed::Frames;

/// Frames that may wait to be written: more than a client has under way.
const QUEUE_MAX: usize = 128;
/// Frames that may wait to be taken in; until there is room a connection is not read.
const FRAMES_MAX: usize = 16;
/// Most inputs of a turn of each kind.
const TURN_MAX: usize = 64;

/// A client with its connections. Dropped, it closes them, and tells whoever waits that the outcome is unknown.
pub(super) struct Driver {
    hosted: Hosted,
    /// Calls; when all handles are gone the client stops.
    posted: mpsc::Receiver<Posted>,
    /// From the connections.
    net: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    /// What the performing of outputs brought about.
    fed: VecDeque<Input>,
    dialer: Box<dyn ClientDialer>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    connections: BTreeMap<ConnId, (mpsc::Sender<Bytes>, AbortHandle)>,
    tasks: JoinSet<()>,
    time: Rc<dyn TimeSource>,
}

/// Why the driver woke.
enum Woken {
    Net(Option<Input>),
    Posted(Option<Posted>),
    Time,
}

impl Driver {
    pub(super) fn new(
        hosted: Hosted,
        posted: mpsc::Receiver<Posted>,
        dialer: Box<dyn ClientDialer>,
        addresses: BTreeMap<NodeId, SocketAddr>,
        time: Rc<dyn TimeSource>,
    ) -> Self {
        Self {
            hosted,
            posted,
            net: mpsc::channel(FRAMES_MAX),
            fed: VecDeque::new(),
            dialer,
            addresses,
            connections: BTreeMap::new(),
            tasks: JoinSet::new(),
            time,
        }
    }

    /// Until the client is closed, or nobody has a handle of it any more.
    pub(super) async fn run(mut self) {
        loop {
            if self.end_turn() {
                return;
            }
            if self.fed.is_empty() {
                match self.woken().await {
                    Woken::Posted(None) | Woken::Net(None) => return,
                    Woken::Posted(Some(posted)) => {
                        self.hosted.on_posted(self.time.now(), posted);
                    }
                    Woken::Net(Some(input)) => self.fed.push_back(input),
                    Woken::Time => self.hosted.client.handle_timeout(self.time.now()),
                }
            }
            self.take_in();
        }
    }

    async fn woken(&mut self) -> Woken {
        let deadline = self.hosted.client.poll_timeout();
        let due = async {
            match deadline {
                Some(deadline) => self.time.sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            input = self.net.1.recv() => Woken::Net(input),
            posted = self.posted.recv() => Woken::Posted(posted),
            () = due => Woken::Time,
        }
    }

    /// What is at hand, as far as a turn has room.
    fn take_in(&mut self) {
        let now = self.time.now();
        while let Some(input) = self.fed.pop_front() {
            self.hosted.client.handle(now, input);
        }
        for _ in 0..TURN_MAX {
            let Ok(input) = self.net.1.try_recv() else { break };
            self.hosted.client.handle(now, input);
        }
        for _ in 0..TURN_MAX {
            let Ok(posted) = self.posted.try_recv() else { break };
            self.hosted.on_posted(now, posted);
        }
    }

    /// Ends the turn, and does what the machine wants done; whether it has ended.
    fn end_turn(&mut self) -> bool {
        self.hosted.client.end_turn(self.time.now());
        let mut ended = false;
        while let Some(output) = self.hosted.poll_output() {
            ended |= output == Output::Ended;
            self.perform(output);
        }
        ended
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { conn, node } => match self.addresses.get(&node) {
                Some(address) => {
                    while self.tasks.try_join_next().is_some() {}
                    let (queue, queued) = mpsc::channel(QUEUE_MAX);
                    let dialled = self.dialer.dial(*address);
                    let task = carry(dialled, conn, queued, self.net.0.clone());
                    let task = self.tasks.spawn_local(task);
                    self.connections.insert(conn, (queue, task));
                }
                None => self.fed.push_back(Input::Disconnected { conn }),
            },
            Output::Transmit { conn, frame } => {
                let queue = self.connections.get(&conn).map(|(queue, _)| queue);
                if queue.is_none_or(|queue| queue.try_send(frame.encode()).is_err()) {
                    self.fed.push_back(Input::Disconnected { conn });
                }
            }
            Output::Close { conn } => {
                if let Some((_, task)) = self.connections.remove(&conn) {
                    task.abort();
                }
            }
            Output::Ended | Output::Answer { .. } => {}
        }
    }
}

/// A connection from its dial to its end.
async fn carry(
    dialled: LocalFuture<std::io::Result<Box<dyn ClientStream>>>,
    conn: ConnId,
    queued: mpsc::Receiver<Bytes>,
    client: mpsc::Sender<Input>,
) {
    if let Ok(stream) = dialled.await
        && tell(&client, Input::Connected { conn }).await
    {
        let (reader, writer) = split(stream);
        tokio::select! {
            biased;
            () = read(reader, conn, &client) => {}
            () = write(writer, queued) => {}
        }
    }
    tell(&client, Input::Disconnected { conn }).await;
}

/// False: the client has closed.
async fn tell(client: &mpsc::Sender<Input>, input: Input) -> bool {
    client.send(input).await.is_ok()
}

async fn read(
    mut reader: ReadHalf<Box<dyn ClientStream>>,
    conn: ConnId,
    client: &mpsc::Sender<Input>,
) {
    let mut frames = Frames::new();
    while matches!(reader.read_buf(frames.room()).await, Ok(size) if size > 0) {
        // Bytes that are no frames end the connection as its end does.
        loop {
            let frame = match frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return,
            };
            if !tell(client, Input::Received { conn, frame }).await {
                return;
            }
        }
    }
}

async fn write(mut writer: WriteHalf<Box<dyn ClientStream>>, mut queued: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = queued.recv().await {
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}
