//! A client of registers, and what it demands of them.

use std::collections::BTreeMap;

use mainstay_base::{Duration, Instant, Rng};
use mainstay_sim::{Node, World};

use crate::toy::{Command, Event, Register};

/// A node with a register.
pub trait Hosts: Node<Event = Event> {
    fn register(&self) -> Option<&Register>;
    fn command(&mut self, now: Instant, command: Command);
}

/// A world of registers, and what its client knows.
pub struct Client<N: Hosts> {
    pub world: World<N>,
    nodes: usize,
    /// Of each operation, the highest value that was acknowledged when it began.
    begun: BTreeMap<u64, u64>,
    acknowledged: u64,
    operations: u64,
    pub reads: u64,
    rng: Rng,
}

fn is_idle<N: Hosts>(node: &N) -> bool {
    node.register().is_some_and(|it| !it.is_busy())
}

impl<N: Hosts> Client<N> {
    pub fn new(world: World<N>, nodes: usize, rng: Rng) -> Self {
        Self { world, nodes, begun: BTreeMap::new(), acknowledged: 0, operations: 0, reads: 0, rng }
    }

    /// Gives operations to any nodes, at most so far from each other; then the world is healed, and all nodes read within `limit`.
    pub fn work(
        &mut self,
        operations: usize,
        pause: Duration,
        limit: Duration,
    ) -> Result<(), String> {
        let rarity = self.rng.between(2, 8);
        for _ in 0..operations {
            let wait = Duration::from_micros(self.rng.below(pause.as_micros() as u64));
            self.world.run(wait).map_err(|stuck| stuck.to_string())?;
            self.answers();
            let node = self.rng.below(self.nodes as u64) as usize;
            let is_read = self.rng.chance(1, rarity);
            self.begin(node, is_read);
        }
        self.world.heal();
        self.read_all(limit)
    }

    fn begin(&mut self, node: usize, is_read: bool) {
        let op = self.operations + 1;
        let command = if is_read { Command::Read { op } } else { Command::Write { op, value: op } };
        let begun = self.world.call(node, |node, now| {
            let is_free = is_idle(node);
            if is_free {
                node.command(now, command);
            }
            is_free
        });
        if begun == Some(true) {
            self.operations = op;
            self.begun.insert(op, self.acknowledged);
        }
    }

    /// Takes the answers: a read answers no less than what was acknowledged when it began.
    fn answers(&mut self) {
        for (_, _, event) in self.world.take_events() {
            let (Event::Written { op, value } | Event::Read { op, value }) = event;
            // Of the watcher's reads nobody knows when they began.
            let Some(floor) = self.begun.get(&op) else { continue };
            if matches!(event, Event::Read { .. }) {
                self.reads += 1;
                if value < *floor {
                    self.world.fail(format!("a read answers {value}, {floor} was acknowledged"));
                }
            }
            self.acknowledged = self.acknowledged.max(value);
        }
    }

    fn read_all(&mut self, limit: Duration) -> Result<(), String> {
        let nodes = self.nodes;
        let idle = |world: &World<N>| (0..nodes).all(|node| world.node(node).is_some_and(is_idle));
        for last in [false, true] {
            self.world.run_until(idle, limit).map_err(|stuck| stuck.to_string())?;
            self.world.run(Duration::from_millis(10)).map_err(|stuck| stuck.to_string())?;
            self.answers();
            (0..nodes).filter(|_| !last).for_each(|node| self.begin(node, true));
        }
        self.world.violation().map_or(Ok(()), |violation| Err(violation.to_owned()))
    }
}
