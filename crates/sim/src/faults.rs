//! Faults and their end: within the atlas, and healed in phases.

use mainstay_base::{Instant, Rng};
use thiserror::Error;

use crate::schedule::{Action, Disk, Fault, Moment, Point};
use crate::world::{Task, World};
use crate::{Clock, ClockFault, Node};

/// Why a fault cannot take place within the model.
#[derive(Error, Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Beyond {
    /// It speaks of a process that is not there, or of one where it takes two.
    #[error("there is no such process, or there have to be two")]
    Nobody,
    /// The node is down already.
    #[error("the node is down")]
    Down,
    /// As many nodes are down, or without their disk's state, as the atlas allows.
    #[error("no more than {0} may be down, or without their state, at a time")]
    TooManyDown(usize),
    /// As many disks are lost, or not made good yet, as the atlas allows.
    #[error("no more than {0} may have lost their disk at a time")]
    TooManyLost(usize),
}

/// The faults of a world.
pub(crate) struct Faults {
    /// Planned and under way, by the number that the tasks know them by.
    list: Vec<Fault>,
    /// Raised by each healing: begins and ends of an older epoch are void.
    epoch: u32,
    /// The nodes that were healed.
    core: Vec<bool>,
    rng: Rng,
    is_strict: bool,
    /// In a strict world: the first one that could not take place, and why.
    refused: Option<(Fault, Beyond)>,
}

impl Faults {
    pub(crate) fn new(rng: Rng, nodes: usize) -> Self {
        let (list, core) = (Vec::new(), vec![false; nodes]);
        Self { list, epoch: 0, core, rng, is_strict: false, refused: None }
    }

    fn add(&mut self, fault: Fault) -> u32 {
        self.list.push(fault);
        u32::try_from(self.list.len() - 1).expect("fewer than 2^32 faults")
    }
}

impl<N: Node> World<N> {
    /// Whether frames between the two suffer no more.
    pub(crate) fn is_calm(&self, from: usize, to: usize) -> bool {
        self.faults.core[from] && self.faults.core[to]
    }

    pub(crate) fn plan(&mut self, at: Instant, fault: Fault) {
        let index = self.faults.add(fault);
        self.at(at.max(self.now), Task::Begin { index, epoch: self.faults.epoch });
    }

    pub(crate) fn on_begin(&mut self, index: u32, epoch: u32) {
        if epoch == self.faults.epoch {
            self.begin(self.faults.list[index as usize].clone());
        }
    }

    pub(crate) fn begin(&mut self, fault: Fault) -> bool {
        if let Fault::Crash { node, length, disk, moment: Moment::MidWrite } = fault
            && node < self.roster.len()
        {
            let crash = Fault::Crash { node, length, disk, moment: Moment::Now };
            self.hosts[node].doomed = Some(self.faults.add(crash));
            self.crash_in_write(node);
            return true;
        }
        if let Fault::Crash { node, length, disk, moment: Moment::At(point) } = fault
            && node < self.roster.len()
        {
            let crash = Fault::Crash { node, length, disk, moment: Moment::Now };
            let index = self.faults.add(crash);
            self.hosts[node].doomed_at.insert(point, index);
            return true;
        }
        let nodes = self.roster.len();
        let allowed = match fault {
            _ if !fault.is_possible(nodes, nodes) => Err(Beyond::Nobody),
            Fault::Crash { node, disk, .. } => self.atlas_allows(node, disk),
            _ => Ok(()),
        };
        if let Err(why) = allowed {
            self.stats.skipped += 1;
            if self.faults.is_strict {
                self.faults.refused.get_or_insert((fault, why));
            }
            return false;
        }
        self.take_place(&fault);
        self.stats.faults += 1;
        true
    }

    /// A fault that cannot take place within the atlas ends the run with [`Stuck::Beyond`](crate::Stuck::Beyond), instead of being left
    /// out: for scripts that somebody wrote. What a [schedule](crate::schedule()) draws may be beyond it by design.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.faults.is_strict = true;
        self
    }

    pub(crate) fn refused(&self) -> Option<&(Fault, Beyond)> {
        self.faults.refused.as_ref()
    }

    /// The node is about to do something: true if it has crashed instead.
    pub(crate) fn crash_at(&mut self, node: usize, action: Action) -> bool {
        let host = &mut self.hosts[node];
        let number = host.points.entry(action).or_default();
        *number += 1;
        let point = Point { action, number: *number };
        let Some(index) = host.doomed_at.remove(&point) else { return false };
        self.begin(self.faults.list[index as usize].clone());
        self.hosts[node].machine.is_none()
    }

    /// If the node is to crash in a write, and writes, then it does so before the last write is complete.
    pub(crate) fn crash_in_write(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.doomed.is_some()
            && let Some(at) = host.disk.moment_in_write(self.now)
            && let Some(index) = host.doomed.take()
        {
            self.at(at, Task::Begin { index, epoch: self.faults.epoch });
        }
    }

    fn take_place(&mut self, fault: &Fault) {
        let length = match *fault {
            Fault::Crash { node, length, disk, .. } => {
                self.stop(node, disk);
                let generation = self.hosts[node].generation;
                self.at(self.now + length, Task::Restart { node: node as u16, generation });
                return;
            }
            Fault::Backup { node } => {
                self.hosts[node].disk.back_up();
                return;
            }
            Fault::Reset { one, other } => {
                self.reset(one, other);
                return;
            }
            Fault::Pause { node, length } => {
                self.hosts[node].pauses += 1;
                length
            }
            Fault::Clock { node, clock, length } => {
                self.change_clock(node, |it, now| it.begin(now, clock));
                length
            }
            Fault::Suspend { node, length } => {
                self.hosts[node].pauses += 1;
                self.change_clock(node, |it, now| it.begin(now, ClockFault::Freeze));
                length
            }
            Fault::SlowDisk { node, factor, length } => {
                self.hosts[node].disk.slow_down(factor);
                length
            }
            Fault::OneWayCut { length, .. }
            | Fault::Cut { length, .. }
            | Fault::Partition { length, .. } => {
                for (from, to) in fault.ways(self.roster.len()) {
                    self.cut(from, to);
                }
                length
            }
        };
        let index = self.faults.add(fault.clone());
        self.at(self.now + length, Task::End { index, epoch: self.faults.epoch });
    }

    /// Whether the node runs and may crash with this outcome.
    fn atlas_allows(&mut self, node: usize, disk: Disk) -> Result<(), Beyond> {
        for host in &mut self.hosts {
            host.lost &= !host.machine.as_ref().is_some_and(Node::is_whole);
        }
        let atlas = self.options.atlas;
        let hosts = || self.hosts.iter().enumerate().filter(|(index, _)| *index != node);
        let down = hosts().filter(|(_, host)| host.machine.is_none() || host.lost).count();
        let lost = hosts().filter(|(_, host)| host.lost).count();
        if self.node(node).is_none() {
            Err(Beyond::Down)
        } else if down >= atlas.down {
            Err(Beyond::TooManyDown(atlas.down))
        } else if disk != Disk::Kept && lost >= atlas.lost {
            Err(Beyond::TooManyLost(atlas.lost))
        } else {
            Ok(())
        }
    }

    pub(crate) fn on_end(&mut self, index: u32, epoch: u32) {
        if epoch != self.faults.epoch {
            return;
        }
        let fault = self.faults.list[index as usize].clone();
        match fault {
            Fault::Clock { node, clock, .. } => {
                self.change_clock(node, |it, now| it.end(now, clock))
            }
            Fault::Pause { node, .. } | Fault::Suspend { node, .. } => {
                if matches!(fault, Fault::Suspend { .. }) {
                    self.change_clock(node, |it, now| it.end(now, ClockFault::Freeze));
                }
                // None is left if the node has crashed meanwhile.
                if self.hosts[node].pauses > 0 {
                    self.hosts[node].pauses -= 1;
                    self.go_on(node);
                }
            }
            Fault::SlowDisk { node, factor, .. } => self.hosts[node].disk.speed_up(factor),
            _ => {
                for (from, to) in fault.ways(self.roster.len()) {
                    self.uncut(from, to, false);
                }
            }
        }
    }

    /// A node that is not paused any more does what has come meanwhile, in order.
    fn go_on(&mut self, node: usize) {
        if self.hosts[node].pauses == 0 {
            for task in std::mem::take(&mut self.hosts[node].backlog) {
                self.at(self.now, task);
            }
        }
    }

    /// The clock of a node changes, and with it the moment of its next deadline.
    fn change_clock(&mut self, node: usize, change: impl FnOnce(&mut Clock, Instant)) {
        change(&mut self.hosts[node].clock.borrow_mut(), self.now);
        self.arm(node);
    }

    /// Sets the clock of a node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn set_clock(&mut self, node: usize, clock: Clock) {
        self.change_clock(node, |it, _| *it = clock);
    }

    /// A seeded choice of `size` nodes, sorted: a core to heal.
    ///
    /// # Panics
    /// If there are fewer nodes.
    #[must_use]
    pub fn pick_core(&mut self, size: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.roster.len()).collect();
        assert!(size <= all.len(), "a core is a part of the nodes");
        self.faults.rng.shuffle(&mut all);
        all.truncate(size);
        all.sort_unstable();
        all
    }

    /// Ends all faults among the nodes of `core`, and the schedule: they run, reach each other and suffer no loss. All
    /// else stays as broken as it is *for ever*: who is down, paused or cut off stays so.
    pub fn heal_core(&mut self, core: &[usize]) {
        self.faults.epoch += 1;
        for host in &mut self.hosts {
            host.doomed = None;
            host.doomed_at.clear();
        }
        for node in core.iter().copied() {
            self.faults.core[node] = true;
        }
        for node in (0..self.roster.len()).filter(|node| !self.faults.core[*node]) {
            // Its restart, if one is planned, does not come.
            if self.hosts[node].machine.is_none() {
                self.hosts[node].generation += 1;
            }
        }
        for from in core.iter().copied() {
            for to in core.iter().copied().filter(|to| *to != from) {
                self.uncut(from, to, true);
            }
        }
        for node in core.iter().copied() {
            self.hosts[node].disk.heal();
            self.hosts[node].pauses = 0;
            self.go_on(node);
            if self.node(node).is_none() {
                self.start(node);
            }
        }
    }

    /// Ends all faults, and the schedule.
    pub fn heal(&mut self) {
        let all: Vec<usize> = (0..self.roster.len()).collect();
        self.heal_core(&all);
    }
}
