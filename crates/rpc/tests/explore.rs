//! Every order of two calls, with messages lost, copied and late, and with crashes of both ends.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use std::collections::BTreeMap;
use std::hash::Hash as _;

use bytes::Bytes;
use mainstay_base::{ClusterId, Duration, Fingerprinter, NodeId};
use mainstay_rpc::fault::Fault;
use mainstay_rpc::{
    Carrier, Command, Config, Event, Executed, Finish, Orphans, Outcome, ProcedureId, Request, Rpc,
    Semantics, Ticket,
};
use mainstay_sim::service::{Judge, Scope};
use mainstay_sim::{Report, Search, explore};

const WORK: ProcedureId = ProcedureId::new("test.work");
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// What the callers were told is true, and calls of a lane, and of two lives of the client, never run beside each other.
#[derive(Clone, Default)]
struct Truth {
    /// In which life of the client a call was made.
    made: BTreeMap<u64, u64>,
    executed: BTreeMap<u64, u32>,
    /// What was told of it: 0 for nothing more, 1 for a result, 2 for not at all.
    told: BTreeMap<u64, u8>,
    running: BTreeMap<Ticket, u64>,
    life: u64,
}

impl Truth {
    fn begins(&mut self, tag: u64) -> Result<(), String> {
        let count = self.executed.entry(tag).or_default();
        *count += 1;
        if *count > 1 {
            return Err(format!("RPC-3: call {tag} is executed {count} times"));
        }
        if self.told.get(&tag) == Some(&2) {
            return Err(format!(
                "RPC-74: call {tag} is executed, its caller was told that it was not"
            ));
        }
        let life = self.made[&tag];
        let later = self.executed.keys().find(|it| **it > tag && self.made[*it] == life);
        if let Some(later) = later {
            return Err(format!("RPC-5: call {tag} begins after call {later}"));
        }
        match self.running.values().next() {
            Some(other) => Err(format!("RPC-5, RPC-21: call {tag} begins beside call {other}")),
            None => Ok(()),
        }
    }
}

impl Judge<Rpc> for Truth {
    fn commanded(&mut self, _: usize, command: &Command) {
        if let Command::Call(request) = command {
            self.made.insert(request.token, self.life);
        }
    }

    fn told(&mut self, _: usize, event: &Event) -> Result<(), String> {
        match event {
            Event::Execute(execution) => {
                let tag = execution.arguments[0].into();
                self.begins(tag)?;
                self.running.insert(execution.ticket, tag);
            }
            Event::Over { token, outcome } => {
                let count = self.executed.get(token).copied().unwrap_or(0);
                let told = match outcome {
                    Outcome::Done(value) if value[..] != [*token as u8] => {
                        return Err(format!("RPC-8: call {token} has the result {value:?}"));
                    }
                    Outcome::Done(_) | Outcome::Remote(_) => 1,
                    Outcome::Failed(failure) if failure.executed == Executed::NotAtAll => 2,
                    Outcome::Failed(_) => 0,
                };
                if self.told.insert(*token, told).is_some() {
                    return Err(format!("RPC-9: call {token} is over twice"));
                }
                if (told == 1 && count != 1) || (told == 2 && count != 0) {
                    return Err(format!("RPC-74: call {token} was executed {count} times"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn answer(&mut self, _: usize, event: &Event) -> Vec<Command> {
        let Event::Execute(execution) = event else { return Vec::new() };
        let (ticket, value) = (execution.ticket, execution.arguments.clone());
        vec![Command::Finished { ticket, result: Finish::Value(value) }]
    }

    fn answered(&mut self, _: usize, command: &Command) {
        if let Command::Finished { ticket, .. } = command {
            self.running.remove(ticket);
        }
    }

    fn crashed(&mut self, node: usize) {
        match node {
            SERVER => self.running.clear(),
            _ => self.life += 1,
        }
    }

    fn fingerprint(&self, into: &mut Fingerprinter) {
        (&self.made, &self.executed, &self.told, &self.running, self.life).hash(into);
    }
}

fn request(tag: u64, server: NodeId) -> Command {
    Command::Call(Request {
        token: tag,
        server,
        procedure: WORK,
        version: 1,
        semantics: Semantics::ExactlyOnce,
        arguments: Bytes::copy_from_slice(&[tag as u8]),
        deadline: Duration::from_secs(60),
        lane: Some(1),
        parent: None,
        context: Bytes::new(),
        name: None,
        numbers: Vec::new(),
    })
}

#[derive(Clone, Copy)]
struct Bounds {
    stored: bool,
    calls: u64,
    losses: u32,
    copies: u32,
    crashes: u32,
    timeouts: u32,
}

fn explored(bounds: &Bounds, fault: Option<Fault>, search: Search, states_max: usize) -> Report {
    let stored = bounds.stored;
    let config = move |_: usize, _: &[NodeId]| {
        let mut config = Config::new(1);
        (config.carrier, config.stored, config.fault) = (Carrier::Datagrams, stored, fault);
        config.orphans = Orphans::Extermination;
        config
    };
    let cluster = ClusterId::from_entropy(1);
    let mut roster = [NodeId::new(cluster, "n0"), NodeId::new(cluster, "n1")];
    roster.sort();
    let mut scope = Scope::<Rpc, _>::new(2, config, Truth::default())
        .each_start(|config, start| config.life = start)
        .first(SERVER, Command::Serve { procedure: WORK, versions: (1, 1) })
        .datagrams(bounds.losses, bounds.copies)
        .faults(bounds.crashes, bounds.timeouts);
    for tag in 1..=bounds.calls {
        scope = scope.command(CLIENT, request(tag, roster[SERVER]));
    }
    explore(scope, search, states_max)
}

/// Checks RPC-3, RPC-5, RPC-8, RPC-9, RPC-12, RPC-14, RPC-15, RPC-21, RPC-22 and RPC-74: every order of two calls of a lane, with two crashes of either
/// end or of both, a loss, a copy, and datagrams that outlive boots.
#[test]
fn every_order_of_two_calls() {
    let crashes = Bounds { stored: false, calls: 2, losses: 3, copies: 2, crashes: 2, timeouts: 0 };
    complete("two crashes", &crashes, 120_000);
}

/// Checks RPC-3, RPC-5, RPC-9 and RPC-74: the same with an attempt more, or a deadline; to bound the states there is a loss less and a copy less.
#[test]
fn every_order_of_two_calls_and_a_timeout() {
    let timeout = Bounds { stored: false, calls: 2, losses: 2, copies: 1, crashes: 2, timeouts: 1 };
    complete("a timeout", &timeout, 100_000);
}

/// Checks RPC-3, RPC-9, RPC-13 and RPC-74: every order of one call to a server that writes, with two crashes, which lose some of what is not stable yet.
/// With another call there are millions of states, for the log is one.
#[test]
fn every_order_of_a_stored_call() {
    let stored = Bounds { stored: true, calls: 1, losses: 2, copies: 2, crashes: 2, timeouts: 0 };
    complete("stored", &stored, 60_000);
}

fn complete(what: &str, bounds: &Bounds, states_min: usize) {
    // In depth: in breadth what is still to be looked at takes gigabytes.
    let report = explored(bounds, None, Search::Depth, 3_000_000);
    if let Some(violation) = report.violation {
        panic!("{what}: {violation}");
    }
    println!("{what}: {} states, depth {}, {} ends", report.states, report.depth, report.ends);
    assert!(report.complete && report.states >= states_min, "{what}: {} states", report.states);
}

/// Each defect that the scope can show is found in it.
#[test]
fn defects_are_found() {
    use Fault as F;
    let small = Bounds { stored: false, calls: 2, losses: 0, copies: 1, crashes: 1, timeouts: 0 };
    let stored = Bounds { stored: true, calls: 1, ..small };
    for (fault, bounds) in [
        (F::ForgetsCalls, &small),
        (F::RunsLateCalls, &small),
        (F::MatchesByNumber, &small),
        (F::BelievesAnyBinding, &small),
        (F::RepeatsAtNewServer, &small),
        (F::HearsTheDead, &small),
        (F::SparesOrphans, &small),
        (F::IgnoresOrder, &small),
        (F::ForgetsStored, &stored),
        (F::BeginsUnwritten, &stored),
    ] {
        let mut found = None;
        let explore = || found = explored(bounds, Some(fault), Search::Breadth, 300_000).violation;
        let panic = mainstay_sim::panic_of(std::panic::AssertUnwindSafe(explore));
        let what =
            panic.or_else(|| found.map(|it| format!("{} steps, {}", it.path.len(), it.what)));
        let what = what.unwrap_or_else(|| panic!("{fault:?} is not noticed"));
        println!("{fault:?}: {}", what.lines().next().unwrap_or_default());
    }
}
