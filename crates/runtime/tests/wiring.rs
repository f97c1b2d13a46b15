//! Host and transport together, as a node wires them: events into inputs, outputs into frames.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use mainstay_base::{ClusterId, ConnId, Frame, Instant, Machine, NodeId};
use mainstay_runtime::{
    Closed, HostOptions, HostSink, LocalFuture, Perform, Port, Tcp, TcpOptions, TokioTime,
    Transport, TransportEvent, host,
};
use tokio::sync::mpsc;

const ROUNDS: u32 = 1000;

/// Answers each frame with the next number, until there have been enough.
#[derive(Default)]
struct Rally(VecDeque<(ConnId, u32)>);

impl Machine for Rally {
    type Input = TransportEvent;
    type Output = (ConnId, u32);

    fn handle(&mut self, _now: Instant, event: TransportEvent) {
        match event {
            TransportEvent::Opened { conn, dialled: Some(_) } => self.0.push_back((conn, 0)),
            TransportEvent::Received { conn, frames } => {
                self.0.extend(frames.iter().map(|frame| (conn, frame.seq + 1)));
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn end_turn(&mut self, _now: Instant) {}

    fn poll_output(&mut self) -> Option<(ConnId, u32)> {
        self.0.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

struct Player {
    tcp: Tcp,
    dials: Option<SocketAddr>,
    done: mpsc::Sender<u32>,
}

impl Perform<Rally> for Player {
    fn started(&mut self, port: &mut Port<'_, Rally>) {
        self.tcp.start(Rc::new(HostSink::new(port.handle(), |event| vec![event])));
        if let Some(address) = self.dials {
            let node = NodeId::new(ClusterId::from_entropy(1), "other");
            self.tcp.dial(node, address).unwrap();
        }
    }

    fn perform(&mut self, (conn, seq): (ConnId, u32), _port: &mut Port<'_, Rally>) {
        if seq == ROUNDS {
            self.done.try_send(seq).unwrap();
        } else {
            self.tcp.send(conn, Frame { seq, ..Frame::default() });
        }
    }

    fn turn_ended(&mut self, _port: &mut Port<'_, Rally>) {
        self.tcp.flush();
    }

    fn closing(&mut self, deadline: Instant) -> LocalFuture<()> {
        let drained = self.tcp.drain(deadline);
        Box::pin(async move { assert!(drained.await, "little is queued") })
    }

    fn weigh(event: &TransportEvent) -> usize {
        event.weight()
    }
}

/// Checks that two nodes play a rally to its end over TCP and stop gracefully, and that a transport inside its host does
/// not keep it alive.
#[tokio::test]
async fn two_hosts_play_a_rally() {
    let set = tokio::task::LocalSet::new();
    set.run_until(async {
        let (done, mut finished) = mpsc::channel(2);
        let time = Rc::new(TokioTime::new());
        let play = |options, dials| {
            let tcp = Tcp::new(options, time.clone()).unwrap();
            let address = tcp.local_addr();
            let player = Player { tcp, dials, done: done.clone() };
            let options = HostOptions::default();
            (host::start(Rally::default(), player, time.clone(), options), address)
        };
        let (one, address) = play(TcpOptions::listening("127.0.0.1:0".parse().unwrap()), None);
        let (other, _) = play(TcpOptions::default(), address);
        assert_eq!(finished.recv().await, Some(ROUNDS));
        one.stop();
        assert_eq!(one.closed().await, Closed::Stopped);
        let closed = other.closed();
        drop(other);
        assert_eq!(closed.await, Closed::Stopped);
    })
    .await;
}
