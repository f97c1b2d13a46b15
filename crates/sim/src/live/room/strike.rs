//! What the faults of the schedule do to a room.

use mainstay_base::Rng;

use super::super::kernel::Task;
use super::{Kind, Place, Room};
use crate::schedule::{Disk, Fault, Moment};

impl<H: Clone + 'static> Room<H> {
    pub(super) fn on_begin(&mut self, index: usize) {
        let fault = self.faults[index].fault.clone();
        if !fault.is_possible(self.places.len()) {
            self.stats.skipped += 1;
            return;
        }
        self.kernel.note(Kind::Begun as u8, index, 0);
        let length = match fault {
            Fault::Crash { node, moment: Moment::MidWrite, .. } => {
                self.places[node].doomed = Some(index);
                return;
            }
            Fault::Crash { .. } => return self.on_crash(index),
            Fault::Backup { node } => {
                self.places[node].platter.borrow_mut().back_up();
                return;
            }
            Fault::Reset { one, other } => {
                self.stats.faults += 1;
                return self.net.borrow_mut().reset(one, other);
            }
            // The clocks of whole nodes drift; more is not done to them.
            Fault::Clock { .. } | Fault::Suspend { .. } => {
                self.stats.skipped += 1;
                return;
            }
            Fault::Pause { node, length } => {
                self.places[node].pauses += 1;
                length
            }
            Fault::SlowDisk { node, factor, length } => {
                self.places[node].platter.borrow_mut().slow_down(factor);
                length
            }
            Fault::OneWayCut { length, .. }
            | Fault::Cut { length, .. }
            | Fault::Partition { length, .. } => {
                for (from, to) in fault.ways(self.places.len()) {
                    self.net.borrow_mut().cut(from, to);
                }
                length
            }
        };
        self.stats.faults += 1;
        let end = Task::End { fault: index, epoch: self.epoch };
        self.kernel.at(self.kernel.now() + length, end);
    }

    pub(super) fn on_crash(&mut self, index: usize) {
        let event = &self.faults[index];
        let Fault::Crash { node, length, disk, .. } = event.fault else { return };
        // Drawn from the fault alone: without another fault of the schedule this one stays the same.
        let power = Rng::new(self.seed).stream(&event.to_string()).chance(1, 2);
        if !self.atlas_allows(node, disk) {
            self.stats.skipped += 1;
            return;
        }
        self.stats.faults += 1;
        self.crash(node, power, disk);
        let boot = self.places[node].boots;
        self.kernel.at(self.kernel.now() + length, Task::Restart { node, boot });
    }

    /// Whether the node runs and may crash with this outcome.
    fn atlas_allows(&mut self, node: usize, disk: Disk) -> bool {
        for place in &mut self.places {
            place.lost &= !place.restored.0.get() || place.tasks.is_none();
        }
        let others = || self.places.iter().enumerate().filter(|(index, _)| *index != node);
        let down = others().filter(|(_, place)| place.tasks.is_none() || place.lost).count();
        // One that gets its state from another is no copy of it, whatever is on its disk.
        let is_no_copy = |place: &&Place| place.lost || !place.restored.0.get();
        let lost = others().map(|(_, place)| place).filter(is_no_copy).count();
        self.places[node].tasks.is_some()
            && down < self.options.atlas.down
            && (disk == Disk::Kept || lost < self.options.atlas.lost)
    }

    pub(super) fn on_end(&mut self, index: usize) {
        let fault = self.faults[index].fault.clone();
        match fault {
            // None is left if the node has crashed meanwhile.
            Fault::Pause { node, .. } => {
                self.places[node].pauses = self.places[node].pauses.saturating_sub(1);
            }
            Fault::SlowDisk { node, factor, .. } => {
                self.places[node].platter.borrow_mut().speed_up(factor);
            }
            _ => {
                for (from, to) in fault.ways(self.places.len()) {
                    self.net.borrow_mut().uncut(from, to);
                }
            }
        }
    }
}
