//! The replicated register in every interleaving of a small scope: one write, one read, one crash.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::collections::VecDeque;
use std::hash::Hash as _;

use mainstay_base::Fingerprinter;
use mainstay_sim::{Model, Search, explore};
use support::{Event, Message, Output, Register};

const NODES: usize = 3;

/// Nodes, disks, a bag of messages that may stay for ever, and what may still be done.
#[derive(Clone, Hash)]
struct Scope {
    registers: Vec<Register>,
    disks: [u64; NODES],
    unfinished: [VecDeque<u64>; NODES],
    /// On their way: sender, addressee, message. Sorted: their order of sending does not matter.
    bag: Vec<(usize, usize, Message)>,
    /// Writes at node 0 and reads at node 1 that are left.
    writes: u64,
    reads: u64,
    crashes: u64,
    acknowledged: u64,
    /// What was acknowledged when the read began.
    floor: u64,
    acks_early: bool,
}

#[derive(Debug)]
enum Step {
    Deliver(usize),
    Written(usize),
    Write,
    Read,
    /// The node, and how many of its unfinished writes are on the disk.
    Crash(usize, usize),
}

impl Scope {
    fn new(acks_early: bool) -> Self {
        let register = |me| Register::recover(me, NODES, acks_early, 0);
        Self {
            registers: (0..NODES).map(register).collect(),
            disks: [0; NODES],
            unfinished: Default::default(),
            bag: Vec::new(),
            writes: 1,
            reads: 1,
            crashes: 1,
            acknowledged: 0,
            floor: 0,
            acks_early,
        }
    }

    fn perform(&mut self, node: usize, outputs: Vec<Output>) -> Result<(), String> {
        for output in outputs {
            match output {
                Output::Send { to, message } => self.bag.push((node, to, message)),
                Output::Persist { value } => self.unfinished[node].push_back(value),
                Output::Event(Event::Written { value, .. }) => self.acknowledged = value,
                Output::Event(Event::Read { value, .. }) if value < self.floor => {
                    return Err(format!("{value} is read, {} was acknowledged", self.floor));
                }
                Output::Event(Event::Read { .. }) => {}
            }
        }
        self.bag.sort_unstable();
        Ok(())
    }
}

impl Model for Scope {
    type Step = Step;

    fn steps(&self, into: &mut Vec<Step>) {
        into.extend((0..self.bag.len()).map(Step::Deliver));
        for node in 0..NODES {
            let unfinished = self.unfinished[node].len();
            if unfinished > 0 {
                into.push(Step::Written(node));
            }
            if self.crashes > 0 {
                into.extend((0..=unfinished).map(|kept| Step::Crash(node, kept)));
            }
        }
        if self.writes > 0 && !self.registers[0].is_busy() {
            into.push(Step::Write);
        }
        if self.reads > 0 && !self.registers[1].is_busy() {
            into.push(Step::Read);
        }
    }

    fn apply(&mut self, step: &Step) -> Result<(), String> {
        let mut out = Vec::new();
        let node = match *step {
            Step::Deliver(index) => {
                let (from, to, message) = self.bag.remove(index);
                self.registers[to].receive(from, message, &mut out);
                to
            }
            Step::Written(node) => {
                let value = self.unfinished[node].pop_front().unwrap();
                self.disks[node] = value;
                self.registers[node].written(value, &mut out);
                node
            }
            Step::Write => {
                self.writes -= 1;
                self.registers[0].write(1, 1, &mut out);
                0
            }
            Step::Read => {
                (self.reads, self.floor) = (self.reads - 1, self.acknowledged);
                self.registers[1].read(2, &mut out);
                1
            }
            Step::Crash(node, kept) => {
                self.crashes -= 1;
                for value in std::mem::take(&mut self.unfinished[node]).into_iter().take(kept) {
                    self.disks[node] = value;
                }
                self.bag.retain(|(_, to, _)| *to != node);
                let disk = self.disks[node];
                self.registers[node] = Register::recover(node, NODES, self.acks_early, disk);
                node
            }
        };
        self.perform(node, out)
    }

    fn fingerprint(&self) -> u128 {
        let mut into = Fingerprinter::new();
        self.hash(&mut into);
        into.finish128()
    }
}

/// In every run of the scope, a read answers no less than what was acknowledged when it began.
#[test]
fn every_run_of_a_right_register_is_right() {
    let report = explore(Scope::new(false), Search::Breadth, 5_000_000);
    println!("{report:?}");
    assert!(report.complete && report.violation.is_none(), "{report:?}");
    assert!(report.states > 10_000, "{report:?}");
    let depth = explore(Scope::new(false), Search::Depth, 5_000_000);
    assert_eq!((depth.states, depth.transitions), (report.states, report.transitions));
}

/// The planted bug is found, with a shortest path: written, acknowledged, crashed, read.
#[test]
fn the_planted_bug_is_found() {
    let report = explore(Scope::new(true), Search::Breadth, 5_000_000);
    let violation = report.violation.unwrap();
    println!("{violation}");
    assert!(violation.path.iter().any(|step| step.starts_with("Crash")), "{violation}");
    assert!(violation.path.len() <= 9, "{violation}");
}
