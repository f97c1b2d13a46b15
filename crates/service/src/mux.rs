//! Channels: the messages of many services over one link, each service as if it had the link to itself.
//!
//! # Streams
//! Each pair of boots has one stream each way for every instance that both have mounted with an equal hash. The two ends tell
//! each other what they have mounted, as a numbered *run* each; a message names the run it is meant for, so that nothing
//! that was meant for a service reaches another one that is mounted at its place later. The link beneath loses nothing, so a
//! stream has no sequence numbers.
//!
//! # Credit
//! The receiver grants a window of bytes for each stream, as QUIC does, and says how much of the stream it has taken in. The
//! sender hands the link no more than that. What waits for credit is bounded: beyond [`QUEUE_BYTES`] a message is given
//! back ([`Given::Full`]), and [`Given::Room`] follows when half of that is free. So a service that is slow to take in stops
//! its own stream and no other. A service mounted on the node takes in what comes in the turn in which it comes. One beside the node has
//! taken a message in when its actor has: until then the message counts against the window ([`Mux::mount_beside`]).
//!
//! # Classes
//! Streams with something to send and credit wait in a queue of their class; each sends one frame in turn, and a class sends
//! only when those above it have nothing to send. A frame holds at most [`PART_BYTES`]. Of each class a bounded number of bytes
//! is on the way to a peer ([`window`]); for the bulk class it is small, since what is once in the socket is in front
//! of everything that comes later, however urgent. What has come at the peer is on the way no more, whether its service has taken it in
//! or not: so a service that is stuck uses up the credit of its own stream, and nothing of its class.
//!
//! # Guests
//! Between a node and a guest of it (a process outside the roster) only instances are heard that were
//! [opened](Mux::open_to_guests) to guests; a guest learns of no other. The windows are smaller ([`GUEST_WINDOW`]), so that all of them fit
//! the link's small window, and what all guests together have sent in part is bounded ([`GUEST_PARTS_BYTES`]): beyond, the guest that has
//! most of it is given up, and told so by the link.
//!
//! # What bounds it
//! What is on the way to a peer never fills the link's window: the classes together are below [`LINK_BYTES`]. One list of what is mounted
//! is on the way at a time. Acknowledgements are sent as frames come and as streams are taken in, a few for each window.

mod guest;
mod peer;
mod receive;
mod stream;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::rack::Given;
use mainstay_base::rack::beside::WAITING_BYTES_MAX;
pub use mainstay_base::service::MESSAGE_BYTES_MAX;
use mainstay_base::service::{Address, Class, Dest, PeerChange};
use mainstay_base::{BootId, Duration, Instant, NodeId, fault};
use mainstay_link as link;

pub use guest::{GUEST_KEEP, GUEST_PARTS_BYTES, GUEST_WINDOW};
use guest::{GUEST_MOUNTED_MAX, Guests};
use peer::{DATAGRAMS, Latch, Peer};
use stream::Outgoing;
use wire::{Entry, Head, Taken};

/// The link's channel of all services.
pub const CHANNEL: u16 = 16;
/// Most bytes of a message in one frame (64 KiB).
pub const PART_BYTES: usize = 64 << 10;
/// What waits for credit in one stream, beyond one message (1 MiB).
pub const QUEUE_BYTES: usize = 1 << 20;
/// Most services of a node.
pub const MOUNTED_MAX: usize = 4096;
/// What the window of a link has to have for services.
pub const LINK_BYTES: usize = 4 << 20;

/// What a frame counts for beyond its bytes: so credit bounds the number of frames as well.
const FRAME_COST: usize = 256;
/// Most bytes of datagrams on the way to one peer; more are lost.
const DATAGRAM_BYTES: u64 = 256 << 10;
/// Most entries for boots that are not met yet.
const EARLY_MAX: usize = 4096;
/// What came and what was taken in is told so soon at the latest.
const TELL_AFTER: Duration = Duration::from_millis(5);
// Who is granted a window, once and once again by its next boot, does not end a service beside that takes nothing in.
const _: () = assert!(2 * (MESSAGE_BYTES_MAX + LINK_BYTES) < WAITING_BYTES_MAX);
const CLASSES: [Class; 4] = [Class::Views, Class::Groups, Class::Calls, Class::Bulk];

/// Most bytes of a class on the way to one peer, in all its streams; and most bytes of one stream that were sent and not taken in.
#[must_use]
pub const fn window(class: Class) -> u64 {
    match class {
        Class::Views => 512 << 10,
        Class::Groups | Class::Calls => 1 << 20,
        Class::Bulk => 256 << 10,
    }
}

const fn peer_window(class: Class, guest: bool) -> u64 {
    if guest { GUEST_WINDOW } else { window(class) }
}

/// What came from peers and could not be used. Nothing happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MuxStats {
    /// Frames that are not of this protocol, or say what makes no sense.
    pub malformed: u64,
    /// Frames for a service that has been dismounted meanwhile, and datagrams that should not have come by a connection.
    pub stray: u64,
    /// Frames beyond what was granted.
    pub overrun: u64,
    /// Messages for a peer that has not mounted the service, or whose queue was full. They were given back.
    pub refused: u64,
    /// Datagrams that were lost here: the peer is not connected, or too many are on the way.
    pub lost: u64,
    /// Peers that were given up since the link could not take what was meant for them, and guests that sent too much in part.
    pub overflow: u64,
}

/// An instance that is mounted here, as a peer sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Standing {
    /// Both ends have it.
    Up,
    /// The peer has it, but is not connected.
    Down,
    /// The peer has not mounted it.
    Missing,
    /// The peer has mounted it with other settings: they do not hear each other.
    Unequal,
}

struct Own {
    agreed: u128,
    class: Class,
    run: u64,
    beside: Option<Lending>,
}

/// What a service beside the node was given, and how far its actor has got.
#[derive(Default)]
struct Lending {
    /// What it was given and has not taken in, in order.
    lent: VecDeque<Lent>,
    /// How often it was told that a peer is up or that a message was not taken; and what of that it has heard.
    told: u64,
    heard: u64,
}

impl Own {
    /// What holds a stream of it until it has heard of what it is told now.
    fn latch(&mut self, turn: u64, refused: bool) -> Latch {
        let at = self.beside.as_mut().map_or(turn, |beside| {
            beside.told += 1;
            beside.told
        });
        Latch { at, refused }
    }
}

/// A message that a service beside the node has not taken in.
struct Lent {
    from: BootId,
    /// The stream that it came in, and how much of that had come with it.
    stream: u64,
    came: u64,
}

/// A frame for the link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// To whom.
    pub to: BootId,
    /// Its meta part.
    pub meta: Bytes,
    /// Its payload.
    pub payload: Bytes,
}

/// The channels of one node. See the [module](self).
#[derive(Default)]
pub struct Mux {
    own: BTreeMap<Address, Own>,
    peers: BTreeMap<BootId, Peer>,
    run: u64,
    /// Counts the streams that come.
    streams: u64,
    /// Counts how often services have taken in what they were given.
    turn: u64,
    /// Boots that are not met yet, with instances whose messages for them were given back.
    early: BTreeSet<(BootId, Address)>,
    guests: Guests,
    /// Datagrams of the roster do not come by connections.
    outside: bool,
    /// Peers for which the end of the turn may have something to do.
    touched: BTreeSet<BootId>,
    /// Of each node, the last boot that is gone for ever: who does not know yet may still send to it.
    gone: BTreeMap<NodeId, BootId>,
    frames: VecDeque<Frame>,
    given: VecDeque<(Address, Given)>,
    stats: MuxStats,
    #[cfg(feature = "test-util")]
    pub(crate) fault: Option<crate::fault::Fault>,
}

impl Mux {
    /// Without peers, and nothing mounted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Breaks it on purpose.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn break_it(&mut self, fault: crate::fault::Fault) {
        self.fault = Some(fault);
    }

    /// An instance is mounted. False, and nothing happens, if there are [`MOUNTED_MAX`].
    pub fn mount(&mut self, of: Address, class: Class, agreed: u128) -> bool {
        self.place(of, class, agreed, None)
    }

    /// The same for a service beside the node. What comes for it is granted again when [`took`](Self::took) says that it has taken it in: so
    /// one that takes nothing in stops its own streams, and what waits for it is bounded by what was granted.
    pub fn mount_beside(&mut self, of: Address, class: Class, agreed: u128) -> bool {
        self.place(of, class, agreed, Some(Lending::default()))
    }

    fn place(&mut self, of: Address, class: Class, agreed: u128, beside: Option<Lending>) -> bool {
        if self.own.len() >= MOUNTED_MAX && !self.own.contains_key(&of) {
            return false;
        }
        self.dismount(of);
        self.run += 1;
        self.own.insert(of, Own { agreed, class, run: self.run, beside });
        let boots: Vec<BootId> = self.peers.keys().copied().collect();
        for boot in boots {
            self.peers.entry(boot).or_default().stale = true;
            self.touched.insert(boot);
            self.meet(boot);
        }
        true
    }

    /// An instance is gone. What was on its way to it is void.
    pub fn dismount(&mut self, of: Address) {
        if self.own.remove(&of).is_none() {
            return;
        }
        for (boot, peer) in &mut self.peers {
            peer.stale = true;
            peer.forget(of);
            self.touched.insert(*boot);
        }
    }

    /// What the link says about peers.
    pub fn on_link(&mut self, now: Instant, event: &link::Event) {
        match event {
            link::Event::Up { boot, guest, .. } => {
                self.touched.insert(*boot);
                self.guests.on_up(*boot);
                self.gone.retain(|_, gone| gone != boot);
                // A node without services says nothing of them.
                let stale = !self.own.is_empty();
                let fresh = || Peer { stale, guest: *guest, ..Peer::default() };
                let peer = self.peers.entry(*boot).or_insert_with(fresh);
                peer.connected = !peer.broken;
                for (_, of) in self.early.iter().filter(|(it, _)| it == boot) {
                    let told = self.own.get(of).and_then(|own| own.beside.as_ref());
                    let at = told.map_or(self.turn, |beside| beside.told);
                    peer.latched.insert(*of, Latch { at, refused: true });
                }
                self.early.retain(|(it, _)| it != boot);
                self.meet(*boot);
            }
            link::Event::Down { boot } => self.on_down(*boot),
            link::Event::Replaced { old, new, .. } => self.forget(*old, Some(*new)),
            // Its session is over; it may come back, and begins anew.
            link::Event::Gone { boot, .. } => self.lose(*boot, PeerChange::Ended { boot: *boot }),
            link::Event::Deliver { from, channel: CHANNEL, meta, payload } => {
                self.touched.insert(*from);
                let is_sound = self.on_frame(now, *from, meta, payload).is_some();
                self.stats.malformed += u64::from(!is_sound);
            }
            link::Event::NotSent { channel: CHANNEL, why: link::NotSent::Full, to, .. } => {
                self.give_up(*to);
            }
            _ => {}
        }
    }

    /// The link has no room although no class has more on the way than it may: the peer acknowledges nothing. A stream has a hole
    /// now and must not be taken for whole.
    fn give_up(&mut self, node: NodeId) {
        let boots = self.peers.iter().filter(|(boot, it)| boot.node == node && !it.broken);
        let boots: Vec<BootId> = boots.map(|(boot, _)| *boot).collect();
        for boot in boots {
            self.stats.overflow += 1;
            self.give_up_boot(boot);
        }
    }

    fn give_up_boot(&mut self, boot: BootId) {
        let guest = self.peers.get(&boot).is_some_and(|peer| peer.guest);
        if guest {
            self.guests.end(boot);
            self.lose(boot, PeerChange::Ended { boot });
        } else {
            self.forget(boot, None);
        }
        self.frames.retain(|frame| frame.to != boot);
        self.peers.insert(boot, Peer { broken: true, guest, ..Peer::default() });
    }

    fn on_down(&mut self, boot: BootId) {
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        peer.connected = false;
        for of in std::mem::take(&mut peer.up) {
            self.given.push_back((of, Given::Peer(PeerChange::Down { boot })));
        }
    }

    /// A boot is gone for ever: replaced by another one, or removed by a view. All that was on the way is void.
    pub fn forget(&mut self, old: BootId, new: Option<BootId>) {
        self.lose(old, PeerChange::Replaced { old, new });
    }

    fn lose(&mut self, boot: BootId, change: PeerChange) {
        let Some(peer) = self.peers.remove(&boot) else { return };
        if peer.guest {
            self.guests.on_gone(boot);
        } else {
            self.gone.insert(boot.node, boot);
        }
        for of in self.own.keys() {
            if self.is_open(*of, peer.guest) {
                self.given.push_back((*of, Given::Peer(change)));
            }
        }
    }

    /// Tells the services that both ends have that the peer is up.
    fn meet(&mut self, boot: BootId) {
        let (turn, deaf) = (self.turn, fault!(self, TakesUnheard));
        let to_guest = self.peers.get(&boot).is_some_and(|peer| peer.guest);
        let closed: BTreeSet<Address> =
            self.own.keys().copied().filter(|of| !self.is_open(*of, to_guest)).collect();
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        if !peer.connected {
            return;
        }
        for (of, own) in self.own.iter_mut().filter(|(of, _)| !closed.contains(of)) {
            let Some(entry) = peer.mounted.get(of).filter(|it| it.agreed == own.agreed) else {
                continue;
            };
            if !peer.up.insert(*of) {
                continue;
            }
            let stream = || Outgoing::new(own.class, entry.run, entry.window);
            peer.out.entry(*of).or_insert_with(stream);
            if own.beside.is_some() {
                // What it sends before it has heard of this peer is not for it.
                let latch = own.latch(turn, false);
                let latch = if deaf { Latch { at: 0, ..latch } } else { latch };
                let now = peer.latched.entry(*of).or_insert(latch);
                now.at = now.at.max(latch.at);
            }
            self.given.push_back((*of, Given::Peer(PeerChange::Up { boot })));
        }
    }

    /// Sends a message, in `view`, to each of `to`. It is given back for those that it is not taken for.
    ///
    /// # Panics
    /// If it has more than [`MESSAGE_BYTES_MAX`]: the service has to bound what it sends.
    pub fn send(&mut self, of: Address, view: u64, to: &Dest, meta: &Bytes, payload: &Bytes) {
        let size = meta.len() + payload.len();
        assert!(size <= MESSAGE_BYTES_MAX, "{of:?} sends a message of {size} bytes");
        let forgets = fault!(self, NoLatch);
        let Some(own) = self.own.get_mut(&of) else { return };
        for boot in to.iter() {
            self.touched.insert(boot);
            let refused = match self.peers.get_mut(&boot) {
                Some(peer) => {
                    if forgets {
                        peer.latched.clear();
                    }
                    // It is told only if the message is given back.
                    let latch = own.latch(self.turn, true);
                    let pushed = peer.push(latch, of, view, meta.clone(), payload.clone());
                    own.beside.iter_mut().for_each(|it| it.told -= u64::from(pushed.is_ok()));
                    pushed
                }
                None => {
                    own.latch(self.turn, true);
                    let is_gone =
                        self.gone.get(&boot.node) == Some(&boot) || self.guests.is_gone(boot);
                    if !is_gone && self.early.len() < EARLY_MAX {
                        self.early.insert((boot, of));
                    }
                    Err((meta.clone(), payload.clone()))
                }
            };
            if let Err((meta, payload)) = refused {
                self.stats.refused += 1;
                self.given.push_back((of, Given::Full { to: boot, meta, payload }));
            }
        }
    }

    /// From here on datagrams go elsewhere: what a node of the roster sends as one over a connection is dropped and counted. There nobody has
    /// proved who it is.
    pub fn send_datagrams_outside(&mut self) {
        self.outside = true;
    }

    /// Sends a datagram to the boot of a node that is connected. It may be lost, and is if much is on the way.
    pub fn send_datagram(&mut self, of: Address, to: NodeId, meta: &Bytes, payload: Bytes) {
        let cost = (FRAME_COST + meta.len() + payload.len()) as u64;
        let fits = |peer: &Peer| {
            let flight = peer.lanes[DATAGRAMS].flight();
            peer.connected && peer.mounted.contains_key(&of) && flight + cost <= peer.datagrams()
        };
        let is_small = meta.len() + payload.len() <= PART_BYTES;
        let peer = self.peers.iter_mut().find(|(boot, peer)| boot.node == to && fits(peer));
        match peer.filter(|_| is_small) {
            Some((boot, peer)) => {
                peer.lanes[DATAGRAMS].sent += cost;
                let meta = wire::encode(&Head::Datagram { of }, meta);
                self.frames.push_back(Frame { to: *boot, meta, payload });
            }
            None => self.stats.lost += 1,
        }
    }

    fn push(&mut self, to: BootId, head: &Head, payload: Bytes) {
        self.frames.push_back(Frame { to, meta: wire::encode(head, &[]), payload });
    }

    /// Nothing is mounted, no peer is to be told anything, and nothing waits to be taken out.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_quiet = |peer: &Peer| !peer.stale && !peer.owes_seen && peer.tell_at.is_none();
        let is_empty = self.own.is_empty() && self.frames.is_empty() && self.given.is_empty();
        is_empty && self.peers.values().all(is_quiet)
    }

    /// Puts out what may go now.
    pub fn end_turn(&mut self, now: Instant) {
        if self.is_idle() {
            return;
        }
        let is_due = |peer: &Peer| peer.tell_at.is_some_and(|at| at <= now);
        let due = self.peers.iter().filter(|(_, peer)| is_due(peer));
        self.touched.extend(due.map(|(boot, _)| *boot));
        for boot in std::mem::take(&mut self.touched) {
            self.announce(boot);
            self.pump(boot);
            self.tell(now, boot);
            self.release(boot);
            // What waits for a service to hear of something, or for a list to be answered, is looked at again.
            let waits = |peer: &Peer| !peer.latched.is_empty() || peer.stale || peer.owes_seen;
            if self.peers.get(&boot).is_some_and(waits) {
                self.touched.insert(boot);
            }
        }
    }

    /// Tells services that have room again.
    fn release(&mut self, boot: BootId) {
        let never_room = fault!(self, NoRoom);
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        let (own, turn) = (&self.own, self.turn);
        let has_heard = |of: &Address, at| match own.get(of).and_then(|own| own.beside.as_ref()) {
            Some(beside) => at <= beside.heard,
            None => at < turn,
        };
        let free = peer.release(has_heard).into_iter().filter(|_| !never_room);
        self.given.extend(free.map(|of| (of, Given::Room { to: boot })));
    }

    fn announce(&mut self, boot: BootId) {
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        if std::mem::take(&mut peer.owes_seen) {
            self.push(boot, &Head::Seen, Bytes::new());
        }
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        if !peer.stale || peer.unseen {
            return;
        }
        (peer.stale, peer.unseen) = (false, true);
        let guest = peer.guest;
        let entry = |(of, own): (&Address, &Own)| Entry {
            of: *of,
            agreed: own.agreed,
            run: own.run,
            window: peer_window(own.class, guest),
            class: own.class as u8,
        };
        let mounted = self.own.iter().filter(|(of, _)| self.is_open(**of, guest));
        let head = Head::Mounted(mounted.map(entry).collect());
        self.push(boot, &head, Bytes::new());
    }

    /// Hands frames to the link, the higher classes first, streams of one class in turn.
    fn pump(&mut self, boot: BootId) {
        let ignores_credit = fault!(self, IgnoresCredit);
        let overtakes = fault!(self, OvertakesList);
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        // A message of a new run follows the list that names the run.
        if peer.stale && !overtakes {
            return;
        }
        for class in CLASSES {
            let index = class as usize;
            // Streams whose next message has to wait for another one's.
            let mut waiting = Vec::new();
            let has_room = |peer: &Peer| {
                peer.lanes[index].flight() + (FRAME_COST + PART_BYTES) as u64 <= peer.window(class)
            };
            while has_room(peer) || ignores_credit {
                let Some(of) = peer.running[index].pop_front() else { break };
                let Some(out) = peer.out.get_mut(&of) else { continue };
                if out.begins_large() && peer.large[index].is_some_and(|it| it != of) {
                    waiting.push(of);
                    continue;
                }
                out.runs = false;
                let is_granted = out.may_send() || ignores_credit;
                if !(is_granted && out.has_more()) {
                    continue;
                }
                let Some((meta, payload, cost)) = out.next_frame(of) else { continue };
                if out.is_within() {
                    peer.large[index] = Some(of);
                } else if peer.large[index] == Some(of) {
                    peer.large[index] = None;
                    peer.running[index].extend(waiting.drain(..));
                }
                peer.lanes[index].sent += cost;
                self.frames.push_back(Frame { to: boot, meta, payload });
                if out.has_more() {
                    out.runs = true;
                    peer.running[index].push_back(of);
                }
            }
            peer.running[index].extend(waiting);
        }
    }

    /// Tells the peer what came and what was taken in, if it is a good part of a window or has waited for long.
    fn tell(&mut self, now: Instant, boot: BootId) {
        let (never_told, never_came) = (fault!(self, NoCredit), fault!(self, NoCame));
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        let is_much = CLASSES.iter().any(|class| {
            let (lane, untold) = (&peer.lanes[*class as usize], peer.untold[*class as usize]);
            untold.max(lane.came - lane.told) >= peer.window(*class) / 4
        });
        if !is_much && peer.tell_at.is_none_or(|at| now < at) {
            return;
        }
        (peer.untold, peer.tell_at) = ([0; 4], None);
        let mut taken = Vec::new();
        for (of, stream) in &mut peer.incoming {
            let (Some(own), Some(entry)) = (self.own.get(of), peer.mounted.get(of)) else {
                continue;
            };
            if stream.taken > stream.told {
                stream.told = stream.taken;
                taken.push(Taken { of: *of, run: own.run, sender: entry.run, upto: stream.taken });
            }
        }
        let has_come = peer.lanes.iter().any(|lane| lane.came > lane.told);
        peer.lanes.iter_mut().for_each(|lane| lane.told = lane.came);
        if has_come && !never_came {
            let came = Head::Came(std::array::from_fn(|lane| peer.lanes[lane].came));
            self.push(boot, &came, Bytes::new());
        }
        if !taken.is_empty() && !never_told {
            self.push(boot, &Head::Taken(taken), Bytes::new());
        }
    }

    /// How many services are mounted.
    #[must_use]
    pub fn mounted(&self) -> usize {
        self.own.len()
    }

    /// Whether services have something to take in.
    #[must_use]
    pub fn has_given(&self) -> bool {
        !self.given.is_empty()
    }

    /// The next frame for the link, in order.
    pub fn poll_frame(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// The next input for a service, in order. `None`: services have taken in all; what they send after this they send knowing it.
    pub fn poll_given(&mut self) -> Option<(Address, Given)> {
        let given = self.given.pop_front();
        self.turn += u64::from(given.is_none());
        given
    }

    /// When [`end_turn`](Self::end_turn) has something to tell.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(|peer| peer.tell_at).min()
    }

    /// What came from peers and could not be used.
    #[must_use]
    pub fn stats(&self) -> MuxStats {
        self.stats
    }

    /// How each peer stands to an instance that is mounted here.
    pub fn standing(&self, of: Address) -> impl Iterator<Item = (BootId, Standing)> + '_ {
        let own = self.own.get(&of);
        self.peers.iter().filter_map(move |(boot, peer)| {
            let standing = match peer.mounted.get(&of) {
                None => Standing::Missing,
                Some(entry) if entry.agreed != own?.agreed => Standing::Unequal,
                Some(_) if peer.connected => Standing::Up,
                Some(_) => Standing::Down,
            };
            own.map(|_| (*boot, standing))
        })
    }

    /// Panics if it is not as it should be.
    pub fn check_invariants(&self) {
        for peer in self.peers.values() {
            for class in CLASSES {
                let flight = peer.lanes[class as usize].flight();
                assert!(flight <= peer.window(class), "a class is bounded");
            }
            let is_granted = |out: &Outgoing| out.flight() <= peer.window(out.class);
            assert!(peer.out.values().all(is_granted), "a stream is bounded");
            assert!(peer.up.iter().all(|of| peer.out.contains_key(of)), "who is up has a stream");
            assert!(peer.connected || peer.up.is_empty(), "nobody is up who is not connected");
        }
    }
}
