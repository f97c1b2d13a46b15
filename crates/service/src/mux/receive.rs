//! What comes from a peer. What makes no sense is dropped and counted.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_base::rack::Given;
use mainstay_base::service::{Address, PeerChange};
use mainstay_base::{BootId, Instant, fault};

use super::peer::{DATAGRAMS, Peer};
use super::stream::{Incoming, Outgoing, Whole};
use super::wire::{self, Entry, Head, Taken};
use super::{
    CLASSES, GUEST_MOUNTED_MAX, GUEST_PARTS_BYTES, Lending, Lent, MESSAGE_BYTES_MAX, MOUNTED_MAX,
    Mux, Own, PART_BYTES, TELL_AFTER,
};

impl Mux {
    /// `None`: the frame makes no sense.
    pub(super) fn on_frame(
        &mut self,
        now: Instant,
        from: BootId,
        meta: &Bytes,
        payload: &Bytes,
    ) -> Option<()> {
        if self.peers.get(&from).is_none_or(|peer| peer.broken) {
            return Some(());
        }
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
                let Some(stream) = self.incoming(now, from, of, run, body) else { return Some(()) };
                let whole = stream.begin(view, size, rest, payload.clone());
                self.on_body(now, from, of, whole)?;
            }
            Head::Part { of, run } => {
                rest.is_empty().then_some(())?;
                let Some(stream) = self.incoming(now, from, of, run, payload.len()) else {
                    return Some(());
                };
                let whole = stream.add(payload);
                self.on_body(now, from, of, whole)?;
                if self.peers.get(&from).is_some_and(|peer| peer.guest) {
                    self.bound_parts();
                }
            }
            Head::Taken(taken) => {
                for taken in taken {
                    self.on_taken(from, taken)?;
                }
            }
            Head::Datagram { of } => self.on_datagram(now, from, of, rest, payload.clone())?,
            Head::Came(came) => {
                let lanes = &mut self.peers.get_mut(&from)?.lanes;
                let is_sent = lanes.iter().zip(came).all(|(lane, upto)| upto <= lane.sent);
                is_sent.then_some(())?;
                for (lane, upto) in lanes.iter_mut().zip(came) {
                    lane.arrived = lane.arrived.max(upto);
                }
            }
        }
        Some(())
    }

    /// Guests have sent too much in parts: the one that has most of it goes.
    fn bound_parts(&mut self) {
        let held = |peer: &Peer| peer.incoming.values().map(Incoming::held_bytes).sum::<usize>();
        let guests = self.peers.iter().filter(|(_, peer)| peer.guest);
        let guests: Vec<(usize, BootId)> = guests.map(|(boot, it)| (held(it), *boot)).collect();
        let all: usize = guests.iter().map(|(bytes, _)| bytes).sum();
        if all > GUEST_PARTS_BYTES
            && !self.guests.am_one
            && let Some((_, boot)) = guests.into_iter().max()
        {
            self.stats.overflow += 1;
            self.give_up_boot(boot);
        }
    }

    fn on_datagram(
        &mut self,
        now: Instant,
        from: BootId,
        of: Address,
        meta: Bytes,
        payload: Bytes,
    ) -> Option<()> {
        let is_open = self.is_open(of, self.peers.get(&from)?.guest);
        let peer = self.peers.get_mut(&from)?;
        let size = meta.len() + payload.len();
        (size <= PART_BYTES).then_some(())?;
        peer.count(now, DATAGRAMS, size);
        let agreed = peer.mounted.get(&of).map(|entry| entry.agreed);
        let is_here = !self.outside || peer.guest;
        if is_here
            && is_open
            && agreed.is_some()
            && agreed == self.own.get(&of).map(|own| own.agreed)
        {
            let given = Given::Datagram { at: now, from: from.node, meta, payload };
            self.given.push_back((of, given));
        } else {
            self.stats.stray += 1;
        }
        Some(())
    }

    fn on_mounted(&mut self, from: BootId, entries: Vec<Entry>) -> Option<()> {
        let peer = self.peers.get_mut(&from)?;
        let is_sound = |entry: &Entry| usize::from(entry.class) < CLASSES.len();
        let mounted_max = if peer.guest { GUEST_MOUNTED_MAX } else { MOUNTED_MAX };
        // The next list waits until this one was answered.
        (!peer.owes_seen).then_some(())?;
        (entries.len() <= mounted_max && entries.iter().all(is_sound)).then_some(())?;
        let mounted: BTreeMap<Address, Entry> =
            entries.into_iter().map(|entry| (entry.of, entry)).collect();
        let former = std::mem::replace(&mut peer.mounted, mounted);
        peer.owes_seen = true;
        for (of, entry) in former {
            let Some(peer) = self.peers.get_mut(&from) else { break };
            if peer.mounted.get(&of) == Some(&entry) {
                continue;
            }
            let guest = peer.guest;
            peer.forget(of);
            if self.own.contains_key(&of) && self.is_open(of, guest) {
                let change = PeerChange::Ended { boot: from };
                self.given.push_back((of, Given::Peer(change)));
            }
        }
        self.meet(from);
        Some(())
    }

    /// The stream that a frame belongs to. `None`, and counted: there is none, or the frame was not granted.
    fn incoming(
        &mut self,
        now: Instant,
        from: BootId,
        of: Address,
        run: u64,
        body: usize,
    ) -> Option<&mut Incoming> {
        let mixes = fault!(self, MixesRuns);
        let is_open = self.is_open(of, self.peers.get(&from)?.guest);
        let peer = self.peers.get_mut(&from)?;
        // Whoever sends has said before that it has mounted this.
        if let Some(class) = peer.mounted.get(&of).map(|entry| entry.class) {
            peer.count(now, class.into(), body);
        }
        let is_meant = |own: &&Own| {
            is_open
                && (own.run == run || mixes)
                && peer.mounted.get(&of).is_some_and(|entry| entry.agreed == own.agreed)
        };
        let Some(own) = self.own.get(&of).filter(is_meant) else {
            self.stats.stray += 1;
            return None;
        };
        let limit = peer.window(own.class);
        let streams = &mut self.streams;
        let stream = peer.incoming.entry(of).or_insert_with(|| {
            *streams += 1;
            Incoming::new(*streams)
        });
        if !stream.count(body, limit) {
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
        self.take(now, from, of, matches!(whole, Ok(Some(_))));
        let class = self.own.get(&of)?.class as usize;
        let peer = self.peers.get_mut(&from)?;
        let is_within = peer.incoming.get(&of).is_some_and(Incoming::is_within);
        match &mut peer.partial[class] {
            slot if *slot == Some(of) && !is_within => *slot = None,
            slot if slot.is_none() && is_within => *slot = Some(of),
            slot if is_within && *slot != Some(of) => {
                // One of a class at a time: what comes in parts is bounded.
                peer.incoming.get_mut(&of)?.drop_part();
                return None;
            }
            _ => {}
        }
        if let Some(Whole { view, meta, payload }) = whole.ok()? {
            self.given.push_back((of, Given::Message { from, view, meta, payload }));
        }
        Some(())
    }

    /// What has come of a stream is taken in, or waits until a service beside the node has taken the message in.
    fn take(&mut self, now: Instant, from: BootId, of: Address, is_whole: bool) {
        let grants = fault!(self, GrantsEarly);
        let Some(own) = self.own.get_mut(&of) else { return };
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(stream) = peer.incoming.get_mut(&of) else { return };
        let bytes = match &mut own.beside {
            None => stream.take(),
            Some(_) if grants => stream.take(),
            Some(_) if !is_whole => stream.take_part(),
            Some(beside) => {
                let (stream, came) = (stream.number, stream.lend());
                beside.lent.push_back(Lent { from, stream, came });
                return;
            }
        };
        peer.untold[own.class as usize] += bytes;
        peer.tell_at = peer.tell_at.or(Some(now + TELL_AFTER));
    }

    /// A service beside the node has taken in so many more of the messages that it was given, in their order; and has heard so many more
    /// times that a peer is up or that a message was not taken. What it sent before that turn is to be handed to [`send`](Self::send) before
    /// this call, what it sends in that turn after it.
    pub fn took(&mut self, now: Instant, of: Address, count: usize, heard: u64) {
        let Some(own) = self.own.get_mut(&of) else { return };
        let Some(Lending { lent, heard: so_far, .. }) = &mut own.beside else { return };
        *so_far += heard;
        if heard > 0 {
            self.touched.extend(self.peers.keys());
        }
        // Whoever knows now that a peer is up sends to it at once.
        for peer in self.peers.values_mut().filter(|_| heard > 0) {
            peer.latched.retain(|it, latch| *it != of || latch.refused || latch.at > *so_far);
        }
        let count = count.min(lent.len());
        for Lent { from, stream: number, came } in lent.drain(..count) {
            // Of a stream that is void, or is another one by now, nothing is granted.
            let Some(peer) = self.peers.get_mut(&from) else { continue };
            self.touched.insert(from);
            let Some(stream) = peer.incoming.get_mut(&of) else { continue };
            if stream.number == number {
                peer.untold[own.class as usize] += stream.give_back(came);
                peer.tell_at = peer.tell_at.or(Some(now + TELL_AFTER));
            }
        }
    }

    fn on_taken(&mut self, from: BootId, taken: Taken) -> Option<()> {
        let peer = self.peers.get_mut(&from)?;
        // A stream that is gone, or is another one by now.
        let run = self.own.get(&taken.of).map(|own| own.run);
        let is_meant = |out: &&mut Outgoing| out.run() == taken.run && run == Some(taken.sender);
        let Some(out) = peer.out.get_mut(&taken.of).filter(is_meant) else { return Some(()) };
        out.on_taken(taken.upto)?;
        if out.has_more() && !out.runs {
            out.runs = true;
            peer.running[out.class as usize].push_back(taken.of);
        }
        Some(())
    }
}
