//! Membership and all groups of a site as one machine: between a promise and "nothing of the old view any more" there is
//! no gap, because it is one function call.

mod change;
mod durable;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash as _;

use bytes::Bytes;
use mainstay_base::{
    BootId, Fingerprint, Fingerprinter, GroupId, Instant, Level, Machine, MessageId, NodeId, Order,
    Position, ViewId,
};
use mainstay_membership::{self as membership, Durable, Membership, Role, View};
use mainstay_multicast::{self as multicast, CastError, Group, Retired};

pub use change::Table;
pub use durable::{Past, Record, RecordError};

/// What a site is made of. The roster and the groups must be the same at all sites that have them.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This boot.
    pub me: BootId,
    /// The configured nodes of the cluster.
    pub roster: BTreeSet<NodeId>,
    /// The numbers of the membership.
    pub membership: membership::Config,
    /// The groups that have this node among theirs.
    pub groups: Vec<multicast::Config>,
}

/// What machines of two sites say to each other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Packet {
    /// From membership to membership.
    View(membership::Message),
    /// From group to group.
    Group(GroupId, multicast::Message),
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// About a peer, for the membership: `Up`, `Down`, `Gone`, `Refused`, `Heard`, `Suspect`. The rest of its inputs is
    /// the core's own business and ignored here.
    Peer(membership::Input),
    /// Something a peer said.
    Packet {
        /// Who.
        from: BootId,
        /// What.
        packet: Packet,
    },
    /// The record with this number, and all before it, are forced.
    Persisted {
        /// As in [`Output::Persist`].
        io: u64,
    },
    /// A peer has told this boot that it is dead.
    Dead,
    /// This boot is about to end: the other members are told.
    Leave,
    /// The user casts; answered by [`Output::Cast`].
    Cast {
        /// To which group.
        group: GroupId,
        /// The caller's name for it.
        token: u64,
        /// In which order.
        order: Order,
        /// The highest level that the caller waits for.
        level: Level,
        /// What.
        payload: Bytes,
    },
    /// The user asks for a linearisable read; answered by `ReadReady` or `ReadFailed` of the group.
    Read {
        /// Of which group.
        group: GroupId,
        /// The caller's name for it.
        token: u64,
    },
    /// A part of the state that `SnapshotWanted` or `ChunkWanted` asked for.
    SnapshotChunk {
        /// Of which group.
        group: GroupId,
        /// As of.
        position: Position,
        /// The part.
        chunk: Bytes,
        /// It is the last.
        last: bool,
    },
    /// The part of the state that `RestoreChunk` brought is taken in: the next one may come.
    ChunkTaken {
        /// Of which group.
        group: GroupId,
        /// As of.
        position: Position,
        /// Where the part ends.
        offset: u64,
    },
    /// The state that came by `RestoreChunk` is in, and forced for a group of durability `Disk`.
    Restored {
        /// Of which group.
        group: GroupId,
        /// As of.
        position: Position,
    },
    /// A checkpoint of the group is forced.
    Checkpointed {
        /// Of which group.
        group: GroupId,
        /// As of.
        position: Position,
    },
    /// An operator accepts that acknowledged messages of the group may be lost, so that it can go on.
    AcceptLoss {
        /// Which group.
        group: GroupId,
    },
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Say this to a peer.
    Send {
        /// To whom.
        to: BootId,
        /// What.
        packet: Packet,
    },
    /// Append this to the node's one log, force it, and answer [`Input::Persisted`].
    Persist {
        /// The running number.
        io: u64,
        /// What.
        record: Box<Record>,
    },
    /// Tell the boot that it is dead; accept nothing from it any more.
    Isolate {
        /// Which.
        boot: BootId,
    },
    /// This boot is out: drop the core and start anew from the log, under a new nonce. Nothing follows.
    Killed,
    /// A view of the sites is installed here, `member` or not.
    View {
        /// Which.
        view: Box<View>,
        /// This boot is in it.
        member: bool,
    },
    /// This boot has begun to think that a member has failed.
    Suspected {
        /// Which.
        boot: BootId,
        /// What for.
        evidence: membership::Evidence,
    },
    /// Too few voters are heard: the groups pause until it is off.
    Minority {
        /// Whether it began or ended.
        on: bool,
    },
    /// A member of the view that was just installed takes no part in a group that is configured for it.
    Absent {
        /// The group.
        group: GroupId,
        /// Which node.
        node: NodeId,
        /// Why.
        why: Absence,
    },
    /// The answer to [`Input::Cast`].
    Cast {
        /// The group.
        group: GroupId,
        /// The caller's name for it.
        token: u64,
        /// The name of the message, or why it was not cast.
        result: Result<MessageId, CastError>,
    },
    /// A group tells.
    Group {
        /// Which.
        group: GroupId,
        /// What.
        event: multicast::Event,
    },
}

/// Why a node takes no part in a group that is configured for it. The group goes on without it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Absence {
    /// It was started without the group.
    Missing,
    /// It has the group with other settings than the others: nodes, durability, level, whether it is stateful, or
    /// what stands on it.
    OtherSettings,
}

/// Whose write it is that has a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Writer {
    Membership(u64),
    Group(GroupId, u64),
}

/// Membership and groups of one boot. See the crate's page.
#[derive(Clone, Debug)]
pub struct Core {
    me: BootId,
    membership: Membership,
    groups: BTreeMap<GroupId, Group>,
    /// Groups that the cut being held still waits for, and the last view of its extension.
    holding: Option<(ViewId, BTreeSet<GroupId>)>,
    /// Who takes no part in which group in the last view.
    absent: BTreeMap<GroupId, BTreeMap<NodeId, Absence>>,
    /// Groups of this node that have had no view.
    unborn: BTreeSet<GroupId>,
    io: u64,
    writes: VecDeque<(u64, Writer)>,
    outputs: VecDeque<Output>,
    /// Membership was given something in this turn that it has not dealt with.
    stirred: bool,
    /// It voted when this boot began, or has taken part in making the cluster since.
    voted: bool,
    dropped: u64,
}

impl Core {
    /// A core as it was left: `past` is what the log says, [`Past::new`] for none. `bootstrap`: this node takes part in
    /// making the cluster; to be given only once in the life of a node, with an empty log.
    #[must_use]
    pub fn recover(config: CoreConfig, past: Past, bootstrap: bool, now: Instant) -> Self {
        let CoreConfig { me, roster, membership, groups } = config;
        let durable = past.durable.clone().unwrap_or_else(|| {
            if bootstrap { Durable::bootstrap(roster.clone()) } else { Durable::empty(roster) }
        });
        let voted = durable.voter;
        let groups = past.start_groups(groups, &durable, me);
        Self {
            me,
            membership: Membership::recover(membership, me, durable, now),
            groups,
            holding: None,
            absent: BTreeMap::new(),
            unborn: BTreeSet::new(),
            io: 0,
            writes: VecDeque::new(),
            outputs: VecDeque::new(),
            stirred: true,
            voted,
            dropped: 0,
        }
    }

    /// This boot.
    #[must_use]
    pub fn me(&self) -> &BootId {
        &self.me
    }

    /// The membership, for its questions.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// What a group needs no more; see [`Group::take_retired`].
    pub fn take_retired(&mut self) -> Option<Retired> {
        self.groups.values_mut().find_map(Group::take_retired)
    }

    /// A group, for its questions.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group)
    }

    /// The groups, for their questions.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupId, &Group)> {
        self.groups.iter()
    }

    /// The nodes of the last view that take no part in a group though it is configured for them, by group.
    #[must_use]
    pub fn absent(&self) -> &BTreeMap<GroupId, BTreeMap<NodeId, Absence>> {
        &self.absent
    }

    /// How many packets named a group that is not here, or said what could not be understood.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn tell(&mut self, now: Instant, input: membership::Input) {
        self.membership.handle(now, input);
        self.stirred = true;
    }

    fn on_peer(&mut self, now: Instant, input: membership::Input) {
        use membership::Input as In;
        match input {
            // With each frame, and nothing follows from the most of them.
            In::Heard { boot } => self.stirred |= self.membership.hear(now, boot),
            In::Up { .. }
            | In::Down { .. }
            | In::Gone { .. }
            | In::Refused { .. }
            | In::Suspect { .. } => self.tell(now, input),
            _ => {}
        }
    }

    fn on_packet(&mut self, now: Instant, from: BootId, packet: Packet) {
        match packet {
            Packet::View(message) => self.tell(now, membership::Input::Message { from, message }),
            Packet::Group(group, message) => match self.groups.get_mut(&group) {
                Some(group) => group.receive(now, from, message),
                None => self.dropped += 1,
            },
        }
    }

    fn on_persisted(&mut self, now: Instant, io: u64) {
        while let Some((number, writer)) = self.writes.front().copied()
            && number <= io
        {
            self.writes.pop_front();
            match writer {
                Writer::Membership(io) => self.tell(now, membership::Input::Persisted { io }),
                Writer::Group(group, io) => {
                    if let Some(group) = self.groups.get_mut(&group) {
                        group.persisted(now, io);
                    }
                }
            }
        }
    }

    /// Casts into a group; see [`Group::cast`]. The message goes out at the end of the turn.
    ///
    /// # Errors
    /// [`CastError`]; nothing changed.
    pub fn cast(
        &mut self,
        now: Instant,
        group: GroupId,
        order: Order,
        level: Level,
        payload: Bytes,
    ) -> Result<MessageId, CastError> {
        let group = self.groups.get_mut(&group).filter(|_| self.membership.role() != Role::Killed);
        group.map_or(Err(CastError::NotMember), |group| group.cast(now, order, payload, level))
    }

    fn on_read(&mut self, now: Instant, group: GroupId, token: u64) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.read(now, token);
        } else {
            let event = multicast::Event::ReadFailed { token };
            self.outputs.push_back(Output::Group { group, event });
        }
    }

    fn persist(&mut self, writer: Writer, record: Record) {
        self.io += 1;
        self.writes.push_back((self.io, writer));
        self.outputs.push_back(Output::Persist { io: self.io, record: Box::new(record) });
    }

    /// Lets membership and groups work until nothing is left between them.
    fn work(&mut self, now: Instant) {
        loop {
            if std::mem::take(&mut self.stirred) {
                self.membership.end_turn(now);
                self.begin_fresh();
                while let Some(output) = self.membership.poll_output() {
                    self.on_membership(now, output);
                }
            }
            if self.membership.role() == Role::Killed {
                return;
            }
            self.drain_groups(now);
            self.ask_for_a_vote(now);
            if !self.stirred {
                return;
            }
        }
    }

    /// The node has just taken part in making the cluster: before the first view the empty state of each group is the right one.
    fn begin_fresh(&mut self) {
        let votes = self.membership.is_voter();
        if !std::mem::replace(&mut self.voted, votes) && votes {
            self.make_fresh();
        }
    }

    #[cold]
    fn make_fresh(&mut self) {
        if self.membership.view().id == ViewId::NONE {
            for group in self.groups.values_mut() {
                *group = Group::new(group.config().clone(), self.me, multicast::Start::Fresh);
            }
        }
    }

    /// What the groups have to say; what they hold goes to the membership.
    fn drain_groups(&mut self, now: Instant) {
        let mut held = Vec::new();
        for (id, group) in &mut self.groups {
            while let Some(output) = group.poll_output() {
                match output {
                    multicast::Output::Send { to, message } => {
                        let packet = Packet::Group(*id, message);
                        self.outputs.push_back(Output::Send { to, packet });
                    }
                    multicast::Output::Persist { io, record } => {
                        self.io += 1;
                        self.writes.push_back((self.io, Writer::Group(*id, io)));
                        let record = Box::new(Record::Group(record));
                        self.outputs.push_back(Output::Persist { io: self.io, record });
                    }
                    multicast::Output::Event(multicast::Event::Holding { view }) => {
                        held.push((*id, view));
                    }
                    multicast::Output::Event(event) => {
                        self.outputs.push_back(Output::Group { group: *id, event });
                    }
                }
            }
        }
        for (group, view) in held {
            self.on_holding(now, group, view);
        }
    }

    /// A node without a past votes once the state of all its groups is here and forced (view-synchrony §4). It does not wait for what no
    /// waiting brings: a group that has had no view has no state, and of one that stands still, or takes no part of this node, nobody gives
    /// it. That is for the sake of the groups that go on; what is in a cut does not rest on votes.
    fn ask_for_a_vote(&mut self, now: Instant) {
        if self.membership.role() == Role::Member
            && !self.membership.is_voter()
            && self.groups.iter().all(|(id, group)| {
                let status = group.status();
                status.whole || status.blocked || status.refused || self.unborn.contains(id)
            })
        {
            self.tell(now, membership::Input::BecomeVoter);
        }
    }
}

impl Machine for Core {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        if self.membership.role() == Role::Killed {
            return;
        }
        match input {
            Input::Peer(input) => self.on_peer(now, input),
            Input::Packet { from, packet } => self.on_packet(now, from, packet),
            Input::Persisted { io } => self.on_persisted(now, io),
            Input::Dead => self.tell(now, membership::Input::Dead),
            Input::Leave => self.tell(now, membership::Input::Leave),
            Input::Cast { group, token, order, level, payload } => {
                let result = self.cast(now, group, order, level, payload);
                self.outputs.push_back(Output::Cast { group, token, result });
            }
            Input::Read { group, token } => self.on_read(now, group, token),
            Input::SnapshotChunk { group, position, chunk, last } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.snapshot_chunk(now, position, chunk, last);
                }
            }
            Input::ChunkTaken { group, position, offset } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.chunk_taken(now, position, offset);
                }
            }
            Input::Restored { group, position } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.restored(now, position);
                }
            }
            Input::Checkpointed { group, position } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.checkpointed(now, position);
                }
            }
            Input::AcceptLoss { group } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.accept_loss();
                    self.tell(now, membership::Input::Renew);
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.membership.handle_timeout(now);
        self.stirred = true;
        self.groups.values_mut().for_each(|group| group.handle_timeout(now));
    }

    fn end_turn(&mut self, now: Instant) {
        if self.membership.role() != Role::Killed {
            self.groups.values_mut().for_each(|group| group.end_turn(now));
        }
        self.work(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.membership.role() == Role::Killed {
            return None;
        }
        let groups = self.groups.values().filter_map(Group::poll_timeout);
        groups.chain(self.membership.poll_timeout()).min()
    }
}

impl Fingerprint for Core {
    fn fingerprint(&self, into: &mut Fingerprinter) {
        self.membership.fingerprint(into);
        for (id, group) in &self.groups {
            id.hash(into);
            group.fingerprint(into);
        }
        self.holding.hash(into);
        for (_, writer) in &self.writes {
            // Numbers of writes only have to match: their order and whose they are is what counts.
            match writer {
                Writer::Membership(_) => 0u8.hash(into),
                Writer::Group(group, _) => group.hash(into),
            }
        }
    }
}
