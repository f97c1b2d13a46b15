//! Clients of three nodes over loopback TCP in one process.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Cluster, Journal, NAMES, journal, place, ready, run, until};
use mainstay::{Client, ClientConfig, Durability, NotDone, Outcome, Replicated};
use mainstay_base::{ClusterId, Frame};
use mainstay_paradigm::client::message::{Reply, Request, VERSION};
use mainstay_paradigm::{Envelope, Session};
use mainstay_runtime::{ClientListener, ClientStream, LocalFuture, TcpClients};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

/// How many entries there are; panics if it is told to.
fn query(journal: &Journal, query: &[u8]) -> Vec<u8> {
    assert_ne!(query, b"boom");
    (journal.entries.len() as u64).to_le_bytes().to_vec()
}

fn listener() -> (Box<dyn ClientListener>, std::net::SocketAddr) {
    let clients = TcpClients::new("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = clients.local_addr().unwrap();
    (Box::new(clients), address)
}

fn serve(node: &Replicated<Journal>, listener: Box<dyn ClientListener>) {
    let node = node.clone();
    tokio::task::spawn_local(async move { node.serve_clients(listener, query).await });
}

/// Serves at all nodes; the settings of a client of theirs.
fn serve_all(cluster: &Cluster, nodes: &[Replicated<Journal>]) -> ClientConfig {
    let endpoint = |(name, node): (&&str, &Replicated<Journal>)| {
        let (listener, address) = listener();
        serve(node, listener);
        ((*name).to_owned(), address)
    };
    ClientConfig::new(cluster.id, NAMES.iter().zip(nodes).map(endpoint).collect())
}

fn entry(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// Checks PD-31. Commands of many at a time are executed once each, and reads see them.
#[test]
fn a_client_executes_and_reads() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let nodes = cluster.all();
        let client = Client::connect(serve_all(&cluster, &nodes)).unwrap();
        // No node need be a member yet.
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..300 {
            let client = client.clone();
            tasks.spawn_local(async move { (number, client.execute(&entry(number)).await) });
        }
        let mut places = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (number, outcome) = done.unwrap();
            places.push((number, place(&outcome).unwrap()));
        }
        assert_eq!(client.read(b"").await, Outcome::Done(entry(300).to_vec().into()));
        assert!(matches!(client.read_local(b"").await, Outcome::Done(_)));
        let journal = journal(&nodes[1]).await;
        assert_eq!(journal.len(), 300);
        for (number, place) in places {
            assert_eq!(journal[place as usize - 1], number);
        }
        assert_eq!(client.read(b"boom").await, Outcome::NotDone(NotDone::Malformed));
        let large = vec![0; 2 << 20];
        assert_eq!(client.execute(&large).await, Outcome::NotDone(NotDone::TooLarge));
        let status = client.status().await.unwrap();
        assert_eq!((status.stats.sessions, status.view.1.len()), (1, 3));
        client.close().await;
        until(&nodes[0], "no session", |status| status.replica.sessions == 0).await;
    });
}

/// Listens as TCP does, but what is written is lost once it is told to.
struct Muted {
    inner: Box<dyn ClientListener>,
    muted: Rc<Cell<bool>>,
}

impl ClientListener for Muted {
    fn accept(&mut self) -> LocalFuture<io::Result<Box<dyn ClientStream>>> {
        let (accepted, muted) = (self.inner.accept(), Rc::clone(&self.muted));
        Box::pin(async move {
            let inner = accepted.await?;
            Ok(Box::new(MutedStream { inner, muted }) as Box<dyn ClientStream>)
        })
    }
}

struct MutedStream {
    inner: Box<dyn ClientStream>,
    muted: Rc<Cell<bool>>,
}

impl AsyncRead for MutedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl AsyncWrite for MutedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.muted.get() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Checks PD-22 and PD-31 in the composition. The node executes and is closed before its answer gets out: the same command
/// is asked for elsewhere, found executed, and answered with its place. The session goes on.
#[test]
fn a_node_lost_before_it_answers_executes_once() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let [a, b, c] = cluster.all();
        for node in [&a, &b, &c] {
            ready(node, 3).await;
        }
        let muted = Rc::new(Cell::new(false));
        let (inner, first) = listener();
        serve(&a, Box::new(Muted { inner, muted: Rc::clone(&muted) }));
        let (inner, other) = listener();
        let endpoints = [("a".to_owned(), first), ("b".to_owned(), other)];
        // Nobody listens for b yet: so the client comes to a.
        drop(inner);
        let config = ClientConfig::new(cluster.id, endpoints.into());
        let client = Client::connect(config.deadline(Duration::from_secs(20))).unwrap();
        assert_eq!(place(&client.execute(&entry(1)).await), Some(1));
        muted.set(true);
        let lost = tokio::task::spawn_local({
            let client = client.clone();
            async move { client.execute(&entry(2)).await }
        });
        until(&a, "both executed", |status| status.replica.position.0 >= 3).await;
        serve(&b, Box::new(TcpClients::new(other).unwrap()));
        drop(a.close().await);
        assert_eq!(place(&lost.await.unwrap()), Some(2));
        assert_eq!(place(&client.execute(&entry(3)).await), Some(3));
        assert_eq!(journal(&b).await, [1, 2, 3]);
        let status = b.status().await.unwrap().replica;
        assert_eq!((status.stats.duplicates, status.sessions), (1, 1));
    });
}

/// A client whose node closes goes on with another one; when none is left, what it asks for is not done.
#[test]
fn a_client_goes_on_with_another_node() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let nodes = cluster.all();
        for node in &nodes {
            ready(node, 3).await;
        }
        let config = serve_all(&cluster, &nodes).deadline(Duration::from_secs(8));
        let client = Client::connect(config).unwrap();
        assert_eq!(place(&client.execute(&entry(1)).await), Some(1));
        let mine = client.status().await.unwrap().node.unwrap();
        let mut others = Vec::new();
        for node in nodes {
            if node.status().await.unwrap().site.node == mine {
                drop(node.close().await);
            } else {
                others.push(node);
            }
        }
        assert_eq!(place(&client.execute(&entry(2)).await), Some(2));
        assert_ne!(client.status().await.unwrap().node, Some(mine));
        assert_eq!(journal(&others[0]).await, [1, 2]);
        for node in others {
            drop(node.close().await);
        }
        let outcome = client.execute(&entry(3)).await;
        assert!(matches!(outcome, Outcome::NotDone(_)), "{outcome:?}");
    });
}

/// A connection that speaks the protocol by hand.
struct Raw(TcpStream);

impl Raw {
    async fn hello(address: std::net::SocketAddr, cluster: ClusterId) -> Self {
        let mut raw = Self(TcpStream::connect(address).await.unwrap());
        let (version_min, version_max) = (VERSION, VERSION);
        raw.ask(&Request::Hello { version_min, version_max, features: 0, cluster }, b"").await;
        raw
    }

    async fn ask(&mut self, request: &Request, payload: &'static [u8]) {
        let frame = request.encode(bytes::Bytes::from_static(payload));
        self.0.write_all(&frame.encode()).await.unwrap();
    }

    async fn reply(&mut self) -> Option<Reply> {
        let mut head = [0; mainstay_base::frame::HEADER_SIZE];
        self.0.read_exact(&mut head).await.ok()?;
        let header = mainstay_base::Header::decode(&head, 1 << 20).unwrap();
        let mut body = vec![0; header.body_len()];
        self.0.read_exact(&mut body).await.ok()?;
        Some(Reply::decode(Frame::decode(&header, body.into()).unwrap()).unwrap().0)
    }
}

/// Checks PD-22. A command in a session that is gone is refused, not executed.
#[test]
fn an_expired_session_is_refused() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let nodes = cluster.all();
        ready(&nodes[0], 3).await;
        let (listener, address) = listener();
        serve(&nodes[0], listener);
        let mut raw = Raw::hello(address, cluster.id).await;
        assert!(matches!(raw.reply().await, Some(Reply::Welcome { version: VERSION, .. })));
        raw.ask(&Request::Open { ticket: 1, id: 7 }, b"").await;
        let Some(Reply::Opened { ticket: 1, session }) = raw.reply().await else { panic!() };
        let execute = |ticket, number| Request::Execute { ticket, session, number, acked_upto: 0 };
        raw.ask(&execute(2, 1), b"8 bytes!").await;
        assert_eq!(raw.reply().await, Some(Reply::Done { ticket: 2 }));
        raw.ask(&Request::Close { ticket: 3, session }, b"").await;
        assert_eq!(raw.reply().await, Some(Reply::Closed { ticket: 3 }));
        for ticket in 4..6 {
            raw.ask(&execute(ticket, ticket - 3), b"8 bytes!").await;
            assert_eq!(raw.reply().await, Some(Reply::Expired { ticket }));
        }
        assert_eq!(journal(&nodes[0]).await.len(), 1);
    });
}

/// Whatever comes to the client port ends its connection at most, and is counted.
#[test]
fn garbage_leaves_the_node_alive() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let nodes = cluster.all();
        ready(&nodes[0], 3).await;
        let (listener, address) = listener();
        serve(&nodes[0], listener);
        let status = Request::Status { ticket: 1 }.encode(bytes::Bytes::new()).encode();
        let mut flipped = status.to_vec();
        flipped[30] ^= 1;
        let mut huge = status.to_vec();
        huge[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        let foreign = Frame { channel: 0, ..Frame::default() }.encode().to_vec();
        let first =
            [b"GET / HTTP/1.1\r\nHost: somewhere.invalid\r\n\r\n".to_vec(), flipped, huge, foreign];
        // What is wrong from the first byte on, and what is wrong behind a hello.
        for (count, garbage) in (1..).zip(first.iter().chain(&first)) {
            let mut raw = if count > 4 {
                let mut raw = Raw::hello(address, cluster.id).await;
                assert!(matches!(raw.reply().await, Some(Reply::Welcome { .. })));
                raw
            } else {
                Raw(TcpStream::connect(address).await.unwrap())
            };
            raw.0.write_all(garbage).await.unwrap();
            assert_eq!(raw.reply().await, None);
            until(&nodes[0], "counted", |it| it.clients.garbage == count).await;
        }
        let mut truncated = Raw::hello(address, cluster.id).await;
        assert!(truncated.reply().await.is_some());
        truncated.0.write_all(&status[..20]).await.unwrap();
        truncated.0.shutdown().await.unwrap();
        assert_eq!(truncated.reply().await, None);
        until(&nodes[0], "counted", |it| it.clients.garbage == 9).await;
        let mut foreign = Raw::hello(address, ClusterId::from_entropy(99)).await;
        assert!(matches!(foreign.reply().await, Some(Reply::Refused { .. })));
        assert_eq!(foreign.reply().await, None);
        let status = until(&nodes[0], "all gone", |it| it.clients.connected == 0).await;
        assert_eq!((status.clients.refused, status.clients.accepted), (1, 10));
        assert_eq!(place(&nodes[0].execute(&entry(1)).await), Some(1));
    });
}

/// A node that is no member says so, with whom it knows.
#[test]
fn a_node_that_is_no_member_sends_elsewhere() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let [a, b, c] = cluster.all();
        ready(&a, 3).await;
        let (listener, address) = listener();
        serve(&a, listener);
        let mut raw = Raw::hello(address, cluster.id).await;
        let Some(Reply::Welcome { standing, .. }) = raw.reply().await else { panic!() };
        assert!(standing.serving);
        assert_eq!(standing.members.len(), 3);
        drop((b.close().await, c.close().await));
        until(&a, "a minority", |status| status.site.stack.as_ref().is_some_and(|it| it.minority))
            .await;
        raw.ask(&Request::Open { ticket: 1, id: 7 }, b"").await;
        let Some(Reply::Standing { ticket: 0, standing }) = raw.reply().await else { panic!() };
        assert!(!standing.serving && !standing.members.is_empty());
        let refused = Reply::NotDone { ticket: 1, reason: NotDone::Minority };
        assert_eq!(raw.reply().await, Some(refused));
    });
}

/// A client that asks and never reads is held back and loses its connection at most: others are served meanwhile.
#[test]
fn requests_without_end_are_held_back() {
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let nodes = cluster.all();
        ready(&nodes[0], 3).await;
        let (listener, address) = listener();
        serve(&nodes[0], listener);
        let mut raw = Raw::hello(address, cluster.id).await;
        let status = Request::Read { ticket: 1, local: true }.encode(bytes::Bytes::new()).encode();
        let many = status.repeat(1_000);
        let mut written = 0;
        // Until nothing is taken any more.
        while let Ok(done) =
            tokio::time::timeout(Duration::from_secs(1), raw.0.write_all(&many)).await
        {
            done.unwrap();
            written += many.len();
            assert!(written < 64 << 20, "the node reads without end");
        }
        assert_eq!(place(&nodes[0].execute(&entry(1)).await), Some(1));
        let session = Session { id: 1, opened: mainstay_base::Position(1) };
        let close = Envelope::Close { session }.encode(b"");
        let (tell, told) = tokio::sync::oneshot::channel();
        nodes[0].submit(close, move |fate| drop(tell.send(fate)));
        assert_eq!(Outcome::from(told.await.unwrap()), Outcome::Unknown, "a session never opened");
    });
}

/// Clients that ask for large answers and take none cost their node a bounded part of its memory, and nobody else an answer.
#[test]
fn large_answers_that_nobody_takes_are_held_back() {
    const CLIENTS: usize = 20;
    const ANSWER: usize = 512 << 10;
    run(async {
        let cluster = Cluster::new(Durability::Memory);
        let nodes = cluster.all();
        ready(&nodes[0], 3).await;
        let (listener, address) = listener();
        let node = nodes[0].clone();
        let large = |_: &Journal, _: &[u8]| vec![0; ANSWER];
        tokio::task::spawn_local(async move { node.serve_clients(listener, large).await });
        let read = Request::Read { ticket: 1, local: true }.encode(bytes::Bytes::new()).encode();
        let mut greedy = Vec::new();
        for _ in 0..CLIENTS {
            let mut raw = Raw::hello(address, cluster.id).await;
            raw.0.write_all(&read.repeat(64)).await.unwrap();
            greedy.push(raw);
        }
        let mut most = 0;
        for number in 1..=200 {
            let outcome = nodes[0].execute(&entry(number)).await;
            assert_eq!(place(&outcome), Some(number), "{outcome:?}");
            let status = nodes[0].status().await.unwrap();
            assert_eq!(status.site.stack.unwrap().members.len(), 3);
            most = most.max(status.clients.unwritten_bytes);
        }
        assert!(most >= CLIENTS * ANSWER, "they were answered: {most}");
        assert!(most <= CLIENTS * ((1 << 20) + 2 * ANSWER), "{most}");
        drop(greedy);
        let taken = async || nodes[0].status().await.unwrap().clients.unwritten_bytes == 0;
        while !taken().await {
            tokio::task::yield_now().await;
        }
    });
}
