//! Faults as a list made before the run: printable, storable, replayable, shrinkable.

use std::fmt;

use mainstay_base::{Duration, Instant, Rng};
use serde::{Deserialize, Serialize};

use crate::{ClockFault, Options};

/// One fault of a schedule. Nodes are named by their index in the world.
///
/// A fault carries its own end, so that leaving one out of a schedule only ever makes a run milder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FaultEvent {
    /// When it begins.
    pub at: Instant,
    /// What happens.
    pub fault: Fault,
}

/// What can go wrong, and for how long. A node that is not there makes a fault void.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fault {
    /// The node stops without a word; of its unfinished writes some first ones are on the disk. It starts again after
    /// `length`.
    Crash {
        /// Which.
        node: usize,
        /// How long it is down.
        length: Duration,
        /// What it finds when it starts again.
        disk: Disk,
        /// When exactly.
        moment: Moment,
    },
    /// Copies the disk, for a later crash with [`Disk::Old`].
    Backup {
        /// Which.
        node: usize,
    },
    /// The node does nothing, and then goes on with all that has come meanwhile. A crash ends it.
    Pause {
        /// Which.
        node: usize,
        /// How long.
        length: Duration,
    },
    /// Nothing passes from one node to another; the other way is open.
    OneWayCut {
        /// From.
        from: usize,
        /// To.
        to: usize,
        /// How long.
        length: Duration,
    },
    /// Nothing passes between two nodes.
    Cut {
        /// The one.
        one: usize,
        /// The other.
        other: usize,
        /// How long.
        length: Duration,
    },
    /// Nothing passes between `side` and the rest.
    Partition {
        /// The nodes of one side.
        side: Vec<usize>,
        /// How long.
        length: Duration,
    },
    /// The connections between two nodes break; new ones may be made at once.
    Reset {
        /// The one.
        one: usize,
        /// The other.
        other: usize,
    },
    /// The clock of the node is wrong. [Services](crate::service) see that; for other nodes, and for whole ones, it is void.
    Clock {
        /// Which.
        node: usize,
        /// In what way.
        clock: ClockFault,
        /// How long.
        length: Duration,
    },
    /// The node is suspended, as a virtual machine: it is paused, and its clock stands still meanwhile. Void for whole nodes.
    Suspend {
        /// Which.
        node: usize,
        /// How long.
        length: Duration,
    },
    /// Forced writes take longer.
    SlowDisk {
        /// Which.
        node: usize,
        /// How many times longer.
        factor: u32,
        /// How long.
        length: Duration,
    },
}

impl Fault {
    /// The directions that a cut or partition closes, among so many nodes.
    pub(crate) fn ways(&self, nodes: usize) -> Vec<(usize, usize)> {
        match self {
            Self::OneWayCut { from, to, .. } => vec![(*from, *to)],
            Self::Cut { one, other, .. } => vec![(*one, *other), (*other, *one)],
            Self::Partition { side, .. } => {
                let all = || 0..nodes;
                let apart = |(from, to): &(usize, usize)| side.contains(from) != side.contains(to);
                all().flat_map(|from| all().map(move |to| (from, to))).filter(apart).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it speaks of nodes that there are.
    pub(crate) fn is_possible(&self, nodes: usize) -> bool {
        match self {
            Self::Crash { node, .. }
            | Self::Backup { node }
            | Self::Pause { node, .. }
            | Self::Clock { node, .. }
            | Self::Suspend { node, .. }
            | Self::SlowDisk { node, .. } => *node < nodes,
            Self::OneWayCut { from: one, to: other, .. }
            | Self::Cut { one, other, .. }
            | Self::Reset { one, other } => one != other && *one < nodes && *other < nodes,
            Self::Partition { side, .. } => side.iter().all(|node| *node < nodes),
        }
    }
}

/// When exactly a node crashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Moment {
    /// At the time of the fault.
    Now,
    /// While its next forced write is unfinished; never, if it writes no more. Rare by chance, and where recovery errs.
    MidWrite,
    /// When it is about to do this; never, if it does not come to that.
    At(Point),
}

/// A point of a node's run at which a script can have it crash: what it does, and how often it has done so since the world
/// began. [`World::points`](crate::World::points) says how many there were.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Point {
    /// What it is about to do.
    pub action: Action,
    /// Counted from 1.
    pub number: u64,
}

/// What a node does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Sends a message.
    Send,
    /// Takes a message in.
    Receive,
    /// Is called by its timer.
    Timer,
    /// Begins a forced write.
    Write,
}

/// What a crashed node finds when it starts again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Disk {
    /// Its disk.
    Kept,
    /// An empty disk.
    Empty,
    /// The last [backup](Fault::Backup), or an empty disk if there is none.
    Old,
}

/// The schedule of `seed` for a world of `nodes` nodes, in order of time.
///
/// It is bounded by the numbers in `options`. The world keeps the atlas: a crash that would break it is left out there,
/// since only the world knows which nodes are whole.
#[must_use]
pub fn schedule(seed: u64, nodes: usize, options: &Options) -> Vec<FaultEvent> {
    let rng = Rng::new(seed).stream("schedule");
    let mut events = Vec::new();
    let kinds: [(&str, u32, Draw); 7] = [
        ("crash", options.crashes, crash),
        ("pause", options.pauses, |rng, nodes, options| {
            vec![Fault::Pause { node: node(rng, nodes), length: length(rng, options) }]
        }),
        ("one-way cut", options.one_way_cuts, |rng, nodes, options| {
            let (from, to) = two(rng, nodes);
            vec![Fault::OneWayCut { from, to, length: length(rng, options) }]
        }),
        ("cut", options.cuts, |rng, nodes, options| {
            let (one, other) = two(rng, nodes);
            vec![Fault::Cut { one, other, length: length(rng, options) }]
        }),
        ("partition", options.partitions, |rng, nodes, options| {
            let mut all: Vec<usize> = (0..nodes).collect();
            rng.shuffle(&mut all);
            all.truncate(rng.between(1, (nodes as u64 / 2).max(1)) as usize);
            all.sort_unstable();
            vec![Fault::Partition { side: all, length: length(rng, options) }]
        }),
        ("reset", options.resets, |rng, nodes, _| {
            let (one, other) = two(rng, nodes);
            vec![Fault::Reset { one, other }]
        }),
        ("slow disk", options.slow_disks, |rng, nodes, options| {
            let (node, factor) = (node(rng, nodes), rng.between(10, 100) as u32);
            vec![Fault::SlowDisk { node, factor, length: length(rng, options) }]
        }),
    ];
    for (name, number, draw) in kinds {
        // A stream for each kind: more crashes do not move the cuts.
        let mut rng = rng.stream(name);
        for _ in 0..number {
            let faults = draw(&mut rng, nodes, options);
            let mut times: Vec<Instant> = faults.iter().map(|_| time(&mut rng, options)).collect();
            times.sort();
            let timed = times.into_iter().zip(faults);
            events.extend(timed.map(|(at, fault)| FaultEvent { at, fault }));
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

type Draw = fn(&mut Rng, usize, &Options) -> Vec<Fault>;

/// A crash, behind the backup that it may need.
fn crash(rng: &mut Rng, nodes: usize, options: &Options) -> Vec<Fault> {
    let (node, length) = (node(rng, nodes), length(rng, options));
    let moment = if rng.chance(1, 2) { Moment::MidWrite } else { Moment::Now };
    let crash = |disk| Fault::Crash { node, length, disk, moment };
    let lost = options.atlas.lost > 0 && rng.chance(options.lost_disks, 1000);
    match (lost, lost && rng.chance(1, 2)) {
        (false, _) => vec![crash(Disk::Kept)],
        (true, false) => vec![crash(Disk::Empty)],
        (true, true) => {
            vec![Fault::Backup { node }, crash(Disk::Old)]
        }
    }
}

fn node(rng: &mut Rng, nodes: usize) -> usize {
    rng.below(nodes as u64) as usize
}

/// Two different nodes; in a world of one node the fault is void.
fn two(rng: &mut Rng, nodes: usize) -> (usize, usize) {
    let one = node(rng, nodes);
    (one, (one + 1 + rng.below((nodes as u64 - 1).max(1)) as usize) % nodes)
}

fn time(rng: &mut Rng, options: &Options) -> Instant {
    Instant::ZERO + Duration::from_nanos(rng.below(nanos(options.span).max(1)))
}

/// Short faults are as likely as long ones: evenly drawn on a logarithmic scale.
fn length(rng: &mut Rng, options: &Options) -> Duration {
    let high = (nanos(options.length) >> rng.below(6)).max(2);
    Duration::from_nanos(rng.between(high / 2, high))
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Display for FaultEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.at, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash { node, length, disk, moment } => {
                write!(f, "crash of {node} ({moment:?}) for {length:?}, disk {disk:?}")
            }
            Self::Backup { node } => write!(f, "backup of {node}"),
            Self::Pause { node, length } => write!(f, "pause of {node} for {length:?}"),
            Self::OneWayCut { from, to, length } => {
                write!(f, "cut from {from} to {to} for {length:?}")
            }
            Self::Cut { one, other, length } => {
                write!(f, "cut between {one} and {other} for {length:?}")
            }
            Self::Partition { side, length } => {
                write!(f, "partition of {side:?} from the rest for {length:?}")
            }
            Self::Reset { one, other } => write!(f, "reset between {one} and {other}"),
            Self::Clock { node, clock, length } => {
                write!(f, "clock of {node} {clock:?} for {length:?}")
            }
            Self::Suspend { node, length } => {
                write!(f, "suspension of {node} for {length:?}")
            }
            Self::SlowDisk { node, factor, length } => {
                write!(f, "disk of {node} {factor} times slower for {length:?}")
            }
        }
    }
}
