//! The TCP transport, over loopback sockets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::frame::{BODY_SIZE_MAX, BODY_SIZE_MAX_EARLY, FrameError};
use mainstay_base::{ClusterId, ConnId, Frame, NodeId};
use mainstay_runtime::{
    ClientListener, CloseReason, DialError, Tcp, TcpClients, TcpError, TcpOptions, TcpReserved,
    TimeSource, TokioTime, Transport, TransportEvent,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

/// A transport and what happened on it.
struct End {
    tcp: Tcp,
    events: mpsc::Receiver<TransportEvent>,
}

impl End {
    fn new(options: TcpOptions) -> Self {
        Self::with_room(options, 64)
    }

    fn with_room(options: TcpOptions, room: usize) -> Self {
        let mut tcp = Tcp::new(options, Rc::new(TokioTime::new())).unwrap();
        let (sink, events) = mpsc::channel(room);
        tcp.start(Rc::new(sink));
        Self { tcp, events }
    }

    fn listening() -> Self {
        Self::new(TcpOptions::listening(any_port()))
    }

    fn address(&self) -> SocketAddr {
        self.tcp.local_addr().unwrap()
    }

    async fn next(&mut self) -> TransportEvent {
        self.events.recv().await.unwrap()
    }

    async fn opened(&mut self) -> ConnId {
        match self.next().await {
            TransportEvent::Opened { conn, .. } => conn,
            other => panic!("opened, not {other:?}"),
        }
    }

    /// All frames up to the end of the connection, and why it ended.
    async fn until_closed(&mut self, conn: ConnId) -> (Vec<Frame>, CloseReason) {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                TransportEvent::Received { conn: of, frames } if of == conn => all.extend(frames),
                TransportEvent::Closed { conn: of, reason } if of == conn => return (all, reason),
                other => panic!("of {conn:?}, not {other:?}"),
            }
        }
    }

    async fn received(&mut self, count: usize) -> Vec<Frame> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.next().await {
                TransportEvent::Received { frames, .. } => all.extend(frames),
                other => panic!("frames, not {other:?}"),
            }
        }
        all
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn node(name: &str) -> NodeId {
    NodeId::new(ClusterId::from_entropy(1), name)
}

fn frame(seq: u32, size: usize) -> Frame {
    let meta = Bytes::from(vec![seq as u8; size % 5]);
    Frame { channel: 1, session: 2, seq, meta, payload: Bytes::from(vec![seq as u8; size]) }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

async fn pair() -> (End, ConnId, End, ConnId) {
    let mut accepting = End::listening();
    let mut dialling = End::new(TcpOptions::default());
    dialling.tcp.dial(node("a"), accepting.address()).unwrap();
    let out = match dialling.next().await {
        TransportEvent::Opened { conn, dialled } => {
            assert_eq!(dialled, Some(node("a")));
            conn
        }
        other => panic!("opened, not {other:?}"),
    };
    let within = accepting.opened().await;
    (accepting, within, dialling, out)
}

/// Checks frames of all sizes up to the limit, in order, both ways, with payloads copied and not.
#[tokio::test]
async fn frames_of_all_sizes_arrive() {
    local(async {
        let (mut one, at_one, mut other, at_other) = pair().await;
        let sizes =
            [0, 1, 31, 32, 33, 1000, 16_383, 16_384, 65_535, 65_536, 300_000, BODY_SIZE_MAX - 4];
        let sent: Vec<Frame> = sizes.iter().zip(0..).map(|(&size, seq)| frame(seq, size)).collect();
        for frame in &sent {
            one.tcp.send(at_one, frame.clone());
            other.tcp.send(at_other, frame.clone());
        }
        one.tcp.flush();
        other.tcp.flush();
        assert_eq!(one.received(sent.len()).await, sent);
        assert_eq!(other.received(sent.len()).await, sent);
    })
    .await;
}

/// Checks that the stream may be cut anywhere: every offset is a write of its own, on the wire too.
#[tokio::test]
async fn a_stream_may_be_cut_anywhere() {
    local(async {
        let mut end = End::listening();
        let sent = [frame(0, 3), frame(1, 0), frame(2, 60)];
        let stream: Vec<u8> = sent.iter().flat_map(Frame::encode).collect();
        for cut in 1..stream.len() {
            let mut peer = TcpStream::connect(end.address()).await.unwrap();
            peer.set_nodelay(true).unwrap();
            let conn = end.opened().await;
            peer.write_all(&stream[..cut]).await.unwrap();
            tokio::task::yield_now().await;
            peer.write_all(&stream[cut..]).await.unwrap();
            drop(peer);
            assert_eq!(end.until_closed(conn).await, (sent.to_vec(), CloseReason::Ended));
        }
    })
    .await;
}

/// Checks that bytes which are no frames close their connection only, after what preceded them was delivered, and are
/// counted by reason (R14).
#[tokio::test]
async fn garbage_closes_the_connection_and_is_counted() {
    local(async {
        let mut end = End::listening();
        let good = frame(0, 10);
        let mut flipped = frame(1, 10).encode().to_vec();
        flipped[40] ^= 1;
        let mut version = frame(1, 10).encode().to_vec();
        version[4] = 9;
        let mut oversized = frame(1, 10).encode().to_vec();
        oversized[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        let truncated = frame(1, 10).encode()[..20].to_vec();
        let cases: [(&[u8], &str); 5] = [
            (b"GET / HTTP/1.1\r\nHost: example.invalid\r\n\r\n", "garbage-magic"),
            (&version, "garbage-version"),
            (&oversized, "garbage-too-large"),
            (&flipped, "garbage-checksum"),
            (&truncated, "truncated"),
        ];
        for (bytes, name) in cases {
            let mut peer = TcpStream::connect(end.address()).await.unwrap();
            let conn = end.opened().await;
            let stream = [&good.encode()[..], bytes].concat();
            peer.write_all(&stream).await.unwrap();
            peer.shutdown().await.unwrap();
            let (frames, reason) = end.until_closed(conn).await;
            assert_eq!((frames, reason.name()), (vec![good.clone()], name));
            assert_eq!((end.tcp.stats().closed[name], end.tcp.refused()[name]), (1, 1));
        }
        assert_eq!(end.tcp.refused().len(), cases.len());
        // The listener lives.
        let _peer = TcpStream::connect(end.address()).await.unwrap();
        end.opened().await;
        assert_eq!(end.tcp.stats().opened, 6);
    })
    .await;
}

/// Checks that a stranger's first frame may be 64 KiB and no more.
#[tokio::test]
async fn a_first_frame_is_small() {
    local(async {
        let mut end = End::listening();
        for (size, fits) in [(BODY_SIZE_MAX_EARLY, true), (BODY_SIZE_MAX_EARLY + 1, false)] {
            let mut peer = TcpStream::connect(end.address()).await.unwrap();
            let conn = end.opened().await;
            let first = Frame { payload: vec![0; size].into(), ..Frame::default() };
            // The connection may be closed before all is written.
            let _ = peer.write_all(&first.encode()).await;
            let _ = peer.shutdown().await;
            let (frames, reason) = end.until_closed(conn).await;
            assert_eq!(frames.len(), usize::from(fits));
            let refused = matches!(reason, CloseReason::Garbage(FrameError::TooLarge { .. }));
            assert_eq!(refused, !fits, "{reason:?}");
        }
    })
    .await;
}

/// Checks that a connection on which nothing comes is closed after five seconds of virtual time.
#[tokio::test(start_paused = true)]
async fn silence_closes_the_connection() {
    local(async {
        let time = TokioTime::new();
        let mut end = End::listening();
        let _peer = TcpStream::connect(end.address()).await.unwrap();
        let conn = end.opened().await;
        let opened = time.now();
        assert_eq!(end.until_closed(conn).await, (vec![], CloseReason::Silent));
        assert!(time.now() - opened >= Duration::from_secs(4));
        assert!(time.now() - opened <= Duration::from_secs(6));
    })
    .await;
}

/// Checks that nothing leaves this machine in the clear, neither by listening nor by dialling.
#[tokio::test]
async fn only_loopback_is_served() {
    local(async {
        for address in ["0.0.0.0:0", "192.0.2.1:1", "[::]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let time = Rc::new(TokioTime::new());
            let refused = Tcp::new(TcpOptions::listening(address), time).unwrap_err();
            assert!(matches!(refused, TcpError::TlsRequired(at) if at == address));
            assert!(refused.to_string().contains("TLS"));
            assert!(matches!(TcpClients::new(address), Err(TcpError::TlsRequired(_))));
        }
        let mut end = End::listening();
        let far: SocketAddr = "192.0.2.1:1".parse().unwrap();
        assert_eq!(end.tcp.dial(node("a"), far), Err(DialError::TlsRequired(far)));
    })
    .await;
}

/// Checks that a peer that does not read is closed at the byte bound, that no more is held, and that sending to it
/// afterwards does nothing.
#[tokio::test]
async fn a_slow_peer_is_closed_at_the_bound() {
    local(async {
        let mut options = TcpOptions::listening(any_port());
        options.queue_bytes_max = 2 << 20;
        let mut end = End::new(options);
        let mut peer = TcpStream::connect(end.address()).await.unwrap();
        let conn = end.opened().await;
        let mut sent = 0;
        while let Some(queued) = end.tcp.queued_bytes(conn) {
            assert!(queued <= 2 << 20);
            end.tcp.send(conn, frame(sent, 60_000));
            end.tcp.flush();
            sent += 1;
            tokio::task::yield_now().await;
        }
        end.tcp.send(conn, frame(0, 1));
        assert_eq!(end.until_closed(conn).await, (vec![], CloseReason::SlowPeer));
        assert_eq!(end.tcp.stats().closed["slow-peer"], 1);
        let mut rest = Vec::new();
        // Ends, by a reset or not: the connection is closed for the peer as well.
        let _ = peer.read_to_end(&mut rest).await;
        assert!(rest.len() < 60_100 * sent as usize);
    })
    .await;
}

/// Checks that nobody at the address is said as such.
#[tokio::test]
async fn a_refused_dial_is_an_event() {
    local(async {
        let free = std::net::TcpListener::bind(any_port()).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut end = End::new(TcpOptions::default());
        end.tcp.dial(node("b"), address).unwrap();
        assert_eq!(end.next().await, TransportEvent::Refused { node: node("b") });
    })
    .await;
}

/// Checks the cap on accepted connections, and that a place is free again when one ends.
#[tokio::test]
async fn too_many_are_turned_away() {
    local(async {
        let mut options = TcpOptions::listening(any_port());
        options.accepted_max = 2;
        let mut end = End::new(options);
        let first = TcpStream::connect(end.address()).await.unwrap();
        let conn = end.opened().await;
        let _second = TcpStream::connect(end.address()).await.unwrap();
        end.opened().await;
        let mut third = TcpStream::connect(end.address()).await.unwrap();
        assert_eq!(third.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!((end.tcp.stats().turned_away, end.tcp.refused()["turned-away"]), (1, 1));
        drop(first);
        end.until_closed(conn).await;
        tokio::task::yield_now().await;
        let _fourth = TcpStream::connect(end.address()).await.unwrap();
        end.opened().await;
    })
    .await;
}

/// Checks order and batching over many frames: 100,000 each way, in far fewer reads and writes, while the sink is small.
#[tokio::test]
async fn a_hundred_thousand_frames_arrive_in_order() {
    const COUNT: u32 = 100_000;
    local(async {
        let (mut one, at_one, mut other, at_other) = pair().await;
        let (mut sent, mut seen) = (0, [0, 0]);
        while seen != [COUNT, COUNT] {
            // A turn's worth, unless the peer is behind.
            if sent < COUNT && sent - seen[0].min(seen[1]) < 10_000 {
                for seq in sent..(sent + 500).min(COUNT) {
                    one.tcp.send(at_one, frame(seq, 20));
                    other.tcp.send(at_other, frame(seq, 20));
                }
                sent = (sent + 500).min(COUNT);
                one.tcp.flush();
                other.tcp.flush();
            }
            let event = tokio::select! {
                biased;
                event = one.events.recv() => (0, event),
                event = other.events.recv() => (1, event),
                () = tokio::task::yield_now() => continue,
            };
            let (end, Some(TransportEvent::Received { frames, .. })) = event else {
                panic!("frames, not {event:?}")
            };
            for frame in frames {
                assert_eq!(frame.seq, seen[end]);
                seen[end] += 1;
            }
        }
        for stats in [one.tcp.stats(), other.tcp.stats()] {
            assert_eq!((stats.frames_sent, stats.frames_received), (COUNT.into(), COUNT.into()));
            assert!(stats.writes < 5_000 && stats.reads < 20_000, "{stats:?}");
        }
    })
    .await;
}

/// Checks that a reader whose sink is full reads no more, so that the peer is held back and loses nothing.
#[tokio::test]
async fn a_full_sink_holds_the_peer_back() {
    local(async {
        let mut end = End::with_room(TcpOptions::listening(any_port()), 1);
        let mut dialling = End::new(TcpOptions::default());
        dialling.tcp.dial(node("a"), end.address()).unwrap();
        let conn = dialling.opened().await;
        end.opened().await;
        let sent: Vec<Frame> = (0..120).map(|seq| frame(seq, 50_000)).collect();
        sent.iter().for_each(|frame| dialling.tcp.send(conn, frame.clone()));
        dialling.tcp.flush();
        assert_eq!(end.received(sent.len()).await, sent);
    })
    .await;
}

/// Checks that a close writes what is queued, that the other side sees a clean end, and that dropping a transport ends
/// its connections.
#[tokio::test]
async fn a_close_writes_what_is_queued() {
    local(async {
        let (mut one, at_one, mut other, at_other) = pair().await;
        one.tcp.send(at_one, frame(1, 60_000));
        one.tcp.close(at_one);
        one.tcp.send(at_one, frame(2, 1));
        assert_eq!(one.until_closed(at_one).await, (vec![], CloseReason::Local));
        let (frames, reason) = other.until_closed(at_other).await;
        assert_eq!((frames, reason), (vec![frame(1, 60_000)], CloseReason::Ended));

        let (one, _, mut other, at_other) = pair().await;
        drop(one.tcp);
        let (_, reason) = other.until_closed(at_other).await;
        assert_eq!(reason, CloseReason::Ended);
    })
    .await;
}

/// Checks the graceful end: nothing new is accepted or dialled, what is queued leaves; and a peer that does not read
/// does not hold it up beyond the deadline.
#[tokio::test]
async fn a_drain_flushes_or_gives_up() {
    local(async {
        let (mut one, at_one, mut other, _) = pair().await;
        let address = one.address();
        one.tcp.send(at_one, frame(1, 60_001));
        let time = TokioTime::new();
        let soon = time.now() + Duration::from_secs(20);
        assert!(one.tcp.drain(soon).await);
        assert_eq!(other.received(1).await, [frame(1, 60_001)]);
        assert_eq!(one.tcp.dial(node("a"), address), Err(DialError::NotRunning));
        other.tcp.dial(node("a"), address).unwrap();
        assert_eq!(other.next().await, TransportEvent::Refused { node: node("a") });

        let mut options = TcpOptions::listening(any_port());
        options.queue_bytes_max = 64 << 20;
        let mut end = End::new(options);
        let _peer = TcpStream::connect(end.address()).await.unwrap();
        let conn = end.opened().await;
        // More than the sockets of both sides hold.
        let large = frame(0, BODY_SIZE_MAX - 4);
        (0..60).for_each(|_| end.tcp.send(conn, large.clone()));
        assert!(!end.tcp.drain(time.now() + Duration::from_millis(20)).await);
        assert!(end.tcp.queued_bytes(conn).unwrap() > 0);
    })
    .await;
}

/// Checks that a client is accepted and can talk.
#[tokio::test]
async fn clients_connect() {
    let mut clients = TcpClients::new(any_port()).unwrap();
    let mut client = TcpStream::connect(clients.local_addr().unwrap()).await.unwrap();
    let mut stream = clients.accept().await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

/// Checks that an address that is taken refuses who connects until it is listened at, for clients and for the transport, and
/// that it is taken: another one cannot listen there any more.
#[tokio::test]
async fn a_taken_address_refuses_until_it_is_listened_at() {
    local(async {
        let refused = async |address| {
            let error = TcpStream::connect(address).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        };
        let taken = TcpReserved::new(any_port()).unwrap();
        let address = taken.local_addr();
        refused(address).await;
        let mut clients = taken.clients().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        clients.accept().await.unwrap();
        let in_use = TcpReserved::new(address).unwrap_err();
        assert!(
            matches!(in_use, TcpError::Listen { address: at, .. } if at == address),
            "{in_use}"
        );

        let options = TcpOptions::listening(any_port());
        let mut tcp = Tcp::new(options, Rc::new(TokioTime::new())).unwrap();
        let address = tcp.local_addr().unwrap();
        refused(address).await;
        let (sink, mut events) = mpsc::channel(8);
        tcp.start(Rc::new(sink));
        let _peer = TcpStream::connect(address).await.unwrap();
        let opened = events.recv().await.unwrap();
        assert!(matches!(opened, TransportEvent::Opened { dialled: None, .. }), "{opened:?}");
    })
    .await;
}

/// Checks that a transport whose address another one has begun to listen at meanwhile takes it when it is free again.
#[tokio::test]
async fn an_address_that_was_lost_meanwhile_is_taken_when_it_is_free() {
    local(async {
        let options = TcpOptions::listening(any_port());
        let mut tcp = Tcp::new(options, Rc::new(TokioTime::new())).unwrap();
        let address = tcp.local_addr().unwrap();
        let other = TcpClients::new(address).unwrap();
        let (sink, mut events) = mpsc::channel(8);
        tcp.start(Rc::new(sink));
        drop(other);
        let mut peer = TcpStream::connect(address).await;
        while peer.is_err() {
            tokio::task::yield_now().await;
            peer = TcpStream::connect(address).await;
        }
        assert!(matches!(events.recv().await.unwrap(), TransportEvent::Opened { .. }));
    })
    .await;
}

/// Checks that the deadline of the first frame is one of the whole frame: bytes that trickle in do not move it.
#[tokio::test(start_paused = true)]
async fn a_first_frame_that_trickles_in_is_too_late() {
    local(async {
        let time = TokioTime::new();
        let mut end = End::listening();
        let mut peer = TcpStream::connect(end.address()).await.unwrap();
        let conn = end.opened().await;
        let opened = time.now();
        for (at, byte) in frame(1, 100).encode().iter().enumerate().take(4) {
            time.sleep_until(opened + Duration::from_secs(at as u64)).await;
            peer.write_all(&[*byte]).await.unwrap();
        }
        assert_eq!(end.until_closed(conn).await, (vec![], CloseReason::Silent));
        let waited = time.now() - opened;
        assert!((4..=6).contains(&waited.as_secs()), "{waited:?}");
        assert_eq!(end.tcp.refused(), [("silent", 1)].into());
    })
    .await;
}

/// Checks that the transport leaves a connection alone that has brought a frame: how long it may be idle is the link's
/// business.
#[tokio::test(start_paused = true)]
async fn after_the_first_frame_a_connection_may_be_idle() {
    local(async {
        let time = TokioTime::new();
        let mut end = End::listening();
        let mut peer = TcpStream::connect(end.address()).await.unwrap();
        let conn = end.opened().await;
        for seq in 0..3 {
            peer.write_all(&frame(seq, 10).encode()).await.unwrap();
            assert_eq!(end.received(1).await, [frame(seq, 10)]);
            time.sleep_until(time.now() + Duration::from_secs(60)).await;
        }
        drop(peer);
        assert_eq!(end.until_closed(conn).await, (vec![], CloseReason::Ended));
        assert!(end.tcp.refused().is_empty(), "an end is no fault");
    })
    .await;
}

/// Checks that a peer that reads slowly, but reads, keeps its connection while less than the bound is queued and gets all
/// in order; and that one that does not read at all costs nobody else anything.
#[tokio::test]
async fn a_slow_reader_holds_up_nobody() {
    const COUNT: u32 = 300;
    local(async {
        let mut options = TcpOptions::listening(any_port());
        options.queue_bytes_max = 2 << 20;
        let mut end = End::new(options);
        let _deaf = TcpStream::connect(end.address()).await.unwrap();
        let deaf = end.opened().await;
        // As much as the sockets hold, and some more: what is queued stays below the bound.
        let mut kept = 0;
        while end.tcp.queued_bytes(deaf).unwrap() < 1 << 20 {
            end.tcp.send(deaf, frame(kept, 60_000));
            end.tcp.flush();
            kept += 1;
            tokio::task::yield_now().await;
        }
        let mut slow = TcpStream::connect(end.address()).await.unwrap();
        let conn = end.opened().await;
        let stream: Vec<u8> = (0..COUNT).flat_map(|seq| frame(seq, 60_000).encode()).collect();
        let (mut sent, mut seen, mut buffer) = (0, 0, vec![0; 30_000]);
        while seen < stream.len() {
            while sent < COUNT && end.tcp.queued_bytes(conn).unwrap() < 1 << 20 {
                end.tcp.send(conn, frame(sent, 60_000));
                end.tcp.flush();
                sent += 1;
            }
            let size = slow.read(&mut buffer).await.unwrap();
            assert_eq!(buffer[..size], stream[seen..seen + size]);
            seen += size;
        }
        assert!(end.tcp.queued_bytes(deaf).is_some() && end.tcp.refused().is_empty());
    })
    .await;
}
