//! A network namespace whose only interface goes down: all nodes lose each other and their clients.

use std::process::Command;
use std::thread;
use std::time::Duration;

use super::cluster::{Cluster, Home, ensure, until, values};
use super::tools::{is_root, is_there, run};
use crate::steps::Verdict;

/// How long the interface is down: many timeouts of the nodes.
const DOWN: Duration = Duration::from_secs(3);

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

/// Nodes declare each other dead, and without a majority none goes on; when the interface is back all do, and nothing
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
    let before = values(&cluster.status()?, "view");
    for number in 0..100 {
        let said = cluster.ask(number % 3, &["INCR", "n"])?;
        ensure(said == (number + 1).to_string(), || format!("INCR: {said}"))?;
    }
    namespace.set("down")?;
    thread::sleep(DOWN);
    namespace.set("up")?;
    // A node that the others have removed takes itself for a member until it hears from one of them, and may say it is
    // reachable until then. All of them in one view, which is not the one before: there none is removed.
    until("all serve in one new view", || {
        // While none serves, status says so by its exit status.
        let Ok(status) = cluster.status() else { return Ok(false) };
        let (views, serve) = (values(&status, "view"), values(&status, "reachable"));
        Ok(serve == ["true"; 3] && views != before && views.iter().all(|it| *it == views[0]))
    })?;
    for node in 0..3 {
        let said = cluster.ask(node, &["GET", "n"])?;
        ensure(said == "100", || format!("n is {said} at node {node}, not 100"))?;
    }
    let said = cluster.ask(0, &["INCR", "n"])?;
    ensure(said == "101", || format!("INCR: {said}"))?;
    cluster.stop()?;
    Ok(Verdict::Passed)
}
