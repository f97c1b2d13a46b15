//! Violations for a person to read: one line each.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{BootId, GroupId, NodeId, Position};

use crate::context::show;
use crate::property::Violation;

/// Renders violations with the events of the trace they were found in.
pub struct Report<'a> {
    events: BTreeMap<(BootId, u64), &'a Event>,
    names: Vec<(String, String)>,
}

impl<'a> Report<'a> {
    /// A report on `trace`.
    #[must_use]
    pub fn new(trace: &'a [Event]) -> Self {
        let events = trace.iter().map(|event| ((event.boot, event.number), event)).collect();
        Self { events, names: Vec::new() }
    }

    /// Calls `node` by its configured name instead of by its id.
    #[must_use]
    pub fn node(mut self, node: NodeId, name: &str) -> Self {
        self.names.push((format!("{node:?}"), name.to_owned()));
        self
    }

    /// Calls `group` by its name instead of by its id.
    #[must_use]
    pub fn group(mut self, group: GroupId, name: &str) -> Self {
        self.names.push((format!("{group:?}"), name.to_owned()));
        self
    }

    /// One violation: `MC-2 a/1.3 delivered twice: b#7 delivered a/1.3 at 2 in view 1 | b#5 ...`.
    #[must_use]
    pub fn line(&self, violation: &Violation) -> String {
        let mut line = format!("{} {}", violation.id, violation.message);
        for (index, (boot, number)) in violation.events.iter().enumerate() {
            line.push_str(if index == 0 { ": " } else { " | " });
            let (node, nonce) = (boot.node, boot.nonce);
            let _ = write!(line, "{node:?}({nonce:?})#{number} ");
            match self.events.get(&(*boot, *number)) {
                Some(event) => {
                    let _ = write!(line, "{}", describe(&event.what));
                    let nanos = event.at.as_nanos();
                    let _ = write!(line, " at {}.{:06} ms", nanos / 1_000_000, nanos % 1_000_000);
                }
                None => line.push_str("(not in this trace)"),
            }
        }
        self.names.iter().fold(line, |line, (id, name)| line.replace(id, name))
    }

    /// All violations, one line each.
    #[must_use]
    pub fn render(&self, violations: &[Violation]) -> String {
        violations.iter().fold(String::new(), |text, violation| text + &self.line(violation) + "\n")
    }
}

fn describe(what: &What) -> String {
    match what {
        What::Process(ProcessWord::Started) => "started".to_owned(),
        What::Process(ProcessWord::Crashed) => "crashed".to_owned(),
        What::Membership(MembershipWord::Killed) => "was killed".to_owned(),
        What::Membership(MembershipWord::Installed { view, members, .. }) => {
            format!("installed {view:?} of {members:?}")
        }
        What::Group(GroupWord::Installed { group, view, members, position }) => {
            format!("installed {view:?} of {group:?} with {members:?} as of {}", position.0)
        }
        What::Group(GroupWord::Cast { group, message, order }) => {
            format!("cast {} to {group:?} as {order:?}", show(*message))
        }
        What::Group(GroupWord::Delivered { group, view, message, position, .. }) => {
            let place = position.map_or_else(String::new, |Position(at)| format!(" at {at}"));
            format!("delivered {} of {group:?}{place} in {view:?}", show(*message))
        }
        What::Group(GroupWord::Restored { group, position }) => {
            format!("restored {group:?} as of {}", position.0)
        }
        What::Group(GroupWord::Acknowledged { group, message, position, level }) => {
            format!("was told that {} of {group:?} at {} is {level:?}", show(*message), position.0)
        }
        What::Group(GroupWord::MaybeLost { group, from }) => {
            format!("may have lost {group:?} from {}", from.0)
        }
    }
}
