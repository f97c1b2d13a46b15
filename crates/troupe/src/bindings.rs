//! What this node knows of troupes: who belongs to them, as the binding agent has said.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay_base::{BootId, NodeId};

use crate::lines::Lines;
use crate::wire::Item;
use crate::{Binding, TroupeId, TroupeName, Version};

/// Members of a troupe at most.
pub(crate) const MEMBERS_MAX: usize = 64;

#[derive(Clone)]
pub(crate) struct Bindings {
    binder: NodeId,
    /// The binding agent, as it is connected.
    agent: Option<BootId>,
    known: BTreeMap<TroupeName, Binding>,
    /// The binding agent says how these are from now on.
    watched: BTreeSet<TroupeName>,
    max: usize,
    /// What has changed, and was not looked at yet.
    pub(crate) news: BTreeSet<TroupeName>,
}

impl Bindings {
    pub(crate) fn new(binder: NodeId, max: usize) -> Self {
        Self {
            binder,
            agent: None,
            known: BTreeMap::new(),
            watched: BTreeSet::new(),
            max,
            news: BTreeSet::new(),
        }
    }

    pub(crate) fn get(&self, name: TroupeName) -> Option<&Binding> {
        self.known.get(&name)
    }

    pub(crate) fn version(&self, name: TroupeName) -> Version {
        self.known.get(&name).map_or(Version::SOLO, |binding| binding.version)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (TroupeName, Binding)> + '_ {
        self.known.iter().map(|(name, binding)| (*name, binding.clone()))
    }

    /// Whether all that is known is at least as new.
    pub(crate) fn knows(&self, troupe: TroupeId) -> bool {
        self.known.get(&troupe.name).is_some_and(|it| it.version >= troupe.version)
    }

    /// Wants to know of a troupe from now on. False: this node knows as many as it may.
    pub(crate) fn watch(&mut self, lines: &mut Lines, name: TroupeName) -> bool {
        if self.watched.contains(&name) {
            return true;
        }
        if self.watched.len() >= self.max {
            return false;
        }
        self.watched.insert(name);
        self.ask(lines, Item::Watch { name });
        true
    }

    /// Says something to the binding agent, if it is there. What must not be lost is said again when it comes.
    pub(crate) fn ask(&self, lines: &mut Lines, item: Item) {
        if let Some(agent) = self.agent {
            lines.say(agent, item, Bytes::new());
        }
    }

    /// A node is connected: if it has the binding agent it is told what is wanted of it. True then.
    pub(crate) fn on_up(&mut self, lines: &mut Lines, boot: BootId) -> bool {
        if boot.node != self.binder {
            return false;
        }
        self.agent = Some(boot);
        for name in &self.watched {
            lines.say(boot, Item::Watch { name: *name }, Bytes::new());
        }
        true
    }

    pub(crate) fn on_gone(&mut self, boot: BootId) {
        if self.agent == Some(boot) {
            self.agent = None;
        }
    }

    /// What somebody says of a troupe, if it is newer and makes sense.
    pub(crate) fn learn(&mut self, name: TroupeName, binding: Binding) {
        let former = self.known.get(&name);
        let is_new = former.is_none_or(|former| former.version < binding.version);
        let fits = former.is_some() || self.known.len() < self.max.saturating_mul(2);
        if is_new && fits && binding.members.len() <= MEMBERS_MAX {
            self.known.insert(name, binding);
            self.news.insert(name);
        }
    }
}
