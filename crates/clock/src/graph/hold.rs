//! Messages that wait for others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Id, Links};
use crate::Rank;

/// A message that is missing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Missing {
    /// Its name.
    pub id: Id,
    /// Who has it: the sender of a message that names it. Whoever attached that one has it, too.
    pub ask: Rank,
}

#[derive(Clone, Debug)]
struct Held<T> {
    links: Links,
    body: T,
    /// How many of those that it names are not attached.
    lacking: usize,
}

/// The hold queue. It is bounded by the windows: what is further ahead is not taken in.
#[derive(Clone, Debug)]
pub(super) struct Hold<T> {
    held: BTreeMap<Id, Held<T>>,
    /// What is not attached, and who waits for it.
    waiting: BTreeMap<Id, Vec<Id>>,
}

impl<T> Default for Hold<T> {
    fn default() -> Self {
        Self { held: BTreeMap::new(), waiting: BTreeMap::new() }
    }
}

impl<T> Hold<T> {
    pub(super) fn put(&mut self, links: Links, body: T, lacking: &[Id]) {
        for id in lacking {
            self.waiting.entry(*id).or_default().push(links.id());
        }
        self.held.insert(links.id(), Held { links, body, lacking: lacking.len() });
    }

    pub(super) fn has(&self, id: Id) -> bool {
        self.held.contains_key(&id)
    }

    /// It is held and waits for nothing.
    pub(super) fn is_ready(&self, id: Id) -> bool {
        self.held.get(&id).is_some_and(|held| held.lacking == 0)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// It is attached: those that wait for nothing else any more.
    pub(super) fn attached(&mut self, id: Id) -> Vec<Id> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut ready = self.waiting.remove(&id).unwrap_or_default();
        ready.retain(|held| {
            let Some(held) = self.held.get_mut(held) else { return false };
            held.lacking -= 1;
            held.lacking == 0
        });
        ready
    }

    /// Takes it out if it waits for nothing.
    pub(super) fn take(&mut self, id: Id) -> Option<(Links, T)> {
        self.held.get(&id).filter(|held| held.lacking == 0)?;
        let held = self.held.remove(&id)?;
        Some((held.links, held.body))
    }

    pub(super) fn missing(&self) -> impl Iterator<Item = Missing> + '_ {
        let is_missing = |(id, _): &(&Id, &Vec<Id>)| !self.held.contains_key(id);
        let named = |(id, by): (&Id, &Vec<Id>)| Some(Missing { id: *id, ask: by.first()?.rank });
        self.waiting.iter().filter(is_missing).filter_map(named)
    }

    /// Drops the messages of `rank` behind `last`, and all that wait for those. How many.
    pub(super) fn drop_behind(&mut self, rank: Rank, last: u64) -> u64 {
        let is_behind = |id: &Id| id.rank == rank && id.number > last;
        let of_it = self.held.keys().chain(self.waiting.keys()).copied();
        let mut dropping: Vec<Id> = of_it.filter(is_behind).collect();
        let mut dropped = BTreeSet::new();
        while let Some(id) = dropping.pop() {
            if dropped.insert(id) {
                dropping.extend(self.waiting.remove(&id).unwrap_or_default());
            }
        }
        let before = self.held.len();
        self.held.retain(|id, _| !dropped.contains(id));
        for by in self.waiting.values_mut() {
            by.retain(|id| !dropped.contains(id));
        }
        self.waiting.retain(|_, by| !by.is_empty());
        (before - self.held.len()) as u64
    }
}
