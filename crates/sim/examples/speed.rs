//! How many steps a second the scheduler does with tiny machines: `cargo run --release -p mainstay-sim --example speed`.
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::time::SystemTime;

use mainstay_base::{BootId, Duration, Instant};
use mainstay_sim::{Atlas, Effects, Node, Options, Peer, Start, Wire, World};

/// Sends a token on to where the last one did not come from.
struct Passer {
    peers: Vec<BootId>,
    tokens: Vec<u64>,
    kick: Option<Instant>,
}

impl Node for Passer {
    type Setup = ();
    type Message = u64;
    type Durable = ();
    type Write = ();
    type Event = ();

    fn start(start: Start<'_, Self>) -> Self {
        Self {
            peers: Vec::new(),
            tokens: Vec::new(),
            kick: Some(start.now + Duration::from_millis(10)),
        }
    }

    fn opened(&mut self, _: Instant, peer: Peer, _: bool) {
        self.peers.push(peer.boot);
    }

    fn closed(&mut self, _: Instant, peer: Peer) {
        self.peers.retain(|boot| *boot != peer.boot);
    }

    fn receive(&mut self, _: Instant, _: Peer, token: u64) {
        self.tokens.push(token + 1);
    }

    fn timeout(&mut self, now: Instant) {
        self.tokens.push(0);
        self.kick = Some(now + Duration::from_millis(10));
    }

    fn end_turn(&mut self, _: Instant, out: &mut Effects<Self>) {
        for token in self.tokens.drain(..) {
            if token < 100 && !self.peers.is_empty() {
                out.send(self.peers[token as usize % self.peers.len()], token);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.kick
    }

    fn apply((): &mut (), (): ()) {}
}

fn main() {
    let calm = |wire| (format!("{wire:?}, calm"), Options::calm(wire));
    let faults = |wire| {
        let options = Options::from_seed(7, wire, Atlas { down: 1, lost: 0 });
        (format!("{wire:?}, faults"), options)
    };
    let kinds =
        [calm(Wire::Channel), calm(Wire::Datagram), faults(Wire::Channel), faults(Wire::Datagram)];
    for (name, options) in kinds {
        for nodes in [3, 9] {
            let mut world: World<Passer> = World::new(7, nodes, (), options.clone());
            let began = SystemTime::now();
            world.run(Duration::from_secs(60)).expect("nothing is checked here");
            let time = began.elapsed().expect("the clock goes on");
            let (steps, seconds) = (world.stats().steps, time.as_secs_f64());
            let speed = steps as f64 / seconds / 1e6;
            println!("{name}, {nodes} nodes: {steps} steps in {seconds:.2} s, {speed:.2} M/s");
        }
    }
}
