//! A line of a trace: an event with nodes and groups by their names.

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{
    BootId, BootNonce, ClusterId, GroupId, Incarnation, Instant, Level, MessageId, NodeId, Order,
    Position, SiteId, ViewId,
};
use serde::{Deserialize, Serialize};

/// What the first line says. Files of one run differ in `node` and `began_ms` alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Head {
    /// [`VERSION`].
    pub version: u32,
    /// The id of the cluster.
    pub cluster: String,
    /// Whose trace it is.
    pub node: String,
    /// All configured nodes.
    pub nodes: Vec<String>,
    /// All groups that the events may name.
    pub groups: Vec<String>,
    /// Milliseconds since 1970 when the file was made; a help for the eye, no checker reads it.
    pub began_ms: u64,
}

impl Head {
    /// Of the process of `node` that began to write at `began_ms`.
    pub fn new(
        cluster: ClusterId,
        node: &str,
        nodes: impl IntoIterator<Item = String>,
        groups: impl IntoIterator<Item = String>,
        began_ms: u64,
    ) -> Self {
        let mut nodes: Vec<String> = nodes.into_iter().collect();
        nodes.sort();
        Self {
            version: VERSION,
            cluster: cluster.to_string(),
            node: node.to_owned(),
            nodes,
            groups: groups.into_iter().collect(),
            began_ms,
        }
    }
}

/// The version of the lines as they are written now.
pub const VERSION: u32 = 1;

/// One line; the name of the variant is the one key of its object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    /// The first.
    Trace(Head),
    /// An event, by the name of what it is.
    Started {
        n: u64,
        at: Instant,
        boot: String,
    },
    Crashed {
        n: u64,
        at: Instant,
    },
    Killed {
        n: u64,
        at: Instant,
    },
    View {
        n: u64,
        at: Instant,
        view: String,
        members: Vec<String>,
        roster: Vec<String>,
    },
    GroupView {
        n: u64,
        at: Instant,
        group: String,
        view: String,
        members: Vec<String>,
        position: Position,
    },
    Cast {
        n: u64,
        at: Instant,
        group: String,
        message: String,
        order: Order,
    },
    Delivered {
        n: u64,
        at: Instant,
        group: String,
        view: String,
        message: String,
        order: Order,
        position: Option<Position>,
    },
    Restored {
        n: u64,
        at: Instant,
        group: String,
        position: Position,
    },
    Acknowledged {
        n: u64,
        at: Instant,
        group: String,
        message: String,
        position: Position,
        level: Level,
    },
    MaybeLost {
        n: u64,
        at: Instant,
        group: String,
        from: Position,
    },
    /// The last: the node stopped in good order, all is there.
    Stopped {},
    /// The last: the node ran on, but its trace did not.
    Truncated {
        why: String,
    },
}

/// The names that a head tells of.
#[derive(Clone, Debug)]
pub struct Names {
    nodes: BTreeMap<NodeId, String>,
    groups: BTreeMap<GroupId, String>,
    node_ids: BTreeMap<String, NodeId>,
    group_ids: BTreeMap<String, GroupId>,
}

impl Names {
    /// Those of a head; an error is what is wrong with it.
    pub(super) fn of(head: &Head) -> Result<Self, String> {
        if head.version != VERSION {
            return Err(format!("version {} is not known, only {VERSION}", head.version));
        }
        let cluster = ClusterId::parse(&head.cluster)
            .ok_or_else(|| format!("cluster {:?} is not a UUID", head.cluster))?;
        let node = |name: &String| (name.clone(), NodeId::new(cluster, name));
        let group = |name: &String| (name.clone(), GroupId::new(cluster, name));
        let node_ids: BTreeMap<_, _> = head.nodes.iter().map(node).collect();
        let group_ids: BTreeMap<_, _> = head.groups.iter().map(group).collect();
        let nodes = node_ids.iter().map(|(name, id)| (*id, name.clone())).collect();
        let groups = group_ids.iter().map(|(name, id)| (*id, name.clone())).collect();
        let names = Self { nodes, groups, node_ids, group_ids };
        names.node_id(&head.node)?;
        Ok(names)
    }

    /// Nodes by name.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeId, String> {
        &self.nodes
    }

    /// Groups by name.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<GroupId, String> {
        &self.groups
    }

    /// The node of that name.
    pub(super) fn node_id(&self, name: &str) -> Result<NodeId, String> {
        self.node_ids.get(name).copied().ok_or_else(|| format!("the head names no node {name}"))
    }

    /// The line of an event; `None` if it is about a node or a group without a name.
    pub(super) fn line(&self, event: &Event) -> Option<Line> {
        let (n, at) = (event.number, event.at);
        Some(match &event.what {
            What::Process(ProcessWord::Started) => {
                let boot = format!("{:032x}", event.boot.nonce.0);
                Line::Started { n, at, boot }
            }
            What::Process(ProcessWord::Crashed) => Line::Crashed { n, at },
            What::Membership(MembershipWord::Killed) => Line::Killed { n, at },
            What::Membership(MembershipWord::Installed { view, members, roster }) => {
                let roster = roster.iter().map(|node| self.nodes.get(node).cloned());
                let (view, members) = (show_view(*view), self.sites(members)?);
                Line::View { n, at, view, members, roster: roster.collect::<Option<_>>()? }
            }
            What::Group(GroupWord::Installed { group, view, members, position }) => {
                let (view, members) = (show_view(*view), self.sites(members)?);
                let (group, position) = (self.group(*group)?, *position);
                Line::GroupView { n, at, group, view, members, position }
            }
            What::Group(GroupWord::Cast { group, message, order }) => {
                let (group, message) = (self.group(*group)?, self.message(*message)?);
                Line::Cast { n, at, group, message, order: *order }
            }
            What::Group(GroupWord::Delivered { group, view, message, order, position }) => {
                let (group, message) = (self.group(*group)?, self.message(*message)?);
                let (view, order, position) = (show_view(*view), *order, *position);
                Line::Delivered { n, at, group, view, message, order, position }
            }
            What::Group(GroupWord::Restored { group, position }) => {
                Line::Restored { n, at, group: self.group(*group)?, position: *position }
            }
            What::Group(GroupWord::Acknowledged { group, message, position, level }) => {
                let (group, message) = (self.group(*group)?, self.message(*message)?);
                let (position, level) = (*position, *level);
                Line::Acknowledged { n, at, group, message, position, level }
            }
            What::Group(GroupWord::MaybeLost { group, from }) => {
                Line::MaybeLost { n, at, group: self.group(*group)?, from: *from }
            }
        })
    }

    fn site(&self, site: SiteId) -> Option<String> {
        Some(format!("{}/{}", self.nodes.get(&site.node)?, site.incarnation.0))
    }

    fn sites(&self, sites: &[SiteId]) -> Option<Vec<String>> {
        sites.iter().map(|site| self.site(*site)).collect()
    }

    fn group(&self, group: GroupId) -> Option<String> {
        self.groups.get(&group).cloned()
    }

    fn message(&self, message: MessageId) -> Option<String> {
        Some(format!("{}.{}", self.site(message.sender)?, message.sequence))
    }

    /// The event of a line of `boot`; `None` for a line that is none. An error is what is wrong with the line.
    pub(super) fn event(&self, line: &Line, boot: BootId) -> Result<Option<Event>, String> {
        let (n, at, what) = match line {
            Line::Trace(_) | Line::Stopped {} | Line::Truncated { .. } => return Ok(None),
            Line::Started { n, at, .. } => (n, at, What::Process(ProcessWord::Started)),
            Line::Crashed { n, at } => (n, at, What::Process(ProcessWord::Crashed)),
            Line::Killed { n, at } => (n, at, What::Membership(MembershipWord::Killed)),
            Line::View { n, at, view, members, roster } => {
                let roster = roster.iter().map(|node| self.node_id(node));
                let roster = roster.collect::<Result<_, _>>()?;
                let (view, members) = (read_view(view)?, self.read_sites(members)?);
                (n, at, What::Membership(MembershipWord::Installed { view, members, roster }))
            }
            Line::GroupView { n, at, group, view, members, position } => {
                let (view, members) = (read_view(view)?, self.read_sites(members)?);
                let (group, position) = (self.read_group(group)?, *position);
                (n, at, What::Group(GroupWord::Installed { group, view, members, position }))
            }
            Line::Cast { n, at, group, message, order } => {
                let (group, message) = (self.read_group(group)?, self.read_message(message)?);
                (n, at, What::Group(GroupWord::Cast { group, message, order: *order }))
            }
            Line::Delivered { n, at, group, view, message, order, position } => {
                let (group, message) = (self.read_group(group)?, self.read_message(message)?);
                let (view, order, position) = (read_view(view)?, *order, *position);
                (n, at, What::Group(GroupWord::Delivered { group, view, message, order, position }))
            }
            Line::Restored { n, at, group, position } => {
                let (group, position) = (self.read_group(group)?, *position);
                (n, at, What::Group(GroupWord::Restored { group, position }))
            }
            Line::Acknowledged { n, at, group, message, position, level } => {
                let (group, message) = (self.read_group(group)?, self.read_message(message)?);
                let (position, level) = (*position, *level);
                (n, at, What::Group(GroupWord::Acknowledged { group, message, position, level }))
            }
            Line::MaybeLost { n, at, group, from } => (
                n,
                at,
                What::Group(GroupWord::MaybeLost { group: self.read_group(group)?, from: *from }),
            ),
        };
        Ok(Some(Event { boot, number: *n, at: *at, what }))
    }

    fn read_site(&self, text: &str) -> Result<SiteId, String> {
        let parts = text.rsplit_once('/');
        let parsed = parts.and_then(|(node, number)| Some((node, number.parse().ok()?)));
        let (node, incarnation) = parsed.ok_or_else(|| format!("{text:?} is not a site"))?;
        Ok(SiteId { node: self.node_id(node)?, incarnation: Incarnation(incarnation) })
    }

    fn read_sites(&self, texts: &[String]) -> Result<Vec<SiteId>, String> {
        texts.iter().map(|text| self.read_site(text)).collect()
    }

    fn read_group(&self, name: &str) -> Result<GroupId, String> {
        self.group_ids.get(name).copied().ok_or_else(|| format!("the head names no group {name}"))
    }

    fn read_message(&self, text: &str) -> Result<MessageId, String> {
        let parts = text.rsplit_once('.');
        let parsed = parts.and_then(|(site, number)| Some((site, number.parse().ok()?)));
        let (site, sequence) = parsed.ok_or_else(|| format!("{text:?} is not a message"))?;
        Ok(MessageId { sender: self.read_site(site)?, sequence })
    }
}

/// The number, and what tells it from another view of that number.
fn show_view(view: ViewId) -> String {
    format!("{}:{:x}", view.number, view.nonce)
}

fn read_view(text: &str) -> Result<ViewId, String> {
    let parts = text.split_once(':').and_then(|(number, nonce)| {
        let nonce = u64::from_str_radix(nonce, 16).ok()?;
        Some(ViewId { number: number.parse().ok()?, nonce })
    });
    parts.ok_or_else(|| format!("{text:?} is not a view"))
}

/// What a boot drew, as `started` says it.
pub(super) fn read_nonce(text: &str) -> Result<BootNonce, String> {
    u128::from_str_radix(text, 16).map(BootNonce).map_err(|_| format!("{text:?} is not a boot"))
}
