//! How orphans are found, as the configuration says: executions whose client has failed, or does not want them.
//!
//! Two things hold for each policy. A client greets with its crash count: a server that hears another one ends what it executes for the
//! former. And each execution ends at its deadline. The policies differ in what ends an orphan before its deadline while the
//! client is silent:
//!
//! - *Terminator* (PS88): while it executes for a client, the server asks its node once a period. Silence for the time of a lease ends all
//!   that is executed for it, and what was made for it ([`Command::Host`](crate::Command::Host)).
//! - *Expiration* (Nel81): an execution has a quantum of time from when it begins. Halfway through it the server asks the client whether it wants the call
//!   still, and the answer grants another one.
//! - *Extermination* (Nel81): nothing. A restarted client kills its orphans by its greeting to each node. It needs no log of whom it called,
//!   since it greets all. Killing one takes back the calls that it made, so orphans of orphans die as
//!   well. An orphan whose client does not come back lives until its deadline.
//! - *Reincarnation* (Nel81): a restarted client begins a new epoch, one more than the largest that it hears of, and tells all; who
//!   hears of a new epoch passes it on, and ends all that it executes for former ones.
//! - *Adoption* (RC89): nothing. What has no name ends with its client's life; what has one goes on, and whoever calls by that name has its result
//!   (`server/names.rs`).
//! - *Gentle reincarnation* (Nel81): the same, but who hears of a new epoch asks the clients first, and ends what is not owned up to.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use mainstay_base::{Instant, NodeId};

use crate::calls::Calls;
use crate::lines::Lines;
use crate::server::Server;
use crate::wire::Item;
use crate::{Config, Orphans, Refusal, Ticket};

/// The part of the service that looks for orphans.
#[derive(Clone)]
pub(crate) struct Watch {
    config: Config,
    /// The next look at what is executed.
    next: Option<Instant>,
    epoch: u64,
    /// This node was restarted, and has begun no epoch since.
    is_reborn: bool,
    /// In a new epoch these have been asked whether they live; when, and who has not answered.
    asked: Option<(Instant, BTreeSet<NodeId>)>,
}

impl Watch {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, next: None, epoch: 1, is_reborn: true, asked: None }
    }

    pub(crate) fn epoch(&self) -> u64 {
        match self.config.orphans {
            Orphans::Reincarnation | Orphans::Gentle { .. } => self.epoch,
            _ => 0,
        }
    }

    /// Writes all that later outputs depend on.
    pub(crate) fn fingerprint(&self, into: &mut impl Hasher) {
        (self.next, self.epoch, self.is_reborn, &self.asked).hash(into);
    }

    /// A node is connected, and was heard.
    pub(crate) fn on_hello(&mut self, lines: &mut Lines, node: NodeId, epoch: u64) {
        if self.epoch() == 0 {
            return;
        }
        if std::mem::take(&mut self.is_reborn) {
            self.epoch = self.epoch.max(epoch).saturating_add(1);
            self.proclaim(lines);
        } else if epoch < self.epoch {
            lines.say_surely(node, Item::Epoch { epoch: self.epoch }, Bytes::new());
        }
    }

    fn proclaim(&self, lines: &mut Lines) {
        for node in lines.up() {
            if lines.is_behind(node) {
                continue;
            }
            lines.say_surely(node, Item::Epoch { epoch: self.epoch }, Bytes::new());
        }
    }

    /// Somebody says that there is a new epoch.
    pub(crate) fn on_epoch(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        server: &mut Server,
        epoch: u64,
    ) {
        if self.epoch() == 0 || epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        self.is_reborn = false;
        self.proclaim(lines);
        match self.config.orphans {
            Orphans::Gentle { patience } => {
                let clients = server.works_for();
                for client in &clients {
                    let life = server.clients.get(client).map_or(0, |client| client.life);
                    lines.say_surely(*client, Item::Check { life }, Bytes::new());
                }
                self.asked = Some((now + patience, clients));
            }
            _ => self.end_before(now, lines, server, None),
        }
    }

    /// Ends what is executed for former epochs; for these clients, or for all.
    fn end_before(
        &self,
        now: Instant,
        lines: &mut Lines,
        server: &mut Server,
        clients: Option<&BTreeSet<NodeId>>,
    ) {
        if mainstay_base::fault!(self.config, SparesEpochs) {
            return;
        }
        let is_of = |client: &NodeId| clients.is_none_or(|clients| clients.contains(client));
        let is_old =
            |run: &crate::server::Run| run.seq > 0 && run.epoch < self.epoch && is_of(&run.client);
        let old = server.runs.iter().filter(|(_, run)| is_old(run));
        let old: Vec<Ticket> = old.map(|(ticket, _)| *ticket).collect();
        for ticket in old {
            server.abort_run(now, lines, ticket);
        }
        let all: Vec<NodeId> = server.clients.keys().copied().filter(is_of).collect();
        for client in all {
            server.refuse_held(now, lines, client, self.epoch, Refusal::Epoch);
        }
    }

    /// A client says that it lives.
    pub(crate) fn on_alive(&mut self, client: NodeId) {
        if let Some((_, silent)) = &mut self.asked {
            silent.remove(&client);
        }
    }

    /// Looks at what is executed.
    pub(crate) fn on_time(&mut self, now: Instant, lines: &mut Lines, server: &mut Server) {
        if let Some((_, silent)) = self.asked.take_if(|(until, _)| *until <= now) {
            self.end_before(now, lines, server, Some(&silent));
        }
        match self.config.orphans {
            Orphans::Terminator { period, lease } if self.next.is_some_and(|next| next <= now) => {
                self.next = Some(now + period);
                self.terminate(now, lines, server, lease);
            }
            Orphans::Expiration { quantum } => self.expire(now, lines, server, quantum),
            _ => {}
        }
    }

    fn terminate(
        &self,
        now: Instant,
        lines: &mut Lines,
        server: &mut Server,
        lease: std::time::Duration,
    ) {
        for node in server.depends_on() {
            let Some(client) = server.clients.get(&node) else { continue };
            let (life, heard) = (client.life, client.heard);
            if now.saturating_since(heard) < lease {
                // One that speaks and takes nothing in has been asked often enough.
                if !lines.is_behind(node) {
                    lines.say_surely(node, Item::Check { life }, Bytes::new());
                }
            } else if !mainstay_base::fault!(self.config, NoTerminator) {
                server.abort(now, lines, node);
            }
        }
    }

    /// Asks for more time halfway through a quantum, and ends what was granted none.
    fn expire(
        &self,
        now: Instant,
        lines: &mut Lines,
        server: &mut Server,
        quantum: std::time::Duration,
    ) {
        let half = quantum / 2;
        let mut over = Vec::new();
        for (ticket, run) in &mut server.runs {
            let Some(granted) = run.granted.filter(|_| !run.is_ended) else { continue };
            if granted <= now && mainstay_base::fault!(self.config, NeverExpires) {
                run.granted = Some(now + quantum);
            } else if granted <= now {
                over.push(*ticket);
            } else if run.asks <= now {
                run.asks = now + half;
                if !lines.is_behind(run.client) {
                    lines.say_surely(run.client, Item::More { seq: run.seq }, Bytes::new());
                }
            }
        }
        for ticket in over {
            server.abort_run(now, lines, ticket);
        }
    }

    /// A server asks whether a call is wanted still. False: it takes no answers in.
    pub(crate) fn on_more(lines: &mut Lines, calls: &Calls, server: NodeId, seq: u64) -> bool {
        if lines.is_behind(server) {
            return false;
        }
        let item = match calls.is_pending(server, seq) {
            true => Item::Grant { seq },
            false => Item::Cancel { seq, after: 0 },
        };
        lines.say_surely(server, item, Bytes::new());
        true
    }

    /// A client grants more time.
    pub(crate) fn on_grant(&self, now: Instant, server: &mut Server, client: NodeId, seq: u64) {
        let Orphans::Expiration { quantum } = self.config.orphans else { return };
        let of = |run: &&mut crate::server::Run| run.client == client && run.seq == seq;
        if let Some(run) = server.runs.values_mut().find(of) {
            run.granted = Some(now + quantum);
            run.asks = now + quantum / 2;
        }
    }

    /// When something is due; the terminator rests while nothing is executed.
    pub(crate) fn timeout(&mut self, now: Instant, server: &Server) -> Option<Instant> {
        let asked = self.asked.as_ref().map(|(until, _)| *until);
        let policy = match self.config.orphans {
            Orphans::Terminator { period, .. } => match server.depends() {
                true => Some(*self.next.get_or_insert(now + period)),
                false => {
                    self.next = None;
                    None
                }
            },
            Orphans::Expiration { .. } => {
                let runs = server.runs.values().filter(|run| !run.is_ended);
                runs.filter_map(|run| Some(run.granted?.min(run.asks))).min()
            }
            _ => None,
        };
        asked.into_iter().chain(policy).min()
    }
}
