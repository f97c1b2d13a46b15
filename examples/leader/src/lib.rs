//! A pool of workers on three processes. The oldest member of a view of their group leads it: it hands out jobs, in total order
//! with all else. The number of the view is a fencing token: the store of the results refuses the tokens of former views, so that
//! a leader or a worker that was declared dead, and does not know it, changes nothing.
//!
//! The store is the resource, not a part of the pool: it outlives all workers, and it checks the tokens itself ([`store`]).
//! What the members agree upon is a function of the messages of the group ([`pool`]); one actor on each process follows them
//! ([`worker`]). `README.md` says how to run it.

pub mod event;
pub mod pool;
mod real;
mod resource;
mod simulated;
pub mod store;
pub mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use actix::Actor;
use mainstay::{ClusterId, GroupConfig, GroupHandle, Level, NodeBuilder, StartError};
use mainstay_base::Rng;
use mainstay_harness::process::Child;
use mainstay_harness::{Broken, Criterion, Edge, Entry, Example, Failure, Outside, Run, script};
use mainstay_sim::{Atlas, FaultEvent, Options, Wire, schedule};
use serde::Deserialize;
use tokio::sync::mpsc;

use event::Event;
use pool::Job;
use worker::{Out, Worker};

/// Processes of the pool.
pub const NODES: usize = 3;
/// Jobs of a run.
const JOBS: u64 = 40;
/// No fault begins before: the cluster is being made.
const CALM: Duration = Duration::from_millis(500);
/// How long faults happen, from the start of the run.
const WORK: Duration = Duration::from_secs(4);
/// When the majority is lost, in the script for that.
const LOST: Duration = Duration::from_millis(1_500);

/// A fault that is planted on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Planted {
    /// The client draws from something that is not the seed.
    Entropy,
    /// The example keeps back what its workers stand on.
    Unsaid,
    /// A worker computes something else.
    Miscounts,
    /// A worker does what nobody gave it.
    Alone,
    /// The store does not look whether a job is done.
    NoLook,
    /// The store takes all tokens.
    NoFence,
    /// The youngest member leads as well.
    TwoLead,
    /// A leader leaves the jobs of the dead with them.
    Forgetful,
}

impl Planted {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        serde_json::from_value(name.into()).ok()
    }
}

/// The example.
#[derive(Clone, Copy, Debug)]
pub struct Leader;

impl Example for Leader {
    type Event = Event;
    type Results = BTreeMap<u64, u64>;

    const NAME: &'static str = "leader";
    const CRITERIA: &'static [Criterion<Event>] = event::CRITERIA;
    const STRUCTURE: &'static [Edge] = &[
        edge("state machine", "multicast", "the jobs and their holders are equal at all workers"),
        edge("state machine", "membership", "one leader a view, and who is gone gives back"),
        edge("state machine", "resilient processes", "a repaired worker comes in again"),
        edge("multicast", "membership", "order: heard from every member of the view"),
        edge("membership", "multicast", "agreement over lossless FIFO channels"),
        edge("resilient processes", "stable storage", "the log of messages, and checkpoints"),
        edge("resilient processes", "membership", "a worker that comes back is a new member"),
    ];
    const OUTSIDE: &'static [Outside<Event>] = &[Outside {
        name: "majority-lost",
        script: "1500ms crash n1 1000s\n1500ms crash n2 1000s",
        holds: &["LD-1", "LD-2", "LD-3"],
        consequence: "without a majority the pool stands still, and does nothing wrong",
        judge: stands_still,
    }];
    const BROKEN: &'static [Broken] = &[
        broken("entropy", "SYS-1", "", "clients draw from something that is not the seed"),
        broken("unsaid", "SYS-3", "", "not all that the workers stand on is printed"),
        broken("miscounts", "SYS-2", "--no-faults", "workers compute something else"),
        broken(
            "alone",
            "SYS-5",
            "--outside majority-lost",
            "workers do what waits for long, unasked",
        ),
        broken("no-look", "LD-1", "--campaign 40", "the store does a job again"),
        broken("no-fence", "LD-2", "--campaign 40", "the store takes all tokens"),
        broken("two-lead", "LD-3", "--campaign 5", "the youngest member leads as well"),
        broken("forgetful", "LD-4", "--campaign 20", "jobs of the dead stay with them"),
    ];

    fn faults(seed: u64, real: bool) -> Vec<FaultEvent> {
        if real { real_faults(seed) } else { simulated_faults(seed) }
    }

    fn structure(broken: Option<&str>) -> Vec<Edge> {
        let kept_back = usize::from(broken.and_then(Planted::named) == Some(Planted::Unsaid));
        Self::STRUCTURE.iter().copied().skip(kept_back).collect()
    }

    fn run(run: &Run) -> Result<Vec<Entry<Event>>, Failure> {
        simulated::run(run)
    }

    fn run_real(run: &Run) -> Result<Vec<Entry<Event>>, Failure> {
        real::run(run)
    }

    fn child(child: Child) -> Result<(), Failure> {
        real::child(child)
    }

    fn results(log: &[Entry<Event>]) -> BTreeMap<u64, u64> {
        event::effects(log).collect()
    }

    fn model(run: &Run) -> BTreeMap<u64, u64> {
        jobs(run.seed).into_iter().map(|(_, job)| (job.id, job.result())).collect()
    }

    fn node(what: &Event) -> Option<usize> {
        match what {
            Event::View { node, .. } | Event::Leads { node, .. } => Some(*node),
            Event::Fenced { by, .. } | Event::Effect { by, .. } | Event::Refused { by, .. } => {
                Some(*by)
            }
            Event::Submitted { .. } => None,
        }
    }

    fn counts(log: &[Entry<Event>]) -> Vec<(&'static str, u64)> {
        let count = |is: fn(&Event) -> bool| log.iter().filter(|it| is(&it.what)).count() as u64;
        vec![
            ("jobs done", count(|event| matches!(event, Event::Effect { .. }))),
            ("times that somebody led", count(|event| matches!(event, Event::Leads { .. }))),
            ("requests fenced off", count(|event| matches!(event, Event::Refused { .. }))),
        ]
    }
}

const fn edge(from: &'static str, to: &'static str, why: &'static str) -> Edge {
    Edge { from, to, why }
}

const fn broken(
    name: &'static str,
    breaks: &'static str,
    arguments: &'static str,
    about: &'static str,
) -> Broken {
    Broken { name, about, arguments, breaks }
}

/// SYS-5: what was handed out before may yet be done; then nothing is, and jobs are left.
fn stands_still(log: &[Entry<Event>]) -> Result<(), String> {
    let is_effect = |entry: &&Entry<Event>| matches!(entry.what, Event::Effect { .. });
    let last = log.iter().filter(is_effect).map(|entry| entry.at).max().unwrap_or_default();
    if last > LOST + Duration::from_secs(1) {
        return Err(format!("a job is done at {last:?}"));
    }
    match log.iter().filter(is_effect).count() as u64 {
        0 => Err("nothing was ever done".to_owned()),
        JOBS => Err("no job was left".to_owned()),
        _ => Ok(()),
    }
}

/// The jobs of a run, and when clients submit them.
fn jobs(seed: u64) -> Vec<(Duration, Job)> {
    let mut rng = Rng::new(seed).stream("jobs");
    let mut job = |id| {
        let at = Duration::from_millis(rng.between(300, 1_500));
        (at, Job { id, input: rng.between(1, 1_000), millis: rng.between(50, 400) })
    };
    (1..=JOBS).map(&mut job).collect()
}

/// One worker may be down at a time, or have lost its disk. All may be slow, and cut off from each other.
fn options(seed: u64) -> Options {
    let mut options = Options::from_seed(seed, Wire::Channel, Atlas { down: 1, lost: 1 });
    options.span = WORK - CALM;
    options
}

fn simulated_faults(seed: u64) -> Vec<FaultEvent> {
    let mut faults = schedule(seed, NODES, &options(seed));
    faults.iter_mut().for_each(|event| event.at = event.at + CALM);
    faults
}

/// One process is stopped for longer than a member may be silent, and goes on; another one is killed.
fn real_faults(seed: u64) -> Vec<FaultEvent> {
    let mut rng = Rng::new(seed).stream("real faults");
    let stopped = rng.below(NODES as u64);
    let killed = (stopped + rng.between(1, 2)) % NODES as u64;
    let mut millis = |low, high| rng.between(low, high);
    let text = format!(
        "{}ms pause n{stopped} {}ms\n{}ms crash n{killed} {}ms",
        millis(900, 1_200),
        millis(800, 1_500),
        millis(2_900, 3_300),
        millis(200, 800)
    );
    script::parse(&text).expect("a script as they are")
}

fn name(index: usize) -> String {
    format!("n{index}")
}

fn cluster() -> ClusterId {
    ClusterId::from_entropy(17)
}

/// What is delivered is on the disks of a majority: a job that is handed out stays so, whoever crashes.
fn group_config() -> GroupConfig {
    GroupConfig::disk().deliver_at(Level::Disk).checkpoint_bytes(8 << 10)
}

/// Puts a worker on a node that is being built.
fn join(
    builder: &mut NodeBuilder,
    index: usize,
    out: mpsc::Sender<(usize, Out)>,
    planted: Option<Planted>,
) -> Result<GroupHandle, StartError> {
    let group = builder.group("pool", group_config())?;
    let worker = Worker::new(index, group.clone(), out, planted).start().recipient();
    group.subscribe(worker).expect("a node that is not started has not ended");
    Ok(group)
}
