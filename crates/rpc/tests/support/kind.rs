//! The swarm: what its runs are, and what is left at their ends.

use mainstay_base::{BootId, Duration, Rng};
use mainstay_rpc::fault::Fault;
use mainstay_rpc::{Carrier, Config, Orphans};
use mainstay_sim::{Atlas, Clock, Disk, Moment, Options, Wire, schedule};

use super::{LONGEST, Mix, NODES, Play, Work, setup};

/// What a run of the swarm is; what is not said is drawn.
#[derive(Clone, Debug, Default)]
pub struct Kind {
    pub carrier: Option<Carrier>,
    pub stored: Option<bool>,
    pub orphans: Option<Orphans>,
    pub mix: Option<Mix>,
    /// The clocks of the nodes say different times, and differ in their rates as much as they may.
    pub clocks: bool,
    pub fault: Option<Fault>,
}

impl Kind {
    pub fn config(&self, seed: u64, life: u64) -> Config {
        let mut config = Config::new(life);
        let mut rng = Rng::new(seed).stream("kind");
        let (carrier, stored, narrow) = (rng.chance(1, 2), rng.chance(1, 2), rng.chance(1, 2));
        let carrier = if carrier { Carrier::Datagrams } else { Carrier::Link };
        config.carrier = self.carrier.unwrap_or(carrier);
        if config.carrier == Carrier::Datagrams {
            config.retry = Duration::from_millis(20);
        }
        config.stored = self.stored.unwrap_or(stored);
        config.executions_max = if narrow { 2 } else { 1_024 };
        config.window = *rng.pick(&[4_096, 4, 16]).unwrap();
        let orphans = match rng.below(POLICIES.len() as u64 + 1) as usize {
            // Results by names are not stored.
            at if at == POLICIES.len() && self.stored != Some(true) => ADOPTION,
            at => POLICIES[at % POLICIES.len()],
        };
        config.orphans = self.orphans.unwrap_or(orphans);
        if config.orphans == ADOPTION {
            (config.stored, config.deadline_max) = (false, LONGEST);
        }
        config.fault = self.fault;
        config
    }

    /// One run.
    pub fn run(&self, seed: u64) -> Result<Play, String> {
        let mut play = self.play(seed)?;
        play.finish()?;
        Ok(play)
    }

    /// One run, up to the end of its faults.
    pub fn play(&self, seed: u64) -> Result<Play, String> {
        let mut options = Options::from_seed(seed, Wire::Channel, Atlas { down: 2, lost: 0 });
        options.span = Duration::from_millis(1_200);
        options.length /= 2;
        let lost = [0, 50, 200][seed as usize % 3];
        if lost > 0 {
            (options.duplication, options.reordering) = (100, 200);
        }
        let schedule = schedule(seed, NODES, &options);
        let kind = self.clone();
        let mut setup = setup(move |life| kind.config(seed, life), lost);
        if self.clocks {
            setup = setup.clocks(|node| {
                let (offset, drift) = [(0, 0), (7, -100_000), (900, 99_000)][node % NODES];
                Clock::new(Duration::from_secs(offset), drift)
            });
        }
        let mut play = Play::new(seed, NODES, setup, options, schedule);
        play.mix = self.mix.clone().unwrap_or_default();
        play.adopts = self.config(seed, 1).orphans == ADOPTION;
        play.work(Duration::from_millis(1_500))?;
        Ok(play)
    }
}

/// Orphans are adopted, and no run is so long that a name is forgotten.
pub const ADOPTION: Orphans =
    Orphans::Adoption { keep: Duration::from_secs(4), names_max: 1 << 16, bytes_max: 1 << 20 };

/// Of each way to find orphans one, with short times.
pub const POLICIES: [Orphans; 5] = [
    Orphans::Terminator { period: Duration::from_millis(100), lease: Duration::from_millis(300) },
    Orphans::Extermination,
    Orphans::Expiration { quantum: Duration::from_millis(200) },
    Orphans::Reincarnation,
    Orphans::Gentle { patience: Duration::from_millis(100) },
];

impl Play {
    /// In a healed world the first node crashes in the middle of its calls: after the bound nothing is executed for it. How many executions that
    /// were.
    pub fn leave_orphans(&mut self, orphans: Orphans, bound: Duration) -> Result<usize, String> {
        self.world.heal();
        self.rest(Duration::from_millis(400))?;
        self.work(Duration::from_millis(100))?;
        let is_back = orphans == Orphans::Extermination;
        let length = if is_back { 1 } else { 1_000_000 };
        self.crash(0, Duration::from_millis(length));
        let left = self.orphans().len();
        self.rest(Duration::from_millis(20))?;
        if matches!(orphans, Orphans::Reincarnation | Orphans::Gentle { .. }) {
            self.crash(2, Duration::from_millis(1));
        }
        self.rest(bound)?;
        // A quantum counts from when an execution begins, and one that was held may do so late.
        let counts_from_begin = matches!(orphans, Orphans::Expiration { .. });
        let now = self.world.now();
        let is_over = |work: &&&Work| !counts_from_begin || work.begun + bound <= now;
        match self.orphans().iter().find(is_over) {
            None => Ok(left),
            Some(orphan) => Err(format!("RPC-73: an orphan is left: {orphan:?}")),
        }
    }

    fn crash(&mut self, node: usize, length: Duration) {
        let (disk, moment) = (Disk::Kept, Moment::Now);
        self.world.inject(mainstay_sim::Fault::Crash { node, length, disk, moment });
    }

    /// What is executed for boots that are gone.
    fn orphans(&self) -> Vec<&Work> {
        let is_alive = |boot: BootId| {
            let node = self.index(boot.node);
            self.world.node(node).is_some() && self.world.boot(node) == boot
        };
        let goes_on = |work: &&Work| is_alive(work.boot) && work.stops.is_none();
        let all = self.work.iter().filter(goes_on);
        all.filter(|work| !is_alive(self.calls[&work.tag].client)).collect()
    }
}
