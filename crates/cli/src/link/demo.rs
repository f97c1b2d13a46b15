//! `mainstay demo link`: what the link promises, shown with real processes and real faults.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_base::{ClusterId, Rng};
use mainstay_runtime::{Entropy as _, OsEntropy};
use thiserror::Error;

use super::proxy::Proxy;
use crate::out::say;

const NAMES: [&str; 2] = ["n1", "n2"];
/// The process that is killed and started again.
const VICTIM: usize = 1;
/// How long one step may take before the demo fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines of the processes that wait to be read; a process that prints more waits.
const LINES_MAX: usize = 1024;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Decides when connections are cut.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often all connections are cut, before and again after the kill.
    #[arg(long, default_value_t = 10)]
    cuts: u32,
}

/// Why the demo did not pass.
#[derive(Error, Debug)]
enum Failure {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("no entropy: {0}")]
    Entropy(String),
    #[error("{0}: {1}")]
    Violation(&'static str, String),
    #[error("{0} ended by itself")]
    Ended(&'static str),
    #[error("not in time: {0}")]
    Late(&'static str),
}

pub(crate) fn run(options: &Options) -> ExitCode {
    match Demo::start(options.seed).and_then(|mut demo| demo.script(options.cuts)) {
        Ok(()) => {
            say!("verdict: PASS");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say!("verdict: FAIL: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// One process, and what it said of itself.
struct Peer {
    name: &'static str,
    child: Child,
    boot: String,
    /// What it says it sent is final.
    stopped: bool,
    sent: BTreeMap<String, u64>,
    got: BTreeMap<String, u64>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ends a process that is left behind by a failure; one that has ended is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line that a process printed; `None`: its output ended.
type Said = (usize, u32, Option<String>);

struct Demo {
    cluster: ClusterId,
    rng: Rng,
    proxies: [Proxy; 2],
    lines: (SyncSender<Said>, Receiver<Said>),
    generation: [u32; 2],
    peers: Vec<Peer>,
    cut: usize,
}

impl Demo {
    fn start(seed: u64) -> Result<Self, Failure> {
        let bits = OsEntropy.draw().map_err(|error| Failure::Entropy(error.to_string()))?;
        let mut demo = Self {
            cluster: ClusterId::from_entropy(bits),
            rng: Rng::new(seed),
            proxies: [Proxy::start()?, Proxy::start()?],
            lines: mpsc::sync_channel(LINES_MAX),
            generation: [0; 2],
            peers: Vec::new(),
            cut: 0,
        };
        for index in 0..NAMES.len() {
            let peer = demo.spawn(index)?;
            demo.peers.push(peer);
        }
        Ok(demo)
    }

    fn spawn(&mut self, index: usize) -> Result<Peer, Failure> {
        let other = 1 - index;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["peer", "--cluster", &self.cluster.to_string()])
            .args(["--name", NAMES[index], "--peer", NAMES[other]])
            .args(["--peer-address", &self.proxies[other].address().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        self.generation[index] += 1;
        let (said, generation) = (self.lines.0.clone(), self.generation[index]);
        let stdout =
            child.stdout.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = said.send((index, generation, Some(line)));
            }
            let _ = said.send((index, generation, None));
        });
        let (boot, stopped, sent, got) = Default::default();
        Ok(Peer { name: NAMES[index], child, boot, stopped, sent, got })
    }

    fn script(&mut self, cuts: u32) -> Result<(), Failure> {
        let began = Instant::now();
        self.until("both processes exchange messages", |demo| demo.exchanging())?;
        say!("{:>6} ms  two processes exchange messages", began.elapsed().as_millis());
        self.cut_often(cuts)?;
        say!("{:>6} ms  {} connections cut", began.elapsed().as_millis(), self.cut);

        let victim = &mut self.peers[VICTIM];
        victim.child.kill()?;
        victim.child.wait()?;
        let old = self.row(VICTIM, true);
        say!("{:>6} ms  {} killed", began.elapsed().as_millis(), NAMES[VICTIM]);
        self.peers[VICTIM] = self.spawn(VICTIM)?;
        let killed = Instant::now();
        self.until("the restarted process exchanges messages", |demo| demo.exchanging())?;
        let gap = killed.elapsed();
        say!("{:>6} ms  {} is back under a new nonce", began.elapsed().as_millis(), NAMES[VICTIM]);
        self.cut_often(cuts)?;

        for peer in &mut self.peers {
            writeln!(
                peer.child
                    .stdin
                    .as_mut()
                    .ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?,
                "stop"
            )?;
        }
        self.until("all that was sent has arrived", |demo| demo.settled())?;
        say!("{:>6} ms  all that was sent has arrived", began.elapsed().as_millis());
        let seconds = began.elapsed().as_secs_f64();
        let rows = [old, self.row(VICTIM, false), self.row(1 - VICTIM, false)];
        self.finish()?;
        table(&rows, self.cut, gap, seconds);
        Ok(())
    }

    /// The current boots have both heard each other.
    fn exchanging(&self) -> bool {
        (0..2).all(|index| self.received(index) > 0)
    }

    /// What process `index` got from the current boot of the other one.
    fn received(&self, index: usize) -> u64 {
        self.peers[index].got.get(&self.peers[1 - index].boot).copied().unwrap_or(0)
    }

    /// What the other process sent to the current boot of `index`.
    fn addressed(&self, index: usize) -> u64 {
        self.peers[1 - index].sent.get(&self.peers[index].boot).copied().unwrap_or(0)
    }

    /// Nothing more is sent, and all of it has arrived.
    fn settled(&self) -> bool {
        self.peers.iter().all(|peer| peer.stopped)
            && (0..2).all(|index| {
                self.addressed(index) > 0 && self.received(index) == self.addressed(index)
            })
    }

    fn row(&self, index: usize, killed: bool) -> (String, u64, u64) {
        let state = if killed { "killed" } else { "" };
        let name = format!("{} {} {state}", NAMES[index], self.generation[index]);
        (name, self.addressed(index), self.received(index))
    }

    /// Cuts all connections `cuts` times at random moments, each time after messages have got through again.
    fn cut_often(&mut self, cuts: u32) -> Result<(), Failure> {
        for _ in 0..cuts {
            let before = [self.received(0), self.received(1)];
            self.until("messages get through after a cut", |demo| {
                (0..2).all(|index| demo.received(index) > before[index])
            })?;
            let pause = Instant::now() + Duration::from_millis(self.rng.between(1, 80));
            while let Some(left) = pause.checked_duration_since(Instant::now()) {
                self.hear(left)?;
            }
            self.cut += self.proxies.iter().map(Proxy::cut).sum::<usize>();
        }
        Ok(())
    }

    /// Listens until `holds`.
    fn until(&mut self, what: &'static str, holds: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let left =
                deadline.checked_duration_since(Instant::now()).ok_or(Failure::Late(what))?;
            self.hear(left)?;
        }
        Ok(())
    }

    /// Takes in one line, if one comes in time.
    fn hear(&mut self, patience: Duration) -> Result<(), Failure> {
        let (index, generation, line) = match self.lines.1.recv_timeout(patience) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let current = generation == self.generation[index];
        let Some(line) = line else {
            return if current { Err(Failure::Ended(NAMES[index])) } else { Ok(()) };
        };
        if let Some(violation) = line.strip_prefix("violation ") {
            return Err(Failure::Violation(NAMES[index], violation.to_owned()));
        }
        if current {
            self.on_line(index, &line);
        }
        Ok(())
    }

    fn on_line(&mut self, index: usize, line: &str) {
        let peer = &mut self.peers[index];
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["listening", address] => {
                if let Ok(address) = address.parse::<SocketAddr>() {
                    self.proxies[index].aim(address);
                }
            }
            ["stopped"] => peer.stopped = true,
            ["boot", nonce] => peer.boot = nonce.to_owned(),
            [word @ ("sent" | "got"), nonce, count] => {
                let counts = if word == "sent" { &mut peer.sent } else { &mut peer.got };
                counts.insert(nonce.to_owned(), count.parse().unwrap_or(0));
            }
            _ => {}
        }
    }

    /// Ends both processes; they must end well.
    fn finish(&mut self) -> Result<(), Failure> {
        for peer in &mut self.peers {
            drop(peer.child.stdin.take());
            if !peer.child.wait()?.success() {
                return Err(Failure::Ended(peer.name));
            }
        }
        Ok(())
    }
}

fn table(rows: &[(String, u64, u64)], cut: usize, gap: Duration, seconds: f64) {
    say!("\n{:<14} {:>12} {:>12}", "boot of", "sent to it", "it received");
    for (name, sent, got) in rows {
        say!("{name:<14} {sent:>12} {got:>12}");
    }
    let total: u64 = rows.iter().map(|(_, _, got)| got).sum();
    say!("connections cut {cut}, from restart to messages both ways {} ms", gap.as_millis());
    say!(
        "{total} messages in {seconds:.1} s, {:.0} per second, none lost, doubled or out of order\n",
        total as f64 / seconds
    );
}
