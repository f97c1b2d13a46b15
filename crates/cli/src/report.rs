//! What a node says of itself at its admin port.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use mainstay::Status;
use mainstay::WaitsFor;
use mainstay_base::rack::Breach;
use mainstay_base::service::{Address, Figure, Figures};
use mainstay_base::{Incarnation, NodeId};
use mainstay_directory::host::Counted;
use mainstay_paradigm::Status as Is;
use mainstay_site::{StackStatus, Suspicion};
use serde::{Deserialize, Serialize};

use crate::log::Lines;

/// The name of the one group.
pub(crate) const GROUP: &str = mainstay::Config::GROUP;
/// How long a node may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many deaths in ten seconds are worth an alarm: one or two are a fault that is over.
const DEATHS_TOLD: u64 = 3;
/// Longest answer that is read.
const ANSWER_MAX: u64 = 1 << 20;

/// What the program knows of its node, beside what the node says.
#[derive(Default)]
pub(crate) struct Own {
    /// The clients of the Redis port.
    pub(crate) clients: Rc<Counted>,
    /// How often the others have declared it dead within the last ten seconds.
    pub(crate) deaths: Cell<u64>,
    /// Where it logs; `None` in tests.
    pub(crate) log: Option<Lines>,
}

/// How a node is: the answer to `GET /status`.
#[derive(Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Commands and views executed here.
    pub(crate) delivered: u64,
    /// Commands forced to the own log, with all before them; 0 while it has not all of the past.
    pub(crate) durable: u64,
    /// The hash of the state; none while there is no state.
    pub(crate) state_hash: Option<String>,
    /// The number of the view that the state was told last, in the order of the commands; none while there is no state.
    #[serde(default)]
    pub(crate) told_view: Option<u64>,
    /// What an operator should know.
    pub(crate) alarms: Vec<String>,
    /// What was refused of what came from outside since the process started, by reason.
    #[serde(default)]
    pub(crate) refused: BTreeMap<String, u64>,
    /// Lines of its log that could not be written since the process started.
    #[serde(default)]
    pub(crate) log_dropped: u64,
    /// The last members that it suspected since the process started, the newest last.
    #[serde(default)]
    pub(crate) suspected: Vec<Suspected>,
    /// How long the longest turn of its thread took, in microseconds.
    #[serde(default)]
    pub(crate) longest_turn_us: u64,
    /// The same without the time in which others had the processor.
    #[serde(default)]
    pub(crate) longest_turn_at_work_us: u64,
    /// How many turns took longer than 50 ms, or had a processor for more than 20.
    #[serde(default)]
    pub(crate) slow_turns: u64,
    /// What its services say of themselves.
    #[serde(default)]
    pub(crate) services: Vec<OfService>,
}

/// What a service of the node says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OfService {
    /// What people call its kind.
    pub(crate) kind: String,
    /// Which one of it, as 32 hexadecimal digits.
    pub(crate) instance: String,
    pub(crate) figures: Vec<Number>,
}

/// One number of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Number {
    pub(crate) name: String,
    /// The other node that it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) node: String,
    /// Which of several, or why it is so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) word: String,
    /// None: without bound.
    pub(crate) value: Option<f64>,
}

impl OfService {
    fn of(service: &Figures, name: impl Fn(NodeId) -> String) -> Self {
        let id = service.of.instance.as_bytes();
        let number = |figure: &Figure| Number {
            name: figure.name.to_owned(),
            node: figure.node.map_or_else(String::new, &name),
            word: figure.word.to_owned(),
            value: Some(figure.value).filter(|value| value.is_finite()),
        };
        Self {
            kind: service.kind.to_owned(),
            instance: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            figures: service.figures.iter().map(number).collect(),
        }
    }
}

/// A member was thought to have failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suspected {
    pub(crate) node: String,
    /// Why, in a word.
    pub(crate) why: String,
    pub(crate) ago_ms: u64,
}

impl Report {
    /// What `status` says of the node `name`.
    pub(crate) fn new(name: &str, status: &Status, own: &Own) -> Self {
        let clients = own.clients.refused();
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
        let refused =
            status.site.refused.iter().map(|(name, count)| (*name, *count)).chain(clients);
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
            durable: group.filter(|group| group.whole).map_or(0, |group| group.forced),
            state_hash: hash.map(|hash| format!("{hash:032x}")),
            told_view: status.replica.view,
            alarms: alarms(status, stack, own, named),
            refused: refused.map(|(name, count)| (name.to_owned(), count)).collect(),
            log_dropped: own.log.as_ref().map_or(0, Lines::dropped),
            suspected: suspected(&status.site.suspicions, named),
            longest_turn_us: status.site.turns.longest.as_micros() as u64,
            longest_turn_at_work_us: status.site.turns.longest_at_work.as_micros() as u64,
            slow_turns: status.site.turns.slow,
            services: stack
                .into_iter()
                .flat_map(|stack| &stack.services)
                .map(|service| OfService::of(service, named))
                .collect(),
        }
    }

    /// Asks the node whose admin port this is.
    pub(crate) fn of(admin: SocketAddr) -> io::Result<Self> {
        let (_, body) = exchange(admin, "GET /status HTTP/1.0", PATIENCE)?;
        serde_json::from_str(&body).map_err(io::Error::other)
    }
}

/// Sends the head of a request to an admin port; the status code and the body of the answer.
pub(crate) fn exchange(
    admin: SocketAddr,
    head: &str,
    patience: Duration,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(format!("{head}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// Why a node says nothing of itself, as far as that can be seen from here.
pub(crate) fn silence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nobody listens: it does not run, or it starts".to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

fn suspected(suspicions: &[Suspicion], name: impl Fn(NodeId) -> String) -> Vec<Suspected> {
    let suspected = |suspicion: &Suspicion| Suspected {
        node: name(suspicion.node),
        why: suspicion.evidence.name().to_owned(),
        ago_ms: suspicion.ago.as_millis().try_into().unwrap_or(u64::MAX),
    };
    suspicions.iter().map(suspected).collect()
}

/// What a node without a quorum waits for, and for how long it has.
fn minority(stack: &StackStatus, name: impl Fn(NodeId) -> String) -> String {
    let missing = |heard: bool| {
        let missing = stack.votes_missing.iter().filter(|(_, is_heard)| **is_heard == heard);
        let mut names: Vec<_> = missing.map(|(node, _)| name(*node)).collect();
        names.sort();
        names.join(" ")
    };
    let waits = [("unheard", missing(false)), ("heard, but without data", missing(true))];
    let waits = waits.into_iter().filter(|(_, nodes)| !nodes.is_empty());
    let waits: Vec<_> = waits.map(|(what, nodes)| format!("{nodes} ({what})")).collect();
    let founding = if stack.founding.is_empty() {
        String::new()
    } else {
        let one = |(node, why): (&NodeId, &WaitsFor)| {
            let why = match why {
                WaitsFor::NotHeard => "not heard",
                WaitsFor::OtherSettings => "has other settings",
                WaitsFor::Past => "has a past",
                WaitsFor::Joins => "was told to join",
                WaitsFor::OtherFounders => "has founded with a disk that is gone",
                _ => "not ready",
            };
            format!("{} {why}", name(*node))
        };
        let mut who: Vec<_> = stack.founding.iter().map(one).collect();
        who.sort();
        format!("; no cluster is made before all nodes are here: {}", who.join(", "))
    };
    format!(
        ": it has waited {} s for the votes of {} nodes; missing: {}{founding}",
        stack.minority_for.as_secs(),
        stack.quorum,
        waits.join(", ")
    )
}

/// The kinds of alarms, in the order in which they are told.
const KINDS: [&str; 13] = [
    "minority",
    "apart",
    "blocked",
    "learning",
    "poison",
    "flapping",
    "slow",
    "diverged",
    "maybe-lost",
    "disk",
    "checkpoint",
    "restore",
    "stopped",
];

/// Each kind of alarm, and whether there is one among the alarms of a report.
pub(crate) fn kinds(alarms: &[String]) -> impl Iterator<Item = (&'static str, bool)> {
    let is = |alarm: &String, kind: &str| {
        alarm.strip_prefix(kind).is_some_and(|rest| rest.starts_with([':', ' ']))
    };
    KINDS.into_iter().map(move |kind| (kind, alarms.iter().any(|alarm| is(alarm, kind))))
}

/// Each begins with its kind, a colon, and what it means; they come in the order of [`KINDS`].
fn alarms(
    status: &Status,
    stack: Option<&StackStatus>,
    own: &Own,
    name: impl Fn(NodeId) -> String,
) -> Vec<String> {
    let replica = &status.replica;
    let groups =
        || stack.into_iter().flat_map(|stack| stack.groups.values().map(|(group, _)| group));
    let slow: BTreeSet<String> =
        groups().flat_map(|group| &group.slow).map(|site| name(site.node)).collect();
    let slow = slow.into_iter().collect::<Vec<_>>().join(" ");
    let poison = match replica.replica {
        Some(Is::Poisoned { position }) => Some(position.0),
        _ => None,
    };
    let unheard = stack.into_iter().flat_map(|stack| &stack.unheard);
    let unheard: Vec<_> = unheard.map(|node| name(*node)).collect();
    let stopped: Vec<_> = stack.into_iter().flat_map(|stack| &stack.stopped).map(stopped).collect();
    let short = stack.filter(|stack| stack.minority);
    let deaths = own.deaths.get();
    let is_member = stack.is_some_and(|stack| stack.incarnation.is_some());
    let conditions: [_; KINDS.len()] = [
        (short.is_some(), short.map_or_else(String::new, |stack| minority(stack, &name))),
        (
            !unheard.is_empty(),
            format!(": it is not admitted before it reaches {}", unheard.join(" ")),
        ),
        (
            groups().any(|group| group.blocked),
            ": the group waits for nodes that may have more of its past".to_owned(),
        ),
        (
            is_member && groups().any(|group| !group.whole && !group.blocked),
            ": it gets the state from another node, and is no copy of it yet".to_owned(),
        ),
        (
            poison.is_some(),
            format!(" #{}: the command there panicked; see skip", poison.unwrap_or(0)),
        ),
        (
            deaths >= DEATHS_TOLD,
            format!(": the others declared it dead {deaths} times in ten seconds"),
        ),
        (!slow.is_empty(), format!(": the others wait for {slow}")),
        (replica.diverged > 0, ": the states of members differed".to_owned()),
        (replica.maybe_lost > 0, ": acknowledged commands may have been lost".to_owned()),
        (
            replica.disk_short,
            ": it is almost full, and clients' commands are refused here".to_owned(),
        ),
        (
            replica.checkpoint_failed,
            ": the last one could not be written, and the log grows".to_owned(),
        ),
        (replica.restores_failed > 0, ": a transferred state could not be restored".to_owned()),
        (!stopped.is_empty(), format!(": {}", stopped.join("; "))),
    ];
    let alarms = KINDS.into_iter().zip(conditions).filter(|(_, (is, _))| *is);
    alarms.map(|(kind, (_, text))| format!("{kind}{text}")).collect()
}

fn stopped((of, breach): (&Address, &Breach)) -> String {
    format!("service {of}: {breach}")
}
