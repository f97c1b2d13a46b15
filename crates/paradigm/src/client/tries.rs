//! The connection, and the tries on it.

use bytes::Bytes;
use mainstay_base::{ConnId, Frame, Instant, NodeId};

use super::calls::{Ask, Call};
use super::endpoints::pause;
use super::message::{Reply, Request, Standing, VERSION};
use super::{Client, NotDone, Outcome, Output};
use crate::envelope::Session;

/// The one connection.
#[derive(Clone, Debug)]
pub(super) enum Link {
    None,
    /// All nodes have failed lately.
    Resting {
        until: Instant,
    },
    Dialling {
        conn: ConnId,
        node: NodeId,
        until: Instant,
    },
    Greeting {
        conn: ConnId,
        node: NodeId,
        until: Instant,
    },
    Ready {
        conn: ConnId,
        node: NodeId,
        status_at: Instant,
    },
}

impl Link {
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self {
            Self::None | Self::Resting { .. } => None,
            Self::Dialling { conn, .. }
            | Self::Greeting { conn, .. }
            | Self::Ready { conn, .. } => Some(*conn),
        }
    }

    fn node(&self) -> Option<NodeId> {
        match self {
            Self::None | Self::Resting { .. } => None,
            Self::Dialling { node, .. }
            | Self::Greeting { node, .. }
            | Self::Ready { node, .. } => Some(*node),
        }
    }
}

/// What a ticket stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Try {
    Call(u64),
    Open,
    Status,
    Close,
}

impl Client {
    /// When the connection or a waiting call wants something.
    pub(super) fn link_timeout(&self) -> Option<Instant> {
        match self.link {
            Link::None => None,
            Link::Resting { until }
            | Link::Dialling { until, .. }
            | Link::Greeting { until, .. } => Some(until),
            Link::Ready { status_at, .. } => {
                let stuck =
                    self.tries.values().next().map(|(_, since)| *since + self.config.try_for);
                let alive = self.session.map(|_| self.used + self.config.keep_alive);
                let next = self.calls.next_try(self.sent_at);
                [Some(status_at), stuck, alive, next].into_iter().flatten().min()
            }
        }
    }

    /// Gives up a connection that does not get on.
    pub(super) fn watch(&mut self, now: Instant) {
        let late = match self.link {
            Link::None | Link::Resting { .. } => false,
            Link::Dialling { until, .. } | Link::Greeting { until, .. } => until <= now,
            Link::Ready { .. } => {
                let first = self.tries.values().next();
                first.is_some_and(|(_, since)| *since + self.config.try_for <= now)
            }
        };
        if late {
            self.leaving = true;
        }
    }

    pub(super) fn drop_link(&mut self) {
        if let Some(conn) = self.link.conn() {
            self.outputs.push_back(Output::Close { conn });
            self.stats.left += 1;
        }
        self.link = Link::None;
    }

    /// Ends the connection. Tries without an answer may have been executed: that is for ever.
    pub(super) fn leave(&mut self, now: Instant) {
        if let Some(node) = self.link.node() {
            self.endpoints.failed(node, now, self.config.backoff, &mut self.rng);
        }
        self.drop_link();
        for (it, _) in std::mem::take(&mut self.tries).into_values() {
            if let Try::Call(id) = it {
                self.lose(id);
                self.again(id, now);
            }
        }
    }

    fn lose(&mut self, id: u64) {
        let forgets = self.forgets_places();
        let Some(call) = self.calls.get_mut(id) else { return };
        call.lost = true;
        if let Some(place) = call.place.take_if(|_| forgets) {
            self.numbers.finish(place);
        }
    }

    /// The call is tried again, in its place. If its session is over, a command that may have been executed stays
    /// unknown, and one that was not gets a place in the next session.
    fn again(&mut self, id: u64, at: Instant) {
        let epoch = self.numbers.epoch;
        let Some(call) = self.calls.get_mut(id) else { return };
        if call.place.is_some_and(|place| place.epoch != epoch) {
            if call.lost {
                return self.finish(id, Outcome::Unknown);
            }
            call.place = None;
        }
        self.calls.wait(id, at);
    }

    /// The session is over: another one is opened.
    fn renew(&mut self, now: Instant) {
        self.session = None;
        self.numbers.renew();
        for id in self.calls.waiting() {
            let Some(call) = self.calls.get_mut(id).filter(|call| call.place.is_some()) else {
                continue;
            };
            if call.lost {
                self.finish(id, Outcome::Unknown);
            } else {
                call.place = None;
            }
        }
        self.used = now;
    }

    /// Dials, if there is no connection.
    pub(super) fn connect(&mut self, now: Instant) {
        if !matches!(self.link, Link::None | Link::Resting { .. }) || self.closing_is_over() {
            return;
        }
        let Some((node, at)) = self.endpoints.next(now) else { return };
        if at > now {
            self.link = Link::Resting { until: at };
            return;
        }
        self.conn += 1;
        let conn = ConnId(self.conn);
        self.link = Link::Dialling { conn, node, until: now + self.config.connect_within };
        self.outputs.push_back(Output::Dial { conn, node });
    }

    pub(super) fn on_connected(&mut self, _now: Instant, conn: ConnId) {
        match self.link {
            Link::Dialling { conn: mine, node, until } if mine == conn => {
                self.link = Link::Greeting { conn, node, until };
                let cluster = self.config.cluster;
                let hello = Request::Hello {
                    version_min: VERSION,
                    version_max: VERSION,
                    features: 0,
                    cluster,
                };
                self.transmit(conn, &hello, Bytes::new());
            }
            _ => {}
        }
    }

    fn transmit(&mut self, conn: ConnId, request: &Request, payload: Bytes) {
        let frame = request.encode(payload);
        self.outputs.push_back(Output::Transmit { conn, frame });
    }

    /// Sends a request without a payload under a new ticket.
    pub(super) fn try_now(
        &mut self,
        now: Instant,
        what: Try,
        request: impl FnOnce(u64) -> Request,
    ) {
        self.try_with(now, what, Bytes::new(), request);
    }

    fn try_with(
        &mut self,
        now: Instant,
        what: Try,
        payload: Bytes,
        request: impl FnOnce(u64) -> Request,
    ) {
        let Link::Ready { conn, .. } = self.link else { return };
        self.ticket += 1;
        self.tries.insert(self.ticket, (what, now));
        self.stats.tries += 1;
        self.transmit(conn, &request(self.ticket), payload);
    }

    /// Sends what is due, as far as there is room.
    pub(super) fn send(&mut self, now: Instant) {
        self.sent_at = now;
        let Link::Ready { status_at, .. } = &mut self.link else { return };
        if *status_at <= now {
            *status_at = now + self.config.status_every;
            self.try_now(now, Try::Status, |ticket| Request::Status { ticket });
        }
        let due: Vec<u64> = self.calls.due(now).collect();
        let wants_session =
            due.iter().any(|id| self.calls.get(*id).is_some_and(|call| !call.is_read()));
        let idle = self.session.is_some() && self.used + self.config.keep_alive <= now;
        let opening = self.tries.values().any(|(it, _)| *it == Try::Open);
        if !opening && (idle || (self.session.is_none() && wants_session)) {
            let id = self.session_id();
            self.used = now;
            self.try_now(now, Try::Open, |ticket| Request::Open { ticket, id });
        }
        for id in due {
            if self.tries.len() as u64 >= self.config.in_flight {
                return;
            }
            self.send_call(now, id);
        }
    }

    /// Sends a try of a call; a command without a session or a number waits.
    fn send_call(&mut self, now: Instant, id: u64) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let (payload, request) = match &call.ask {
            Ask::Read { query, local } => {
                let local = *local;
                (query.clone(), Request::Read { ticket: self.ticket + 1, local })
            }
            Ask::Execute(command) => {
                let Some(session) = self.session else { return };
                if call.place.is_none() {
                    call.place = self.numbers.next(self.config.in_flight);
                }
                let Some(place) = call.place else { return };
                let (number, acked_upto) = (place.number, self.numbers.acked_upto());
                let ticket = self.ticket + 1;
                self.used = now;
                (command.clone(), Request::Execute { ticket, session, number, acked_upto })
            }
        };
        self.calls.went(id);
        self.try_with(now, Try::Call(id), payload, |_| request);
    }

    pub(super) fn on_frame(&mut self, now: Instant, conn: ConnId, frame: Frame) {
        if self.link.conn() != Some(conn) {
            return;
        }
        let Ok((reply, payload)) = Reply::decode(frame) else {
            self.stats.malformed += 1;
            self.leaving = true;
            return;
        };
        match (&self.link, reply) {
            (Link::Greeting { node, .. }, Reply::Welcome { version, node: who, standing, .. }) => {
                let right = version == VERSION && who == *node;
                self.on_welcome(now, right, &standing);
            }
            (Link::Ready { .. }, reply) => self.on_reply(now, reply, payload),
            // A refused hello, or something that has no place here.
            _ => self.leaving = true,
        }
    }

    fn on_welcome(&mut self, now: Instant, right: bool, standing: &Standing) {
        let Link::Greeting { conn, node, .. } = self.link else { return };
        self.stats.malformed += u64::from(!right);
        if right {
            self.stats.connected += 1;
            let status_at = now + self.config.status_every;
            self.link = Link::Ready { conn, node, status_at };
            self.on_standing(standing);
        } else {
            self.leaving = true;
        }
    }

    fn on_standing(&mut self, standing: &Standing) {
        self.endpoints.learn(standing.view, &standing.members);
        if !standing.serving {
            self.leaving = true;
        }
    }

    fn on_reply(&mut self, now: Instant, reply: Reply, payload: Bytes) {
        match reply {
            Reply::Standing { ticket, standing } => {
                self.tries.remove(&ticket);
                self.on_standing(&standing);
            }
            Reply::Opened { ticket, session } => self.on_opened(now, ticket, session),
            Reply::Done { ticket } => {
                if let Some(id) = self.answered(ticket) {
                    self.works();
                    self.finish(id, Outcome::Done(payload));
                }
            }
            Reply::NotDone { ticket, reason } => {
                self.leaving |= reason.is_elsewhere();
                match self.answered_any(ticket) {
                    Some(Try::Call(id)) => self.on_not_done(now, id, reason),
                    // Not opened: again after a while, here or elsewhere.
                    Some(Try::Open) => self.leaving = true,
                    _ => {}
                }
            }
            Reply::Unknown { ticket } => {
                // The node has lost the trace of it: so may it have of others.
                self.leaving = true;
                if let Some(id) = self.answered(ticket) {
                    self.lose(id);
                    self.again(id, now);
                }
            }
            Reply::Expired { ticket } => {
                if let Some(id) = self.answered(ticket) {
                    self.on_expired(now, id);
                }
            }
            Reply::Closed { ticket } => drop(self.tries.remove(&ticket)),
            Reply::Welcome { .. } | Reply::Refused { .. } => self.leaving = true,
        }
    }

    /// What the ticket stood for; nothing if it has been answered before.
    fn answered_any(&mut self, ticket: u64) -> Option<Try> {
        self.tries.remove(&ticket).map(|(it, _)| it)
    }

    fn answered(&mut self, ticket: u64) -> Option<u64> {
        match self.answered_any(ticket)? {
            Try::Call(id) => Some(id),
            Try::Open | Try::Status | Try::Close => None,
        }
    }

    fn works(&mut self) {
        if let Some(node) = self.link.node() {
            self.endpoints.works(node);
        }
    }

    fn on_opened(&mut self, now: Instant, ticket: u64, session: Session) {
        if self.answered_any(ticket) != Some(Try::Open) || session.id != self.session_id() {
            return;
        }
        self.works();
        match self.session {
            None => {
                self.session = Some(session);
                self.stats.sessions += 1;
            }
            // It was opened anew under the same id: the one that was known is gone.
            Some(known) if known.opened < session.opened => self.renew(now),
            Some(_) => {}
        }
    }

    fn on_not_done(&mut self, now: Instant, id: u64, reason: NotDone) {
        let backoff = self.config.backoff;
        let Some(call) = self.calls.get_mut(id) else { return };
        call.reason = Some(reason);
        // Passing over is part of the session's state: no other try can be executed.
        let certain = reason == NotDone::Skipped || call.is_read() || !call.lost;
        if reason.is_final() {
            let outcome = if certain { Outcome::NotDone(reason) } else { Outcome::Unknown };
            return self.finish(id, outcome);
        }
        let wait = if reason.is_elsewhere() {
            now
        } else {
            call.refusals += 1;
            now + pause(backoff, call.refusals - 1, &mut self.rng)
        };
        self.again(id, wait);
    }

    fn on_expired(&mut self, now: Instant, id: u64) {
        let place = self.calls.get(id).and_then(|call: &Call| call.place);
        if place.is_some_and(|place| place.epoch == self.numbers.epoch) {
            self.renew(now);
        }
        self.again(id, now);
    }

    fn closing_is_over(&self) -> bool {
        self.closing == Some(super::Closing::Over)
    }
}
