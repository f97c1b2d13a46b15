//! What a run may suffer: expanded from a seed, printable.

use std::fmt;

use mainstay_base::{Duration, Rng};
use serde::{Deserialize, Serialize};

/// What the connections of a world are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Wire {
    /// Frames in a connection may be lost, repeated and reordered. A cut loses frames and closes nothing.
    Datagram,
    /// Frames in a connection come once and in order, until it breaks: then what is on its way is lost from some point
    /// on, and both ends are told, each in its time. A cut stalls; if it lasts, the connection breaks.
    Channel,
}

/// What may be broken at the same time, so that the faults stay within the fault model of the machine under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Atlas {
    /// Nodes that may be down at the same time; a node that has lost its disk counts until it
    /// [is whole](crate::Node::is_whole). Pauses and cuts do not count.
    pub down: usize,
    /// Disks that may be lost (emptied, or replaced by a backup) at the same time.
    pub lost: usize,
}

/// What a run may suffer. Rates are chances in 1,000; numbers of faults are per run.
///
/// The fields are free to be changed before a world is made of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// What the connections are like.
    pub wire: Wire,
    /// The bounds of all faults.
    pub atlas: Atlas,
    /// Whether nodes dial; otherwise the world keeps each pair of living nodes connected.
    pub dials: bool,
    /// Frames lost (datagrams only).
    pub loss: u64,
    /// Frames repeated (datagrams only).
    pub duplication: u64,
    /// Frames that do not keep the order (datagrams only).
    pub reordering: u64,
    /// The shortest way of a frame; at least 1 ns.
    pub delay: Duration,
    /// What is added to it at most, evenly.
    pub spread: Duration,
    /// Frames whose delay is doubled 1 to 6 times: the heavy tail.
    pub tail: u64,
    /// Inputs that leave the turn open for more inputs, for 50 us at most.
    pub batch: u64,
    /// The longest time until an end of a broken connection is told, and until a stalled one breaks.
    pub telling: Duration,
    /// The longest time until the world connects two nodes again.
    pub reconnect: Duration,
    /// The longest time of a forced write; the shortest is a tenth of it.
    pub disk: Duration,
    /// The time from the start in which faults begin.
    pub span: Duration,
    /// The longest time that a fault lasts; the shortest is a 64th of it.
    pub length: Duration,
    /// Crashes.
    pub crashes: u32,
    /// Of the crashes, those that lose the disk as far as the atlas allows: half of them empty, half of them old.
    pub lost_disks: u64,
    /// Pauses of a node.
    pub pauses: u32,
    /// Cuts of one direction between two nodes.
    pub one_way_cuts: u32,
    /// Cuts of both directions between two nodes.
    pub cuts: u32,
    /// Partitions of all nodes into two sides.
    pub partitions: u32,
    /// Connections broken at once.
    pub resets: u32,
    /// Times in which a disk is 10 to 100 times slower.
    pub slow_disks: u32,
}

impl Options {
    /// No faults, in a fast network.
    #[must_use]
    pub fn calm(wire: Wire) -> Self {
        Self {
            wire,
            atlas: Atlas::default(),
            dials: false,
            loss: 0,
            duplication: 0,
            reordering: 0,
            delay: Duration::from_micros(100),
            spread: Duration::from_micros(100),
            tail: 0,
            batch: 0,
            telling: Duration::from_millis(5),
            reconnect: Duration::from_millis(5),
            disk: Duration::from_millis(1),
            span: Duration::from_secs(2),
            length: Duration::from_millis(500),
            crashes: 0,
            lost_disks: 0,
            pauses: 0,
            one_way_cuts: 0,
            cuts: 0,
            partitions: 0,
            resets: 0,
            slow_disks: 0,
        }
    }

    /// The swarm: each fault is on or off for the whole run, and has a rate if it is on.
    ///
    /// A run without some faults reaches situations that are rare when all are on.
    #[must_use]
    pub fn from_seed(seed: u64, wire: Wire, atlas: Atlas) -> Self {
        let mut rng = Rng::new(seed).stream("options");
        let mut on = |high: u64| if rng.chance(1, 2) { rng.between(1, high) } else { 0 };
        let datagram = u64::from(wire == Wire::Datagram);
        let (loss, duplication, reordering) = (on(200), on(200), on(300));
        let (tail, batch, spread) = (on(100), on(800), on(5_000));
        let (crashes, lost_disks) = (on(16), on(500));
        let numbers = [on(12), on(12), on(12), on(6), on(12), on(8)].map(|number| number as u32);
        let [pauses, one_way_cuts, cuts, partitions, resets, slow_disks] = numbers;
        Self {
            atlas,
            loss: loss * datagram,
            duplication: duplication * datagram,
            reordering: reordering * datagram,
            delay: Duration::from_micros(rng.between(20, 2_000)),
            spread: Duration::from_micros(spread),
            tail,
            batch,
            telling: Duration::from_millis(rng.between(1, 300)),
            reconnect: Duration::from_millis(rng.between(1, 50)),
            disk: Duration::from_micros(rng.between(50, 20_000)),
            length: Duration::from_millis(rng.between(50, 1_500)),
            crashes: crashes as u32,
            lost_disks: if atlas.lost > 0 { lost_disks } else { 0 },
            pauses,
            one_way_cuts,
            cuts,
            partitions,
            resets,
            slow_disks,
            ..Self::calm(wire)
        }
    }

    /// The longest way of a frame among healed nodes, where there is no heavy tail: for the bounds that tests compute.
    #[must_use]
    pub fn calm_delay_max(&self) -> Duration {
        self.delay + self.spread
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delay, spread, tail, batch, telling, reconnect, .. } = self;
        write!(f, "{:?}{}: ", self.wire, if self.dials { ", dialled" } else { "" })?;
        write!(
            f,
            "delay {delay:?}+{spread:?}, told in {telling:?}, reconnected in {reconnect:?}, "
        )?;
        write!(
            f,
            "disk {:?}, atlas down {} lost {}; ",
            self.disk, self.atlas.down, self.atlas.lost
        )?;
        write!(f, "faults within {:?} of up to {:?}", self.span, self.length)?;
        let rates = [
            ("loss", self.loss),
            ("duplication", self.duplication),
            ("reordering", self.reordering),
            ("tail", *tail),
            ("batch", *batch),
            ("lost disks", self.lost_disks),
        ];
        for (name, rate) in rates.iter().filter(|(_, rate)| *rate > 0) {
            write!(f, ", {name} {rate}/1000")?;
        }
        let numbers = [
            ("crashes", self.crashes),
            ("pauses", self.pauses),
            ("one-way cuts", self.one_way_cuts),
            ("cuts", self.cuts),
            ("partitions", self.partitions),
            ("resets", self.resets),
            ("slow disks", self.slow_disks),
        ];
        for (name, number) in numbers.iter().filter(|(_, number)| *number > 0) {
            write!(f, ", {number} {name}")?;
        }
        Ok(())
    }
}
