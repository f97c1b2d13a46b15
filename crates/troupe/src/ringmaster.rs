//! The binding agent, the Ringmaster of Circus: who belongs to which troupe.
//!
//! One node has it, by configuration. It keeps nothing on disk: when it is started again its life is greater, so that no version comes twice,
//! and members tell it what they were told by its former life; until it has [settled](crate::Config::settle) it changes nothing. While it is
//! gone calls go on among those who know each other; nobody joins, and nobody is taken out.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::{BootId, Instant, NodeId};

use crate::bindings::MEMBERS_MAX;
use crate::lines::Lines;
use crate::{Binding, Config, TroupeName, Version};

/// So many questions wait until the agent has settled.
const HELD_MAX: usize = 65_536;

#[derive(Clone, Default)]
struct Troupe {
    binding: Binding,
    watchers: BTreeSet<BootId>,
}

#[derive(Clone)]
pub(crate) struct Ringmaster {
    me: BootId,
    last: Version,
    troupes: BTreeMap<TroupeName, Troupe>,
    /// It changes nothing before.
    settles: Option<Instant>,
    /// Who wants to join or leave meanwhile.
    held: Vec<(BootId, TroupeName, bool)>,
    /// Who is connected, by node.
    up: BTreeMap<NodeId, BootId>,
    /// Nodes that were connected at some time.
    seen: BTreeSet<NodeId>,
    /// Members that are not heard, and since when.
    silent: BTreeMap<BootId, Instant>,
    config: Config,
    /// What made no sense.
    pub(crate) dropped: u64,
}

impl Ringmaster {
    pub(crate) fn new(me: BootId, config: Config, now: Instant) -> Self {
        Self {
            me,
            last: Version { life: config.life, number: 0 },
            troupes: BTreeMap::new(),
            settles: Some(now + config.settle),
            held: Vec::new(),
            up: BTreeMap::from([(me.node, me)]),
            seen: BTreeSet::from([me.node]),
            silent: BTreeMap::new(),
            config,
            dropped: 0,
        }
    }

    pub(crate) fn on_up(&mut self, boot: BootId) {
        self.up.insert(boot.node, boot);
        self.seen.insert(boot.node);
        self.silent.remove(&boot);
    }

    pub(crate) fn on_down(&mut self, now: Instant, boot: BootId) {
        if self.up.get(&boot.node) == Some(&boot) {
            self.up.remove(&boot.node);
        }
        self.silent.entry(boot).or_insert(now);
    }

    /// A boot is gone, or the service has ended there: it is a member of nothing.
    pub(crate) fn on_replaced(&mut self, now: Instant, lines: &mut Lines, old: BootId) {
        self.on_down(now, old);
        self.silent.remove(&old);
        self.troupes.values_mut().for_each(|it| it.watchers.retain(|boot| *boot != old));
        for name in self.troupes_of(old) {
            self.remove(lines, name, old);
        }
    }

    fn troupes_of(&self, boot: BootId) -> Vec<TroupeName> {
        let of = self.troupes.iter().filter(|(_, it)| it.binding.members.contains(&boot));
        of.map(|(name, _)| *name).collect()
    }

    /// What a member was told by a former life of the agent.
    pub(crate) fn on_known(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        from: BootId,
        name: TroupeName,
        binding: Binding,
    ) {
        if mainstay_base::fault!(self.config, ForgetsTroupes) {
            return;
        }
        let is_new =
            self.troupes.contains_key(&name) || self.troupes.len() < self.config.troupes_max;
        let nodes: BTreeSet<NodeId> = binding.members.iter().map(|it| it.node).collect();
        // Versions of this life are its own.
        if binding.version.life >= self.last.life && binding.version > self.last
            || !is_new
            || binding.members.len() > MEMBERS_MAX
            || nodes.len() < binding.members.len()
        {
            self.dropped += 1;
            return;
        }
        let troupe = self.troupes.entry(name).or_default();
        if binding.version > troupe.binding.version {
            troupe.binding = binding;
            let members = self.troupes[&name].binding.members.clone();
            for member in members.iter().filter(|it| self.up.get(&it.node) != Some(it)) {
                self.silent.entry(*member).or_insert(now);
            }
            self.announce(lines, name, &[]);
            if self.settles.is_none() {
                self.sweep(lines, name);
            }
        } else if binding.version < troupe.binding.version {
            lines.say_bound(from, name, troupe.binding.clone());
        }
    }

    pub(crate) fn on_watch(&mut self, lines: &mut Lines, from: BootId, name: TroupeName) {
        if !self.troupes.contains_key(&name) && self.troupes.len() >= self.config.troupes_max {
            self.dropped += 1;
            return;
        }
        let troupe = self.troupes.entry(name).or_default();
        troupe.watchers.insert(from);
        if troupe.binding.version != Version::default() {
            lines.say_bound(from, name, troupe.binding.clone());
        }
    }

    /// A boot wants to be a member, or to be none any more.
    pub(crate) fn on_change(
        &mut self,
        lines: &mut Lines,
        from: BootId,
        name: TroupeName,
        joins: bool,
    ) {
        if self.settles.is_some() {
            if self.held.len() < HELD_MAX {
                self.held.push((from, name, joins));
            }
            return;
        }
        if !joins {
            return self.remove(lines, name, from);
        }
        if !self.troupes.contains_key(&name) && self.troupes.len() >= self.config.troupes_max {
            self.dropped += 1;
            return;
        }
        let troupe = self.troupes.entry(name).or_default();
        if !troupe.binding.members.contains(&from) {
            let former: Vec<BootId> =
                troupe.binding.members.iter().filter(|it| it.node == from.node).copied().collect();
            troupe.binding.members.retain(|it| it.node != from.node);
            if troupe.binding.members.len() >= MEMBERS_MAX {
                self.dropped += 1;
                return;
            }
            troupe.binding.members.push(from);
            return self.renew(lines, name, &former);
        }
        self.announce(lines, name, &[]);
    }

    /// Takes out members in whose place another boot is there.
    fn sweep(&mut self, lines: &mut Lines, name: TroupeName) {
        let Some(troupe) = self.troupes.get(&name) else { return };
        let is_gone = |it: &&BootId| self.up.get(&it.node).is_some_and(|there| there != *it);
        let gone: Vec<BootId> = troupe.binding.members.iter().filter(is_gone).copied().collect();
        gone.into_iter().for_each(|it| self.remove(lines, name, it));
    }

    fn remove(&mut self, lines: &mut Lines, name: TroupeName, boot: BootId) {
        let Some(troupe) = self.troupes.get_mut(&name) else { return };
        let before = troupe.binding.members.len();
        troupe.binding.members.retain(|it| *it != boot);
        if troupe.binding.members.len() < before {
            self.renew(lines, name, &[boot]);
        }
    }

    /// A changed troupe has a new id.
    fn renew(&mut self, lines: &mut Lines, name: TroupeName, left: &[BootId]) {
        self.last.number += 1;
        if let Some(troupe) = self.troupes.get_mut(&name) {
            troupe.binding.version = self.last;
        }
        self.announce(lines, name, left);
    }

    fn announce(&self, lines: &mut Lines, name: TroupeName, left: &[BootId]) {
        let Some(troupe) = self.troupes.get(&name) else { return };
        let members = troupe.binding.members.iter();
        let all: BTreeSet<BootId> = members.chain(&troupe.watchers).chain(left).copied().collect();
        // Who is not connected asks when it is.
        for boot in all {
            if lines.is_up(boot) {
                lines.say_bound(boot, name, troupe.binding.clone());
            }
        }
    }

    pub(crate) fn on_time(&mut self, now: Instant, lines: &mut Lines) {
        if self.settles.is_some_and(|at| at <= now) {
            self.settles = None;
            let names: Vec<TroupeName> = self.troupes.keys().copied().collect();
            for name in names {
                self.sweep(lines, name);
            }
            for (from, name, joins) in std::mem::take(&mut self.held) {
                if lines.is_up(from) {
                    self.on_change(lines, from, name, joins);
                }
            }
        }
        if self.settles.is_none() && self.up.len() * 2 >= self.seen.len() {
            let late =
                self.silent.iter().filter(|(_, since)| **since + self.config.patience <= now);
            let late: Vec<BootId> = late.map(|(boot, _)| *boot).collect();
            for boot in late {
                self.silent.remove(&boot);
                for name in self.troupes_of(boot) {
                    if self.troupes[&name].binding.members.len() > 1 {
                        self.remove(lines, name, boot);
                    }
                }
            }
        }
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        let patience = self.config.patience;
        let counts = self.settles.is_none() && self.up.len() * 2 >= self.seen.len();
        let silent = self.silent.values().filter(|_| counts).map(|since| *since + patience).min();
        self.settles.into_iter().chain(silent).min()
    }

    pub(crate) fn check(&self) {
        assert!(self.troupes.len() <= self.config.troupes_max, "troupes are bounded");
        assert_eq!(self.up.get(&self.me.node), Some(&self.me), "the agent hears itself");
        for troupe in self.troupes.values() {
            let members = &troupe.binding.members;
            let nodes: BTreeSet<NodeId> = members.iter().map(|it| it.node).collect();
            assert_eq!(nodes.len(), members.len(), "a node is one member of a troupe");
            assert!(members.len() <= MEMBERS_MAX, "members are bounded");
        }
    }
}
