//! Random traces that are correct by construction: one global queue of messages per group and view, which each member
//! walks along at its own pace; at a view change the survivors walk to the end of it.

use std::collections::BTreeMap;

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{
    BootId, GroupId, Incarnation, Instant, Level, MessageId, NodeId, Order, Position, Rng, SiteId,
    ViewId,
};

use super::{boot, group, node, renumber};

/// A random trace of 3 to 5 nodes and two groups that satisfies every property and is quiescent at the end: casts of
/// both orders, crashes, kills, restarts, joins with state transfer, acknowledgements and accepted losses.
#[must_use]
pub fn good_trace(seed: u64) -> Vec<Event> {
    let mut world = World::new(seed);
    let steps = world.rng.between(20, 90);
    for _ in 0..steps {
        world.step();
    }
    world.settle();
    renumber(&mut world.events);
    world.events
}

struct World {
    rng: Rng,
    events: Vec<Event>,
    nodes: Vec<NodeState>,
    /// The members in age order.
    members: Vec<SiteId>,
    view: ViewId,
    groups: Vec<Queue>,
}

struct NodeState {
    letter: char,
    starts: u32,
    up: bool,
}

struct Queue {
    group: GroupId,
    /// Every second node only, if set.
    sparse: bool,
    /// The position before the first message of the view.
    base: Position,
    messages: Vec<(MessageId, Order)>,
    /// How far each member is.
    done: BTreeMap<SiteId, usize>,
    sequences: BTreeMap<SiteId, u64>,
    acked: usize,
}

impl Queue {
    fn takes(&self, letter: char) -> bool {
        !self.sparse || (letter as u32 - 'a' as u32).is_multiple_of(2)
    }

    /// The position after the first `count` messages.
    fn position(&self, count: usize) -> Position {
        let total = self.messages[..count].iter().filter(|(_, order)| *order == Order::Total);
        Position(self.base.0 + total.count() as u64)
    }
}

const LETTERS: [char; 5] = ['a', 'b', 'c', 'd', 'e'];

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = rng.between(3, 5) as usize;
        let nodes = LETTERS[..count].iter().map(|letter| NodeState {
            letter: *letter,
            starts: 0,
            up: false,
        });
        let queue = |name: &str, sparse| Queue {
            group: group(name),
            sparse,
            base: Position::ZERO,
            messages: Vec::new(),
            done: BTreeMap::new(),
            sequences: BTreeMap::new(),
            acked: 0,
        };
        let mut world = Self {
            rng,
            events: Vec::new(),
            nodes: nodes.collect(),
            members: Vec::new(),
            view: ViewId::NONE,
            groups: vec![queue("g", false), queue("h", true)],
        };
        let first = (0..count).collect();
        world.change_view(first, None);
        world
    }

    fn emit(&mut self, site: SiteId, what: What) {
        let event = self.event(site, what);
        self.events.push(event);
    }

    fn event(&self, site: SiteId, what: What) -> Event {
        let boot = self.boot_of(site);
        Event { boot, number: 0, at: Instant::ZERO, what }
    }

    fn letter(&self, node: NodeId) -> char {
        let known = self.nodes.iter().find(|state| super::node(state.letter) == node);
        known.map_or('?', |state| state.letter)
    }

    fn boot_of(&self, site: SiteId) -> BootId {
        boot(self.letter(site.node), u128::from(site.incarnation.0))
    }

    fn up(&self) -> Vec<SiteId> {
        let up = |site: &&SiteId| {
            self.nodes.iter().any(|state| {
                state.up && node(state.letter) == site.node && state.starts == site.incarnation.0
            })
        };
        self.members.iter().filter(up).copied().collect()
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=6 => self.cast(),
            7..=15 => self.deliver(),
            16 | 17 => self.acknowledge(),
            18 => self.change(),
            _ if self.rng.chance(1, 4) => self.lose_all(),
            _ => self.cast(),
        }
    }

    fn cast(&mut self) {
        let of = self.rng.below(2) as usize;
        let order = if self.rng.chance(1, 3) { Order::Fifo } else { Order::Total };
        let members: Vec<SiteId> = self.groups[of].done.keys().copied().collect();
        let up = self.up();
        let Some(site) = self.rng.pick(&up).copied().filter(|site| members.contains(site)) else {
            return;
        };
        let queue = &mut self.groups[of];
        let sequence = queue.sequences.entry(site).or_default();
        *sequence += 1;
        let message = MessageId { sender: site, sequence: *sequence };
        queue.messages.push((message, order));
        let group = queue.group;
        self.emit(site, What::Group(GroupWord::Cast { group, message, order }));
    }

    fn deliver(&mut self) {
        let of = self.rng.below(2) as usize;
        let up = self.up();
        if let Some(site) = self.rng.pick(&up).copied()
            && let Some(event) = self.next_delivery(of, site)
        {
            self.events.push(event);
        }
    }

    fn next_delivery(&mut self, of: usize, site: SiteId) -> Option<Event> {
        let queue = &mut self.groups[of];
        let done = queue.done.get_mut(&site)?;
        let (message, order) = *queue.messages.get(*done)?;
        *done += 1;
        let count = *done;
        let position = (order == Order::Total).then(|| queue.position(count));
        let (group, view) = (queue.group, self.view);
        Some(self.event(
            site,
            What::Group(GroupWord::Delivered { group, view, message, order, position }),
        ))
    }

    /// Tells the caster of the next message of the queue how far it is, if enough members have it.
    fn acknowledge(&mut self) {
        let of = self.rng.below(2) as usize;
        let up = self.up();
        let queue = &mut self.groups[of];
        let index = queue.acked;
        let Some((message, order)) = queue.messages.get(index).copied() else { return };
        let have = queue.done.values().filter(|done| **done > index).count();
        let level = match have {
            0 => return,
            _ if have == queue.done.len() => Level::Safe,
            _ if have * 2 > self.nodes.len() => Level::Majority,
            _ => Level::Delivered,
        };
        queue.acked += 1;
        let (group, position) = (queue.group, queue.position(index + 1));
        if order == Order::Total && up.contains(&message.sender) {
            self.emit(
                message.sender,
                What::Group(GroupWord::Acknowledged { group, message, position, level }),
            );
        }
    }

    fn stop(&mut self, site: SiteId) {
        let killed = self.rng.chance(1, 3);
        self.emit(
            site,
            if killed {
                What::Membership(MembershipWord::Killed)
            } else {
                What::Process(ProcessWord::Crashed)
            },
        );
        if killed && self.rng.chance(1, 2) {
            self.emit(site, What::Process(ProcessWord::Crashed));
        }
        let letter = self.letter(site.node);
        for state in self.nodes.iter_mut().filter(|state| state.letter == letter) {
            state.up = false;
        }
    }

    /// A failure, a join, or both; always at least one survivor.
    fn change(&mut self) {
        let up = self.up();
        if up.len() > 1 && self.rng.chance(2, 3) {
            let victim = self.rng.below(up.len() as u64) as usize;
            self.stop(up[victim]);
        }
        let down = (0..self.nodes.len()).filter(|index| !self.nodes[*index].up);
        let mut joining: Vec<usize> = down.collect();
        joining.retain(|_| self.rng.chance(1, 2));
        self.change_view(joining, None);
    }

    /// All fail; all come back; what nobody had forced is gone.
    fn lose_all(&mut self) {
        for site in self.up() {
            self.stop(site);
        }
        let back = self.rng.between(0, 3);
        self.change_view((0..self.nodes.len()).collect(), Some(back));
    }

    /// The survivors deliver what anyone delivered, then all install the next view; each at its own pace.
    fn change_view(&mut self, joining: Vec<usize>, lost: Option<u64>) {
        let survivors = self.up();
        let mut scripts: Vec<Vec<Event>> = Vec::new();
        for of in 0..self.groups.len() {
            let reached = self.groups[of].done.values().copied().max().unwrap_or(0);
            let floor = self.rng.between(reached as u64, self.groups[of].messages.len() as u64);
            let dropped = self.groups[of].messages.split_off(floor as usize);
            let mut script = vec![Vec::new(); survivors.len()];
            for (site, events) in survivors.iter().zip(&mut script) {
                while let Some(event) = self.next_delivery(of, *site) {
                    events.push(event);
                }
            }
            scripts.extend(script);
            let queue = &mut self.groups[of];
            queue.base = queue.position(floor as usize);
            if let Some(back) = lost {
                queue.base = Position(queue.base.0.saturating_sub(back));
            }
            queue.messages = dropped;
            queue.messages.retain(|(message, _)| survivors.contains(&message.sender));
            queue.acked = 0;
            queue.done.clear();
        }
        self.merge(scripts);
        self.view = ViewId { number: self.view.number + 1, nonce: self.rng.next_u64() };
        self.members = survivors.clone();
        for index in joining {
            let state = &mut self.nodes[index];
            state.starts += 1;
            state.up = true;
            let incarnation = Incarnation(state.starts);
            self.members.push(SiteId { node: node(state.letter), incarnation });
        }
        let members = self.members.clone();
        let scripts = members
            .iter()
            .map(|site| self.install(*site, !survivors.contains(site), lost))
            .collect();
        self.merge(scripts);
    }

    fn install(&mut self, site: SiteId, joins: bool, lost: Option<u64>) -> Vec<Event> {
        let mut script = Vec::new();
        if joins {
            script.push(self.event(site, What::Process(ProcessWord::Started)));
        }
        let roster = self.nodes.iter().map(|state| node(state.letter)).collect();
        let (view, members) = (self.view, self.members.clone());
        script.push(self.event(
            site,
            What::Membership(MembershipWord::Installed { view, members: members.clone(), roster }),
        ));
        for of in 0..self.groups.len() {
            let mut members = members.clone();
            members.retain(|member| self.groups[of].takes(self.letter(member.node)));
            if !members.contains(&site) {
                continue;
            }
            let (group, position) = (self.groups[of].group, self.groups[of].base);
            let installed = What::Group(GroupWord::Installed { group, view, members, position });
            script.push(self.event(site, installed));
            let mut done = 0;
            if lost.is_some() {
                let from = position.next();
                script.push(self.event(site, What::Group(GroupWord::MaybeLost { group, from })));
            } else if joins && self.rng.chance(1, 2) {
                // State may be taken over later than at the boundary: the messages up to there are in it.
                done = self.rng.below(self.groups[of].messages.len() as u64 + 1) as usize;
                let position = self.groups[of].position(done);
                script.push(self.event(site, What::Group(GroupWord::Restored { group, position })));
            }
            self.groups[of].done.insert(site, done);
        }
        script
    }

    /// Interleaves scripts at random; those of one boot are given in order and stay so.
    fn merge(&mut self, scripts: Vec<Vec<Event>>) {
        let mut lanes: BTreeMap<BootId, std::collections::VecDeque<Event>> = BTreeMap::new();
        for event in scripts.into_iter().flatten() {
            lanes.entry(event.boot).or_default().push_back(event);
        }
        loop {
            lanes.retain(|_, lane| !lane.is_empty());
            let boots: Vec<BootId> = lanes.keys().copied().collect();
            let Some(boot) = self.rng.pick(&boots) else { return };
            if let Some(event) = lanes.get_mut(boot).and_then(std::collections::VecDeque::pop_front)
            {
                self.events.push(event);
            }
        }
    }

    /// Delivers everything, so that the trace is quiescent.
    fn settle(&mut self) {
        let mut scripts = Vec::new();
        for of in 0..self.groups.len() {
            for site in self.up() {
                while let Some(event) = self.next_delivery(of, site) {
                    scripts.push(vec![event]);
                }
            }
        }
        self.merge(scripts);
    }
}
