//! What a run is made of.

use std::cell::RefCell;

use mainstay_sim::live::{Beyond, LeftOut, Room, Start};
use mainstay_sim::{Atlas, FaultEvent, Options, Wire};

/// What a run is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// All that is drawn comes from it.
    pub seed: u64,
    /// The faults, in order of time.
    pub faults: Vec<FaultEvent>,
    /// Which kind of run it is.
    pub kind: Kind,
    /// The planted fault, one of [`Example::BROKEN`](crate::Example::BROKEN).
    pub broken: Option<&'static str>,
    /// Somebody wrote the faults down.
    is_scripted: bool,
    /// What did not take place in its room.
    left_out: RefCell<LeftOut>,
}

/// Within which bounds a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Faults within the failure model; all that are left are healed at the end.
    Faults,
    /// Nothing fails.
    Calm,
    /// Faults outside the failure model; nothing is healed.
    Outside,
}

impl Run {
    pub(crate) fn new(
        seed: u64,
        faults: Vec<FaultEvent>,
        kind: Kind,
        broken: Option<&'static str>,
        is_scripted: bool,
    ) -> Self {
        Self { seed, faults, kind, broken, is_scripted, left_out: RefCell::default() }
    }

    /// The room of this run, of so many nodes. Of `options`, the atlas is the failure model: a fault of a script that is not within
    /// it ends the run ([`HarnessError::Beyond`](crate::HarnessError::Beyond)), and one that was drawn is left out. Without faults,
    /// and outside the model, the network is fast, and outside the model everything may fail at once.
    pub fn room<H: Clone + 'static>(
        &self,
        nodes: usize,
        options: Options,
        begin: impl FnMut(Start) -> Result<H, String> + 'static,
    ) -> Room<H> {
        let calm = Options::calm(Wire::Channel);
        let options = match self.kind {
            Kind::Faults => options,
            Kind::Calm => calm,
            Kind::Outside => Options { atlas: Atlas { down: nodes, lost: nodes }, ..calm },
        };
        let room = Room::new(self.seed, nodes, options, self.faults.clone(), begin);
        self.left_out.replace(room.left_out());
        if self.is_scripted { room.strict() } else { room }
    }

    /// The faults without those that did not take place, and the latter, with what was against them.
    pub(crate) fn took_place(&self) -> (Vec<FaultEvent>, Vec<(FaultEvent, Beyond)>) {
        let left_out = self.left_out.borrow().borrow().clone();
        let mut faults = self.faults.clone();
        for (fault, _) in &left_out {
            if let Some(at) = faults.iter().position(|it| it == fault) {
                faults.remove(at);
            }
        }
        (faults, left_out)
    }
}
