//! What a run is judged by: the events of its log.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_harness::{Criterion, Entry};
use serde::{Deserialize, Serialize};

/// Something that the clients, the workers or the store saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A client knows that a job is submitted.
    Submitted {
        /// Which.
        job: u64,
    },
    /// A worker is in a view.
    View {
        /// Which worker.
        node: usize,
        /// The number of the view.
        view: u64,
        /// Names and incarnations of its members, in order of rank.
        members: Vec<String>,
    },
    /// A worker leads a view.
    Leads {
        /// Which worker.
        node: usize,
        /// The number of the view.
        view: u64,
    },
    /// The store has refused all lower tokens from here on.
    Fenced {
        /// The token.
        token: u64,
        /// Who asked for it.
        by: usize,
    },
    /// The store has the effect of a job.
    Effect {
        /// Which job.
        job: u64,
        /// What came of it.
        result: u64,
        /// With which token.
        token: u64,
        /// Who wrote it.
        by: usize,
    },
    /// The store has refused a token.
    Refused {
        /// The token.
        token: u64,
        /// Who came with it.
        by: usize,
        /// Why.
        why: String,
    },
}

/// By what every run is judged.
pub const CRITERIA: &[Criterion<Event>] = &[
    Criterion { id: "LD-1", text: "each job has its effect once at most", judge: once },
    Criterion { id: "LD-2", text: "the tokens of the store never go back", judge: forwards },
    Criterion { id: "LD-3", text: "a view has one leader at most", judge: one_leader },
    Criterion { id: "LD-4", text: "every submitted job is done in the end", judge: all_done },
];

/// The jobs that are done in the store, and their results, in order of time.
pub(crate) fn effects(log: &[Entry<Event>]) -> impl Iterator<Item = (u64, u64)> {
    log.iter().filter_map(|entry| match entry.what {
        Event::Effect { job, result, .. } => Some((job, result)),
        _ => None,
    })
}

fn once(log: &[Entry<Event>]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match effects(log).find(|(job, _)| !seen.insert(*job)) {
        Some((job, _)) => Err(format!("job {job} has two effects")),
        None => Ok(()),
    }
}

fn forwards(log: &[Entry<Event>]) -> Result<(), String> {
    let mut highest = 0;
    for entry in log {
        if let Event::Effect { token, .. } | Event::Fenced { token, .. } = entry.what {
            if token < highest {
                return Err(format!("token {token} at {:?}, after {highest}", entry.at));
            }
            highest = token;
        }
    }
    Ok(())
}

fn one_leader(log: &[Entry<Event>]) -> Result<(), String> {
    let mut leaders = BTreeMap::new();
    for entry in log {
        if let Event::Leads { node, view } = entry.what {
            let first = *leaders.entry(view).or_insert(node);
            if first != node {
                return Err(format!("n{first} and n{node} lead view {view}"));
            }
        }
    }
    Ok(())
}

fn all_done(log: &[Entry<Event>]) -> Result<(), String> {
    let done: BTreeSet<u64> = effects(log).map(|(job, _)| job).collect();
    let submitted = log.iter().filter_map(|entry| match entry.what {
        Event::Submitted { job } => Some(job),
        _ => None,
    });
    let open: Vec<u64> = submitted.filter(|job| !done.contains(job)).collect();
    match (open.is_empty(), done.is_empty()) {
        (true, false) => Ok(()),
        (true, true) => Err("nothing was done".to_owned()),
        (false, _) => Err(format!("never done: {open:?}")),
    }
}
