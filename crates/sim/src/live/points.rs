//! Points of the runs of nodes, at which a script can have them crash.

use std::collections::{BTreeMap, BTreeSet};

use crate::schedule::{Action, Point};

/// How often each node has done what since the room began, and who crashes where.
#[derive(Default)]
pub(super) struct Points {
    counts: BTreeMap<usize, BTreeMap<Action, u64>>,
    /// The fault that strikes at a point.
    dooms: BTreeMap<(usize, Point), usize>,
    /// Struck, and not taken down yet: nothing that they do has an effect.
    dead: BTreeSet<usize>,
    struck: Vec<usize>,
}

impl Points {
    pub(super) fn doom(&mut self, node: usize, point: Point, fault: usize) {
        self.dooms.insert((node, point), fault);
    }

    /// The node is about to do something; true if it has crashed instead.
    pub(super) fn reach(&mut self, node: usize, action: Action) -> bool {
        if self.is_dead(node) {
            return true;
        }
        let number = self.counts.entry(node).or_default().entry(action).or_default();
        *number += 1;
        let point = Point { action, number: *number };
        if let Some(fault) = self.dooms.remove(&(node, point)) {
            self.struck.push(fault);
            self.dead.insert(node);
        }
        self.is_dead(node)
    }

    pub(super) fn is_dead(&self, node: usize) -> bool {
        self.dead.contains(&node)
    }

    /// A fault that has reached its point.
    pub(super) fn take_struck(&mut self) -> Option<usize> {
        self.struck.pop()
    }

    /// The node is down, or begins anew.
    pub(super) fn is_down(&mut self, node: usize) {
        self.dead.remove(&node);
    }

    pub(super) fn heal(&mut self) {
        self.dooms.clear();
    }

    pub(super) fn counts(&self, node: usize) -> BTreeMap<Action, u64> {
        self.counts.get(&node).cloned().unwrap_or_default()
    }
}
