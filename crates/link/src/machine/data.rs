//! Frames of a session: sending, receiving, acknowledging.

use bytes::Bytes;
use mainstay_base::{BootId, BootNonce, ConnId, Frame, Instant, NodeId, codec, fault, frame};

use super::conn::Stage;
use super::timers::Timer;
use super::window::{Acked, Arrival};
use super::{Event, Link, NotSent, Output};
use crate::message::{CHANNEL, Message};

impl Link {
    pub(super) fn transmit(&mut self, conn: ConnId, frame: Frame) {
        self.stats.frames_sent += 1;
        self.out.push_back(Output::Transmit { conn, frame });
    }

    pub(super) fn on_send(
        &mut self,
        to: NodeId,
        boot: Option<BootNonce>,
        channel: u16,
        meta: Bytes,
        payload: Bytes,
    ) {
        if let Err(why) = self.accept(to, boot, channel, meta.clone(), payload.clone()) {
            self.event(Event::NotSent { why, to, channel, meta, payload });
        }
    }

    fn accept(
        &mut self,
        to: NodeId,
        boot: Option<BootNonce>,
        channel: u16,
        meta: Bytes,
        payload: Bytes,
    ) -> Result<(BootId, u64), NotSent> {
        if let Err(why) = self.check_send(to, boot, channel, meta.len() + payload.len()) {
            self.stats.not_sent += 1;
            return Err(why);
        }
        let session = self.peers.get_mut(&to).and_then(|peer| peer.session.as_mut());
        let session = session.ok_or(NotSent::NoSession)?;
        let session_id = session.id;
        session.outgoing.admit(Frame { channel, session: session_id, seq: 0, meta, payload });
        let accepted = (session.boot, session.outgoing.top());
        self.pump(to);
        Ok(accepted)
    }

    /// As [`Input::Send`](super::Input::Send), with the answer at once: the boot that the message is for, and its number among those
    /// accepted for that boot, from 1. It belongs to the turn, as an input does.
    ///
    /// # Errors
    /// [`NotSent`]; there is no event for it.
    pub fn send(
        &mut self,
        now: Instant,
        to: NodeId,
        boot: Option<BootNonce>,
        channel: u16,
        payload: Bytes,
    ) -> Result<(BootId, u64), NotSent> {
        self.advance(now);
        self.accept(to, boot, channel, Bytes::new(), payload)
    }

    pub(super) fn on_taken(&mut self, from: BootId) {
        let ack_at = self.now + self.config.ack_delay;
        let Some(peer) = self.peers.get_mut(&from.node) else { return };
        let Some(session) = peer.session.as_mut().filter(|session| session.boot == from) else {
            return;
        };
        if !session.incoming.take() {
            return;
        }
        // Without a connection the next hello says it.
        if session.conn.is_some() {
            let frames = (self.config.window(peer.guest).1 / 4).max(1);
            session.ack_now |= session.incoming.owes_ack(self.config.ack_bytes, frames);
            if peer.timers.at(Timer::Ack).is_none() {
                peer.timers.set(Timer::Ack, ack_at);
            }
        }
    }

    fn check_send(
        &mut self,
        to: NodeId,
        boot: Option<BootNonce>,
        channel: u16,
        body: usize,
    ) -> Result<(), NotSent> {
        if channel == CHANNEL {
            return Err(NotSent::Reserved);
        }
        if body > frame::BODY_SIZE_MAX {
            return Err(NotSent::TooLarge);
        }
        let peer = self.peers.get_mut(&to).ok_or(NotSent::UnknownNode)?;
        let known = peer.known.ok_or(NotSent::NoSession)?;
        if boot.is_some_and(|nonce| nonce != known.nonce) {
            return Err(NotSent::OtherBoot);
        }
        let (bytes_max, frames_max) = self.config.window(peer.guest);
        let session = peer.session.as_mut().ok_or(NotSent::Isolated)?;
        // A smaller message must not pass one that was refused: the user's stream would have a hole.
        let fits = session.outgoing.fits(body, bytes_max, frames_max);
        if session.blocked || !fits {
            session.blocked = true;
            return Err(NotSent::Full);
        }
        Ok(())
    }

    /// Hands to the transport what may be on its way now.
    pub(super) fn pump(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(session) = &mut peer.session else { return };
        let Some(conn) = session.conn else { return };
        let mut any = false;
        while let Some((frame, fresh)) = session.outgoing.transmit(self.config.ack_bytes) {
            any = true;
            self.stats.frames_sent += 1;
            self.stats.user_sent += u64::from(fresh);
            self.stats.user_resent += u64::from(!fresh);
            self.out.push_back(Output::Transmit { conn, frame });
        }
        if any {
            peer.timers.set(Timer::Heartbeat, self.now + self.config.heartbeat);
            if peer.timers.at(Timer::Resend).is_none() {
                peer.timers.set(Timer::Resend, self.now + session.resend_wait);
            }
        }
    }

    /// Goes on over a new connection, from what the peer says it has.
    pub(super) fn resume(&mut self, node: NodeId, received: u64) {
        let believed = fault!(self.config, IgnoresExpectation);
        let wait = self.config.resend_after;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(session) = &mut peer.session else { return };
        let received = if believed { session.outgoing.reached() } else { received };
        session.resend_wait = wait;
        session.outgoing.rewind();
        if session.outgoing.ack(received) == Acked::Progress {
            session.sent_moved = true;
        }
        peer.timers.stop(Timer::Resend);
        self.pump(node);
    }

    pub(super) fn on_received(&mut self, conn: ConnId, frame: Frame) {
        self.stats.frames_received += 1;
        let Some(state) = self.conns.get(&conn) else {
            self.stats.dropped_stray += 1;
            return;
        };
        let stage = state.stage;
        if let Stage::Condemned { .. } = stage {
            self.on_dead_speaks(conn);
        } else if frame.channel == CHANNEL {
            self.on_control(conn, stage, &frame);
        } else if let Stage::Bound(boot) = stage {
            self.on_user_frame(boot, frame);
        } else {
            self.stats.dropped_early += 1;
        }
    }

    fn on_control(&mut self, conn: ConnId, stage: Stage, frame: &Frame) {
        let message = codec::decode::<Message>(&frame.meta);
        let (Ok(message), true) = (message, frame.payload.is_empty()) else {
            self.stats.dropped_garbage += 1;
            return;
        };
        let of_guest = matches!(stage, Stage::Bound(boot) if self.is_guest(boot.node));
        match (message, stage) {
            // A guest has no say in who lives.
            (Message::Dead { .. } | Message::Taken { .. }, _)
                if of_guest && !fault!(self.config, BelievesGuests) =>
            {
                self.stats.dropped_garbage += 1;
            }
            (Message::Hello(hello), _) => self.on_hello(conn, &hello),
            (Message::Dead { you, by }, _) => self.on_told_dead(conn, stage, you, by),
            (Message::Taken { you, by }, _) => self.on_told_taken(conn, stage, you, by),
            (Message::Ack { received }, Stage::Bound(boot)) => {
                self.on_ack(boot, frame.session, received);
            }
            (Message::Ack { .. }, _) => self.stats.dropped_early += 1,
        }
    }

    fn on_told_dead(&mut self, conn: ConnId, stage: Stage, you: BootNonce, by: BootId) {
        if !self.is_meant(conn, stage, you, by) {
            self.stats.dropped_garbage += 1;
            return;
        }
        self.stats.dead_received += 1;
        if self.config.guests.is_one {
            self.close(conn);
            self.begin_anew(by);
        } else {
            self.event(Event::Dead { by });
            self.close(conn);
        }
    }

    /// Whether a word about `you` is about this boot, and comes from the node at the other end of the connection.
    pub(super) fn is_meant(&self, conn: ConnId, stage: Stage, you: BootNonce, by: BootId) -> bool {
        let dialled = self.conns.get(&conn).and_then(|state| state.dialled);
        let is_its_own = match stage {
            Stage::Bound(boot) => boot == by,
            _ => dialled == Some(by.node),
        };
        you == self.config.me.nonce && is_its_own
    }

    /// A frame of the session came from this node.
    pub(super) fn on_heard(&mut self, node: NodeId) {
        let (now, silence) = (self.now, self.now + self.config.silence);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.timers.set(Timer::Silence, silence);
        if let Some(session) = &mut peer.session {
            session.heard = true;
            session.heard_at = now;
        }
    }

    /// Whether a frame belongs to the session that its connection is bound to.
    fn is_of_session(&mut self, boot: BootId, id: u64) -> bool {
        let session = self.peers.get(&boot.node).and_then(|peer| peer.session.as_ref());
        let belongs = session.is_some_and(|session| session.id == id)
            || fault!(self.config, AcceptsOtherSessions);
        self.stats.dropped_session += u64::from(!belongs);
        belongs
    }

    fn on_ack(&mut self, boot: BootId, id: u64, received: u64) {
        if !self.is_of_session(boot, id) {
            return;
        }
        let node = boot.node;
        let wait = self.config.resend_after;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(session) = &mut peer.session else { return };
        match session.outgoing.ack(received) {
            Acked::Beyond => {
                self.stats.dropped_garbage += 1;
                return;
            }
            Acked::Stale => {}
            Acked::Progress => {
                session.sent_moved = true;
                session.resend_wait = wait;
                peer.timers.stop(Timer::Resend);
                if !session.outgoing.is_empty() {
                    peer.timers.set(Timer::Resend, self.now + wait);
                }
                self.pump(node);
            }
        }
        self.on_heard(node);
    }

    fn on_user_frame(&mut self, boot: BootId, frame: Frame) {
        if !self.is_of_session(boot, frame.session) {
            return;
        }
        self.on_heard(boot.node);
        let ack_at = self.now + self.config.ack_delay;
        let Some(peer) = self.peers.get_mut(&boot.node) else { return };
        let Some(session) = &mut peer.session else { return };
        let repeats = fault!(self.config, NoDuplicateSuppression);
        let mixes = fault!(self.config, AcceptsOtherSessions);
        let any_order = repeats || (mixes && frame.session != session.id);
        let (bytes_max, frames_max) = self.config.window(peer.guest);
        let may_speak = !peer.guest || self.config.guests.channels.contains(&frame.channel);
        let kept = self.config.taken_by_user && !fault!(self.config, AcksUntaken);
        if peer.timers.at(Timer::Ack).is_none() {
            peer.timers.set(Timer::Ack, ack_at);
        }
        match session.incoming.classify(frame.seq) {
            Arrival::Duplicate if !any_order => {
                self.stats.dropped_duplicate += 1;
                return;
            }
            Arrival::Gap if !any_order => {
                self.stats.dropped_gap += 1;
                return;
            }
            // The peer has another window than this one; it sends it again.
            Arrival::Next if !session.incoming.fits(frame.body_len(), bytes_max, frames_max) => {
                self.stats.dropped_untaken += 1;
                return;
            }
            Arrival::Next if kept => session.incoming.keep(frame.body_len()),
            Arrival::Next => session.incoming.accept(frame.body_len()),
            Arrival::Duplicate | Arrival::Gap => {}
        }
        let frames = (frames_max / 4).max(1);
        session.ack_now |= session.incoming.owes_ack(self.config.ack_bytes, frames);
        if !may_speak && !fault!(self.config, HearsGuestsAnywhere) {
            self.stats.dropped_guest += 1;
            if kept {
                self.on_taken(boot);
            }
            return;
        }
        self.stats.delivered += 1;
        let Frame { channel, meta, payload, .. } = frame;
        self.event(Event::Deliver { from: boot, channel, meta, payload });
    }
}
