//! What a node says of itself at its admin port.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mainstay::Status;
use mainstay_base::{Incarnation, NodeId};
use mainstay_site::StackStatus;
use serde::{Deserialize, Serialize};

/// The name of the one group.
pub(crate) const GROUP: &str = "state";
/// How long a node may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest answer that is read.
const ANSWER_MAX: u64 = 1 << 20;

/// How a node is: the answer to `GET /status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Its name.
    pub(crate) node: String,
    /// It is a member, hears a majority and has the state: it executes commands.
    pub(crate) reachable: bool,
    /// How often it was admitted; none while it is no member.
    pub(crate) incarnation: Option<u32>,
    /// The number of the last view that it knows.
    pub(crate) view: u64,
    /// The configured nodes.
    pub(crate) roster: Vec<String>,
    /// The members of the view, the oldest first.
    pub(crate) members: Vec<String>,
    /// The oldest member that it does not suspect.
    pub(crate) manager: Option<String>,
    /// Who gives out the positions of each group.
    pub(crate) sequencers: BTreeMap<String, String>,
    /// Commands executed here.
    pub(crate) delivered: u64,
    /// Commands forced to the own log.
    pub(crate) durable: u64,
    /// The hash of the state; none while there is no state.
    pub(crate) state_hash: Option<String>,
    /// What an operator should know.
    pub(crate) alarms: Vec<String>,
}

impl Report {
    /// What `status` says of the node `name`.
    pub(crate) fn new(name: &str, status: &Status) -> Self {
        let roster = &status.site.roster;
        let named = |id: NodeId| {
            roster
                .iter()
                .find(|(_, it)| **it == id)
                .map_or_else(String::new, |(name, _)| name.clone())
        };
        let stack = status.site.stack.as_ref();
        let group = stack.and_then(|stack| stack.groups.values().next()).map(|(group, _)| group);
        let sequencer = group.and_then(|group| group.sequencer);
        let hash = status.replica.hash;
        let taking_part = stack.is_some_and(|stack| stack.incarnation.is_some() && !stack.minority);
        Self {
            node: name.to_owned(),
            reachable: taking_part
                && hash.is_some()
                && group.is_some_and(|group| group.whole && !group.blocked && !group.wedged),
            incarnation: stack.and_then(|stack| stack.incarnation).map(|Incarnation(it)| it),
            view: stack.map_or(0, |stack| stack.view.number),
            roster: roster.keys().cloned().collect(),
            members: stack.map_or_else(Vec::new, |stack| {
                stack.members.iter().map(|site| named(site.node)).collect()
            }),
            manager: stack.and_then(|stack| stack.manager).map(|boot| named(boot.node)),
            sequencers: sequencer
                .map(|site| (GROUP.to_owned(), named(site.node)))
                .into_iter()
                .collect(),
            delivered: status.replica.position.0,
            durable: group.map_or(0, |group| group.forced),
            state_hash: hash.map(|hash| format!("{hash:032x}")),
            alarms: alarms(status, stack),
        }
    }

    /// Asks the node whose admin port this is.
    pub(crate) fn of(admin: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).map_err(io::Error::other)
    }
}

fn alarms(status: &Status, stack: Option<&StackStatus>) -> Vec<String> {
    let replica = &status.replica;
    let blocked = stack.is_some_and(|it| it.groups.values().any(|(group, _)| group.blocked));
    let conditions = [
        (stack.is_some_and(|stack| stack.minority), "too few nodes are heard"),
        (blocked, "the group waits for nodes that may have more of its past"),
        (replica.diverged > 0, "the states of members differed"),
        (replica.maybe_lost > 0, "acknowledged commands may have been lost"),
        (replica.restores_failed > 0, "a transferred state could not be restored"),
    ];
    conditions.iter().filter(|(is, _)| *is).map(|(_, text)| (*text).to_owned()).collect()
}
