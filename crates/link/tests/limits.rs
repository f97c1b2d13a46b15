//! The limits of the peer port: a link over TCP, and a peer or a stranger that speaks to it byte by byte.
#![cfg(feature = "actor")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use mainstay_base::frame::{BODY_SIZE_MAX, HEADER_SIZE};
use mainstay_base::{BootId, BootNonce, ClusterId, Duration, Frame, Header, NodeId, Rng, codec};
use mainstay_link::Builder;
use mainstay_link::actor::{LinkEvent, LinkEvents, LinkHandle, LinkParts, SendError, open};
use mainstay_link::message::{Expectation, Hello, Message, seq_origin, session};
use mainstay_runtime::{
    ClientDialer as _, ClientStream, SeededEntropy, Tcp, TcpDialer, TcpOptions, TokioTime,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::LocalSet;
use tokio::time::Instant;

fn cluster() -> ClusterId {
    ClusterId::from_entropy(1)
}

/// The one that has the smaller id is the peer: it is the one that dials.
fn names() -> [&'static str; 2] {
    let mut names = ["a", "b"];
    names.sort_by_key(|name| NodeId::new(cluster(), name));
    names
}

fn peer() -> BootId {
    BootId { node: NodeId::new(cluster(), names()[0]), nonce: BootNonce(7) }
}

type Stream = Box<dyn ClientStream>;

/// A link that listens, and what it tells.
struct Listening {
    address: SocketAddr,
    link: LinkHandle,
    events: LinkEvents,
}

impl Listening {
    /// `queue` bounds the bytes queued on one connection.
    fn start(queue: usize, configure: fn(Builder) -> Builder) -> Self {
        let time = Rc::new(TokioTime::new());
        let mut options = TcpOptions::listening(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.queue_bytes_max = queue;
        let tcp = Tcp::new(options, time.clone()).unwrap();
        let address = tcp.local_addr().unwrap();
        let roster = BTreeMap::from(names().map(|name| (name.to_owned(), address)));
        let (name, entropy) = (names()[1], Box::new(SeededEntropy::new(Rng::new(1))));
        let parts = LinkParts::new(cluster(), name, roster, Box::new(tcp), time, entropy);
        let (link, events) = open(parts.configure(configure)).unwrap();
        Self { address, link, events }
    }

    fn me(&self) -> BootId {
        self.link.me().boot
    }

    /// The link listens from its first turn on.
    async fn connect(&self) -> Stream {
        loop {
            if let Ok(stream) = TcpDialer.dial(self.address).await {
                return stream;
            }
        }
    }

    /// The next event that this picks.
    async fn until<T>(&mut self, pick: impl Fn(LinkEvent) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.events.next().await.unwrap()) {
                return picked;
            }
        }
    }
}

/// The hello of the peer.
fn hello(me: BootId) -> Frame {
    let peer = peer();
    let expectation = Some(Expectation { of: me.nonce, received: 0 });
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        cluster: cluster(),
        from: peer,
        to: me.node,
        roster_version: 0,
        expectation,
    };
    Message::Hello(hello).frame(0)
}

/// The next frame, or none: the connection has ended.
async fn read_frame(stream: &mut Stream) -> Option<Frame> {
    let mut head = [0; HEADER_SIZE];
    stream.read_exact(&mut head).await.ok()?;
    let header = Header::decode(&head, BODY_SIZE_MAX).unwrap();
    let mut body = vec![0; header.body_len()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Frame::decode(&header, body.into()).unwrap())
}

/// Says hello and reads the answer.
async fn greet(stream: &mut Stream, me: BootId) {
    stream.write_all(&hello(me).encode()).await.unwrap();
    let answer = read_frame(stream).await.unwrap();
    assert!(matches!(codec::decode(&answer.meta), Ok(Message::Hello(_))));
}

/// Runs a test that ends within a minute, of virtual time where that is paused.
async fn local<T>(test: impl Future<Output = T>) -> T {
    let test = tokio::time::timeout(Duration::from_secs(60), test);
    LocalSet::new().run_until(test).await.unwrap()
}

/// Checks the deadline of the hello: a stranger who says something else, however often, is closed three seconds after he
/// came, and one who says nothing is, too.
#[tokio::test(start_paused = true)]
async fn without_a_hello_a_connection_is_closed() {
    local(async {
        let listening = Listening::start(2 << 20, |config| config);
        let (peer, me) = (peer(), listening.me());
        for speaks in [false, true] {
            let mut stream = listening.connect().await;
            let came = Instant::now();
            for second in 0..3 {
                if speaks {
                    let ack = Message::Ack { received: 0 }.frame(session(peer, me));
                    stream.write_all(&ack.encode()).await.unwrap();
                }
                tokio::time::sleep_until(came + Duration::from_millis(second * 900)).await;
            }
            assert_eq!(read_frame(&mut stream).await, None);
            let waited = came.elapsed();
            assert!((2_900..3_500).contains(&waited.as_millis()), "{waited:?}");
        }
    })
    .await;
}

/// Checks that a peer that is greeted and then says nothing is closed after three seconds, counted from its last word,
/// though it is sent heartbeats all the time.
#[tokio::test(start_paused = true)]
async fn an_idle_peer_is_closed() {
    local(async {
        let mut listening = Listening::start(2 << 20, |config| config);
        let (peer, me) = (peer(), listening.me());
        let mut stream = listening.connect().await;
        greet(&mut stream, me).await;
        listening.until(|event| matches!(event, LinkEvent::Up { .. }).then_some(())).await;
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(2)).await;
        let ack = Message::Ack { received: 0 }.frame(session(peer, me));
        stream.write_all(&ack.encode()).await.unwrap();
        let spoke = Instant::now();
        let mut heartbeats = 0;
        while read_frame(&mut stream).await.is_some() {
            heartbeats += 1;
        }
        let waited = spoke.elapsed();
        assert!((2_900..3_500).contains(&waited.as_millis()), "{waited:?}");
        assert!(heartbeats > 50, "{heartbeats}");
        listening.until(|event| matches!(event, LinkEvent::Down { .. }).then_some(())).await;
    })
    .await;
}

/// Checks MB-27 and the bound of what is kept for a peer that does not read: messages beyond the window are refused, or wait, and what
/// was accepted comes whole and in order as soon as the peer reads; then what waited is accepted.
#[tokio::test]
async fn a_peer_that_does_not_read_fills_its_window_and_no_more() {
    const SIZE: usize = 60_000;
    let fits = (8 << 20) / (SIZE as u32 + 4);
    local(async {
        // Neither silence nor a repetition comes between.
        let patient = |config: Builder| {
            let (silence, resend) = (Duration::from_secs(300), Duration::from_secs(100));
            config.window(8 << 20, 1_000).silence(silence).resend_after(resend)
        };
        let mut listening = Listening::start(9 << 20, patient);
        let (peer, me) = (peer(), listening.me());
        let mut stream = listening.connect().await;
        greet(&mut stream, me).await;
        listening.until(|event| matches!(event, LinkEvent::Up { .. }).then_some(())).await;
        let message = |number: u32| [&number.to_le_bytes()[..], &[0; SIZE]].concat();
        for number in 0..fits {
            let sent = listening.link.send_now(names()[0], message(number)).await.unwrap();
            assert_eq!(sent.number, u64::from(number) + 1);
        }
        for number in fits..fits + 3 {
            let refused = listening.link.send_now(names()[0], message(number)).await.unwrap_err();
            assert!(matches!(refused, SendError::Full(_)), "{refused}");
            assert_eq!(refused.into_payload(), message(number));
        }
        let link = listening.link.clone();
        let waits = tokio::task::spawn_local(async move { link.send(names()[0], "more").await });
        let mut expected = 0;
        while expected < fits {
            let frame = read_frame(&mut stream).await.unwrap();
            if frame.channel == 0 {
                continue;
            }
            assert_eq!(frame.payload[..4], expected.to_le_bytes());
            expected += 1;
            assert_eq!(frame.seq, seq_origin(me, peer).wrapping_add(expected));
            let ack = Message::Ack { received: expected.into() }.frame(session(peer, me));
            stream.write_all(&ack.encode()).await.unwrap();
        }
        assert_eq!(waits.await.unwrap().unwrap().number, u64::from(fits) + 1);
        let all = |event| match event {
            LinkEvent::Acknowledged { upto, .. } => (upto == u64::from(fits)).then_some(()),
            LinkEvent::Down { .. } => panic!("what is in the window fits the queue"),
            _ => None,
        };
        listening.until(all).await;
    })
    .await;
}
