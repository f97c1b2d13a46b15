//! Looking at the state: counters, invariants, fingerprint.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

use mainstay_base::{BootId, ConnId, Fingerprint, Fingerprinter, Instant, NodeId};

use super::conn::Stage;
use super::timers::Timer;
use super::{Link, Unsettled};
use crate::{Config, Stats};

impl Link {
    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The boot of `node` that messages go to now; `None` if none is known, or the known one is isolated.
    #[must_use]
    pub fn boot(&self, node: NodeId) -> Option<BootId> {
        self.peers.get(&node)?.session.as_ref().map(|session| session.boot)
    }

    /// Whether the known boot of `node` is connected.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.conn().is_some())
    }

    /// The peers whose last word to this boot was that another one of its node is alive (*your name is taken*): another
    /// process runs under this name. Asking goes on; a peer that takes this boot, or does not answer any more, is not
    /// among them.
    pub fn refused_by(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.values().filter(|peer| peer.refuses).map(|peer| peer.node)
    }

    /// How many messages were accepted for the known boot of `node`, and how many of them are *sent* (MB-26).
    #[must_use]
    pub fn status(&self, node: NodeId) -> Option<(u64, u64)> {
        let outgoing = &self.peers.get(&node)?.session.as_ref()?.outgoing;
        Some((outgoing.top(), outgoing.acked()))
    }

    /// What the known boot of `node` has not acknowledged yet.
    #[must_use]
    pub fn unsettled(&self, node: NodeId) -> Option<Unsettled> {
        Some(self.peers.get(&node)?.session.as_ref()?.outgoing.unsettled())
    }

    /// Checks the relations between the parts of the state; called after each input in debug builds.
    ///
    /// # Panics
    /// If one does not hold: a bug of this crate.
    pub fn check_invariants(&self) {
        assert!(self.conns.len() <= self.config.conns_max, "the table of connections is bounded");
        let serials: BTreeSet<u64> = self.conns.values().map(|conn| conn.serial).collect();
        assert_eq!(serials.len(), self.conns.len(), "each connection has a serial of its own");
        for (id, conn) in &self.conns {
            assert!(conn.serial <= self.serial, "serials are drawn in order");
            if let Stage::Bound(boot) = conn.stage {
                let serves = self.peers.get(&boot.node).and_then(|peer| peer.conn());
                assert_eq!(serves, Some(*id), "a bound connection serves its session");
            } else {
                assert!(
                    conn.limit.is_some(),
                    "a connection that serves nobody is given up in time"
                );
            }
        }
        let guests = self.peers.values().filter(|peer| peer.guest);
        assert!(guests.count() <= self.config.guests.max, "the guests are bounded");
        for peer in self.peers.values() {
            let is_kept = peer.timers.at(Timer::Keep).is_some();
            let is_lone = peer.guest && peer.conn().is_none();
            assert_eq!(is_kept, is_lone, "who is not connected is kept for a time");
            assert!(peer.dead.len() <= self.config.dead_max, "the table of the dead is bounded");
            let connected = peer.conn().is_some();
            for timer in [Timer::Ack, Timer::Heartbeat, Timer::Resend, Timer::Silence] {
                let idle = peer.timers.at(timer).is_none();
                assert!(connected || idle, "without a connection only dials are due");
            }
            let Some(session) = &peer.session else { continue };
            assert_eq!(Some(session.boot), peer.known, "the session is with the known boot");
            let is_dead = peer.dead.contains(&session.boot.nonce);
            assert!(!is_dead, "there is no session with a dead boot");
            let (bytes_max, frames_max) = self.config.window(peer.guest);
            session.outgoing.check_invariants(bytes_max, frames_max);
            session.incoming.check_invariants(bytes_max, frames_max);
            if let Some(conn) = session.conn {
                let stage = self.conns.get(&conn).map(|conn| conn.stage);
                assert_eq!(
                    stage,
                    Some(Stage::Bound(session.boot)),
                    "a session's connection is its own"
                );
            }
        }
    }

    /// Places of all deadlines in their order.
    fn deadline_ranks(&self) -> BTreeMap<Instant, usize> {
        let peers = self.peers.values().flat_map(|peer| peer.timers.iter());
        let conns = self.conns.values().flat_map(|conn| [conn.hello_at, conn.limit]);
        let moments: BTreeSet<Instant> = peers.chain(conns).flatten().collect();
        moments.into_iter().enumerate().map(|(rank, at)| (at, rank)).collect()
    }
}

impl Fingerprint for Link {
    /// Connections are written in the order in which they opened, by place and not by name; deadlines by order; the
    /// backoffs, waits and the generator, which move only deadlines, and the counters are left out.
    fn fingerprint(&self, into: &mut Fingerprinter) {
        let ranks = self.deadline_ranks();
        let rank = |at: Option<Instant>| at.and_then(|at| ranks.get(&at).copied());
        let mut conns: Vec<_> = self.conns.iter().collect();
        conns.sort_by_key(|(_, conn)| conn.serial);
        let place = |id: ConnId| conns.iter().position(|(other, _)| **other == id);
        self.config.me.hash(into);
        for (_, conn) in &conns {
            (conn.dialled, conn.stage, rank(conn.hello_at), rank(conn.limit)).hash(into);
        }
        for peer in self.peers.values() {
            let older = conns.iter().filter(|(_, conn)| conn.serial < peer.introduced).count();
            (peer.node, peer.dialling, peer.lost, peer.known, older, &peer.dead).hash(into);
            (peer.refuses, self.is_held(peer.node)).hash(into);
            peer.timers.iter().map(rank).for_each(|place| place.hash(into));
            let Some(session) = &peer.session else { continue };
            (session.id, session.conn.and_then(place)).hash(into);
            (session.heard, session.ack_now, session.sent_moved, session.blocked).hash(into);
            session.outgoing.fingerprint(into);
            session.incoming.fingerprint(into);
        }
        self.out.hash(into);
        self.draining.hash(into);
    }
}
