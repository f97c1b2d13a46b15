//! What is known of one peer: its boots, its session, and when it is dialled.

use std::collections::VecDeque;

use mainstay_base::{BootId, BootNonce, ConnId, Duration, Instant, NodeId, fault};

use super::timers::{Timer, Timers};
use super::window::{Incoming, Outgoing};
use super::{Event, Link, Output};
use crate::message;

/// A configured node other than this one, or a guest.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    /// It is a guest: it has a session as long as it is here, and is never dialled.
    pub(crate) guest: bool,
    /// A dial was asked for and not answered yet.
    pub(crate) dialling: bool,
    /// A connection was lost and none stands since, or none came for long: also the side that does not dial first
    /// probes.
    pub(crate) lost: bool,
    /// Its last word was that this node's name is taken.
    pub(crate) refuses: bool,
    pub(crate) backoff: Duration,
    /// The latest boot, dead or not.
    pub(crate) known: Option<BootId>,
    /// The serial of the connection that made `known` known: earlier connections are of earlier boots.
    pub(crate) introduced: u64,
    pub(crate) session: Option<Session>,
    pub(crate) dead: VecDeque<BootNonce>,
    pub(crate) timers: Timers,
}

/// The two channels between this boot and one boot of the peer.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) boot: BootId,
    pub(crate) id: u64,
    pub(crate) conn: Option<ConnId>,
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
    pub(crate) resend_wait: Duration,
    /// Something came in this turn.
    pub(crate) heard: bool,
    /// When something came last.
    pub(crate) heard_at: Instant,
    /// An acknowledgement goes out at the end of the turn.
    pub(crate) ack_now: bool,
    /// Acknowledgements moved on in this turn.
    pub(crate) sent_moved: bool,
    /// A message was refused because the window is full.
    pub(crate) blocked: bool,
}

impl Session {
    pub(crate) fn new(me: BootId, boot: BootId, resend_wait: Duration) -> Self {
        Self {
            boot,
            id: message::session(me, boot),
            conn: None,
            outgoing: Outgoing::new(message::seq_origin(me, boot)),
            incoming: Incoming::new(message::seq_origin(boot, me)),
            resend_wait,
            heard: false,
            heard_at: Instant::ZERO,
            ack_now: false,
            sent_moved: false,
            blocked: false,
        }
    }
}

impl Peer {
    pub(crate) fn new(node: NodeId, backoff: Duration) -> Self {
        Self {
            node,
            guest: false,
            dialling: false,
            lost: false,
            refuses: false,
            backoff,
            known: None,
            introduced: 0,
            session: None,
            dead: VecDeque::new(),
            timers: Timers::default(),
        }
    }

    pub(crate) fn conn(&self) -> Option<ConnId> {
        self.session.as_ref().and_then(|session| session.conn)
    }

    pub(crate) fn bury(&mut self, nonce: BootNonce, dead_max: usize) {
        if !self.dead.contains(&nonce) {
            if self.dead.len() == dead_max {
                self.dead.pop_front();
            }
            self.dead.push_back(nonce);
        }
    }
}

impl Link {
    /// Arms the first dials: at once to the nodes with a greater id; to the others when none of them has come for as long
    /// as a silent connection is kept: they may reach another process under this name.
    pub(super) fn start_dials(&mut self, now: Instant) {
        let (me, patience) = (self.config.me.node, self.config.silence);
        let alone = self.config.guests.is_one;
        for peer in self.peers.values_mut() {
            let at = if alone || me < peer.node { now } else { now + patience };
            peer.timers.set(Timer::Dial, at);
        }
    }

    /// Whether a dial of this node makes sense now.
    fn wants_dial(&self, peer: &Peer) -> bool {
        let busy = self.conns.values().any(|conn| conn.dialled == Some(peer.node));
        peer.conn().is_none()
            && !peer.guest
            && !peer.dialling
            && !busy
            && (self.is_first(peer.node) || peer.lost)
    }

    /// Whether this end dials first.
    fn is_first(&self, node: NodeId) -> bool {
        self.config.guests.is_one || self.config.me.node < node
    }

    /// Arms the next dial of `node`, if it is wanted and not armed yet. The side that does not dial first waits longer.
    pub(super) fn schedule_dial(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get(&node) else { return };
        if !self.wants_dial(peer) || peer.timers.at(Timer::Dial).is_some() {
            return;
        }
        let half = peer.backoff.as_nanos() as u64 / 2;
        let mut wait = Duration::from_nanos(half + self.rng.between(0, half));
        if !self.is_first(node) {
            wait += peer.backoff;
        }
        let at = self.now + wait;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.timers.set(Timer::Dial, at);
            peer.backoff = (peer.backoff * 2).min(self.config.redial_max);
        }
    }

    /// The time to dial has come.
    pub(super) fn on_dial_due(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.timers.stop(Timer::Dial);
        peer.lost |= peer.conn().is_none();
        let wanted = self.peers.get(&node).is_some_and(|peer| self.wants_dial(peer));
        if wanted && let Some(peer) = self.peers.get_mut(&node) {
            peer.dialling = true;
            self.stats.dials += 1;
            self.out.push_back(Output::Dial { node });
        }
    }

    pub(super) fn on_dial_failed(&mut self, node: NodeId, refused: bool) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.dialling = false;
        peer.refuses = false;
        if refused {
            self.event(Event::Refused { node });
        }
        self.schedule_dial(node);
    }

    /// Isolates a boot: nothing of it is delivered from here on, not even what lies in the outputs already.
    pub(super) fn on_isolate(&mut self, boot: BootId) {
        if fault!(self.config, IgnoresIsolation) {
            return;
        }
        let dead_max = self.config.dead_max;
        let Some(peer) = self.peers.get_mut(&boot.node) else { return };
        peer.bury(boot.nonce, dead_max);
        if peer.session.as_ref().is_none_or(|session| session.boot != boot) {
            return;
        }
        self.out.retain(|output| !tells_of(output, boot));
        self.end_session(boot.node);
    }

    /// Ends the session with a boot that is dead: what was meant for it counts as sent, its connection is condemned.
    pub(super) fn end_session(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(session) = peer.session.take() else { return };
        peer.timers.stop_connected();
        let upto = session.outgoing.top();
        if upto > 0 {
            self.event(Event::Sent { to: session.boot, upto });
        }
        if let Some(conn) = session.conn {
            self.condemn(conn, session.boot);
        }
    }

    /// Makes `boot` the known boot of its node, with a session of its own.
    pub(super) fn introduce(&mut self, boot: BootId, serial: u64) {
        let (me, wait, dead_max) = (self.config.me, self.config.resend_after, self.config.dead_max);
        let Some(peer) = self.peers.get_mut(&boot.node) else { return };
        let old = peer.known.replace(boot);
        peer.introduced = serial;
        let unsettled = peer.session.as_ref().map(|session| session.outgoing.unsettled());
        #[cfg(feature = "test-util")]
        let former = peer.session.as_ref().map(|session| session.outgoing.clone());
        if let Some(old) = old {
            peer.bury(old.nonce, dead_max);
            self.end_session(boot.node);
            let unsettled = unsettled.unwrap_or_default();
            self.event(Event::Replaced { old, new: boot, unsettled });
        }
        let Some(peer) = self.peers.get_mut(&boot.node) else { return };
        let session = peer.session.insert(Session::new(me, boot, wait));
        #[cfg(feature = "test-util")]
        if let (true, Some(former)) = (fault!(self.config, KeepsWindowOfReplaced), former) {
            session.outgoing.transplant(former, session.id);
        }
        session.heard = true;
    }
}

/// Whether an output tells the user of something that `boot` did.
fn tells_of(output: &Output, boot: BootId) -> bool {
    match output {
        Output::Event(
            Event::Deliver { from: of, .. }
            | Event::Heard { from: of }
            | Event::Up { boot: of, .. }
            | Event::Down { boot: of }
            | Event::Dead { by: of }
            | Event::Ready { to: of },
        ) => *of == boot,
        _ => false,
    }
}
