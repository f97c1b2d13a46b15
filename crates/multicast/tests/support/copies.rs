//! How many nodes have had what a receipt speaks of.

use mainstay_base::{Level, Position};
use mainstay_multicast::Cut;

use super::{World, node};

/// Per node up to which position it has had all, whole, in any of its lives; and so much of it forced.
#[derive(Default)]
pub struct Copies(Vec<(u64, u64)>);

impl Copies {
    fn raise(&mut self, index: usize, held: u64, forced: u64) {
        if self.0.len() <= index {
            self.0.resize(index + 1, (0, 0));
        }
        let has = &mut self.0[index];
        *has = (has.0.max(held), has.1.max(forced));
    }
}

impl World {
    pub fn note_copies(&mut self, index: usize) {
        let Some(group) = &self.slots[index].group else { return };
        let status = group.status();
        if status.whole {
            self.copies.raise(index, status.held, status.forced);
        }
    }

    /// All who contributed hold what the cut names. Behind a loss positions are given anew.
    pub fn note_cut(&mut self, cut: &Cut) {
        if cut.verdict == mainstay_multicast::Verdict::Blocked {
            return;
        }
        if cut.loss {
            for has in &mut self.copies.0 {
                *has = (has.0.min(cut.end), has.1.min(cut.end));
            }
        }
        for holder in &cut.holders {
            let index = (0..self.slots.len()).find(|index| node(*index) == holder.boot.node);
            self.copies.raise(index.unwrap(), cut.end, cut.end);
        }
    }

    /// No receipt speaks of more than a majority of the nodes has had.
    pub fn check_copies(&self, position: Position, level: Level) {
        let is_copy = |(held, forced): &&(u64, u64)| {
            let upto = if level == Level::Disk { forced } else { held };
            *upto >= position.0
        };
        let count = self.copies.0.iter().filter(is_copy).count();
        let (seed, nodes) = (self.options.seed, self.options.nodes);
        assert!(
            2 * count > nodes,
            "seed {seed}: {count} copies, and told of {level:?} at {position:?}"
        );
    }
}
