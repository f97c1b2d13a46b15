//! Byte streams between clients and nodes: on the connections of the room's network, with its delays, cuts and resets.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use mainstay_base::{ClusterId, ConnId, Frame, NodeId};
use mainstay_runtime::{
    ClientDialer, ClientListener, ClientStream, CloseReason, DialError, Entropy, LocalFuture,
    TimeSource, TransportEvent,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::inbox::{Mailbox, Read};
use super::net::Net;

/// Most bytes of one write.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// One end of a stream: what has come and is not read.
#[derive(Default)]
struct Pipe {
    come: VecDeque<(Bytes, Option<Read>)>,
    ended: Option<CloseReason>,
    reader: Option<Waker>,
}

#[derive(Default)]
struct Desk {
    pipes: BTreeMap<ConnId, Pipe>,
    /// What came of dials, by the names they were given.
    dials: BTreeMap<NodeId, Option<Result<ConnId, ErrorKind>>>,
    accepted: VecDeque<ConnId>,
    /// Who waits for a connection.
    waiting: Vec<Waker>,
    last: u64,
}

/// Takes what the network brings for the streams of one process.
#[derive(Default)]
pub(super) struct Streams(RefCell<Desk>);

impl Mailbox for Streams {
    fn push(&self, event: TransportEvent, read: Option<Read>) {
        let mut desk = self.0.borrow_mut();
        let mut woken = Vec::new();
        match event {
            TransportEvent::Opened { conn, dialled } => {
                desk.pipes.insert(conn, Pipe::default());
                match dialled {
                    None => desk.accepted.push_back(conn),
                    Some(name) => desk.told(name, Ok(conn)),
                }
                woken.append(&mut desk.waiting);
            }
            TransportEvent::Received { conn, frames } => {
                if let Some(pipe) = desk.pipes.get_mut(&conn) {
                    let last = frames.len().saturating_sub(1);
                    let mut read = read;
                    for (index, frame) in frames.into_iter().enumerate() {
                        // What was sent at once is free when the last of it is read.
                        let read = if index == last { read.take() } else { None };
                        pipe.come.push_back((frame.payload, read));
                    }
                    woken.extend(pipe.reader.take());
                }
            }
            TransportEvent::Closed { conn, reason } => {
                if let Some(pipe) = desk.pipes.get_mut(&conn) {
                    pipe.ended = Some(reason);
                    woken.extend(pipe.reader.take());
                }
            }
            TransportEvent::Refused { node } => {
                desk.told(node, Err(ErrorKind::ConnectionRefused));
                woken.append(&mut desk.waiting);
            }
            TransportEvent::Unreachable { node } => {
                desk.told(node, Err(ErrorKind::TimedOut));
                woken.append(&mut desk.waiting);
            }
        }
        drop(desk);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Desk {
    /// A dial has its outcome. Who gave it up is not told; the other end learns that by silence.
    fn told(&mut self, name: NodeId, outcome: Result<ConnId, ErrorKind>) {
        if let Some(dial) = self.dials.get_mut(&name) {
            *dial = Some(outcome);
        }
    }
}

/// Where one boot of a node has its clients connect, or one client is.
#[derive(Clone)]
pub struct ClientPort {
    net: Rc<RefCell<Net>>,
    streams: Rc<Streams>,
    point: usize,
    boot: u64,
}

impl ClientPort {
    pub(super) fn attach(net: &Rc<RefCell<Net>>, point: usize) -> Self {
        let streams = Rc::<Streams>::default();
        let boot = net.borrow_mut().attach(point, Rc::<Streams>::clone(&streams));
        Self { net: Rc::clone(net), streams, point, boot }
    }

    /// Where it is. It is the same for all boots of a node.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.net.borrow().address(self.point)
    }

    /// Listens from here on, until the listener is dropped.
    #[must_use]
    pub fn listen(&self) -> Box<dyn ClientListener> {
        self.act(|net| net.listen(self.point, true));
        Box::new(Listener(self.clone()))
    }

    /// Does something to the network, unless the boot is over.
    fn act(&self, act: impl FnOnce(&mut Net)) {
        let mut net = self.net.borrow_mut();
        if net.is_current(self.point, self.boot) {
            act(&mut net);
        }
    }

    fn stream(&self, conn: ConnId) -> Box<dyn ClientStream> {
        Box::new(LiveStream { port: self.clone(), conn })
    }
}

impl fmt::Debug for ClientPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPort").field("point", &self.point).finish_non_exhaustive()
    }
}

struct Listener(ClientPort);

impl ClientListener for Listener {
    fn accept(&mut self) -> LocalFuture<io::Result<Box<dyn ClientStream>>> {
        let port = self.0.clone();
        Box::pin(poll_fn(move |context| {
            let mut desk = port.streams.0.borrow_mut();
            if let Some(conn) = desk.accepted.pop_front() {
                drop(desk);
                return Poll::Ready(Ok(port.stream(conn)));
            }
            desk.waiting.push(context.waker().clone());
            Poll::Pending
        }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.act(|net| net.listen(self.0.point, false));
    }
}

/// All that a client does outside.
pub struct ClientPorts {
    /// How it reaches nodes.
    pub dialer: Box<dyn ClientDialer>,
    /// Its clock, which is right.
    pub time: Rc<dyn TimeSource>,
    /// Its entropy, of the seed of the room.
    pub entropy: Box<dyn Entropy>,
    /// Where the nodes have their clients connect, by name.
    pub endpoints: BTreeMap<String, SocketAddr>,
}

impl fmt::Debug for ClientPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPorts").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

pub(super) struct Dialer(pub(super) ClientPort);

impl ClientDialer for Dialer {
    fn check(&self, _addr: SocketAddr) -> Result<(), DialError> {
        Ok(())
    }

    fn dial(&mut self, addr: SocketAddr) -> LocalFuture<io::Result<Box<dyn ClientStream>>> {
        let mut desk = self.0.streams.0.borrow_mut();
        desk.last += 1;
        let name = NodeId::new(ClusterId::from_entropy(0), &desk.last.to_string());
        desk.dials.insert(name, None);
        drop(desk);
        let dial = Dial { port: self.0.clone(), name };
        dial.port.act(|net| net.dial(dial.port.point, dial.port.boot, name, addr));
        Box::pin(poll_fn(move |context| dial.poll(context)))
    }
}

/// A dial under way; dropping it gives it up.
struct Dial {
    port: ClientPort,
    name: NodeId,
}

impl Dial {
    fn poll(&self, context: &Context<'_>) -> Poll<io::Result<Box<dyn ClientStream>>> {
        let mut desk = self.port.streams.0.borrow_mut();
        match desk.dials.get(&self.name).copied().flatten() {
            Some(outcome) => {
                desk.dials.remove(&self.name);
                drop(desk);
                Poll::Ready(match outcome {
                    Ok(conn) => Ok(self.port.stream(conn)),
                    Err(kind) => Err(kind.into()),
                })
            }
            None => {
                desk.waiting.push(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        let outcome = self.port.streams.0.borrow_mut().dials.remove(&self.name);
        if let Some(Some(Ok(conn))) = outcome {
            drop(self.port.stream(conn));
        }
    }
}

struct LiveStream {
    port: ClientPort,
    conn: ConnId,
}

impl AsyncRead for LiveStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut desk = self.port.streams.0.borrow_mut();
        let Some(pipe) = desk.pipes.get_mut(&self.conn) else { return Poll::Ready(Ok(())) };
        if let Some((bytes, _)) = pipe.come.front_mut() {
            let size = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..size]);
            bytes.advance(size);
            let is_read = bytes.is_empty();
            let read = if is_read { pipe.come.pop_front() } else { None };
            drop(desk);
            if let Some((_, Some(read))) = read {
                self.port.act(|net| net.was_read(read));
            }
            return Poll::Ready(Ok(()));
        }
        match pipe.ended {
            Some(CloseReason::Ended | CloseReason::Local) => Poll::Ready(Ok(())),
            Some(_) => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            None => {
                pipe.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for LiveStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let desk = self.port.streams.0.borrow();
        let stands = desk.pipes.get(&self.conn).is_some_and(|pipe| pipe.ended.is_none());
        drop(desk);
        if !stands {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let size = bytes.len().min(WRITE_BYTES_MAX);
        let payload = Bytes::copy_from_slice(&bytes[..size]);
        self.port.act(|net| {
            net.queue(self.conn, Frame { payload, ..Frame::default() });
            net.flush(self.port.point);
        });
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.port.act(|net| net.close(self.conn));
        Poll::Ready(Ok(()))
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        self.port.act(|net| net.close(self.conn));
        let pipe = self.port.streams.0.borrow_mut().pipes.remove(&self.conn);
        drop(pipe);
    }
}
