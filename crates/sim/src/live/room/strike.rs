//! What the faults of the schedule do to a room.

use mainstay_base::Rng;

use super::super::kernel::Task;
use super::super::told::Stuck;
use super::{Kind, Place, Room};
use crate::Beyond;
use crate::schedule::{Disk, Fault, Moment};

impl<H: Clone + 'static> Room<H> {
    pub(super) fn on_begin(&mut self, index: usize) {
        let fault = self.faults[index].fault.clone();
        let nodes = self.places.len();
        let all = nodes + self.net.borrow().clients();
        if !fault.is_possible(nodes, all) {
            return self.leave_out(index, Beyond::Nobody);
        }
        self.kernel.note(Kind::Begun as u8, index, 0);
        let length = match fault {
            Fault::Crash { node, moment: Moment::MidWrite, .. } => {
                self.places[node].doomed.push(index);
                return;
            }
            Fault::Crash { node, moment: Moment::At(point), .. } => {
                return self.kernel.points().doom(node, point, index);
            }
            Fault::Crash { .. } => return self.on_crash(index),
            Fault::Backup { node } => {
                self.places[node].platter.borrow_mut().back_up();
                return;
            }
            Fault::Reset { one, other } => {
                self.stats.faults += 1;
                let mut net = self.net.borrow_mut();
                let (one, other) = net.ends(one, other);
                return net.reset(one, other);
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
                let mut net = self.net.borrow_mut();
                for (from, to) in fault.ways(nodes) {
                    let (from, to) = net.ends(from, to);
                    net.cut(from, to);
                }
                length
            }
        };
        self.stats.faults += 1;
        let end = Task::End { fault: index, epoch: self.epoch };
        self.kernel.at(self.kernel.now() + length, end);
    }

    /// The faults that have reached their points strike.
    pub(super) fn strike(&mut self) {
        loop {
            let struck = self.kernel.points().take_struck();
            let Some(index) = struck else { return };
            let left_out = self.left_out.borrow().len();
            self.on_crash(index);
            if self.left_out.borrow().len() > left_out {
                // What the node was about to do is lost already: the run means nothing any more.
                self.refuse();
            }
        }
    }

    pub(super) fn on_crash(&mut self, index: usize) {
        let event = &self.faults[index];
        let Fault::Crash { node, length, disk, .. } = event.fault else { return };
        // Drawn from the fault alone: without another fault of the schedule this one stays the same.
        let power = Rng::new(self.seed).stream(&event.to_string()).chance(1, 2);
        if let Err(why) = self.atlas_allows(node, disk) {
            return self.leave_out(index, why);
        }
        self.stats.faults += 1;
        self.crash(node, power, disk);
        let boot = self.places[node].boots;
        self.kernel.at(self.kernel.now() + length, Task::Restart { node, boot });
    }

    fn leave_out(&mut self, index: usize, why: Beyond) {
        let event = self.faults[index].clone();
        self.stats.skipped += 1;
        self.left_out.borrow_mut().push((event, why));
        if self.is_strict {
            self.refuse();
        }
    }

    /// The fault that was left out last ends the run.
    fn refuse(&mut self) {
        if let Some((event, why)) = self.left_out.borrow().last() {
            let (fault, why) = (event.to_string(), *why);
            self.stuck.get_or_insert(Stuck::Beyond { fault, why });
        }
    }

    /// Whether the node runs and may crash with this outcome.
    fn atlas_allows(&mut self, node: usize, disk: Disk) -> Result<(), Beyond> {
        for place in &mut self.places {
            place.lost &= !place.restored.is_told() || place.tasks.is_none();
        }
        let atlas = self.options.atlas;
        let others = || self.places.iter().enumerate().filter(|(index, _)| *index != node);
        let down = others().filter(|(_, place)| place.tasks.is_none() || place.lost).count();
        // One that gets its state from another is no copy of it, whatever is on its disk.
        let is_no_copy = |place: &&Place| place.lost || !place.restored.is_told();
        let lost = others().map(|(_, place)| place).filter(is_no_copy).count();
        if self.places[node].tasks.is_none() {
            Err(Beyond::Down)
        } else if down >= atlas.down {
            Err(Beyond::TooManyDown(atlas.down))
        } else if disk != Disk::Kept && lost >= atlas.lost {
            Err(Beyond::TooManyLost(atlas.lost))
        } else {
            Ok(())
        }
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
                let mut net = self.net.borrow_mut();
                for (from, to) in fault.ways(self.places.len()) {
                    let (from, to) = net.ends(from, to);
                    net.uncut(from, to);
                }
            }
        }
    }
}
