//! What the demo prints.

use std::time::{Duration, Instant};

use serde_json::json;

use super::load::Progress;
use super::trace::{Timeline, Trace, View};
use crate::out::say;
use crate::report::Report;
use crate::status::Output;

/// The numbers of a run.
pub(super) struct Summary {
    output: Output,
    views: u64,
    keys: u64,
    acknowledged: u64,
    unknown: u64,
    refused: u64,
    /// Microseconds: half and 99 of 100 writes were acknowledged within.
    latency: (u32, u32),
    elapsed: Duration,
    gaps: Vec<(String, Duration)>,
    timeline: Timeline,
    seen: Vec<View>,
    trace: String,
    /// How many properties were judged, on how many events.
    properties: (usize, usize),
}

impl Summary {
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            views: 0,
            keys: 0,
            acknowledged: 0,
            unknown: 0,
            refused: 0,
            latency: (0, 0),
            elapsed: Duration::ZERO,
            gaps: Vec::new(),
            timeline: Vec::new(),
            seen: Vec::new(),
            trace: String::new(),
            properties: (0, 0),
        }
    }

    /// One step of the demo.
    pub(super) fn say(&self, began: Instant, text: &str) {
        if self.output == Output::Text {
            say!("{:>6} ms  {text}", began.elapsed().as_millis());
        }
    }

    pub(super) fn gap(&mut self, when: String, gap: Duration) {
        self.gaps.push((when, gap));
    }

    pub(super) fn load(&mut self, progress: &Progress, elapsed: Duration) {
        let mut latencies = progress.latencies.clone();
        latencies.sort_unstable();
        let at = |hundredths: usize| {
            latencies.get(latencies.len() * hundredths / 100).copied().unwrap_or(0)
        };
        self.latency = (at(50), at(99));
        self.acknowledged = progress.acknowledged;
        self.unknown = progress.unknown;
        self.refused = progress.refused;
        self.elapsed = elapsed;
    }

    pub(super) fn state(&mut self, report: Option<&Report>, keys: u64) {
        self.views = report.map_or(0, |report| report.view);
        self.keys = keys;
    }

    pub(super) fn properties(&mut self, judged: usize, events: usize) {
        self.properties = (judged, events);
    }

    /// What happened when, and where it is written down.
    pub(super) fn run(&mut self, trace: &Trace) -> Result<(), String> {
        self.trace = trace.path().display().to_string();
        let run = trace.finish().map_err(|error| format!("{}: {error}", self.trace))?;
        (self.timeline, self.seen) = run;
        Ok(())
    }

    /// The table and the verdict, which is the last line.
    pub(super) fn print(&self, verdict: &Result<(), String>) {
        let rate = self.acknowledged as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON);
        match self.output {
            Output::Text => self.text(rate),
            Output::Json => {
                let gaps: Vec<_> = self
                    .gaps
                    .iter()
                    .map(|(when, gap)| json!({"when": when, "ms": gap.as_millis() as u64}))
                    .collect();
                let views: Vec<_> = self
                    .seen
                    .iter()
                    .map(|view| {
                        let at = view.at.as_millis() as u64;
                        json!({"view": view.number, "ms": at, "members": view.members})
                    })
                    .collect();
                let timeline: Vec<_> = self
                    .timeline
                    .iter()
                    .map(|(at, text)| json!({"ms": at.as_millis() as u64, "what": text}))
                    .collect();
                let numbers = json!({
                    "views_seen": views, "timeline": timeline, "trace": self.trace,
                    "views": self.views, "keys": self.keys, "acknowledged": self.acknowledged,
                    "unknown": self.unknown, "refused": self.refused,
                    "seconds": self.elapsed.as_secs_f64(), "per_second": rate.round(),
                    "p50_us": self.latency.0, "p99_us": self.latency.1, "longest_gaps": gaps,
                    "properties": self.properties.0, "events": self.properties.1,
                    "verdict": if verdict.is_ok() { "PASS" } else { "FAIL" },
                });
                say!("{numbers}");
            }
        }
        match verdict {
            Ok(()) => say!("verdict: PASS"),
            Err(why) => say!("verdict: FAIL: {}", why.replace('\n', " ")),
        }
    }

    fn text(&self, rate: f64) {
        let millis = |micros: u32| f64::from(micros) / 1_000.0;
        say!("");
        for (at, text) in &self.timeline {
            say!("{:>6} ms |  {text}", at.as_millis());
        }
        say!("");
        say!("{:<36}{:>10}", "last view", self.views);
        for View { at, number, members } in &self.seen {
            let label = format!("  {number}: {}, at ms", members.join(" "));
            say!("{label:<36}{:>10}", at.as_millis());
        }
        say!("{:<36}{:>10}", "keys at the end", self.keys);
        say!("{:<36}{:>10}", "writes acknowledged", self.acknowledged);
        say!("{:<36}{:>10}", "  in doubt, as a node failed", self.unknown);
        say!("{:<36}{:>10}", "  refused, and sent again", self.refused);
        say!("{:<36}{rate:>10.0}", "acknowledged per second, over all");
        say!("{:<36}{:>10.1}", "latency p50, ms", millis(self.latency.0));
        say!("{:<36}{:>10.1}", "latency p99, ms", millis(self.latency.1));
        for (when, gap) in &self.gaps {
            say!("{:<36}{:>10}", format!("longest gap, {when}, ms"), gap.as_millis());
        }
        say!("{:<36}{:>10}", "properties checked", self.properties.0);
        say!("{:<36}{:>10}", "  on events of all nodes", self.properties.1);
        say!("{:<36}{}", "trace", self.trace);
        say!("");
    }
}
