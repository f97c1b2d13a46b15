//! A node in a room: how it is started, and when all of them are one.

use std::fmt::{Debug, Write as _};

use mainstay::{Config, Node, NodeBuilder, Ports, Replicated, StartError, StateMachine, Status};
use mainstay_base::{ClusterId, Duration, NodeId};
use mainstay_sim::live::{Outside, Restored, Start};

/// The cluster of every room.
#[must_use]
pub fn cluster() -> ClusterId {
    ClusterId::from_entropy(11)
}

/// Starts a node in a room, on the ports of `start`. `configure` changes its settings, `build` puts on it what is wanted and
/// answers the handles. The cluster is founded by all nodes together, while none has a past. The room is told when the node is
/// [ready](Node::ready), and a node that halts ends the run.
///
/// # Errors
/// Why the node does not start, with all causes.
///
/// # Panics
/// Outside a `LocalSet`.
pub fn start<T>(
    start: Start,
    configure: impl FnOnce(Config) -> Config,
    build: impl FnOnce(&mut NodeBuilder) -> Result<T, StartError>,
) -> Result<(Node, T), String> {
    let (config, ports, restored) = prepared(start, configure);
    let started = || {
        let mut builder = Node::builder_without_tcp(config)?;
        let handles = build(&mut builder)?;
        Ok((builder.start_with(ports)?, handles))
    };
    let (node, handles) = started().map_err(told)?;
    follow(restored, node.clone());
    Ok((node, handles))
}

/// As [`start`], with a replicated state machine alone, whose handle keeps the node running.
///
/// # Errors
/// Why the node does not start, with all causes.
///
/// # Panics
/// Outside a `LocalSet`.
pub fn replica<S: StateMachine + 'static>(
    start: Start,
    configure: impl FnOnce(Config) -> Config,
    make: impl FnMut() -> S + 'static,
) -> Result<Replicated<S>, String> {
    let (config, ports, restored) = prepared(start, configure);
    let machine = Replicated::start_with(config, make, ports).map_err(told)?;
    if let Some(node) = machine.node() {
        follow(restored, node.clone());
    }
    Ok(machine)
}

fn prepared(start: Start, configure: impl FnOnce(Config) -> Config) -> (Config, Ports, Restored) {
    let Start { name, nodes, ports, restored, .. } = start;
    let config = Config::new(cluster(), name, nodes);
    (configure(config), ports, restored)
}

fn told(error: StartError) -> String {
    format!("{error}: {error:?}")
}

fn follow(restored: Restored, node: Node) {
    let closed = node.closed();
    restored.follow(async move { node.ready().await }, closed);
}

/// Whether a node lacks nothing: it is a member with a vote and all of the past, and its state machine executes.
#[must_use]
pub fn is_whole(status: &Status) -> bool {
    status.replica.hash.is_some()
        && status.site.stack.as_ref().is_some_and(|stack| {
            stack.voter && stack.groups.values().all(|(group, _)| group.whole && !group.blocked)
        })
}

/// Waits until `count` nodes are whole, in one view, with states of one position, and answers how each is.
pub async fn all_are_one<S: StateMachine + 'static>(
    nodes: Outside<Replicated<S>>,
    count: usize,
) -> Vec<Status> {
    loop {
        let mut all = Vec::new();
        for index in 0..count {
            if let Some(node) = nodes.node(index)
                && let Ok(status) = node.status().await
                && is_whole(&status)
            {
                all.push(status);
            }
        }
        let view = |status: &Status| {
            let stack = status.site.stack.as_ref()?;
            (stack.members.len() == count).then_some(stack.view)
        };
        let of = |status: &Status| (view(status), status.replica.position);
        let one = all.windows(2).all(|pair| of(&pair[0]) == of(&pair[1]));
        if all.len() == count && one && all.iter().all(|status| view(status).is_some()) {
            return all;
        }
        nodes.sleep(Duration::from_millis(50)).await;
    }
}

/// Checks PD-31: at one position the states are equal.
///
/// # Errors
/// They differ, or did before: which node has which, by hash. [`differing`] says in what.
pub fn same_state(statuses: &[Status]) -> Result<(), String> {
    let hash = |status: &Status| status.replica.hash;
    let diverged: u64 = statuses.iter().map(|status| status.replica.diverged).sum();
    if diverged == 0 && statuses.windows(2).all(|pair| hash(&pair[0]) == hash(&pair[1])) {
        return Ok(());
    }
    let mut text = format!("the states differ, noticed {diverged} times:");
    for status in statuses {
        let (name, position) = (name(status), status.replica.position.0);
        let hash = hash(status).map_or_else(|| "none".to_owned(), |hash| format!("{hash:032x}"));
        let _ = write!(text, "\n  {name} at position {position}: hash {hash}");
    }
    Err(text)
}

/// What the configuration calls the node.
pub(crate) fn name(status: &Status) -> &str {
    let is_it = |(_, node): &(&String, &NodeId)| **node == status.site.node;
    status.site.roster.iter().find(is_it).map_or("?", |(name, _)| name)
}

/// The states of nodes, from a little before the place where the first two that differ do so. `None`: all are equal.
#[must_use]
pub fn differing<S: Debug>(states: &[(&str, S)]) -> Option<String> {
    /// So much is shown before the difference, and so much in all.
    const BEFORE: usize = 60;
    const SHOWN: usize = 200;
    let texts: Vec<Vec<char>> =
        states.iter().map(|(_, state)| format!("{state:?}").chars().collect()).collect();
    let other = texts.iter().position(|text| *text != texts[0])?;
    let pairs = texts[0].iter().zip(&texts[other]);
    let from = pairs.take_while(|(one, other)| one == other).count().saturating_sub(BEFORE);
    let mut all = String::new();
    for ((name, _), text) in states.iter().zip(&texts) {
        let part: String = text.iter().skip(from).take(SHOWN).collect();
        let before = if from > 0 { "..." } else { "" };
        let behind = if text.len() > from + SHOWN { "..." } else { "" };
        let _ = write!(all, "\n  {name}: {before}{part}{behind}");
    }
    Some(all)
}
