//! Hand-made traces in a few words, and a generator of correct ones: for tests of checkers.

mod generate;

pub use generate::good_trace;

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{
    BootId, BootNonce, ClusterId, Duration, GroupId, Incarnation, Instant, Level, MessageId,
    NodeId, Order, Position, SiteId, ViewId,
};

/// The node called by a letter.
#[must_use]
pub fn node(letter: char) -> NodeId {
    NodeId::new(ClusterId::from_entropy(1), &letter.to_string())
}

/// The group called `name`; hand-made traces are about the group `g` unless they say otherwise.
#[must_use]
pub fn group(name: &str) -> GroupId {
    GroupId::new(ClusterId::from_entropy(1), name)
}

/// An incarnation of a node.
#[must_use]
pub fn site(letter: char, incarnation: u32) -> SiteId {
    SiteId { node: node(letter), incarnation: Incarnation(incarnation) }
}

/// A start of a node.
#[must_use]
pub fn boot(letter: char, nonce: u128) -> BootId {
    BootId { node: node(letter), nonce: BootNonce(nonce) }
}

/// A trace out of text: one event per `;` or line, `who what`.
///
/// `who` is one or more boots, each a letter and the number of the start if it is not the first: `abc`, `a2`. Sites are
/// written alike, messages `a.1`, `a2.1`, positions `@1`. A group other than `g` comes before the verb: `a h:group 1 ab`.
///
/// | Verb | Event |
/// |---|---|
/// | `start`, `crash`, `kill` | the process begins, stops, learns that it is dead |
/// | `view 3 abc`, `view 3' abc`, `view 3 abc of abcd` | installs a view; of another coordinator; with a roster |
/// | `group 3 abc @5` | installs a view of the group as of a position (default 0) |
/// | `cast a.1`, `castf a.1` | casts in total order; FIFO |
/// | `got 3 a.1 @6`, `gotf 3 a.1` | delivers in view 3 |
/// | `restored @5`, `acked a.1 @6 majority`, `lost @6` | state taken over, acknowledged, maybe lost |
///
/// # Panics
/// If the text is not of this form.
#[must_use]
pub fn trace(text: &str) -> Vec<Event> {
    let mut events = Vec::new();
    for line in text.split([';', '\n']).map(str::trim).filter(|line| !line.is_empty()) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let who = words.remove(0);
        let what = parse(&words).unwrap_or_else(|| panic!("not an event: {line}"));
        events.extend(sites(who).into_iter().map(|site| Event {
            boot: BootId { node: site.node, nonce: BootNonce(site.incarnation.0.into()) },
            number: 0,
            at: Instant::ZERO,
            what: what.clone(),
        }));
    }
    renumber(&mut events);
    events
}

/// Numbers the events of each boot anew, and gives all of them a moment in their order.
pub fn renumber(events: &mut [Event]) {
    let mut counts: BTreeMap<BootId, u64> = BTreeMap::new();
    for (index, event) in events.iter_mut().enumerate() {
        let count = counts.entry(event.boot).or_default();
        event.number = *count;
        event.at = Instant::ZERO + Duration::from_micros(index as u64);
        *count += 1;
    }
}

fn parse(words: &[&str]) -> Option<What> {
    let (verb, rest) = words.split_first()?;
    let (of, verb) = verb.split_once(':').unwrap_or(("g", verb));
    let group = group(of);
    let first = || rest.first().copied();
    let place = || {
        rest.iter()
            .find_map(|word| word.strip_prefix('@'))
            .and_then(|n| n.parse().ok())
            .map(Position)
    };
    Some(match verb {
        "start" => What::Process(ProcessWord::Started),
        "crash" => What::Process(ProcessWord::Crashed),
        "kill" => What::Membership(MembershipWord::Killed),
        "view" => {
            let roster = if rest.get(2) == Some(&"of") { rest.get(3)? } else { "abcd" };
            What::Membership(MembershipWord::Installed {
                view: view(first()?)?,
                members: sites(rest.get(1)?),
                roster: sites(roster).into_iter().map(|site| site.node).collect(),
            })
        }
        "group" => What::Group(GroupWord::Installed {
            group,
            view: view(first()?)?,
            members: sites(rest.get(1)?),
            position: place().unwrap_or_default(),
        }),
        "cast" => {
            What::Group(GroupWord::Cast { group, message: message(first()?)?, order: Order::Total })
        }
        "castf" => {
            What::Group(GroupWord::Cast { group, message: message(first()?)?, order: Order::Fifo })
        }
        "got" | "gotf" => What::Group(GroupWord::Delivered {
            group,
            view: view(first()?)?,
            message: message(rest.get(1)?)?,
            order: if verb == "got" { Order::Total } else { Order::Fifo },
            position: place(),
        }),
        "restored" => What::Group(GroupWord::Restored { group, position: place()? }),
        "lost" => What::Group(GroupWord::MaybeLost { group, from: place()? }),
        "acked" => {
            let level = match *rest.last()? {
                "delivered" => Level::Delivered,
                "majority" => Level::Majority,
                "safe" => Level::Safe,
                "disk" => Level::Disk,
                _ => return None,
            };
            What::Group(GroupWord::Acknowledged {
                group,
                message: message(first()?)?,
                position: place()?,
                level,
            })
        }
        _ => return None,
    })
}

fn view(word: &str) -> Option<ViewId> {
    let digits = word.trim_end_matches('\'');
    let nonce = (word.len() - digits.len()) as u64;
    Some(ViewId { number: digits.parse().ok()?, nonce })
}

fn message(word: &str) -> Option<MessageId> {
    let (sender, sequence) = word.split_once('.')?;
    Some(MessageId { sender: *sites(sender).first()?, sequence: sequence.parse().ok()? })
}

fn sites(word: &str) -> Vec<SiteId> {
    let mut found: Vec<SiteId> = Vec::new();
    for letter in word.chars() {
        match (letter.to_digit(10), found.last_mut()) {
            (Some(digit), Some(last)) => last.incarnation = Incarnation(digit),
            _ => found.push(site(letter, 1)),
        }
    }
    found
}
