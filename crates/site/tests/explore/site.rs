//! One site of the model, and what it does in answer to one input. A site that stands where it stood before does what it
//! did before: each answer is worked out once.
#![allow(clippy::disallowed_types, reason = "the tables are looked up in, never gone through")]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash as _;
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::{
    BootId, BootNonce, ClusterId, Duration, Fingerprint as _, Fingerprinter, GroupId, Instant,
    Level, Machine as _, MessageId, NodeId, Order,
};
use mainstay_membership::{self as membership, Role};
use mainstay_multicast::{self as multicast, Durability, Event};
use mainstay_site::core::{Core, CoreConfig, Input, Output, Packet, Past, Record};

/// Longer than any run: in exploration silence is a step, not a time.
const NEVER: Duration = Duration::from_secs(1_000_000_000);

pub const SITES: usize = 3;

/// What is the same in all states of a scope.
#[derive(Clone)]
pub struct Setup {
    pub durability: Durability,
    /// Sorted.
    pub nodes: [NodeId; SITES],
    /// The groups, each with the indices of its nodes.
    pub groups: Vec<(GroupId, Vec<usize>)>,
    pub membership_fault: Option<membership::Fault>,
    pub group_fault: Option<multicast::fault::Fault>,
}

impl Setup {
    pub fn new(durability: Durability, groups: &[(&str, &[usize])]) -> Self {
        let cluster = ClusterId::from_entropy(1);
        let mut nodes = ["n0", "n1", "n2"].map(|name| NodeId::new(cluster, name));
        nodes.sort();
        let group = |(name, of): &(&str, &[usize])| (GroupId::new(cluster, name), of.to_vec());
        Self {
            durability,
            nodes,
            groups: groups.iter().map(group).collect(),
            membership_fault: None,
            group_fault: None,
        }
    }

    pub fn index(&self, node: NodeId) -> usize {
        self.nodes.iter().position(|it| *it == node).unwrap()
    }

    fn config(&self, me: BootId) -> CoreConfig {
        let level = match self.durability {
            Durability::Memory => Level::Majority,
            Durability::Disk => Level::Disk,
        };
        let mine = self.groups.iter().filter(|(_, of)| of.contains(&self.index(me.node)));
        let groups = mine.map(|(group, of)| {
            let nodes = of.iter().map(|index| self.nodes[*index]).collect();
            let group = multicast::Config::new(*group, nodes).durability(self.durability);
            let group = group.deliver_at(level).stateful(false);
            let group = self.group_fault.into_iter().fold(group, multicast::Builder::fault);
            group.build().unwrap()
        });
        let groups = groups.collect();
        let membership = membership::Config::default().with_timeout(NEVER).unwrap();
        let membership = membership.with_formation_wait(Duration::ZERO);
        let membership =
            self.membership_fault.into_iter().fold(membership, membership::Config::with_fault);
        CoreConfig { me, roster: self.nodes.into(), membership, groups }
    }
}

/// What can happen to a site. Packets are named by their place in [`Sites`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Act {
    /// The next boot of the node starts from its disk.
    Start {
        bootstrap: bool,
    },
    /// The channel to this boot opens.
    Up(BootId),
    Packet(BootId, u32),
    /// The oldest write is forced.
    Write,
    Timeout,
    /// To the group with this index.
    Cast(usize),
    /// The node that last ran as this boot is not heard any more.
    Suspect(BootId),
    Crash,
    /// It will never start again: what its disk says is of no account.
    Bury,
}

/// A fact that every fact of another site has to agree with, whatever the order in which they are learnt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fact {
    /// The view of the sites with this number has this nonce.
    Installed { number: u64, nonce: u64 },
    /// In the group's view of this number the message was delivered at the position.
    Delivered { position: u64, view: u64, message: MessageId },
    /// The group's view begins behind this position.
    Cut { view: u64, start: u64 },
    /// A member in this view was told that all up to the position is acknowledged.
    Acknowledged { view: u64, position: u64 },
    /// With this view messages may be lost, and it was said openly.
    MaybeLost { view: u64 },
}

/// What a site did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    Send(BootId, u32),
    Isolate(BootId),
    Saw(Option<GroupId>, Fact),
    /// What no site may do, wherever the others stand.
    Wrong(String),
}

/// Where a boot stands in a group: its view and its position.
type Place = (u64, u64);

#[derive(Clone)]
pub struct Site {
    pub boot: BootId,
    pub core: Option<Core>,
    /// The disk, as it would be read. What a later record replaced is not in it.
    past: Past,
    writes: VecDeque<(u64, Record)>,
    now: Instant,
    places: BTreeMap<GroupId, Place>,
}

impl Site {
    fn act(&mut self, setup: &Setup, packets: &mut Packets, act: Act) -> Vec<Effect> {
        if let Act::Start { bootstrap } = act {
            let nonce = BootNonce(self.boot.nonce.0 + 1);
            self.boot = BootId { nonce, ..self.boot };
            let config = setup.config(self.boot);
            self.core = Some(Core::recover(config, self.past.clone(), bootstrap, self.now));
            return self.turn(packets);
        }
        if let Act::Bury = act {
            (self.past, self.now) = (Past::new(), Instant::ZERO);
        }
        let Some(core) = &mut self.core else { return Vec::new() };
        let now = self.now;
        match act {
            Act::Start { .. } | Act::Bury => {}
            Act::Up(boot) => {
                let gone = |boot| Input::Peer(membership::Input::Gone { boot });
                former(boot).for_each(|boot| core.handle(now, gone(boot)));
                core.handle(now, Input::Peer(membership::Input::Up { boot }));
            }
            Act::Packet(from, id) => {
                let packet = packets.all[id as usize].clone();
                core.handle(now, Input::Packet { from, packet });
            }
            Act::Write => {
                let Some((io, record)) = self.writes.pop_front() else { return Vec::new() };
                self.past.record(record);
                core.handle(now, Input::Persisted { io });
            }
            Act::Timeout => {
                let Some(at) = core.poll_timeout() else { return Vec::new() };
                self.now = now.max(at);
                core.handle_timeout(self.now);
            }
            Act::Cast(index) => {
                let (order, level) = (Order::Total, Level::Majority);
                let payload = Bytes::from_static(b"x");
                let group = setup.groups[index].0;
                core.handle(now, Input::Cast { group, token: 0, order, level, payload });
            }
            Act::Suspect(whom) => {
                let met: BTreeSet<_> = core.membership().peers().collect();
                for boot in former(whom).chain([whom]) {
                    // Of one never met only its silence tells.
                    let input = match met.contains(&boot) {
                        true => membership::Input::Down { boot },
                        false => membership::Input::Suspect { boot },
                    };
                    core.handle(now, Input::Peer(input));
                }
                core.handle(now, Input::Peer(membership::Input::Refused { node: whom.node }));
            }
            Act::Crash => {
                self.core = None;
                self.writes.clear();
                self.places.clear();
                return Vec::new();
            }
        }
        self.turn(packets)
    }

    fn turn(&mut self, packets: &mut Packets) -> Vec<Effect> {
        let Some(core) = &mut self.core else { return Vec::new() };
        core.end_turn(self.now);
        let outputs: Vec<_> = std::iter::from_fn(|| core.poll_output()).collect();
        let mut effects = Vec::new();
        for output in outputs {
            match output {
                Output::Send { to, packet } => effects.push(Effect::Send(to, packets.id(packet))),
                Output::Persist { io, record } => self.writes.push_back((io, *record)),
                Output::Isolate { boot } => effects.push(Effect::Isolate(boot)),
                // Only the dead are suspected here.
                Output::Killed => effects.push(Effect::Wrong(format!("{:?} is out", self.boot))),
                Output::View { view, .. } => {
                    let (number, nonce) = (view.id.number, view.id.nonce);
                    effects.push(Effect::Saw(None, Fact::Installed { number, nonce }));
                }
                Output::Group { group, event } => self.observe(group, event, &mut effects),
                Output::Minority { .. }
                | Output::Cast { .. }
                | Output::Suspected { .. }
                | Output::Absent { .. } => {}
            }
        }
        effects
    }

    fn observe(&mut self, group: GroupId, event: Event, effects: &mut Vec<Effect>) {
        let mut saw = |fact| effects.push(Effect::Saw(Some(group), fact));
        let place = self.places.get(&group).copied();
        let mut wrong = None;
        match event {
            Event::Deliver(batch) => {
                for it in batch {
                    let (position, view) = (it.position.unwrap().0, it.view.number);
                    saw(Fact::Delivered { position, view, message: it.message });
                    if let Some((_, at)) = self.places.insert(group, (view, position))
                        && at + 1 != position
                    {
                        wrong = Some(format!("a hole before {position}"));
                    }
                }
            }
            Event::Restored { entries, .. } => {
                for it in entries {
                    let (position, view) = (it.position.unwrap().0, it.view.number);
                    saw(Fact::Delivered { position, view, message: it.message });
                }
            }
            Event::View(it) => {
                let (view, start) = (it.id.number, it.start.0);
                saw(Fact::Cut { view, start });
                if place.is_some_and(|(_, at)| at != start) {
                    wrong = Some(format!("entered {:?} without all before it", it.id));
                }
                self.places.insert(group, (view, start));
            }
            Event::Reached { level, position, .. } if level > Level::Delivered => {
                let view = place.map_or(0, |(view, _)| view);
                saw(Fact::Acknowledged { view, position: position.0 });
            }
            Event::MaybeLost { .. } => {
                saw(Fact::MaybeLost { view: place.map_or(0, |(view, _)| view) });
            }
            _ => {}
        }
        effects.extend(wrong.map(|what| Effect::Wrong(format!("{:?}: {what}", self.boot))));
    }

    fn print(&self) -> u128 {
        let mut hash = Fingerprinter::new();
        (self.boot, self.core.is_some(), &self.past, &self.places).hash(&mut hash);
        self.writes.len().hash(&mut hash);
        self.writes.iter().for_each(|(_, record)| record.hash(&mut hash));
        if let Some(core) = &self.core {
            core.fingerprint(&mut hash);
        }
        hash.finish128()
    }

    pub fn position(&self, group: GroupId) -> Option<u64> {
        self.places.get(&group).map(|(_, position)| *position)
    }
}

/// The boots of the node before this one: nonces count up.
fn former(boot: BootId) -> impl Iterator<Item = BootId> {
    (1..boot.nonce.0).map(move |nonce| BootId { nonce: BootNonce(nonce), ..boot })
}

/// What the steps of a scope depend on.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    pub boot: BootId,
    pub live: bool,
    pub writing: bool,
    /// A timeout is set that does not wait for silence.
    pub due: bool,
    /// A boot of this node is a member or a peer here, and not suspected.
    pub trusts: [bool; SITES],
}

impl Stand {
    fn of(site: &Site, setup: &Setup) -> Self {
        let core = site.core.as_ref();
        let due = core.and_then(|core| core.poll_timeout());
        let mut trusts = [false; SITES];
        if let Some(membership) = core.map(Core::membership) {
            let suspected: BTreeSet<_> = membership.suspected().collect();
            for boot in membership.view().boots().chain(membership.peers()) {
                trusts[setup.index(boot.node)] |= !suspected.contains(&boot);
            }
        }
        Self {
            boot: site.boot,
            live: core.is_some(),
            writing: !site.writes.is_empty(),
            due: due.is_some_and(|at| at < Instant::ZERO + NEVER / 2),
            trusts,
        }
    }
}

#[derive(Default)]
struct Packets {
    all: Vec<Packet>,
    ids: HashMap<Packet, u32>,
}

impl Packets {
    fn id(&mut self, packet: Packet) -> u32 {
        *self.ids.entry(packet).or_insert_with_key(|packet| {
            self.all.push(packet.clone());
            self.all.len() as u32 - 1
        })
    }
}

/// Where a site stands then, and what it did.
type Answer = (u32, Rc<[Effect]>);

/// All that sites have said and all places where they have stood, by number, and the answers known.
pub struct Sites {
    pub setup: Setup,
    packets: Packets,
    all: Vec<(Site, Stand)>,
    ids: HashMap<u128, u32>,
    known: HashMap<(u32, Act), Answer>,
}

impl Sites {
    /// And the numbers of sites that never ran.
    pub fn new(setup: Setup) -> (Self, [u32; SITES]) {
        let packets = Packets::default();
        let (all, ids, known) = (Vec::new(), HashMap::new(), HashMap::new());
        let mut sites = Self { setup, packets, all, ids, known };
        let first = sites.setup.nodes.map(|node| {
            sites.id(Site {
                boot: BootId { node, nonce: BootNonce(0) },
                core: None,
                past: Past::new(),
                writes: VecDeque::new(),
                now: Instant::ZERO,
                places: BTreeMap::new(),
            })
        });
        (sites, first)
    }

    fn id(&mut self, site: Site) -> u32 {
        *self.ids.entry(site.print()).or_insert_with(|| {
            let stand = Stand::of(&site, &self.setup);
            self.all.push((site, stand));
            self.all.len() as u32 - 1
        })
    }

    pub fn act(&mut self, at: u32, act: Act) -> Answer {
        if let Some(answer) = self.known.get(&(at, act)) {
            return answer.clone();
        }
        let mut site = self.all[at as usize].0.clone();
        let effects: Rc<[_]> = site.act(&self.setup, &mut self.packets, act).into();
        let answer = (self.id(site), effects);
        self.known.insert((at, act), answer.clone());
        answer
    }

    pub fn stand(&self, at: u32) -> &Stand {
        &self.all[at as usize].1
    }

    pub fn site(&self, at: u32) -> &Site {
        &self.all[at as usize].0
    }

    /// How many places of sites and packets there are.
    pub fn size(&self) -> (usize, usize) {
        (self.all.len(), self.packets.all.len())
    }
}

/// Whether a living site is a member of a view of `members`.
pub fn is_settled(core: &Core, members: usize) -> bool {
    let membership = core.membership();
    membership.role() == Role::Member && membership.view().members.len() == members
}
