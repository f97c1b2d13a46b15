//! Clients that write and read without end, and a judge of what they were told.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mainstay_base as base;
use mainstay_check::linear::{self, Model, Operation};
use mainstay_directory::Client;
use mainstay_directory::resp::Reply;

use super::{PATIENCE, until};

const CLIENTS: u64 = 6;
/// Longer than a node waits for an answer.
const ANSWER: Duration = Duration::from_secs(4);
/// Before another node is tried.
const PAUSE: Duration = Duration::from_millis(5);
/// After so many commands the clients go on to other keys: the judge's work grows faster than the history of a key.
const COMMANDS_OF_A_KEY: u64 = 300;
/// More states of one key are not visited: the judge then knows nothing, and the test fails.
const STATES_MAX: usize = 4_000_000;

/// A command on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Set(String, String),
    Get(String),
    Incr(String),
}

/// What it answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ret {
    Ok,
    Value(Option<String>),
    Number(i64),
}

impl Op {
    fn key(&self) -> &String {
        match self {
            Self::Set(key, _) | Self::Get(key) | Self::Incr(key) => key,
        }
    }
}

/// A directory with one key.
struct Key;

impl Model for Key {
    type State = Option<String>;
    type Op = Op;
    type Ret = Ret;

    fn initial(&self) -> Option<String> {
        None
    }

    fn step(&self, state: &Option<String>, op: &Op) -> (Option<String>, Ret) {
        match op {
            Op::Set(_, value) => (Some(value.clone()), Ret::Ok),
            Op::Get(_) => (state.clone(), Ret::Value(state.clone())),
            Op::Incr(_) => {
                let number = state.as_ref().map_or(0, |value| value.parse::<i64>().unwrap()) + 1;
                (Some(number.to_string()), Ret::Number(number))
            }
        }
    }
}

pub type History = Vec<Operation<Op, Ret>>;

/// Panics unless one order of its operations explains every answer, each operation between its call and its return.
pub fn judge(history: &History) {
    for (key, verdict) in verdicts(history) {
        assert!(verdict.is_linearisable(), "{key}: {verdict:?}: {:#?}", of_key(history, &key));
    }
}

fn verdicts(history: &History) -> BTreeMap<String, linear::Verdict> {
    linear::check_by(&Key, history, |op| op.key().clone(), STATES_MAX)
}

fn of_key<'a>(history: &'a History, key: &str) -> Vec<&'a Operation<Op, Ret>> {
    history.iter().filter(|operation| operation.op.key() == key).collect()
}

struct Shared {
    began: Instant,
    nodes: Vec<String>,
    stop: AtomicBool,
    commands: AtomicU64,
    acknowledged: AtomicU64,
    history: Mutex<History>,
}

impl Shared {
    fn now(&self) -> base::Instant {
        base::Instant::ZERO + self.began.elapsed()
    }

    fn record(&self, operation: Operation<Op, Ret>) {
        self.history.lock().unwrap().push(operation);
    }
}

/// The running clients.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Clients of the nodes at these addresses, each at another one first.
    pub fn start(nodes: Vec<String>) -> Self {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            nodes,
            stop: AtomicBool::new(false),
            commands: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            history: Mutex::default(),
        });
        let client = |number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || Caller { shared, number, draws: number }.run())
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { shared, threads }
    }

    /// Waits until some more commands are answered: those that had nothing to do with what was before are among them.
    pub fn goes_on(&self) {
        let wanted = self.shared.acknowledged.load(Ordering::Relaxed) + 300;
        until("the load goes on", || self.shared.acknowledged.load(Ordering::Relaxed) >= wanted);
    }

    /// Ends, reads every key at every node, and judges it all.
    pub fn end(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let groups = self.shared.commands.load(Ordering::Relaxed) / COMMANDS_OF_A_KEY + 1;
        for node in 0..self.shared.nodes.len() {
            let mut talk = Talk::with(&self.shared.nodes[node]).unwrap();
            for key in (0..groups).flat_map(|group| [format!("s{group}"), format!("n{group}")]) {
                let (invoked, op) = (self.shared.now(), Op::Get(key));
                let ret = talk.ask(&op).unwrap().expect("all nodes execute commands at the end");
                let at = self.shared.now();
                self.shared.record(Operation::returned(CLIENTS, invoked, at, op, ret));
            }
        }
        let history = std::mem::take(&mut *self.shared.history.lock().unwrap());
        let unknown = |it: &&Operation<Op, Ret>| it.outcome == linear::Outcome::Unknown;
        println!(
            "{} operations, {} unknown",
            history.len(),
            history.iter().filter(unknown).count()
        );
        judge(&history);
    }
}

/// One client.
struct Caller {
    shared: Arc<Shared>,
    number: u64,
    draws: u64,
}

impl Caller {
    fn run(&mut self) {
        let mut at = self.number as usize;
        while !self.stopping() {
            at = (at + 1) % self.shared.nodes.len();
            // Whatever ends it: another node is next.
            if let Ok(talk) = Talk::with(&self.shared.nodes[at]) {
                self.converse(talk);
            }
            thread::park_timeout(PAUSE);
        }
    }

    /// Until the node does not answer, or refuses.
    fn converse(&mut self, mut talk: Talk) {
        while !self.stopping() {
            let (client, op, invoked) = (self.number, self.op(), self.shared.now());
            let operation = match talk.ask(&op) {
                // It was not executed and will not be: it belongs into no history.
                Ok(None) => return,
                Ok(Some(ret)) => Operation::returned(client, invoked, self.shared.now(), op, ret),
                Err(_) => Operation::unknown(client, invoked, op),
            };
            let known = operation.outcome != linear::Outcome::Unknown;
            self.shared.record(operation);
            if !known {
                return;
            }
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The next command: on a register or a counter that the others use now, too.
    fn op(&mut self) -> Op {
        let number = self.shared.commands.fetch_add(1, Ordering::Relaxed);
        let group = number / COMMANDS_OF_A_KEY;
        self.draws = self.draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number | 1);
        match (self.draws >> 33) % 4 {
            0 => Op::Set(format!("s{group}"), number.to_string()),
            1 => Op::Get(format!("s{group}")),
            2 => Op::Get(format!("n{group}")),
            _ => Op::Incr(format!("n{group}")),
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}

/// A connection on which one command is out at a time.
pub struct Talk {
    stream: TcpStream,
    client: Client,
}

impl Talk {
    pub fn with(node: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&node.parse().unwrap(), PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Self { stream, client: Client::new() })
    }

    /// The answer; `None`: not executed, and it will not be. An error: nobody knows.
    fn ask(&mut self, op: &Op) -> io::Result<Option<Ret>> {
        let reply = match op {
            Op::Set(key, value) => self.command(&[b"SET", key.as_bytes(), value.as_bytes()]),
            Op::Get(key) => self.command(&[b"GET", key.as_bytes()]),
            Op::Incr(key) => self.command(&[b"INCR", key.as_bytes()]),
        };
        match reply? {
            Reply::Simple(text) if text == "OK" => Ok(Some(Ret::Ok)),
            Reply::Integer(number) => Ok(Some(Ret::Number(number))),
            Reply::Bulk(value) => {
                let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                Ok(Some(Ret::Value(value.map(text))))
            }
            Reply::Error(text) if text.starts_with("CLUSTERDOWN") => Ok(None),
            Reply::Error(text) if text.starts_with("UNKNOWN") => Err(io::Error::other(text)),
            other => panic!("{op:?} was answered {other:?}"),
        }
    }

    /// Sends one command and waits for its answer.
    pub fn command(&mut self, words: &[&[u8]]) -> io::Result<Reply> {
        self.client.send(words);
        self.stream.write_all(&self.client.take_output())?;
        let mut buffer = [0; 4096];
        loop {
            if let Some(reply) = self.client.poll_reply().map_err(io::Error::other)? {
                return Ok(reply);
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                size => self.client.receive(&buffer[..size]),
            }
        }
    }
}

/// The judge must be able to find against a history: an acknowledged write that is lost, a stale read, a command counted
/// twice.
pub fn the_judge_notices() {
    let at = base::Instant::from_nanos;
    let done = |from, to, op, ret| Operation::returned(1, at(from), at(to), op, ret);
    let set = |value: &str| Op::Set("s".into(), value.into());
    let get = || Op::Get("s".into());
    let value = |text: &str| Ret::Value(Some(text.into()));
    let lost = vec![done(1, 2, set("1"), Ret::Ok), done(3, 4, get(), Ret::Value(None))];
    let stale = vec![
        done(1, 2, set("1"), Ret::Ok),
        done(3, 4, set("2"), Ret::Ok),
        done(5, 6, get(), value("1")),
    ];
    let incr = || Op::Incr("n".into());
    let twice = vec![done(1, 2, incr(), Ret::Number(1)), done(3, 4, incr(), Ret::Number(3))];
    for bad in [lost, stale, twice.clone()] {
        assert!(verdicts(&bad).values().any(|verdict| !verdict.is_linearisable()), "{bad:?}");
    }
    // With an unknown outcome between, it is explained.
    let mut explained = twice;
    explained.push(Operation::unknown(2, at(1), incr()));
    judge(&explained);
}
