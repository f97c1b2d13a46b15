//! What happened in a run: a file with a JSON object a line, and the lines of the timeline.
//!
//! The file is described in `docs/demo-trace.md`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::script::Write;
use crate::report::{GROUP, Report};

/// How often each node is asked for its view.
const ASK: Duration = Duration::from_millis(20);
/// So long without an acknowledgement is worth a line.
const GAP_MIN: Duration = Duration::from_millis(100);
/// More lines the timeline does not get; the file has them all.
const LINES_MAX: usize = 1_000;

/// A view as the nodes told of it, and when the first one did.
pub(super) struct View {
    pub(super) at: Duration,
    pub(super) number: u64,
    pub(super) members: Vec<String>,
}

/// What happened, and when.
pub(super) type Timeline = Vec<(Duration, String)>;

/// A run being written down; shared between its threads.
pub(super) struct Trace {
    began: Instant,
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: BufWriter<File>,
    failed: Option<io::Error>,
    lines: Timeline,
    seen: BTreeSet<(u64, Vec<String>)>,
    views: Vec<View>,
}

impl State {
    fn write(&mut self, value: &Value) {
        if self.failed.is_none() {
            self.failed = writeln!(self.file, "{value}").err();
        }
    }

    fn line(&mut self, at: Duration, text: String) {
        if self.lines.len() < LINES_MAX {
            self.lines.push((at, text));
        }
    }
}

fn micros(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

impl Trace {
    /// Writes to `file`, which is at `path`.
    pub(super) fn new(began: Instant, path: PathBuf, file: File) -> Arc<Self> {
        let file = BufWriter::new(file);
        let (lines, seen, views) = (Vec::new(), BTreeSet::new(), Vec::new());
        let state = Mutex::new(State { file, failed: None, lines, seen, views });
        Arc::new(Self { began, path, state })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// A process was started or killed.
    pub(super) fn process(&self, node: &str, pid: u32, what: &str) {
        let at = self.began.elapsed();
        let mut state = self.state();
        state.write(&json!({"at_us": micros(at), "event": what, "node": node, "pid": pid}));
        state.line(at, format!("{node} {what}"));
    }

    /// What became of a write, sent to `node` at `sent`.
    pub(super) fn wrote(&self, node: &str, write: &Write, sent: Instant, outcome: Value) {
        let at = micros(sent.saturating_duration_since(self.began));
        let until = micros(self.began.elapsed());
        let mut value = match write {
            Write::Set { key, value } => json!({"event": "set", "key": key, "value": value}),
            Write::Incr { key } => json!({"event": "incr", "key": key}),
        };
        value["node"] = node.into();
        (value["at_us"], value["until_us"]) = (at.into(), until.into());
        value["outcome"] = outcome;
        self.state().write(&value);
    }

    /// An acknowledgement came; the one before came at `last`.
    pub(super) fn acknowledged(&self, last: Instant, now: Instant) {
        let gap = now.saturating_duration_since(last);
        if gap < GAP_MIN {
            return;
        }
        let at = last.saturating_duration_since(self.began);
        let mut state = self.state();
        let until = micros(at + gap);
        state.write(&json!({"at_us": micros(at), "event": "gap", "until_us": until}));
        state.line(at, format!("no write is acknowledged for {} ms", gap.as_millis()));
    }

    /// A node told of a view that it had not told of before.
    fn viewed(&self, report: &Report) {
        let at = self.began.elapsed();
        let Report { node, incarnation, view, members, manager, sequencers, .. } = report;
        let mut state = self.state();
        state.write(&json!({
            "at_us": micros(at), "event": "view", "node": node, "incarnation": incarnation,
            "view": view, "members": members, "manager": manager,
            "sequencer": sequencers.get(GROUP),
        }));
        if !members.is_empty() && state.seen.insert((*view, members.clone())) {
            state.line(at, format!("view {view}: {}", members.join(" ")));
            state.views.push(View { at, number: *view, members: members.clone() });
        }
    }

    /// The timeline in order, and the views; all is in the file now.
    ///
    /// # Errors
    /// The file could not be written.
    pub(super) fn finish(&self) -> io::Result<(Timeline, Vec<View>)> {
        let mut state = self.state();
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        state.file.flush()?;
        let mut lines = std::mem::take(&mut state.lines);
        lines.sort();
        Ok((lines, std::mem::take(&mut state.views)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the nodes for their views, on a thread of its own, until it is dropped.
pub(super) struct Observer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    pub(super) fn start(trace: Arc<Trace>, nodes: Vec<SocketAddr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut last = vec![None; nodes.len()];
            while !stopping.load(Ordering::Relaxed) {
                for (node, last) in nodes.iter().zip(&mut last) {
                    let Ok(report) = Report::of(*node) else { continue };
                    let view = Some((report.incarnation, report.view, report.members.clone()));
                    if *last != view {
                        trace.viewed(&report);
                        *last = view;
                    }
                }
                thread::park_timeout(ASK);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It panics as little as what it calls; its lines are a help, no part of the verdict.
            let _ = thread.join();
        }
    }
}
