//! The hello: who is at the other end of a connection, and from where to go on.
//!
//! The dialling side speaks first, since the accepting side does not know who it is. It says which boot of the addressee
//! it knows and how far it has received of it; the answer says the same the other way round. From the answer on, and at
//! the accepting side from the hello on, the connection is bound to a pair of boots and frames of other sessions do not
//! pass (MB-25).
//!
//! A nonce says which boots differ, not which came first. That comes from the connections: a boot opens connections only
//! while it runs, so one that opened before the connection that introduced the known boot is of an earlier boot, and one
//! that opened after it is of a later one. Hence a hello that lingers in a socket of a dead process replaces nobody.
//!
//! A later boot replaces the known one only when that one is not connected, or was not heard lately. A second process
//! under one name is turned away so, without the first one noticing; it asks again, since the first may be dead and
//! nobody have noticed. This is courtesy and not safety: views tell the boots apart in any case.

use mainstay_base::{BootId, BootNonce, ConnId, NodeId, fault};

use super::conn::Stage;
use super::{Event, Link, Mismatch};
use crate::message::{Expectation, GUEST, Hello, Message};

impl Link {
    pub(super) fn send_hello(&mut self, conn: ConnId, to: NodeId) {
        let session = self.peers.get(&to).and_then(|peer| peer.session.as_ref());
        let expectation = session.map(|session| Expectation {
            of: session.boot.nonce,
            received: session.incoming.acknowledged(),
        });
        let hello = Hello {
            version_min: self.config.version_min,
            version_max: self.config.version_max,
            features: self.own_features(),
            cluster: self.config.cluster,
            from: self.config.me,
            to,
            roster_version: self.config.roster_version,
            expectation,
        };
        self.transmit(conn, Message::Hello(hello).frame(0));
    }

    pub(super) fn on_hello(&mut self, conn: ConnId, hello: &Hello) {
        let Some(state) = self.conns.get(&conn) else { return };
        let (serial, dialled) = (state.serial, state.dialled);
        if let Stage::Bound(boot) = state.stage {
            self.on_hello_again(conn, boot, dialled, hello);
            return;
        }
        if let Err(why) = self.check_sender(dialled, hello) {
            self.refuse(conn, why);
            return;
        }
        let from = hello.from;
        if self.is_forgotten(hello) {
            self.condemn(conn, from);
            self.on_dead_speaks(conn);
            return;
        }
        if self.is_too_old(hello, serial) {
            // It dials again.
            self.close(conn);
            return;
        }
        self.admit(from.node);
        let Some(peer) = self.peers.get(&from.node) else { return };
        let is_stale = peer.known.is_some_and(|known| known != from) && serial < peer.introduced;
        if is_stale || (peer.dead.contains(&from.nonce) && !fault!(self.config, IgnoresIsolation)) {
            self.bury_and_tell(conn, from);
            return;
        }
        let received = match self.check_expectation(dialled, hello) {
            Ok(received) => received,
            Err(why) => {
                self.refuse(conn, why);
                return;
            }
        };
        if self.peers.get(&from.node).is_some_and(|peer| peer.known != Some(from)) {
            if self.is_held(from.node) {
                self.turn_away(conn, from);
                return;
            }
            self.introduce(from, serial);
        }
        self.on_agreed(conn, hello, received);
    }

    /// Whether the known boot of `node` is connected and was heard lately: it lives, and no other takes its place. If this
    /// node was late itself it has not listened: the known boot then has a fresh period.
    pub(super) fn is_held(&self, node: NodeId) -> bool {
        let Some(session) = self.peers.get(&node).and_then(|peer| peer.session.as_ref()) else {
            return false;
        };
        if fault!(self.config, AdmitsSecondBoot) {
            return false;
        }
        if fault!(self.config, NeverAdmitsAnother) {
            return true;
        }
        let listened = session.heard_at.max(self.awake);
        session.conn.is_some() && self.now.saturating_since(listened) < self.config.hold
    }

    /// Another process has the name of this boot. Nothing here changes; it may ask again.
    fn turn_away(&mut self, conn: ConnId, boot: BootId) {
        self.stats.taken_sent += 1;
        let message = Message::Taken { you: boot.nonce, by: self.config.me };
        self.transmit(conn, message.frame(0));
        self.close(conn);
    }

    /// This boot is the one that is turned away.
    pub(super) fn on_told_taken(&mut self, conn: ConnId, stage: Stage, you: BootNonce, by: BootId) {
        if !self.is_meant(conn, stage, you, by) {
            self.stats.dropped_garbage += 1;
            return;
        }
        self.stats.taken_received += 1;
        self.close(conn);
        if let Some(peer) = self.peers.get_mut(&by.node) {
            peer.refuses = true;
        }
    }

    /// A hello on a connection that is bound: a copy, or the answer was lost.
    fn on_hello_again(
        &mut self,
        conn: ConnId,
        boot: BootId,
        dialled: Option<NodeId>,
        hello: &Hello,
    ) {
        if hello.from != boot {
            self.stats.dropped_garbage += 1;
            return;
        }
        self.on_heard(boot.node);
        if dialled.is_none() {
            self.send_hello(conn, boot.node);
        }
    }

    /// The connection serves the session from here on.
    fn on_agreed(&mut self, conn: ConnId, hello: &Hello, received: u64) {
        let boot = hello.from;
        let was_up = self.peers.get(&boot.node).is_some_and(|peer| peer.conn().is_some());
        if !self.bind(conn, boot) {
            return;
        }
        if self.conns.get(&conn).is_some_and(|state| state.dialled.is_none()) {
            self.send_hello(conn, boot.node);
        }
        if !was_up {
            let features = self.config.features & hello.features & !GUEST;
            let version = self.config.version_max.min(hello.version_max);
            let guest = self.config.guests.is_one || hello.features & GUEST != 0;
            self.event(Event::Up { boot, features, version, guest });
        }
        self.on_heard(boot.node);
        self.resume(boot.node, received);
    }

    fn check_sender(&self, dialled: Option<NodeId>, hello: &Hello) -> Result<(), Mismatch> {
        if hello.cluster != self.config.cluster {
            return Err(Mismatch::Cluster);
        }
        if hello.to != self.config.me.node {
            return Err(Mismatch::Addressee);
        }
        self.check_name(hello)?;
        if dialled.is_some_and(|node| node != hello.from.node) {
            return Err(Mismatch::OtherNode);
        }
        let low = self.config.version_min.max(hello.version_min);
        let high = self.config.version_max.min(hello.version_max);
        if low > high {
            return Err(Mismatch::Version);
        }
        Ok(())
    }

    /// How far the sender has received from this boot. What it says of a former boot of this node is of no interest.
    fn check_expectation(&self, dialled: Option<NodeId>, hello: &Hello) -> Result<u64, Mismatch> {
        let mine = hello.expectation.filter(|expectation| expectation.of == self.config.me.nonce);
        let Some(Expectation { received, .. }) = mine else {
            return if dialled.is_some() { Err(Mismatch::Boot) } else { Ok(0) };
        };
        let session = self.peers.get(&hello.from.node).and_then(|peer| peer.session.as_ref());
        let session = session.filter(|session| session.boot == hello.from);
        let reached = session.map_or(0, |session| session.outgoing.reached());
        if received > reached { Err(Mismatch::Expectation) } else { Ok(received) }
    }

    fn bury_and_tell(&mut self, conn: ConnId, boot: BootId) {
        let dead_max = self.config.dead_max;
        if let Some(peer) = self.peers.get_mut(&boot.node) {
            peer.bury(boot.nonce, dead_max);
        }
        self.condemn(conn, boot);
        self.on_dead_speaks(conn);
    }

    fn refuse(&mut self, conn: ConnId, why: Mismatch) {
        let counter = match why {
            Mismatch::Cluster => &mut self.stats.hello_cluster,
            Mismatch::Addressee => &mut self.stats.hello_addressee,
            Mismatch::UnknownNode => &mut self.stats.hello_unknown_node,
            Mismatch::OtherNode => &mut self.stats.hello_other_node,
            Mismatch::Version => &mut self.stats.hello_version,
            Mismatch::Boot => &mut self.stats.hello_boot,
            Mismatch::Expectation => &mut self.stats.hello_expectation,
            Mismatch::Guest => &mut self.stats.hello_guest,
        };
        *counter += 1;
        self.event(Event::Mismatch { conn, why });
        self.close(conn);
    }
}
