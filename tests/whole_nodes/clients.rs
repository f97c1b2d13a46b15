//! Clients: they ask changing nodes, and write down what they were told.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use mainstay::{Outcome, Replicated};
use mainstay_base::{Duration, Instant, Rng};
use mainstay_directory::Client;
use mainstay_directory::resp::Reply;
use mainstay_sim::live::Outside;

use super::large::Large;
use super::model::{Asked, Op, PART, key};

pub type Nodes = Outside<Replicated<Large>>;

/// Parts of the directory that all clients share.
const SHARED: u64 = 3;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// What all clients were told.
#[derive(Default)]
pub struct Book {
    pub history: Vec<Asked>,
    /// Of each counter that one client alone increments: how often that was done, and how often perhaps.
    pub counters: BTreeMap<u64, (i64, i64)>,
    pub refused: u64,
}

pub struct User {
    pub number: usize,
    pub nodes: Nodes,
    pub count: usize,
    pub rng: Rng,
    pub book: Rc<RefCell<Book>>,
    /// Reads are asked for as if the state here were enough.
    pub stale: bool,
}

/// The counter that belongs to a client.
fn own(client: usize) -> u64 {
    (100 + client as u64) * PART
}

impl User {
    /// Asks until the time has come.
    pub async fn work(mut self, until: Instant) {
        let mut at = self.rng.below(self.count as u64) as usize;
        let mut serial = 0;
        while self.nodes.now() < until {
            if self.rng.chance(1, 4) {
                at = self.rng.below(self.count as u64) as usize;
            }
            let pause = Duration::from_micros(self.rng.below(60_000));
            self.nodes.sleep(pause).await;
            let Some(node) = self.nodes.node(at) else {
                at = (at + 1) % self.count;
                continue;
            };
            serial += 1;
            let op = self.draw(serial);
            let probes = op.is_read() && self.rng.chance(4, 5);
            if !self.ask(&node, op, probes).await {
                at = (at + 1) % self.count;
            }
        }
    }

    fn draw(&mut self, serial: i64) -> Op {
        let part = self.rng.below(SHARED) * PART;
        let one = part + self.rng.below(PART);
        match self.rng.below(100) {
            0..25 => Op::Set(one, (self.number as i64 + 1) * 10_000_000 + serial * 1_000),
            25..50 => Op::Get(one),
            50..62 => Op::Incr(one),
            62..66 => Op::Del(vec![one]),
            66..70 => Op::Del(vec![part, part + 1]),
            70..85 => Op::MGet(vec![part, part + 1]),
            _ => Op::Incr(own(self.number)),
        }
    }

    /// Asks, and writes down what came of it; `false`: no answer.
    async fn ask(&self, node: &Replicated<Large>, op: Op, probes: bool) -> bool {
        let invoked = self.nodes.now();
        let answered = async {
            if probes { read(node, &op, self.stale).await } else { execute(node, &op).await }
        };
        let outcome = tokio::select! {
            biased;
            outcome = answered => outcome,
            () = self.nodes.sleep(PATIENCE) => Told::Nothing,
        };
        let now = self.nodes.now();
        let (client, mut book) = (self.number as u64, self.book.borrow_mut());
        self.nodes.note(self.number, told_number(&outcome));
        if op == Op::Incr(own(self.number)) {
            let (done, perhaps) = book.counters.entry(own(self.number)).or_default();
            *done += i64::from(matches!(outcome, Told::Answer(_)));
            *perhaps += i64::from(matches!(outcome, Told::Nothing));
        }
        match outcome {
            Told::Answer(reply) => {
                book.history.push(Asked::returned(client, invoked, now, op, reply));
                true
            }
            Told::Nothing => {
                // A read without an answer binds nobody.
                if !op.is_read() {
                    book.history.push(Asked::unknown(client, invoked, op));
                }
                false
            }
            Told::Refused => {
                book.refused += 1;
                false
            }
        }
    }
}

enum Told {
    Answer(Reply),
    /// Nobody knows.
    Nothing,
    /// It was not done and will not be.
    Refused,
}

fn told_number(told: &Told) -> u64 {
    match told {
        Told::Answer(Reply::Integer(number)) => *number as u64,
        Told::Answer(_) => 1,
        Told::Nothing => 2,
        Told::Refused => 3,
    }
}

async fn execute(node: &Replicated<Large>, op: &Op) -> Told {
    match node.execute(&op.encode()).await {
        Outcome::Done(reply) => Told::Answer(parse(&reply)),
        Outcome::NotDone(_) => Told::Refused,
        Outcome::Unknown => Told::Nothing,
    }
}

fn parse(reply: &Bytes) -> Reply {
    let mut client = Client::new();
    client.receive(reply);
    client.poll_reply().unwrap().unwrap()
}

/// Reads without executing a command: from a state that has all that anybody was told of, unless it is to be `stale`.
pub async fn read_at(node: &Replicated<Large>, op: &Op, stale: bool) -> Option<Reply> {
    let wanted = op.clone();
    let look = move |large: &Large| {
        let value = |number| large.directory.get(&key(number)).map(Bytes::copy_from_slice);
        let mut values: Vec<Reply> =
            wanted.keys().into_iter().map(|number| Reply::Bulk(value(number))).collect();
        match wanted {
            Op::Get(_) => values.remove(0),
            _ => Reply::Array(Some(values)),
        }
    };
    if stale { node.read_local(look).await.ok() } else { node.read(look).await.ok() }
}

async fn read(node: &Replicated<Large>, op: &Op, stale: bool) -> Told {
    read_at(node, op, stale).await.map_or(Told::Refused, Told::Answer)
}

/// Everything that is there in the end, as one client reads it at each node.
pub async fn read_all(nodes: Nodes, count: usize, users: usize, book: Rc<RefCell<Book>>) {
    let shared = (0..SHARED).map(|part| vec![part * PART, part * PART + 1]);
    let owned = (0..users).map(|user| vec![own(user)]);
    let ops: Vec<Op> = shared.chain(owned).map(Op::MGet).collect();
    for at in 0..count {
        for op in &ops {
            loop {
                let node = nodes.node(at).unwrap();
                let invoked = nodes.now();
                if let Some(reply) = read_at(&node, op, false).await {
                    let now = nodes.now();
                    let asked = Asked::returned(users as u64, invoked, now, op.clone(), reply);
                    book.borrow_mut().history.push(asked);
                    break;
                }
                nodes.sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
