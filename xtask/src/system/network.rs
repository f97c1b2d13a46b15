//! A network namespace whose only interface goes down: all nodes lose each other and their clients.

use std::process::Command;
use std::thread;
use std::time::Duration;

use super::cluster::{Cluster, Home, ensure, until, values};
use super::tools::{is_root, is_there, run};
use crate::steps::Verdict;

/// How long the interface is down: many timeouts of the nodes.
const DOWN: Duration = Duration::from_secs(3);
/// So long nobody must be removed after it: some timeouts of the nodes.
const PEACE: Duration = Duration::from_secs(1);

/// A network namespace; removed at the end.
struct Namespace(String);

impl Namespace {
    /// `None`: that is not permitted.
    fn new() -> Option<Self> {
        let name = format!("mainstay-{}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name])).ok().map(|_| Self(name))
    }

    fn set(&self, up_or_down: &str) -> Result<(), String> {
        let mut ip = Command::new("ip");
        run(ip.args(["-n", &self.0, "link", "set", "lo", up_or_down])).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.0]));
    }
}

/// The view in which all three serve; none if they do not.
fn view_of_all(status: &str) -> Option<u64> {
    let views = values(status, "view");
    let one = views.iter().all(|view| *view == views[0]);
    let all = one && values(status, "reachable") == ["true"; 3];
    views.first().filter(|_| all)?.parse().ok()
}

/// Nodes suspect each other, and without a majority none goes on; when the interface is back all do, and nothing
/// acknowledged is lost.
pub(super) fn goes_away() -> Result<Verdict, String> {
    if !is_root() || !is_there("ip") || !is_there("redis-cli") {
        return Ok(Verdict::Skipped("it needs root, ip and redis-cli"));
    }
    let Some(namespace) = Namespace::new() else {
        return Ok(Verdict::Skipped("no network namespace may be made here"));
    };
    namespace.set("up")?;
    let home = Home::new("network")?;
    let cluster = Cluster::start(&home, &["ip", "netns", "exec", &namespace.0], &[])?;
    let before = view_of_all(&cluster.status()?).ok_or("the nodes are in several views")?;
    for number in 0..100 {
        let said = cluster.ask(number % 3, &["INCR", "n"])?;
        ensure(said == (number + 1).to_string(), || format!("INCR: {said}"))?;
    }
    namespace.set("down")?;
    thread::sleep(DOWN);
    namespace.set("up")?;
    // Who was removed takes itself for a member until it hears from the others, and then waits to be admitted: meanwhile
    // it refuses commands, whatever it said of itself a moment ago.
    for node in 0..3 {
        until("all execute commands again", || {
            let said = cluster.ask(node, &["GET", "n"])?;
            let is_refused = said.starts_with("CLUSTERDOWN");
            ensure(is_refused || said == "100", || format!("n is {said} at node {node}, not 100"))?;
            Ok(!is_refused)
        })?;
    }
    // While none serves, status says so by its exit status.
    until("all are in one view", || {
        Ok(cluster.status().is_ok_and(|status| view_of_all(&status).is_some()))
    })?;
    // Each has noticed that the two others were away, also where all met again before anybody was removed.
    let suspected = values(&cluster.status()?, "why");
    ensure(suspected.len() >= 6, || format!("of six suspicions there are {suspected:?}"))?;
    thread::sleep(PEACE);
    // One is removed, at most, and comes back: they do not quarrel.
    let after = view_of_all(&cluster.status()?);
    ensure(after.is_some_and(|after| after <= before + 2), || {
        format!("view {before} became {after:?}")
    })?;
    let said = cluster.ask(0, &["INCR", "n"])?;
    ensure(said == "101", || format!("INCR: {said}"))?;
    cluster.stop()?;
    Ok(Verdict::Passed)
}
