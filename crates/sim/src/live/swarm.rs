//! Many seeds of one scenario: the part of a test of whole nodes that is the same in all of them.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use mainstay_base::{Instant, Rng};

use super::outside::Outside;
use super::room::Room;
use super::start::Start;
use crate::{Atlas, Disk, Fault, FaultEvent, Options, Wire, as_code, schedule, shrink};

/// How often at most a scenario is run to find the faults that matter.
const SHRINKS_MAX: usize = 200;
/// A client has so many cuts and so many resets at most.
const CLIENT_FAULTS: u64 = 4;

/// What all runs of a swarm have in common.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// How many nodes there are.
    pub nodes: usize,
    /// What may fail at a time.
    pub atlas: Atlas,
    /// How many clients there are whose connections may fail ([`Outside::client`]), beside others that are in the room. Default 0.
    pub clients: usize,
    /// Every so many seeds one is run twice, and must go the same way. Default 10.
    pub twice_every: u64,
    /// The faults of every run, instead of those that are drawn; the room is [strict](Room::strict) then. Default: none.
    pub script: Option<Vec<FaultEvent>>,
    /// The nodes have disks; without, each crash loses all that a node has.
    pub disks: bool,
    /// Nothing fails for so long. Default 300 ms.
    pub calm: Duration,
    /// When everything is healed. Default 3 s.
    pub work: Duration,
    /// How long, in virtual time, all may take to be well after that. Default 60 s.
    pub within: Duration,
}

impl Plan {
    /// So many nodes with disks.
    #[must_use]
    pub fn new(nodes: usize, atlas: Atlas) -> Self {
        Self {
            nodes,
            atlas,
            clients: 0,
            twice_every: 10,
            script: None,
            disks: true,
            calm: Duration::from_millis(300),
            work: Duration::from_secs(3),
            within: Duration::from_secs(60),
        }
    }

    fn options(&self, seed: u64) -> Options {
        let mut options = Options::from_seed(seed, Wire::Channel, self.atlas);
        options.span = self.work.saturating_sub(self.calm);
        options
    }

    /// The faults of a seed. Old disks are beyond the model.
    fn faults(&self, seed: u64) -> Vec<FaultEvent> {
        if let Some(script) = &self.script {
            return script.clone();
        }
        let mut faults = schedule(seed, self.nodes, &self.options(seed));
        for event in &mut faults {
            event.at = event.at + self.calm;
            if let Fault::Crash { disk, .. } = &mut event.fault
                && (*disk == Disk::Old || !self.disks)
            {
                *disk = Disk::Empty;
            }
        }
        faults.extend(self.client_faults(seed));
        faults.sort_by_key(|event| event.at);
        faults
    }

    /// Cuts and resets between clients and nodes.
    fn client_faults(&self, seed: u64) -> Vec<FaultEvent> {
        let mut rng = Rng::new(seed).stream("faults of clients");
        let mut faults = Vec::new();
        for client in self.nodes..self.nodes + self.clients {
            for _ in 0..rng.below(CLIENT_FAULTS + 1) {
                let at = rng.between(self.calm.as_micros() as u64, self.work.as_micros() as u64);
                let node = rng.below(self.nodes as u64) as usize;
                let length = Duration::from_millis(rng.between(10, 1_500));
                let fault = match rng.below(4) {
                    0 => Fault::Cut { one: client, other: node, length },
                    1 => Fault::OneWayCut { from: node, to: client, length },
                    2 => Fault::OneWayCut { from: client, to: node, length },
                    _ => Fault::Reset { one: client, other: node },
                };
                faults.push(FaultEvent { at: Instant::ZERO + Duration::from_micros(at), fault });
            }
        }
        faults
    }
}

/// One run of a scenario.
pub struct Run<'a> {
    /// Its seed.
    pub seed: u64,
    plan: &'a Plan,
    faults: Vec<FaultEvent>,
    /// Shared by all workers that have not ended.
    busy: Rc<()>,
}

impl Run<'_> {
    /// The room, with the faults of this run; `begin` starts a node, now and after each crash.
    pub fn room<H: Clone + 'static>(
        &self,
        begin: impl FnMut(Start) -> Result<H, String> + 'static,
    ) -> Room<H> {
        let options = self.plan.options(self.seed);
        let room = Room::new(self.seed, self.plan.nodes, options, self.faults.clone(), begin);
        let room = if self.plan.disks { room } else { room.without_disks() };
        if self.plan.script.is_some() { room.strict() } else { room }
    }

    /// Runs a worker beside the nodes: it gets what it sees of them, randomness of its own, and when it is to end.
    pub fn worker<H: Clone + 'static, F: Future<Output = ()> + 'static>(
        &self,
        room: &Room<H>,
        number: usize,
        work: impl FnOnce(Outside<H>, Rng, Instant) -> F,
    ) {
        let rng = Rng::new(self.seed).stream(&format!("worker {number}"));
        let working = work(room.outside(), rng, Instant::ZERO + self.plan.work);
        let busy = Rc::clone(&self.busy);
        room.spawn(async move {
            working.await;
            drop(busy);
        });
    }

    /// Lets nodes and workers run under the faults, heals everything, and waits for the workers.
    ///
    /// # Errors
    /// What did not come to its end.
    pub fn play<H: Clone + 'static>(&self, room: &mut Room<H>) -> Result<(), String> {
        room.run(self.plan.work).map_err(|stuck| stuck.to_string())?;
        room.heal();
        let (nodes, busy) = (room.outside(), Rc::downgrade(&self.busy));
        let idle = async move {
            // This run holds one.
            while busy.strong_count() > 1 {
                nodes.sleep(Duration::from_millis(20)).await;
            }
        };
        self.finish(room, idle).map_err(|stuck| format!("the workers: {stuck}"))
    }

    /// Waits until something is so, which it has to be in the end.
    ///
    /// # Errors
    /// It did not come to that.
    pub fn finish<H: Clone + 'static, T: 'static>(
        &self,
        room: &mut Room<H>,
        until: impl Future<Output = T> + 'static,
    ) -> Result<T, String> {
        room.finish(until, self.plan.within).map_err(|stuck| stuck.to_string())
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("seed", &self.seed).field("faults", &self.faults).finish()
    }
}

/// Runs a scenario once, with all faults of the seed.
///
/// # Errors
/// What the scenario found.
pub fn run<T>(
    seed: u64,
    plan: &Plan,
    scenario: impl Fn(&Run<'_>) -> Result<T, String>,
) -> Result<T, String> {
    scenario(&Run { seed, plan, faults: plan.faults(seed), busy: Rc::new(()) })
}

/// A run that found something. It prints what, the faults that it takes, and these as [code](as_code) for [`Plan::script`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its seed.
    pub seed: u64,
    /// What.
    pub what: String,
    /// The faults without which it would not have found anything.
    pub faults: Vec<FaultEvent>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        write!(f, "seed {}\n{}\nit takes:\n{}", self.seed, self.what, faults.join("\n"))?;
        let code = as_code(&self.faults);
        write!(f, "\nthe same again, with seed {} and this script:\n{code}", self.seed)
    }
}

/// Runs a scenario on many seeds; [the environment](crate::seeds) may say others than `seeds`. What the
/// scenario answers should hold the [hash](Room::hash) of the room: every [so many](Plan::twice_every) seeds one is run twice and has
/// to come out equal.
///
/// # Panics
/// If a run [finds](find) something: with its seed, and with the faults without which it would not.
pub fn swarm<T: PartialEq + fmt::Debug>(
    seeds: Range<u64>,
    plan: &Plan,
    scenario: impl Fn(&Run<'_>) -> Result<T, String>,
) -> Vec<T> {
    find(crate::seeds(seeds), plan, scenario).unwrap_or_else(|found| panic!("{plan:?}\n{found}"))
}

/// As [`swarm`], on these seeds, and without a panic: for tests that look for what was planted.
///
/// # Errors
/// The first run that found something.
pub fn find<T: PartialEq + fmt::Debug>(
    seeds: Range<u64>,
    plan: &Plan,
    scenario: impl Fn(&Run<'_>) -> Result<T, String>,
) -> Result<Vec<T>, Found> {
    let one = |seed: u64| {
        let smallest = |what| Found { seed, what, faults: smallest(seed, plan, &scenario) };
        let report = run(seed, plan, &scenario).map_err(smallest)?;
        if plan.twice_every > 0 && seed.is_multiple_of(plan.twice_every) {
            let again = run(seed, plan, &scenario);
            if again.as_ref() != Ok(&report) {
                let what = format!("it does not run the same twice:\n{report:?}\n{again:?}");
                return Err(Found { seed, what, faults: plan.faults(seed) });
            }
        }
        Ok(report)
    };
    seeds.map(one).collect()
}

/// The faults of a seed that fails, without those that do not matter.
fn smallest<T>(
    seed: u64,
    plan: &Plan,
    scenario: &impl Fn(&Run<'_>) -> Result<T, String>,
) -> Vec<FaultEvent> {
    let mut left = SHRINKS_MAX;
    shrink(plan.faults(seed), |part| {
        if left == 0 {
            return false;
        }
        left -= 1;
        scenario(&Run { seed, plan, faults: part.to_vec(), busy: Rc::new(()) }).is_err()
    })
}
