//! The client that writes without end, from one member to the next where one fails.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mainstay_directory::resp::Reply;

use super::script::{Ledger, Script, Write};
use super::trace::Trace;
use crate::client::Client;

/// Writes without an answer.
const WINDOW: usize = 256;
/// How long an answer may take: longer than a node waits for one.
const PATIENCE: Duration = Duration::from_secs(4);
/// Before the next member is tried.
const PAUSE: Duration = Duration::from_millis(10);
/// More latencies are not kept.
const LATENCIES_MAX: usize = 4 << 20;

/// How far the load is.
pub(super) struct Progress {
    pub(super) acknowledged: u64,
    /// Writes of which nobody knows whether they were executed.
    pub(super) unknown: u64,
    /// Writes that were not executed, and sent again.
    pub(super) refused: u64,
    /// Microseconds from sending to the answer.
    pub(super) latencies: Vec<u32>,
    /// Which member is written to.
    pub(super) member: usize,
    last: Instant,
    gap: Duration,
}

impl Progress {
    /// Answers when the one before was acknowledged.
    fn acknowledge(&mut self, sent: Instant, now: Instant) -> Instant {
        self.acknowledged += 1;
        self.gap = self.gap.max(now.saturating_duration_since(self.last));
        let last = std::mem::replace(&mut self.last, now);
        if self.latencies.len() < LATENCIES_MAX {
            let micros = now.saturating_duration_since(sent).as_micros();
            self.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
        }
        last
    }

    /// The longest time between two acknowledgements since it was last asked.
    pub(super) fn take_gap(&mut self) -> Duration {
        std::mem::take(&mut self.gap)
    }
}

struct Shared {
    stop: AtomicBool,
    progress: Mutex<Progress>,
}

/// The running load.
pub(super) struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<Ledger>,
}

impl Load {
    /// Writes `script` to the members, each a name and an address, to number `member` first.
    pub(super) fn start(
        script: Script,
        members: Vec<(String, SocketAddr)>,
        member: usize,
        trace: Arc<Trace>,
    ) -> Self {
        let progress = Progress {
            acknowledged: 0,
            unknown: 0,
            refused: 0,
            latencies: Vec::new(),
            member,
            last: Instant::now(),
            gap: Duration::ZERO,
        };
        let shared =
            Arc::new(Shared { stop: AtomicBool::new(false), progress: Mutex::new(progress) });
        let mut writer = Writer {
            script,
            members,
            at: member,
            again: VecDeque::new(),
            sent: VecDeque::new(),
            ledger: Ledger::default(),
            shared: Arc::clone(&shared),
            trace,
        };
        let thread = thread::spawn(move || {
            writer.run();
            writer.ledger
        });
        Self { shared, thread }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.shared.progress()
    }

    /// Waits for the answers that are out, and ends.
    pub(super) fn stop(self) -> Result<Ledger, String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().map_err(|_| "the load panicked".to_owned())
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

struct Writer {
    script: Script,
    members: Vec<(String, SocketAddr)>,
    at: usize,
    /// To be sent once more.
    again: VecDeque<Write>,
    sent: VecDeque<(Write, Instant)>,
    ledger: Ledger,
    shared: Arc<Shared>,
    trace: Arc<Trace>,
}

impl Writer {
    fn run(&mut self) {
        while !self.shared.stopping() && self.ledger.wrong.is_none() {
            // How it failed does not matter: what has no answer is in doubt, and another member is next.
            let _ = self.converse();
            for (write, sent) in std::mem::take(&mut self.sent) {
                self.doubt(write, sent);
            }
            if !self.shared.stopping() {
                self.at = (self.at + 1) % self.members.len();
                self.shared.progress().member = self.at;
                thread::park_timeout(PAUSE);
            }
        }
    }

    /// Writes to one member until it fails or refuses.
    fn converse(&mut self) -> io::Result<()> {
        let mut client = Client::connect(self.members[self.at].1, PATIENCE)?;
        let mut refused = false;
        loop {
            while !refused && !self.shared.stopping() && self.sent.len() < WINDOW {
                let write = self.again.pop_front().unwrap_or_else(|| self.script.next());
                match &write {
                    Write::Set { key, value } => client.send(&["SET", key, value]),
                    Write::Incr { key } => client.send(&["INCR", key]),
                }
                self.sent.push_back((write, Instant::now()));
            }
            if self.sent.is_empty() {
                return Ok(());
            }
            client.flush()?;
            let mut reply = Some(client.receive()?);
            while let Some(answer) = reply {
                refused |= self.settle(answer);
                reply = client.poll()?;
            }
        }
    }

    /// Takes in the answer to the oldest write; whether it was refused.
    fn settle(&mut self, reply: Reply) -> bool {
        let Some((write, sent)) = self.sent.pop_front() else { return false };
        match reply {
            Reply::Simple(_) | Reply::Integer(_) => {
                let answer = match reply {
                    Reply::Integer(number) => number.into(),
                    _ => "OK".into(),
                };
                self.note(&write, sent, answer);
                self.ledger.acknowledge(write);
                let now = Instant::now();
                let last = self.shared.progress().acknowledge(sent, now);
                self.trace.acknowledged(last, now);
                false
            }
            Reply::Error(text) if text.starts_with("CLUSTERDOWN") => {
                self.note(&write, sent, "refused".into());
                self.again.push_back(write);
                self.shared.progress().refused += 1;
                true
            }
            Reply::Error(text) if text.starts_with("UNKNOWN") => {
                self.doubt(write, sent);
                false
            }
            other => {
                self.ledger.wrong = Some(format!("{write:?} was answered {other:?}"));
                true
            }
        }
    }

    fn note(&self, write: &Write, sent: Instant, outcome: serde_json::Value) {
        self.trace.wrote(&self.members[self.at].0, write, sent, outcome);
    }

    /// What sets a key is sent again: the same value once more is no harm. What counts is not.
    fn doubt(&mut self, write: Write, sent: Instant) {
        self.note(&write, sent, "unknown".into());
        self.shared.progress().unknown += 1;
        self.ledger.doubt(write.clone());
        if matches!(write, Write::Set { .. }) {
            self.again.push_back(write);
        }
    }
}
