//! Notice of the end of what a node serves.
//!
//! A *watch* is of a procedure at a node, and ends once: because the node serves it no more, or is gone. The watcher says `Watch` with a number of its own, and the node
//! says `Gone` with that number. Both are words over the link: between two boots they come once and in order. Watches are said again after each greeting, so a node forgets
//! those of another one when that greets; what is said twice has the same number and counts once.
//!
//! Bounds: a node takes as many watches of another one as calls ([`Config::window`]), and has as many of its own as open calls ([`Config::calls_max`]). Beyond, a watch
//! ends at once ([`Parting::Full`]).

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use mainstay_base::{Duration, Instant, NodeId};

use crate::lines::Lines;
use crate::wire::{Item, ProcedureId};
use crate::{Config, Event, Parting};

/// A watch of this node.
#[derive(Clone, Copy, Hash, Debug)]
struct Asked {
    server: NodeId,
    procedure: ProcedureId,
    /// The node's crash count, when it was told; 0: it was not.
    life: u64,
}

/// All watches: of this node, and of others for what is served here.
#[derive(Clone)]
pub(crate) struct Notices {
    config: Config,
    me: NodeId,
    /// Of this node, by their tokens.
    own: BTreeMap<u64, Asked>,
    /// For each node that watches: its numbers, and what they are of.
    watchers: BTreeMap<NodeId, BTreeMap<u64, ProcedureId>>,
    /// Nodes that are connected and have greeted, and their crash counts.
    heard: BTreeMap<NodeId, u64>,
    /// Nodes that are watched and are not connected: when they are given up.
    away: BTreeMap<NodeId, Instant>,
}

impl Notices {
    pub(crate) fn new(config: Config, me: NodeId) -> Self {
        let (own, watchers, heard, away) = Default::default();
        Self { config, me, own, watchers, heard, away }
    }

    /// Writes all that later outputs depend on.
    pub(crate) fn fingerprint(&self, into: &mut impl Hasher) {
        (&self.own, &self.watchers, &self.heard, &self.away).hash(into);
    }

    /// Somebody here wants to know. `is_served`: the procedure is, at this node.
    pub(crate) fn watch(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        token: u64,
        (server, procedure): (NodeId, ProcedureId),
        is_served: bool,
    ) {
        if self.own.len() >= self.config.calls_max {
            return lines.tell(Event::Parted { token, why: Parting::Full });
        }
        if server == self.me && !is_served {
            return lines.tell(Event::Parted { token, why: Parting::NotServed });
        }
        let life = self.heard.get(&server).copied().unwrap_or(0);
        self.own.insert(token, Asked { server, procedure, life });
        if life != 0 {
            lines.say_surely(server, Item::Watch { number: token, procedure }, Bytes::new());
        } else if server != self.me {
            let until = now + self.patience();
            self.away.entry(server).or_insert(until);
        }
    }

    /// Nobody does any more.
    pub(crate) fn unwatch(&mut self, lines: &mut Lines, token: u64) {
        let Some(Asked { server, .. }) = self.own.remove(&token) else { return };
        if self.heard.contains_key(&server) {
            lines.say_surely(server, Item::Unwatch { number: token }, Bytes::new());
        }
        self.tidy(server);
    }

    /// A node that nobody watches need not be awaited.
    fn tidy(&mut self, server: NodeId) {
        if self.away.contains_key(&server) && self.own.values().all(|it| it.server != server) {
            self.away.remove(&server);
        }
    }

    /// How long a node may be away: as long as a call without a sign is attempted.
    fn patience(&self) -> Duration {
        (0..self.config.attempts).map(|attempt| self.config.retry * (1 << attempt.min(5))).sum()
    }

    /// A node is connected, and greets in this life. One that greets anew has forgotten what it was told.
    pub(crate) fn on_hello(&mut self, lines: &mut Lines, node: NodeId, life: u64) {
        self.watchers.remove(&node);
        self.away.remove(&node);
        self.heard.insert(node, life);
        self.own.retain(|token, asked| {
            let is_lost = asked.server == node && ![0, life].contains(&asked.life);
            if is_lost {
                lines.tell(Event::Parted { token: *token, why: Parting::Lost });
            } else if asked.server == node {
                asked.life = life;
                let item = Item::Watch { number: *token, procedure: asked.procedure };
                lines.say_surely(node, item, Bytes::new());
            }
            !is_lost
        });
    }

    /// A node is not connected.
    pub(crate) fn on_down(&mut self, now: Instant, node: NodeId) {
        self.heard.remove(&node);
        if self.own.values().any(|it| it.server == node) {
            self.away.insert(node, now + self.patience());
        }
    }

    /// A node is gone, and with it all that it served.
    pub(crate) fn on_gone(&mut self, lines: &mut Lines, node: NodeId) {
        self.heard.remove(&node);
        self.watchers.remove(&node);
        self.part(lines, node, Parting::Lost);
    }

    /// All watches of a node end.
    fn part(&mut self, lines: &mut Lines, node: NodeId, why: Parting) {
        self.away.remove(&node);
        self.own.retain(|token, asked| {
            let is_over = asked.server == node;
            if is_over {
                lines.tell(Event::Parted { token: *token, why });
            }
            !is_over
        });
    }

    /// A node wants to know of the end of a procedure.
    pub(crate) fn on_watch(
        &mut self,
        lines: &mut Lines,
        from: NodeId,
        (number, procedure): (u64, ProcedureId),
        is_served: bool,
    ) {
        let watches = self.watchers.entry(from).or_default();
        let is_full =
            watches.len() >= self.config.window as usize && !watches.contains_key(&number);
        if is_full || !is_served {
            let why = if is_full { Parting::Full } else { Parting::NotServed };
            lines.say_surely(from, Item::Gone { number, why }, Bytes::new());
        } else {
            watches.insert(number, procedure);
        }
        if watches.is_empty() {
            self.watchers.remove(&from);
        }
    }

    /// It does not any more.
    pub(crate) fn on_unwatch(&mut self, from: NodeId, number: u64) {
        if let Some(watches) = self.watchers.get_mut(&from) {
            watches.remove(&number);
            if watches.is_empty() {
                self.watchers.remove(&from);
            }
        }
    }

    /// What this node watches at another one has ended.
    pub(crate) fn on_end(&mut self, lines: &mut Lines, from: NodeId, token: u64, why: Parting) {
        if self.own.get(&token).is_some_and(|asked| asked.server == from) {
            self.own.remove(&token);
            lines.tell(Event::Parted { token, why });
            // It may have been said anew while the answer was on its way.
            lines.say_surely(from, Item::Unwatch { number: token }, Bytes::new());
        }
    }

    /// A procedure is not served here any more.
    pub(crate) fn ended(&mut self, lines: &mut Lines, procedure: ProcedureId, why: Parting) {
        if mainstay_base::fault!(self.config, TellsNoEnds) {
            return;
        }
        let me = self.me;
        self.own.retain(|token, asked| {
            let is_over = asked.server == me && asked.procedure == procedure;
            if is_over {
                lines.tell(Event::Parted { token: *token, why });
            }
            !is_over
        });
        for (node, watches) in &mut self.watchers {
            watches.retain(|number, it| {
                let is_over = *it == procedure;
                if is_over {
                    lines.say_surely(*node, Item::Gone { number: *number, why }, Bytes::new());
                }
                !is_over
            });
        }
        self.watchers.retain(|_, watches| !watches.is_empty());
    }

    /// Nodes that were away for too long.
    pub(crate) fn on_time(&mut self, now: Instant, lines: &mut Lines) {
        let late = self.away.iter().filter(|(_, until)| **until <= now);
        let late: Vec<NodeId> = late.map(|(node, _)| *node).collect();
        for node in late {
            self.part(lines, node, Parting::Unreachable);
        }
    }

    /// When something is due.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.away.values().min().copied()
    }

    /// Watches of this node, and of others.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.own.len(), self.watchers.values().map(BTreeMap::len).sum())
    }

    /// Panics if something is not as it should be.
    pub(crate) fn check(&self) {
        assert!(self.own.len() <= self.config.calls_max, "own watches are bounded");
        let is_bounded =
            |it: &BTreeMap<_, _>| (1..=self.config.window as usize).contains(&it.len());
        assert!(self.watchers.values().all(is_bounded), "watches of others are bounded");
        let is_watched = |node: &NodeId| self.own.values().any(|it| it.server == *node);
        assert!(self.away.keys().all(is_watched), "nobody is awaited for nobody");
    }
}
