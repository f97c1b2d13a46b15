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
//! its own stream and no other.
//!
//! # Classes
//! Streams with something to send and credit wait in a queue of their class; each sends one frame in turn, and a class sends
//! only when those above it have nothing to send. A frame holds at most [`PART_BYTES`]. Of each class a bounded number of bytes
//! is on the way to a peer ([`window`]); for the bulk class it is small, since what is once in the socket is in front
//! of everything that comes later, however urgent.
//!
//! # What bounds it
//! What is on the way to a peer never fills the link's window: the classes together are below [`LINK_BYTES`]. One list of what is mounted
//! is on the way at a time. Acknowledgements are sent as the streams are taken in, a few for each window.

mod peer;
mod stream;
mod wire;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mainstay_base::rack::Given;
use mainstay_base::service::{Address, Class, Dest, PeerChange};
use mainstay_base::{BootId, Duration, Instant, fault};
use mainstay_link as link;

use peer::Peer;
use stream::{Incoming, Outgoing, Whole};
use wire::{Entry, Head, Taken};

/// The link's channel of all services.
pub const CHANNEL: u16 = 16;
/// Most bytes of a message, both parts together (16 MiB).
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
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
/// What was taken in is told so soon at the latest.
const TELL_AFTER: Duration = Duration::from_millis(5);
const CLASSES: [Class; 4] = [Class::Views, Class::Groups, Class::Calls, Class::Bulk];

/// Most bytes of a class on the way to one peer, in one stream as in all of them.
#[must_use]
pub const fn window(class: Class) -> u64 {
    match class {
        Class::Views => 512 << 10,
        Class::Groups | Class::Calls => 1 << 20,
        Class::Bulk => 256 << 10,
    }
}

/// What came from peers and could not be used. Nothing happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MuxStats {
    /// Frames that are not of this protocol, or say what makes no sense.
    pub malformed: u64,
    /// Frames for a service that has been dismounted meanwhile.
    pub stray: u64,
    /// Frames beyond what was granted.
    pub overrun: u64,
    /// Messages for a peer that has not mounted the service, or whose queue was full. They were given back.
    pub refused: u64,
    /// Datagrams that were lost here: the peer is not connected, or has too much on the way.
    pub lost: u64,
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
        if self.own.len() >= MOUNTED_MAX && !self.own.contains_key(&of) {
            return false;
        }
        self.dismount(of);
        self.run += 1;
        self.own.insert(of, Own { agreed, class, run: self.run });
        let boots: Vec<BootId> = self.peers.keys().copied().collect();
        for boot in boots {
            self.peers.entry(boot).or_default().stale = true;
            self.meet(boot);
        }
        true
    }

    /// An instance is gone. What was on its way to it is void.
    pub fn dismount(&mut self, of: Address) {
        if self.own.remove(&of).is_none() {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.stale = true;
            peer.forget(of);
        }
    }

    /// What the link says about peers.
    pub fn on_link(&mut self, now: Instant, event: &link::Event) {
        match event {
            link::Event::Up { boot, .. } => {
                // A node without services says nothing of them.
                let stale = !self.own.is_empty();
                let fresh = || Peer { stale, ..Peer::default() };
                let peer = self.peers.entry(*boot).or_insert_with(fresh);
                peer.connected = true;
                self.meet(*boot);
            }
            link::Event::Down { boot } => self.on_down(*boot),
            link::Event::Replaced { old, new } => self.forget(*old, Some(*new)),
            link::Event::Deliver { from, channel: CHANNEL, meta, payload } => {
                let is_sound = self.on_frame(now, *from, meta, payload).is_some();
                self.stats.malformed += u64::from(!is_sound);
            }
            _ => {}
        }
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
        if self.peers.remove(&old).is_none() {
            return;
        }
        for of in self.own.keys() {
            self.given.push_back((*of, Given::Peer(PeerChange::Replaced { old, new })));
        }
    }

    /// Tells the services that both ends have that the peer is up, and that there is room.
    fn meet(&mut self, boot: BootId) {
        let never_room = fault!(self, NoRoom);
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        if !peer.connected {
            return;
        }
        for (of, own) in &self.own {
            let Some(entry) = peer.mounted.get(of).filter(|it| it.agreed == own.agreed) else {
                continue;
            };
            if !peer.up.insert(*of) {
                continue;
            }
            let out = peer
                .out
                .entry(*of)
                .or_insert_with(|| Outgoing::new(own.class, entry.run, entry.window));
            self.given.push_back((*of, Given::Peer(PeerChange::Up { boot })));
            if out.has_room_again() && !never_room {
                self.given.push_back((*of, Given::Room { to: boot }));
            }
        }
    }

    /// `None`: the frame makes no sense.
    fn on_frame(
        &mut self,
        now: Instant,
        from: BootId,
        meta: &Bytes,
        payload: &Bytes,
    ) -> Option<()> {
        let (head, rest) = wire::decode(meta)?;
        let has_body =
            matches!(head, Head::Message { .. } | Head::Part { .. } | Head::Datagram { .. });
        let is_empty = rest.is_empty() && payload.is_empty();
        (has_body || is_empty).then_some(())?;
        match head {
            Head::Mounted(entries) => self.on_mounted(from, entries)?,
            Head::Seen => {
                let peer = self.peers.get_mut(&from)?;
                peer.unseen.then_some(())?;
                peer.unseen = false;
            }
            Head::Message { of, run, view, meta, payload: raw } => {
                let size = (usize::try_from(meta).ok()?, usize::try_from(raw).ok()?);
                (size.0.checked_add(size.1)? <= MESSAGE_BYTES_MAX).then_some(())?;
                let body = rest.len() + payload.len();
                let Some(stream) = self.incoming(from, of, run, body) else { return Some(()) };
                let whole = stream.begin(view, size, rest, payload.clone());
                self.on_body(now, from, of, whole)?;
            }
            Head::Part { of, run } => {
                rest.is_empty().then_some(())?;
                let Some(stream) = self.incoming(from, of, run, payload.len()) else {
                    return Some(());
                };
                let whole = stream.add(payload);
                self.on_body(now, from, of, whole)?;
            }
            Head::Taken(taken) => {
                for taken in taken {
                    self.on_taken(from, taken)?;
                }
            }
            Head::Datagram { of } if self.own.contains_key(&of) => {
                let given = Given::Datagram {
                    at: now,
                    from: from.node,
                    meta: rest,
                    payload: payload.clone(),
                };
                self.given.push_back((of, given));
            }
            Head::Datagram { .. } => self.stats.stray += 1,
        }
        Some(())
    }

    fn on_mounted(&mut self, from: BootId, entries: Vec<Entry>) -> Option<()> {
        let peer = self.peers.get_mut(&from)?;
        (entries.len() <= MOUNTED_MAX).then_some(())?;
        let mounted: BTreeMap<Address, Entry> =
            entries.into_iter().map(|entry| (entry.of, entry)).collect();
        let former = std::mem::replace(&mut peer.mounted, mounted);
        for (of, entry) in former {
            if peer.mounted.get(&of) == Some(&entry) {
                continue;
            }
            peer.forget(of);
            if self.own.contains_key(&of) {
                let change = PeerChange::Replaced { old: from, new: None };
                self.given.push_back((of, Given::Peer(change)));
            }
        }
        self.push(from, &Head::Seen, Bytes::new());
        self.meet(from);
        Some(())
    }

    /// The stream that a frame belongs to. `None`, and counted: there is none, or the frame was not granted.
    fn incoming(
        &mut self,
        from: BootId,
        of: Address,
        run: u64,
        body: usize,
    ) -> Option<&mut Incoming> {
        let mixes = fault!(self, MixesRuns);
        let peer = self.peers.get_mut(&from)?;
        let is_meant = |own: &&Own| {
            (own.run == run || mixes)
                && peer.mounted.get(&of).is_some_and(|entry| entry.agreed == own.agreed)
        };
        let Some(own) = self.own.get(&of).filter(is_meant) else {
            self.stats.stray += 1;
            return None;
        };
        let stream = peer.incoming.entry(of).or_default();
        if !stream.count(body, window(own.class)) {
            self.stats.overrun += 1;
            return None;
        }
        Some(stream)
    }

    /// `None`: the frame did not fit to those before it.
    fn on_body(
        &mut self,
        now: Instant,
        from: BootId,
        of: Address,
        whole: Result<Option<Whole>, ()>,
    ) -> Option<()> {
        self.take(now, from, of);
        if let Some(Whole { view, meta, payload }) = whole.ok()? {
            self.given.push_back((of, Given::Message { from, view, meta, payload }));
        }
        Some(())
    }

    /// What has come of a stream is taken in.
    fn take(&mut self, now: Instant, from: BootId, of: Address) {
        let Some(own) = self.own.get(&of) else { return };
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(stream) = peer.incoming.get_mut(&of) else { return };
        peer.untold[own.class as usize] += stream.take();
        peer.tell_at = peer.tell_at.or(Some(now + TELL_AFTER));
    }

    fn on_taken(&mut self, from: BootId, taken: Taken) -> Option<()> {
        let peer = self.peers.get_mut(&from)?;
        // A stream that is gone, or is another one by now.
        let run = self.own.get(&taken.of).map(|own| own.run);
        let is_meant = |out: &&mut Outgoing| out.run() == taken.run && run == Some(taken.sender);
        let Some(out) = peer.out.get_mut(&taken.of).filter(is_meant) else { return Some(()) };
        let class = out.class as usize;
        peer.flight[class] -= out.on_taken(taken.upto)?;
        if out.has_more() && !out.runs {
            out.runs = true;
            peer.running[class].push_back(taken.of);
        }
        Some(())
    }

    /// Sends a message, in `view`, to each of `to`. It is given back for those that it is not taken for.
    ///
    /// # Panics
    /// If it has more than [`MESSAGE_BYTES_MAX`]: the service has to bound what it sends.
    pub fn send(&mut self, of: Address, view: u64, to: &Dest, meta: &Bytes, payload: &Bytes) {
        let size = meta.len() + payload.len();
        assert!(size <= MESSAGE_BYTES_MAX, "{of:?} sends a message of {size} bytes");
        for boot in to.iter() {
            let forgets = fault!(self, NoLatch);
            let refused = match self.peers.get_mut(&boot) {
                Some(peer) if forgets => {
                    peer.out.values_mut().for_each(|out| out.full = false);
                    peer.push(of, view, meta, payload)
                }
                Some(peer) => peer.push(of, view, meta, payload),
                None => Err((meta.clone(), payload.clone())),
            };
            if let Err((meta, payload)) = refused {
                self.stats.refused += 1;
                self.given.push_back((of, Given::Full { to: boot, meta, payload }));
            }
        }
    }

    /// Sends a datagram to the boot of a node that is connected. It may be lost, and is if much is on the way.
    pub fn send_datagram(
        &mut self,
        of: Address,
        to: mainstay_base::NodeId,
        meta: &Bytes,
        payload: Bytes,
    ) {
        let fits = meta.len() + payload.len() <= PART_BYTES;
        let is_idle =
            |peer: &Peer| peer.connected && peer.flight.iter().sum::<u64>() < window(Class::Calls);
        let boot = self.peers.iter().find(|(boot, peer)| boot.node == to && is_idle(peer));
        match boot.map(|(boot, _)| *boot).filter(|_| fits) {
            Some(boot) => self.frames.push_back(Frame {
                to: boot,
                meta: wire::encode(&Head::Datagram { of }, meta),
                payload,
            }),
            None => self.stats.lost += 1,
        }
    }

    fn push(&mut self, to: BootId, head: &Head, payload: Bytes) {
        self.frames.push_back(Frame { to, meta: wire::encode(head, &[]), payload });
    }

    /// Puts out what may go now.
    pub fn end_turn(&mut self, now: Instant) {
        if self.own.is_empty() && self.peers.values().all(|peer| !peer.stale) {
            return;
        }
        let boots: Vec<BootId> = self.peers.keys().copied().collect();
        for boot in boots {
            self.announce(boot);
            self.pump(boot);
            self.tell(now, boot);
        }
    }

    fn announce(&mut self, boot: BootId) {
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        if !peer.stale || peer.unseen {
            return;
        }
        (peer.stale, peer.unseen) = (false, true);
        let entry = |(of, own): (&Address, &Own)| Entry {
            of: *of,
            agreed: own.agreed,
            run: own.run,
            window: window(own.class),
        };
        let head = Head::Mounted(self.own.iter().map(entry).collect());
        self.push(boot, &head, Bytes::new());
    }

    /// Hands frames to the link, the higher classes first, streams of one class in turn.
    fn pump(&mut self, boot: BootId) {
        let ignores_credit = fault!(self, IgnoresCredit);
        let overtakes = fault!(self, OvertakesList);
        let never_room = fault!(self, NoRoom);
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        // A message of a new run follows the list that names the run.
        if peer.stale && !overtakes {
            return;
        }
        for class in CLASSES {
            let class_index = class as usize;
            while peer.flight[class_index] + (FRAME_COST + PART_BYTES) as u64 <= window(class)
                || ignores_credit
            {
                let Some(of) = peer.running[class_index].pop_front() else { break };
                let Some(out) = peer.out.get_mut(&of) else { continue };
                out.runs = false;
                let is_granted = out.may_send() || ignores_credit;
                if !(is_granted && out.has_more()) {
                    continue;
                }
                let Some((meta, payload, cost)) = out.next_frame(of) else { continue };
                peer.flight[class_index] += cost;
                self.frames.push_back(Frame { to: boot, meta, payload });
                if out.has_more() {
                    out.runs = true;
                    peer.running[class_index].push_back(of);
                }
                if peer.up.contains(&of) && out.has_room_again() && !never_room {
                    self.given.push_back((of, Given::Room { to: boot }));
                }
            }
        }
    }

    /// Tells the peer what was taken in, if it is a good part of a window or has waited for long.
    fn tell(&mut self, now: Instant, boot: BootId) {
        let never_told = fault!(self, NoCredit);
        let Some(peer) = self.peers.get_mut(&boot) else { return };
        let is_much =
            CLASSES.iter().any(|class| peer.untold[*class as usize] >= window(*class) / 4);
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

    /// The next input for a service, in order.
    pub fn poll_given(&mut self) -> Option<(Address, Given)> {
        self.given.pop_front()
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
                let streams = peer.out.values().filter(|out| out.class == class);
                let flight: u64 = streams.map(Outgoing::flight).sum();
                assert_eq!(flight, peer.flight[class as usize], "a class knows what is on the way");
                assert!(flight <= window(class), "a class is bounded");
            }
            assert!(peer.up.iter().all(|of| peer.out.contains_key(of)), "who is up has a stream");
            assert!(peer.connected || peer.up.is_empty(), "nobody is up who is not connected");
        }
    }
}
