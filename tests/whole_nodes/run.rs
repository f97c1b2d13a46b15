//! One run: nodes, clients and faults out of a seed, and what is asked of it at the end.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use mainstay::{Config, Durability, Replicated, Status};
use mainstay_base::{Duration, Instant, Rng};
use mainstay_directory::resp::Reply;
use mainstay_kit::{self as kit, Traces, all_are_one, linearisable, same_state};
use mainstay_membership::Evidence;
use mainstay_sim::live::{Room, Start, Stats};
use mainstay_sim::{Atlas, Disk, Fault, FaultEvent, Moment, Options, Wire, schedule};

use super::clients::{Book, Nodes, User, read_all};
use super::large::{Large, Weight};
use super::model::{Asked, Op, Sequential};

/// When faults may begin, and how long clients work.
const CALM: Duration = Duration::from_millis(300);
pub const WORK: Duration = Duration::from_secs(4);
/// How long the nodes may take to be whole again after everything is healed.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// What all runs of a test have in common.
#[derive(Clone, Debug)]
pub struct Setup {
    pub nodes: usize,
    pub users: usize,
    pub durability: Durability,
    /// Clients take old states for the present one.
    pub stale_reads: bool,
    /// The disks do not force what they say they have forced, once the cluster is made.
    pub lying_disks: bool,
    pub weight: Weight,
    /// How much a turn may do, if it is not the usual.
    pub turn_work: Option<Duration>,
}

impl Setup {
    pub fn new(nodes: usize, durability: Durability) -> Self {
        Self {
            nodes,
            users: 4,
            durability,
            stale_reads: false,
            lying_disks: false,
            weight: Weight::default(),
            turn_work: None,
        }
    }
}

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub hash: u128,
    pub steps: u64,
    pub stats: Stats,
    pub answered: usize,
    pub unknown: usize,
    pub refused: u64,
    /// The group stood still until all were back, and said that something may be lost.
    pub maybe_lost: bool,
    /// How often nodes that the others had declared dead started anew in their process.
    pub restarts: u64,
    pub checkpoints: u64,
    /// The longest turn of any boot.
    pub longest: Duration,
    /// How often their processes took another one for dead because it was silent.
    pub silent: usize,
}

pub fn options(seed: u64, setup: &Setup) -> Options {
    let minority = (setup.nodes - 1) / 2;
    let down = match setup.durability {
        // What is forced outlives the loss of all processes, and of the disks of a minority.
        Durability::Disk => setup.nodes,
        Durability::Memory => minority,
    };
    let mut options = Options::from_seed(seed, Wire::Channel, Atlas { down, lost: minority });
    options.span = WORK - CALM;
    options
}

/// The faults of a seed, after the cluster is made. Old disks are beyond the model; without a disk every crash loses
/// all that there is; with disks all nodes may go down at once.
pub fn faults(seed: u64, setup: &Setup) -> Vec<FaultEvent> {
    let mut faults = schedule(seed, setup.nodes, &options(seed, setup));
    for event in &mut faults {
        event.at = event.at + CALM;
        if let Fault::Crash { disk, .. } = &mut event.fault
            && (*disk == Disk::Old || setup.durability == Durability::Memory)
        {
            *disk = Disk::Empty;
        }
    }
    let mut rng = Rng::new(seed).stream("all down");
    if setup.durability == Durability::Disk && rng.chance(1, 2) {
        let at = Instant::ZERO + CALM + Duration::from_millis(rng.between(500, 3_000));
        for node in 0..setup.nodes {
            let length = Duration::from_millis(rng.between(10, 300));
            let (disk, moment) = (Disk::Kept, Moment::Now);
            faults.push(FaultEvent { at, fault: Fault::Crash { node, length, disk, moment } });
        }
    }
    faults.sort_by_key(|event| event.at);
    faults
}

/// Starts the nodes of a run; it is written down how long their turns are.
fn starter(
    setup: &Setup,
    longest: Rc<Cell<Duration>>,
    traces: Arc<Traces>,
) -> impl FnMut(Start) -> Result<Replicated<Large>, String> + use<> {
    let setup = setup.clone();
    move |start| {
        // Heavy states are to be restored from checkpoints, and to be copied behind them.
        let bytes = if setup.weight.chunks > 0 { 1 << 10 } else { 4 << 10 };
        let replica = mainstay_paradigm::Config::builder().checkpoint_bytes(bytes);
        let (first, time) = (start.first, Rc::clone(&start.ports.time));
        let settings = |config: Config| {
            let config = config
                .durability(setup.durability)
                .replica(replica.hashes(16, 16).build().unwrap())
                .trace(Arc::<Traces>::clone(&traces))
                .bootstrap(first);
            match setup.turn_work {
                Some(most) => config.turn_work(most),
                None => config,
            }
        };
        // Processors differ: the first one is slow.
        let weight = Weight { faster: setup.weight.faster * start.index as u32, ..setup.weight };
        let node = kit::replica(start, settings, move || Large::new(weight))?;
        let (asked, longest) = (node.clone(), Rc::clone(&longest));
        tokio::task::spawn_local(async move {
            while let Ok(status) = asked.status().await {
                longest.set(longest.get().max(status.site.turns.longest));
                time.sleep_until(time.now() + Duration::from_millis(25)).await;
            }
        });
        Ok(node)
    }
}

/// Looks at the state of one node, with hundreds of reads at once that all take their time; answers its longest turn.
pub fn look_at_once(turn_work: Option<Duration>, local: bool) -> Duration {
    let setup = Setup { turn_work, ..Setup::new(3, Durability::Disk) };
    let begin = starter(&setup, Rc::default(), Arc::default());
    let mut room = Room::new(7, 3, options(7, &setup), Vec::new(), begin);
    let nodes = room.outside();
    let looking = async move {
        let node = loop {
            if let Some(node) = nodes.node(1)
                && node.read(|_| ()).await.is_ok()
            {
                break node;
            }
            nodes.sleep(Duration::from_millis(10)).await;
        };
        let mut reads = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let node = node.clone();
            reads.spawn_local(async move {
                if local {
                    node.read_local(Large::look).await
                } else {
                    node.read(Large::look).await
                }
            });
        }
        while let Some(read) = reads.join_next().await {
            read.unwrap().unwrap();
        }
        node.status().await.unwrap().site.turns.longest
    };
    room.finish(looking, WHOLE_WITHIN).unwrap()
}

async fn standing(nodes: Nodes, count: usize) -> String {
    let mut text = String::new();
    for index in 0..count {
        let Some(node) = nodes.node(index) else {
            let _ = writeln!(text, "node {index} is down");
            continue;
        };
        let _ = writeln!(text, "node {index}: {:#?}", node.status().await);
    }
    text
}

/// One run; an error is what went wrong in it.
pub fn run(seed: u64, setup: &Setup, faults: Vec<FaultEvent>) -> Result<Report, String> {
    let longest = Rc::<Cell<Duration>>::default();
    // None, that of quartz, and that of a clock which is broken.
    let drift = [0, 200, 100_000][(seed % 3) as usize];
    let traces = Arc::<Traces>::default();
    let begin = starter(setup, Rc::clone(&longest), Arc::clone(&traces));
    let mut room = Room::new(seed, setup.nodes, options(seed, setup), faults, begin).drift(drift);
    if setup.durability == Durability::Memory {
        room = room.without_disks();
    }
    let book = Rc::new(RefCell::new(Book::default()));
    let until = Instant::ZERO + WORK;
    let working = Rc::new(());
    for number in 0..setup.users {
        let user = User {
            number,
            nodes: room.outside(),
            count: setup.nodes,
            rng: Rng::new(seed).stream(&format!("user {number}")),
            book: Rc::clone(&book),
            stale: setup.stale_reads,
        };
        let working = Rc::clone(&working);
        room.spawn(async move {
            user.work(until).await;
            drop(working);
        });
    }
    room.run(CALM).map_err(|stuck| stuck.to_string())?;
    if setup.lying_disks {
        room.lie();
    }
    room.run(WORK - CALM).map_err(|stuck| stuck.to_string())?;
    room.heal();
    let nodes = room.outside();
    let idle = {
        let nodes = nodes.clone();
        async move {
            while Rc::strong_count(&working) > 1 {
                nodes.sleep(Duration::from_millis(20)).await;
            }
        }
    };
    room.finish(idle, WHOLE_WITHIN).map_err(|stuck| format!("clients: {stuck}"))?;
    let whole = room.finish(all_are_one(nodes.clone(), setup.nodes), WHOLE_WITHIN);
    let statuses = whole.map_err(|stuck| {
        let how = room.finish(standing(nodes.clone(), setup.nodes), WHOLE_WITHIN);
        format!("not whole: {stuck}\n{}", how.unwrap_or_else(|stuck| stuck.to_string()))
    })?;
    let reading = read_all(nodes, setup.nodes, setup.users, Rc::clone(&book));
    room.finish(reading, WHOLE_WITHIN).map_err(|stuck| format!("the last reads: {stuck}"))?;
    let book = book.take();
    let maybe_lost = statuses.iter().any(|status| status.replica.maybe_lost > 0);
    same_state(&statuses)?;
    traces.judge(&statuses)?;
    // On disk nothing may be lost whatever they say.
    if !maybe_lost || setup.durability == Durability::Disk {
        counted(&book)?;
        linearisable(&Sequential, &book.history, Op::part)?;
    }
    let answered = book.history.iter().filter(|asked| is_answered(asked)).count();
    Ok(Report {
        hash: room.hash(),
        steps: room.steps(),
        stats: room.stats(),
        answered,
        unknown: book.history.len() - answered,
        refused: book.refused,
        maybe_lost,
        restarts: statuses.iter().map(|status| status.site.restarts).sum(),
        checkpoints: statuses.iter().map(|status| status.replica.checkpoints).sum(),
        longest: longest.get(),
        silent: statuses.iter().map(silent).sum(),
    })
}

pub fn silent(status: &Status) -> usize {
    let suspicions = status.site.suspicions.iter();
    suspicions.filter(|suspicion| suspicion.evidence == Evidence::Silence).count()
}

fn is_answered(asked: &Asked) -> bool {
    asked.outcome != mainstay_check::linear::Outcome::Unknown
}

/// Every acknowledged increment of a counter is there, and none but those and the uncertain ones.
fn counted(book: &Book) -> Result<(), String> {
    for (counter, (done, perhaps)) in &book.counters {
        let counts = book.history.iter().filter(|asked| asked.op == Op::MGet(vec![*counter]));
        for asked in counts {
            let mainstay_check::linear::Outcome::Returned { ret, .. } = &asked.outcome else {
                continue;
            };
            let count: i64 = match ret {
                Reply::Array(Some(values)) => match &values[..] {
                    [Reply::Bulk(Some(value))] => {
                        std::str::from_utf8(value).unwrap().parse().unwrap()
                    }
                    _ => 0,
                },
                _ => 0,
            };
            if !(*done..=*done + *perhaps).contains(&count) {
                return Err(format!(
                    "counter {counter}: {done} increments acknowledged, {perhaps} uncertain, {count} there"
                ));
            }
        }
    }
    Ok(())
}
