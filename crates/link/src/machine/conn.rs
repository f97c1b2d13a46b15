//! Connections: from opening to closing, and which one of two stays.

use mainstay_base::{BootId, ConnId, Instant, NodeId};

use super::timers::Timer;
use super::{Event, Link, Output};
use crate::message::Message;

/// A connection of the transport.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    /// Its place in the order of opening.
    pub(crate) serial: u64,
    pub(crate) dialled: Option<NodeId>,
    pub(crate) stage: Stage,
    /// When the hello is sent again.
    pub(crate) hello_at: Option<Instant>,
    /// When it is given up.
    pub(crate) limit: Option<Instant>,
}

/// How far a connection has come.
///
/// | stage | hello | other frame | time is up |
/// |---|---|---|---|
/// | `Greeting`, `Awaiting` | → `Bound`, `Condemned` or closed | dropped | closed |
/// | `Bound` | answered again by the accepting side | taken | closed |
/// | `Condemned` | answered *dead*, once | answered *dead*, once | closed |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stage {
    /// Dialled; the hello went out.
    Greeting,
    /// Accepted; the hello has not come.
    Awaiting,
    /// It serves the session with this boot.
    Bound(BootId),
    /// It is of a boot that is dead here.
    Condemned {
        /// Which.
        boot: BootId,
        /// It was told.
        answered: bool,
    },
}

impl Link {
    pub(super) fn on_opened(&mut self, conn: ConnId, dialled: Option<NodeId>) {
        if self.conns.contains_key(&conn) {
            return;
        }
        if let Some(peer) = dialled.and_then(|node| self.peers.get_mut(&node)) {
            peer.dialling = false;
        }
        let surplus = dialled.is_some_and(|node| {
            self.peers
                .get(&node)
                .is_none_or(|peer| self.config.me.node > node && peer.conn().is_some())
        });
        let full = !surplus && self.conns.len() >= self.config.conns_max && !self.make_room();
        if surplus || full {
            self.stats.surplus_closed += u64::from(surplus);
            self.stats.conns_refused += u64::from(!surplus);
            self.out.push_back(Output::Close { conn });
            if let Some(node) = dialled {
                self.schedule_dial(node);
            }
            return;
        }
        self.serial += 1;
        let stage = if dialled.is_some() { Stage::Greeting } else { Stage::Awaiting };
        let limit = Some(self.now + self.config.silence);
        let state = Conn { serial: self.serial, dialled, stage, hello_at: None, limit };
        self.conns.insert(conn, state);
        if let Some(node) = dialled {
            self.greet(conn, node);
        }
    }

    /// Sends the hello of the dialling side, for the first time or again.
    pub(super) fn greet(&mut self, conn: ConnId, node: NodeId) {
        let again = self.now + self.config.resend_after;
        if let Some(state) = self.conns.get_mut(&conn) {
            state.hello_at = Some(again);
        }
        self.send_hello(conn, node);
    }

    pub(super) fn on_closed(&mut self, conn: ConnId) {
        let Some(state) = self.conns.remove(&conn) else { return };
        let node = match state.stage {
            Stage::Bound(boot) => {
                self.on_lost(boot);
                Some(boot.node)
            }
            Stage::Condemned { boot, .. } => Some(boot.node),
            Stage::Greeting | Stage::Awaiting => state.dialled,
        };
        if let Some(node) = node {
            self.schedule_dial(node);
        }
    }

    /// Closes a connection from this side.
    pub(super) fn close(&mut self, conn: ConnId) {
        if self.conns.contains_key(&conn) {
            self.out.push_back(Output::Close { conn });
            self.on_closed(conn);
        }
    }

    /// The session of `boot` has lost its connection.
    fn on_lost(&mut self, boot: BootId) {
        let Some(peer) = self.peers.get_mut(&boot.node) else { return };
        peer.lost = true;
        peer.timers.stop_connected();
        if peer.guest {
            peer.timers.set(Timer::Keep, self.now + self.config.guests.keep);
        }
        if let Some(session) = &mut peer.session {
            session.conn = None;
            session.ack_now = false;
            self.event(Event::Down { boot });
        }
    }

    /// Makes `conn` serve the session of `boot`, unless another connection does and is preferred: the one dialled by the
    /// node with the smaller id, among those of one side the one opened last. Both ends see the same order, so both
    /// keep the same one. Answers whether it serves now.
    pub(super) fn bind(&mut self, conn: ConnId, boot: BootId) -> bool {
        let Some(state) = self.conns.get(&conn) else { return false };
        let rank = self.preference(state, boot.node);
        let other = self.peers.get(&boot.node).and_then(|peer| peer.conn());
        if let Some(other) = other {
            let rival = self.conns.get(&other).map(|state| self.preference(state, boot.node));
            self.stats.surplus_closed += 1;
            if rival > Some(rank) {
                self.out.push_back(Output::Close { conn });
                self.conns.remove(&conn);
                return false;
            }
            self.out.push_back(Output::Close { conn: other });
            self.conns.remove(&other);
        }
        if let Some(state) = self.conns.get_mut(&conn) {
            state.stage = Stage::Bound(boot);
            state.hello_at = None;
            state.limit = None;
        }
        if let Some(peer) = self.peers.get_mut(&boot.node) {
            peer.lost = false;
            peer.refuses = false;
            peer.backoff = self.config.redial_min;
            peer.timers.stop(Timer::Dial);
            peer.timers.stop(Timer::Keep);
            peer.timers.set(Timer::Heartbeat, self.now + self.config.heartbeat);
            peer.timers.set(Timer::Silence, self.now + self.config.silence);
            if let Some(session) = &mut peer.session {
                session.conn = Some(conn);
            }
        }
        if self.config.me.node > boot.node {
            self.drop_probes(boot.node);
        }
        true
    }

    fn preference(&self, conn: &Conn, node: NodeId) -> (bool, u64) {
        let by_smaller = conn.dialled.is_some() == (self.config.me.node < node);
        (by_smaller, conn.serial)
    }

    /// Closes this side's own probes of `node`: the other side's connection serves.
    fn drop_probes(&mut self, node: NodeId) {
        let is_probe = |state: &Conn| state.dialled == Some(node) && state.stage == Stage::Greeting;
        let probes = self.conns.iter().filter(|(_, state)| is_probe(state));
        let probes: Vec<ConnId> = probes.map(|(&conn, _)| conn).collect();
        for conn in probes {
            self.stats.surplus_closed += 1;
            self.out.push_back(Output::Close { conn });
            self.conns.remove(&conn);
        }
    }

    /// From here on `conn` is of a dead boot: it is told so when it says something, and closed a little later.
    pub(super) fn condemn(&mut self, conn: ConnId, boot: BootId) {
        let limit = self.now + self.config.silence;
        if let Some(state) = self.conns.get_mut(&conn) {
            state.stage = Stage::Condemned { boot, answered: false };
            state.hello_at = None;
            state.limit = Some(limit);
        }
    }

    /// A frame of a dead boot came.
    pub(super) fn on_dead_speaks(&mut self, conn: ConnId) {
        self.stats.dropped_dead += 1;
        let limit = self.now + self.config.resend_after;
        let by = self.config.me;
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if let Stage::Condemned { boot, answered: answered @ false } = &mut state.stage {
            *answered = true;
            state.limit = Some(limit);
            let frame = Message::Dead { you: boot.nonce, by }.frame(0);
            self.stats.dead_sent += 1;
            self.transmit(conn, frame);
        }
    }
}
