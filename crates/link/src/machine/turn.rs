//! Time and the end of a turn.

use mainstay_base::{ConnId, Instant, NodeId, fault};

use super::conn::Stage;
use super::peer::Peer;
use super::timers::Timer;
use super::{Event, Link, Output};
use crate::message::Message;

impl Link {
    pub(super) fn on_timeout(&mut self) {
        let now = self.now;
        for timer in Timer::ALL {
            let due = self.peers.values().filter(|peer| peer.timers.is_due(timer, now));
            let due: Vec<NodeId> = due.map(|peer| peer.node).collect();
            for node in due {
                self.on_timer(node, timer);
            }
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let due = self.conns.iter().filter(|(_, conn)| is_due(conn.hello_at) || is_due(conn.limit));
        let due: Vec<(ConnId, bool)> = due.map(|(&id, conn)| (id, is_due(conn.limit))).collect();
        for (conn, is_over) in due {
            self.on_conn_due(conn, is_over);
        }
    }

    fn on_timer(&mut self, node: NodeId, timer: Timer) {
        match timer {
            Timer::Dial => self.on_dial_due(node),
            Timer::Silence => self.on_silence(node),
            Timer::Resend => self.on_resend_due(node),
            Timer::Keep => self.on_guest_gone(node),
            Timer::Ack | Timer::Heartbeat => {
                let Some(peer) = self.peers.get_mut(&node) else { return };
                if let Some(session) = &mut peer.session {
                    session.ack_now = true;
                }
            }
        }
    }

    fn on_conn_due(&mut self, conn: ConnId, is_over: bool) {
        let Some(state) = self.conns.get(&conn) else { return };
        if !is_over {
            if let Some(node) = state.dialled {
                self.greet(conn, node);
            }
            return;
        }
        if !matches!(state.stage, Stage::Condemned { .. }) {
            self.stats.silent_closed += 1;
        }
        let dialled = state.dialled;
        if let Some(peer) = dialled.and_then(|node| self.peers.get_mut(&node)) {
            peer.refuses = false;
        }
        self.close(conn);
    }

    /// Nothing came for too long: the connection is of no use. A node that itself was late reads first.
    fn on_silence(&mut self, node: NodeId) {
        let silence = self.config.silence;
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(at) = peer.timers.at(Timer::Silence) else { return };
        if now.saturating_since(at) > silence / 3 {
            peer.timers.set(Timer::Silence, now + silence);
            return;
        }
        peer.timers.stop(Timer::Silence);
        if let Some(conn) = peer.conn() {
            self.stats.silent_closed += 1;
            self.close(conn);
        }
    }

    fn on_resend_due(&mut self, node: NodeId) {
        let wait_max = self.config.resend_after * 32;
        let disabled = fault!(self.config, NoResend);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.timers.stop(Timer::Resend);
        let Some(session) = &mut peer.session else { return };
        if session.outgoing.is_empty() || disabled {
            return;
        }
        session.resend_wait = (session.resend_wait * 2).min(wait_max);
        session.outgoing.recover();
        self.stats.resend_rounds += 1;
        self.pump(node);
    }

    pub(super) fn on_end_turn(&mut self) {
        let now = self.now;
        let config = &self.config;
        let (out, stats) = (&mut self.out, &mut self.stats);
        for peer in self.peers.values_mut() {
            let Peer { session: Some(session), timers, guest, .. } = peer else { continue };
            let boot = session.boot;
            if let (true, Some(conn)) = (session.ack_now, session.conn) {
                let only_heartbeat = timers.at(Timer::Ack).is_none();
                stats.heartbeats_sent += u64::from(only_heartbeat);
                stats.acks_sent += 1;
                stats.frames_sent += 1;
                let message = Message::Ack { received: session.incoming.acknowledged() };
                out.push_back(Output::Transmit { conn, frame: message.frame(session.id) });
                session.incoming.on_acked();
                session.ack_now = false;
                timers.stop(Timer::Ack);
                timers.set(Timer::Heartbeat, now + config.heartbeat);
            }
            if std::mem::take(&mut session.heard) && !*guest {
                out.push_back(Output::Event(Event::Heard { from: boot }));
            }
            if std::mem::take(&mut session.sent_moved) {
                let upto = session.outgoing.acked();
                out.push_back(Output::Event(Event::Sent { to: boot, upto }));
            }
            let (bytes_max, frames_max) = config.window(*guest);
            let roomy = session.outgoing.is_roomy(bytes_max, frames_max);
            if session.blocked && roomy {
                session.blocked = false;
                out.push_back(Output::Event(Event::Ready { to: boot }));
            }
        }
    }
}
