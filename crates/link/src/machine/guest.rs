//! Guests: processes that are in no roster. A node admits them up to a bound, never dials them, and gives their sessions up in time.
//!
//! A session is a pair of boots and a position in each direction, so it may not begin twice: if it did, numbers would come
//! twice, and what was delivered once could be delivered again. A node that has given up a guest's session remembers nothing of it.
//! The guest does: it says in its hello that it knows this boot of the node. So a hello that knows this boot, from a guest
//! without a session here, is of a session that is over, and is answered *you are dead*. The guest then ends the session on its side,
//! tells its user ([`Event::Gone`]), and greets as if it had never met the node. Both ends begin anew, or none does.

use mainstay_base::{BootId, ConnId, NodeId, fault};

use super::conn::Stage;
use super::peer::Peer;
use super::timers::Timer;
use super::{Event, Link, Mismatch, Output, Unsettled};
use crate::message::{GUEST, Hello};

impl Link {
    /// How many guests have a session, connected or not.
    #[must_use]
    pub fn guests(&self) -> usize {
        self.peers.values().filter(|peer| peer.guest).count()
    }

    /// Whether this is a guest with a session here.
    #[must_use]
    pub fn is_guest(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.guest)
    }

    /// What this node says of its features.
    pub(super) fn own_features(&self) -> u64 {
        let guest = if self.config.guests.is_one { GUEST } else { 0 };
        self.config.features & !GUEST | guest
    }

    /// Whether the sender is who it may be.
    pub(super) fn check_name(&self, hello: &Hello) -> Result<(), Mismatch> {
        let is_guest = hello.features & GUEST != 0;
        match self.peers.get(&hello.from.node) {
            Some(peer) if peer.guest == is_guest => Ok(()),
            Some(peer) if peer.guest => Err(Mismatch::UnknownNode),
            None if !is_guest => Err(Mismatch::UnknownNode),
            None if self.guests() < self.config.guests.max => Ok(()),
            Some(_) | None => Err(Mismatch::Guest),
        }
    }

    /// Whether the sender is a guest that goes on with a session that is given up here.
    pub(super) fn is_forgotten(&self, hello: &Hello) -> bool {
        let knows_me = hello.expectation.is_some_and(|it| it.of == self.config.me.nonce);
        let welcomes = fault!(self.config, WelcomesForgotten);
        hello.features & GUEST != 0
            && knows_me
            && !welcomes
            && !self.peers.contains_key(&hello.from.node)
    }

    /// A guest that is not known becomes known; it gets its session in the same step.
    pub(super) fn admit(&mut self, node: NodeId) {
        let (backoff, until) = (self.config.redial_min, self.now + self.config.guests.keep);
        self.peers.entry(node).or_insert_with(|| {
            let mut guest = Peer { guest: true, ..Peer::new(node, backoff) };
            guest.timers.set(Timer::Keep, until);
            guest
        });
    }

    /// A guest was not connected for too long.
    pub(super) fn on_guest_gone(&mut self, node: NodeId) {
        let Some(peer) = self.peers.remove(&node) else { return };
        self.stats.guests_gone += 1;
        self.forgotten = self.serial;
        let Some(session) = peer.session else { return };
        let unsettled = session.outgoing.unsettled();
        self.event(Event::Gone { boot: session.boot, unsettled });
    }

    /// The user has no use for a guest's session any more.
    pub(super) fn on_forget(&mut self, guest: BootId) {
        let Some(peer) = self.peers.get(&guest.node).filter(|peer| peer.guest) else { return };
        if peer.session.as_ref().is_none_or(|session| session.boot != guest) {
            return;
        }
        let conn = peer.conn();
        self.on_guest_gone(guest.node);
        if let Some(conn) = conn {
            self.condemn(conn, guest);
            self.on_dead_speaks(conn);
        }
    }

    /// Whether the hello of a guest that is not known is too old to begin a session: its connection stood when a session was given up, perhaps
    /// its own.
    pub(super) fn is_too_old(&self, hello: &Hello, serial: u64) -> bool {
        hello.features & GUEST != 0
            && serial <= self.forgotten
            && !self.peers.contains_key(&hello.from.node)
    }

    /// This process is a guest, and the node has given up its session.
    pub(super) fn begin_anew(&mut self, by: BootId) {
        let Some(peer) = self.peers.get_mut(&by.node) else { return };
        if peer.known != Some(by) {
            return;
        }
        let Some(session) = peer.session.take() else { return };
        peer.known = None;
        let unsettled: Unsettled = session.outgoing.unsettled();
        self.event(Event::Gone { boot: by, unsettled });
    }

    /// The table of connections is full: the oldest accepted one that has not said hello, or is of the dead, goes. Whoever opens connections and says nothing
    /// keeps nobody out. False: there is none.
    pub(super) fn make_room(&mut self) -> bool {
        let is_idle = |stage| matches!(stage, Stage::Awaiting | Stage::Condemned { .. });
        let waits = self.conns.iter().filter(|(_, conn)| is_idle(conn.stage));
        let oldest = waits.min_by_key(|(_, conn)| conn.serial).map(|(id, _)| *id);
        let Some(conn): Option<ConnId> = oldest else { return false };
        self.stats.conns_refused += 1;
        self.out.push_back(Output::Close { conn });
        self.conns.remove(&conn);
        true
    }
}
