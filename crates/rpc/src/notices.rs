//! Notice of the end of what a node serves.
//!
//! A *watch* is of a procedure at a node, and ends once: because the node serves it no more, or is gone. The watcher says `Watch` with a number of its own, and the node
//! says `Gone` with that number. Both are words over the link: between two boots they come once and in order. Watches are said again after each greeting, so a node forgets
//! those of another one when that greets; what is said twice has the same number and counts once.
//!
//! Bounds: a node takes as many watches of another one as calls ([`Config::window`]), and has as many of its own as open calls ([`Config::calls_max`]). Beyond, a watch
//! ends at once ([`Parting::Full`]). A node knows the window of one that it watches, and says no more watches than that. What it is to be told while it takes nothing in waits by the
//! number of the watch; a peer for which more than two windows are kept does not keep to the protocol, and what it says is dropped and counted.

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
    /// For each node that takes nothing in: which of its watches have ended, and why.
    owed: BTreeMap<NodeId, BTreeMap<u64, Parting>>,
    /// Nodes that are connected and have greeted, their crash counts and their windows.
    heard: BTreeMap<NodeId, (u64, usize)>,
    /// Nodes that are watched and are not connected: when they are given up.
    away: BTreeMap<NodeId, Instant>,
}

impl Notices {
    pub(crate) fn new(config: Config, me: NodeId) -> Self {
        let (own, watchers, owed, heard, away) = Default::default();
        Self { config, me, own, watchers, owed, heard, away }
    }

    /// Writes all that later outputs depend on.
    pub(crate) fn fingerprint(&self, into: &mut impl Hasher) {
        (&self.own, &self.watchers, &self.owed, &self.heard, &self.away).hash(into);
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
        let unheard = (0, self.config.window as usize);
        let (life, window) = self.heard.get(&server).copied().unwrap_or(unheard);
        let is_full = self.own.len() >= window
            && self.own.values().filter(|it| it.server == server).count() >= window;
        if is_full && server != self.me {
            return lines.tell(Event::Parted { token, why: Parting::Full });
        }
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
    pub(crate) fn on_hello(&mut self, lines: &mut Lines, node: NodeId, (life, window): (u64, u32)) {
        self.watchers.remove(&node);
        self.on_room(lines, node);
        self.away.remove(&node);
        self.heard.insert(node, (life, window as usize));
        let mut room = window;
        self.own.retain(|token, asked| {
            if asked.server != node {
                return true;
            }
            let is_lost = ![0, life].contains(&asked.life);
            let is_over = is_lost || room == 0;
            if is_over {
                let why = if is_lost { Parting::Lost } else { Parting::Full };
                lines.tell(Event::Parted { token: *token, why });
            } else {
                room -= 1;
                asked.life = life;
                let item = Item::Watch { number: *token, procedure: asked.procedure };
                lines.say_surely(node, item, Bytes::new());
            }
            !is_over
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
        self.owed.remove(&node);
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

    /// A node takes something in again: it is told what it is owed.
    pub(crate) fn on_room(&mut self, lines: &mut Lines, node: NodeId) {
        if !lines.is_open(node) {
            return;
        }
        for (number, why) in self.owed.remove(&node).into_iter().flatten() {
            lines.say_surely(node, Item::Gone { number, why }, Bytes::new());
        }
    }

    /// What is kept of a node: its watches, and what it is owed.
    fn kept(&self, node: NodeId) -> usize {
        let watches = self.watchers.get(&node).map_or(0, BTreeMap::len);
        watches + self.owed.get(&node).map_or(0, BTreeMap::len)
    }

    /// A node wants to know of the end of a procedure. False: it keeps to no bound, and is not heard.
    pub(crate) fn on_watch(
        &mut self,
        lines: &mut Lines,
        from: NodeId,
        (number, procedure): (u64, ProcedureId),
        is_served: bool,
    ) -> bool {
        self.on_room(lines, from);
        let (kept, window) = (self.kept(from), self.config.window as usize);
        let watches = self.watchers.get(&from);
        let is_new = watches.is_none_or(|it| !it.contains_key(&number));
        let is_full = is_new && watches.map_or(0, BTreeMap::len) >= window;
        let may_flood = mainstay_base::fault!(self.config, RemembersFloods);
        if is_new && kept >= 2 * window && !may_flood {
            return false;
        }
        if is_served && !is_full {
            self.watchers.entry(from).or_default().insert(number, procedure);
            return true;
        }
        let why = if is_full { Parting::Full } else { Parting::NotServed };
        if may_flood {
            lines.say_surely(from, Item::Gone { number, why }, Bytes::new());
        } else {
            say_gone(&mut self.owed, lines, from, number, why);
        }
        true
    }

    /// It does not any more.
    pub(crate) fn on_unwatch(&mut self, from: NodeId, number: u64) {
        take(&mut self.watchers, from, number);
        take(&mut self.owed, from, number);
    }

    /// What this node watches at another one has ended.
    pub(crate) fn on_end(&mut self, lines: &mut Lines, from: NodeId, token: u64, why: Parting) {
        if self.own.get(&token).is_some_and(|asked| asked.server == from) {
            self.own.remove(&token);
            // A peer speaks of what it served, and of nothing else.
            use Parting::{Ended, Full, NotServed, Withdrawn};
            let is_of_server = matches!(why, Withdrawn | Ended | NotServed | Full);
            let why = if is_of_server { why } else { Parting::Lost };
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
                    say_gone(&mut self.owed, lines, *node, *number, why);
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
        let is_owed = |node: &NodeId| self.kept(*node) <= 2 * self.config.window as usize;
        assert!(self.owed.keys().all(is_owed), "what others are owed is bounded");
        let is_watched = |node: &NodeId| self.own.values().any(|it| it.server == *node);
        assert!(self.away.keys().all(is_watched), "nobody is awaited for nobody");
    }
}

/// Tells a node that its watch has ended: when it takes something in.
fn say_gone(
    owed: &mut BTreeMap<NodeId, BTreeMap<u64, Parting>>,
    lines: &mut Lines,
    to: NodeId,
    number: u64,
    why: Parting,
) {
    if lines.is_open(to) {
        lines.say_surely(to, Item::Gone { number, why }, Bytes::new());
    } else {
        owed.entry(to).or_default().insert(number, why);
    }
}

/// Takes one out, and the node with its last one.
fn take<T>(from: &mut BTreeMap<NodeId, BTreeMap<u64, T>>, node: NodeId, number: u64) {
    if let Some(of) = from.get_mut(&node) {
        of.remove(&number);
        if of.is_empty() {
            from.remove(&node);
        }
    }
}
