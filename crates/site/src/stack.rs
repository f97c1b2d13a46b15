//! The whole site as one machine: link beneath, membership and groups above, routed by function calls (ADR 0002).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use mainstay_base::codec;
use mainstay_base::{
    BootId, ConnId, Fingerprint, Fingerprinter, Frame, GroupId, Instant, Level, Machine, MessageId,
    NodeId, Order, Work,
};
use mainstay_link::{self as link, Link};
use mainstay_membership as membership;
use mainstay_multicast::{self as multicast, Retired};
use mainstay_service::Services;

use crate::core::{self, Core, CoreConfig, Packet, Past};

/// The link's channel of the membership.
const VIEWS: u16 = 1;
/// The link's channel of the groups.
const GROUPS: u16 = 2;
/// The link's channel of all parts but the last of a message of the membership that does not fit one frame.
const VIEWS_PART: u16 = 3;
/// Largest part.
const PART_BYTES: usize = 512 << 10;
/// Largest message of the membership in all: the state of all groups at the end of a view.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Most bytes kept for a boot that a view has named and this one has not met yet.
const EARLY_BYTES: usize = 64 << 20;
/// A group's id stands before the meta part of its messages.
const GROUP_ID: usize = 16;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// From the transport, for the link.
    Link(link::Input),
    /// From the user, the log or the operator. Peers and packets are the Stack's own business and ignored here.
    Core(core::Input),
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Dial a node; answer once.
    Dial {
        /// Which.
        node: NodeId,
    },
    /// Write a frame.
    Transmit {
        /// On which connection.
        conn: ConnId,
        /// The frame.
        frame: Frame,
    },
    /// Close a connection.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// What the core wants, but for sends and isolation, which end here.
    Core(core::Output),
}

#[derive(Clone, Default, Debug)]
struct Early {
    packets: Vec<(u16, Bytes, Bytes)>,
    bytes: usize,
}

/// Link, membership and groups of one boot. See the crate's page.
pub struct Stack {
    link: Link,
    core: Core,
    /// Peers that a message was lost to: nothing more is sent to them, and they are suspected for good.
    lost: BTreeSet<BootId>,
    /// Peers that the link has a session with.
    met: BTreeSet<BootId>,
    /// Guests that the link has a session with: bounded by its settings.
    guests: BTreeSet<NodeId>,
    /// What is meant for boots that a view has named before this one has met them.
    early: BTreeMap<BootId, Early>,
    /// Parts of a message that has not come whole yet.
    parts: BTreeMap<BootId, BytesMut>,
    services: Services,
    outputs: VecDeque<Output>,
    malformed: u64,
    /// The link gave the core something since the core's turn ended.
    core_given: bool,
}

impl Stack {
    /// A site as its log left it; see [`Core::recover`]. `seed` fixes the link's jitter. The link's window must hold what
    /// the groups may have on the way, and [`LINK_BYTES`](mainstay_service::mux::LINK_BYTES) if services are mounted: a peer whose
    /// window overflows is given up.
    #[must_use]
    pub fn recover(
        link: link::Config,
        config: CoreConfig,
        past: Past,
        bootstrap: bool,
        now: Instant,
        seed: u64,
    ) -> Self {
        Self {
            link: Link::new(link, seed, now),
            core: Core::recover(config, past, bootstrap, now),
            lost: BTreeSet::new(),
            met: BTreeSet::new(),
            guests: BTreeSet::new(),
            early: BTreeMap::new(),
            parts: BTreeMap::new(),
            services: Services::new(),
            outputs: VecDeque::new(),
            malformed: 0,
            core_given: false,
        }
    }

    /// Membership and groups, for their questions.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// What may take long to free, at the end of a boot; it can be freed on another thread. The services end here.
    #[must_use]
    pub fn into_core(self) -> (Link, Core) {
        (self.link, self.core)
    }

    /// What a group needs no more; see [`Group::take_retired`](multicast::Group::take_retired).
    pub fn take_retired(&mut self) -> Option<Retired> {
        self.core.take_retired()
    }

    /// Casts into a group; see [`Core::cast`].
    ///
    /// # Errors
    /// [`CastError`](multicast::CastError); nothing changed.
    pub fn cast(
        &mut self,
        now: Instant,
        group: GroupId,
        order: Order,
        level: Level,
        payload: Bytes,
    ) -> Result<MessageId, multicast::CastError> {
        self.core.cast(now, group, order, level, payload)
    }

    /// The services that are mounted on the node, for their questions.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The same, to mount, to ask and to give, between two turns.
    pub fn services_mut(&mut self) -> &mut Services {
        &mut self.services
    }

    /// The link, for its questions.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// How many packets of peers could not be read. They were dropped.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// What was refused of what came from outside, for an operator: each reason with its count.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let malformed = ("malformed", self.malformed + self.core.dropped());
        self.link.stats().refused().into_iter().chain([malformed])
    }

    fn peer(&mut self, now: Instant, input: membership::Input) {
        self.give_core(now, core::Input::Peer(input));
    }

    fn give_core(&mut self, now: Instant, input: core::Input) {
        self.core_given = true;
        self.core.handle(now, input);
    }

    /// Takes out what the link has to say.
    fn drain_link(&mut self, now: Instant) {
        while let Some(output) = self.link.poll_output() {
            match output {
                link::Output::Dial { node } => self.outputs.push_back(Output::Dial { node }),
                link::Output::Transmit { conn, frame } => {
                    self.outputs.push_back(Output::Transmit { conn, frame });
                }
                link::Output::Close { conn } => self.outputs.push_back(Output::Close { conn }),
                link::Output::Event(event) => self.on_link(now, event),
            }
        }
    }

    fn on_link(&mut self, now: Instant, event: link::Event) {
        use membership::Input as In;
        let event = match event {
            link::Event::Heard { from } => return self.peer(now, In::Heard { boot: from }),
            // The greater part of all there is: it goes no way round.
            link::Event::Deliver { channel: GROUPS, .. } => event,
            event => match self.services.on_link(now, event) {
                Some(event) => event,
                None => return,
            },
        };
        if self.is_of_guest(&event) {
            return;
        }
        match event {
            link::Event::Up { boot, .. } => {
                self.met.insert(boot);
                self.peer(now, In::Up { boot });
            }
            link::Event::Down { boot } => self.peer(now, In::Down { boot }),
            link::Event::Replaced { old, .. } => {
                self.forget(old);
                self.peer(now, In::Gone { boot: old });
            }
            link::Event::Refused { node } => self.peer(now, In::Refused { node }),
            link::Event::Dead { .. } => self.give_core(now, core::Input::Dead),
            link::Event::Deliver { from, channel: VIEWS_PART, payload, .. } => {
                self.add_part(from, &payload);
            }
            link::Event::Deliver { from, channel, meta, payload } => {
                let meta = if channel == VIEWS { self.whole(from, meta) } else { meta };
                match decode(channel, &meta, payload) {
                    Some(packet) => self.give_core(now, core::Input::Packet { from, packet }),
                    None => self.malformed += 1,
                }
            }
            link::Event::NotSent {
                why: link::NotSent::Full | link::NotSent::TooLarge, to, ..
            } => {
                let boots: Vec<_> =
                    self.met.iter().filter(|boot| boot.node == to).copied().collect();
                boots.into_iter().for_each(|boot| self.give_up(now, boot));
            }
            // Meant for a boot that is gone; or news that nothing here waits for.
            _ => {}
        }
    }

    /// Guests are peers of services, and of nothing else on the site.
    fn is_of_guest(&mut self, event: &link::Event) -> bool {
        match event {
            link::Event::Up { boot, guest: true, .. } => {
                self.guests.insert(boot.node);
                true
            }
            link::Event::Replaced { new, .. } if self.link.is_guest(new.node) => true,
            link::Event::Gone { boot, .. } => {
                self.guests.remove(&boot.node);
                true
            }
            link::Event::Down { boot }
            | link::Event::Replaced { new: boot, .. }
            | link::Event::Dead { by: boot } => self.guests.contains(&boot.node),
            _ => false,
        }
    }

    /// Keeps a part of a message. What becomes too large is no message: its last part alone will not decode.
    fn add_part(&mut self, from: BootId, part: &[u8]) {
        let parts = self.parts.entry(from).or_default();
        if part.len() > PART_BYTES || parts.len() + part.len() > MESSAGE_BYTES_MAX {
            self.parts.remove(&from);
            self.malformed += 1;
        } else {
            parts.put_slice(part);
        }
    }

    /// The message that `last` is the last part of.
    fn whole(&mut self, from: BootId, last: Bytes) -> Bytes {
        let Some(mut parts) = self.parts.remove(&from) else { return last };
        parts.put_slice(&last);
        parts.freeze()
    }

    fn send(&mut self, now: Instant, to: BootId, packet: (u16, Bytes, Bytes)) {
        if self.lost.contains(&to) {
            return;
        }
        let (channel, meta, payload) = packet;
        if self.met.contains(&to) {
            let (to, boot) = (to.node, Some(to.nonce));
            self.link.handle(now, link::Input::Send { to, boot, channel, meta, payload });
            return;
        }
        let early = self.early.entry(to).or_default();
        early.bytes += meta.len() + payload.len();
        early.packets.push((channel, meta, payload));
        if early.bytes > EARLY_BYTES {
            self.early.remove(&to);
            self.give_up(now, to);
        }
    }

    /// What waited for boots that are met now goes before everything else to them.
    fn send_early(&mut self, now: Instant) -> bool {
        let mut given = false;
        if self.early.is_empty() {
            return given;
        }
        let met: Vec<_> =
            self.early.keys().filter(|boot| self.met.contains(boot)).copied().collect();
        for boot in met {
            for packet in self.early.remove(&boot).unwrap_or_default().packets {
                self.send(now, boot, packet);
                given = true;
            }
        }
        given
    }

    /// The stream to this boot has a hole now and must not be taken for whole: nothing more is sent, it has to go.
    fn give_up(&mut self, now: Instant, boot: BootId) {
        self.lost.insert(boot);
        self.peer(now, membership::Input::Suspect { boot });
    }

    fn forget(&mut self, boot: BootId) {
        self.lost.remove(&boot);
        self.met.remove(&boot);
        self.early.remove(&boot);
        self.parts.remove(&boot);
    }

    /// Takes out what the core wants. Answers whether the link was given something.
    fn drain_core(&mut self, now: Instant) -> bool {
        let mut given = self.send_early(now);
        while let Some(output) = self.core.poll_output() {
            match output {
                core::Output::Send { to, packet } => {
                    for part in encode(&packet) {
                        self.send(now, to, part);
                    }
                    given = true;
                }
                core::Output::Isolate { boot } => {
                    self.forget(boot);
                    self.services.on_removed(boot);
                    self.link.handle(now, link::Input::Isolate { boot });
                    given = true;
                }
                output => {
                    if let core::Output::View { view, .. } = &output {
                        self.services.on_view(now, &Arc::new(view.to_base()));
                    }
                    self.outputs.push_back(Output::Core(output));
                }
            }
        }
        given
    }

    /// The services have their turn behind membership and groups: what these send goes first. True if they sent something.
    fn turn_services(&mut self, now: Instant) -> bool {
        if !self.services.is_wanted() {
            return false;
        }
        self.services.end_turn(now);
        let mut sent = false;
        while let Some(frame) = self.services.poll_frame() {
            self.link.handle(now, frame);
            sent = true;
        }
        sent
    }

    fn turn_core(&mut self, now: Instant) {
        self.link.end_turn(now);
        self.drain_link(now);
        self.end_core(now);
        while self.drain_core(now) {
            self.link.end_turn(now);
            self.drain_link(now);
            // A send can be refused, which the core has to hear of: seldom, and not twice for one peer.
            if !self.core_given {
                return;
            }
            self.end_core(now);
        }
    }

    fn end_core(&mut self, now: Instant) {
        self.core_given = false;
        self.core.end_turn(now);
    }
}

impl Machine for Stack {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Link(input) => self.link.handle(now, input),
            Input::Core(core::Input::Peer(_) | core::Input::Packet { .. } | core::Input::Dead) => {}
            Input::Core(input) => self.core.handle(now, input),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.link.handle_timeout(now);
        self.core.handle_timeout(now);
    }

    fn end_turn(&mut self, now: Instant) {
        self.turn_core(now);
        if self.turn_services(now) {
            self.turn_core(now);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let services = self.services.poll_timeout();
        [self.link.poll_timeout(), self.core.poll_timeout(), services].into_iter().flatten().min()
    }

    fn take_work(&mut self) -> Work {
        self.services.take_work()
    }

    fn intake_bytes_max(&self) -> usize {
        if self.services.is_behind() { 0 } else { usize::MAX }
    }
}

impl Fingerprint for Stack {
    fn fingerprint(&self, into: &mut Fingerprinter) {
        self.link.fingerprint(into);
        self.core.fingerprint(into);
    }
}

/// What goes over the link for a packet, in this order: channel, meta part and payload of each message.
fn encode(packet: &Packet) -> impl Iterator<Item = (u16, Bytes, Bytes)> {
    let (channel, mut meta, payload) = match packet {
        Packet::View(message) => (VIEWS, codec::encode(message), Bytes::new()),
        Packet::Group(group, message) => {
            let (meta, payload) = message.encode();
            let mut named = BytesMut::with_capacity(GROUP_ID + meta.len());
            named.put_slice(group.as_bytes());
            named.put_slice(&meta);
            (GROUPS, named.freeze(), payload)
        }
    };
    // Messages of a group fit by construction.
    let count = if channel == VIEWS { meta.len().saturating_sub(1) / PART_BYTES } else { 0 };
    let parts: Vec<_> = (0..count).map(|_| meta.split_to(PART_BYTES)).collect();
    let parts = parts.into_iter().map(|part| (VIEWS_PART, Bytes::new(), part));
    parts.chain([(channel, meta, payload)])
}

fn decode(channel: u16, meta: &Bytes, payload: Bytes) -> Option<Packet> {
    match channel {
        VIEWS if payload.is_empty() => codec::decode(meta).ok().map(Packet::View),
        GROUPS => {
            let id: [u8; GROUP_ID] = meta.get(..GROUP_ID)?.try_into().ok()?;
            let message = multicast::Message::decode(&meta[GROUP_ID..], payload).ok()?;
            Some(Packet::Group(GroupId::from_bytes(id), message))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_base::frame::BODY_SIZE_MAX;
    use mainstay_base::{BootNonce, ClusterId};

    fn stack() -> (Stack, BootId) {
        let cluster = ClusterId::from_entropy(1);
        let boot = |name: &str| BootId { node: NodeId::new(cluster, name), nonce: BootNonce(1) };
        let (me, peer) = (boot("a"), boot("b"));
        let link = link::Config::lan(cluster, me, BTreeSet::from([peer.node])).build();
        let roster = BTreeSet::from([me.node, peer.node]);
        let membership = membership::Config::default();
        let config = CoreConfig { me, roster, membership, groups: Vec::new() };
        let link = link.expect("the defaults fit");
        (Stack::recover(link, config, Past::new(), true, Instant::ZERO, 1), peer)
    }

    fn large(bytes: usize) -> Packet {
        let state = Bytes::from(vec![7; bytes]);
        let node = NodeId::new(ClusterId::from_entropy(1), "a");
        let ballot = membership::Ballot { base: 1, round: 1, node };
        Packet::View(membership::Message::Ack { ballot, accepted: None, state, voter: true })
    }

    /// A state of the groups that fits no frame goes in parts, whole to its reader, and a flood of parts is cut off.
    #[test]
    fn a_large_message_goes_in_parts() {
        for size in [0, PART_BYTES, 3 << 20] {
            let (mut stack, peer) = stack();
            let packet = large(size);
            let mut read = None;
            for (channel, meta, payload) in encode(&packet) {
                assert!(read.is_none() && meta.len() + payload.len() < BODY_SIZE_MAX);
                if channel == VIEWS_PART {
                    stack.add_part(peer, &payload);
                } else {
                    read = decode(channel, &stack.whole(peer, meta), payload);
                }
            }
            assert_eq!(read, Some(packet));
            assert!(stack.parts.is_empty() && stack.malformed() == 0);
        }
        let (mut stack, peer) = stack();
        for _ in 0..=MESSAGE_BYTES_MAX / PART_BYTES {
            stack.add_part(peer, &[0; PART_BYTES]);
        }
        assert_eq!((stack.parts.len(), stack.malformed()), (0, 1));
    }
}
