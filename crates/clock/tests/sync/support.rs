//! Synchronised clocks in the simulated world of services, and what is checked at every step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_base::{BootId, ClusterId, Duration, Instance, Instant, NodeId, Rng};
use mainstay_clock::sync::{
    Algorithm, Begin, Bounds, Command, Config, ConfigError, Correction, Event, Kind, Loss, Message,
    Mount, Origin, Plan, Status, Synced,
};
use mainstay_sim::service::{ServiceNode, Setup};
use mainstay_sim::{Atlas, Clock, FaultEvent, Options, Stuck, Wire, World};

/// Local clocks do not begin at zero: they may be stepped back.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_000);

/// What a traitor makes of what it would say.
pub(crate) type Twist = Rc<RefCell<dyn FnMut(&Liar, usize, Message) -> Vec<Message>>>;

/// Who lies.
pub(crate) struct Liar {
    pub(crate) me: usize,
    pub(crate) nodes: usize,
    pub(crate) keys: Option<mainstay_agreement::sign::Keyring>,
}

/// A world to be made.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) seed: u64,
    pub(crate) plan: Arc<Plan>,
    /// In parts of a billion, for each node.
    pub(crate) drifts: Vec<i64>,
    /// What each clock is ahead at the start.
    pub(crate) skews: Vec<i64>,
    /// Nodes that begin without knowing the time.
    pub(crate) apart: Vec<usize>,
    pub(crate) liars: Vec<usize>,
    pub(crate) twist: Option<Twist>,
    pub(crate) faults: Vec<FaultEvent>,
    /// Datagrams lost, in 1,000.
    pub(crate) loss: u64,
    pub(crate) turn_delay: Duration,
    pub(crate) duplication: u64,
    /// Frames that take 2 to 64 times as long, in 1,000.
    pub(crate) tail: u64,
}

impl Scene {
    /// Clocks of a plan, with drifts, skews and delays drawn within its bounds: half of them at the edges.
    pub(crate) fn new(seed: u64, config: Config) -> Self {
        let plan = Arc::new(feasible(config));
        let mut rng = Rng::new(seed).stream("scene");
        let (nodes, drift) = (plan.config().nodes, i64::from(plan.config().drift.parts()));
        let initial = plan.config().initial.as_nanos() as i64;
        // 1/(1 + ρ) and 1 + ρ are the bounds.
        let slowest = -(drift - drift * drift / 1_000_000_000 - 1).max(0);
        let draw = |low: i64, high: i64, rng: &mut Rng| match rng.below(4) {
            0 => low,
            1 => high,
            _ => low + rng.below((high - low) as u64 + 1) as i64,
        };
        let drifts = (0..nodes).map(|_| draw(slowest, drift, &mut rng)).collect();
        let skews = (0..nodes).map(|_| draw(0, initial, &mut rng)).collect();
        Self {
            seed,
            plan,
            drifts,
            skews,
            apart: Vec::new(),
            liars: Vec::new(),
            twist: None,
            faults: Vec::new(),
            loss: 0,
            turn_delay: Duration::ZERO,
            duplication: 0,
            tail: 0,
        }
    }

    /// The last `count` nodes lie.
    pub(crate) fn lie(
        mut self,
        count: usize,
        twist: impl FnMut(&Liar, usize, Message) -> Vec<Message> + 'static,
    ) -> Self {
        let nodes = self.plan.config().nodes;
        self.liars = (nodes - count..nodes).collect();
        self.twist = Some(Rc::new(RefCell::new(twist)));
        self
    }

    /// The same with a plan that theory forbids.
    pub(crate) fn against_theory(seed: u64, config: Config, bounds: Bounds) -> Self {
        let mut fewer = config.clone();
        fewer.faulty = 0;
        let mut scene = Self::new(seed, fewer);
        scene.plan = Arc::new(Plan::against_theory(config, bounds));
        scene
    }

    pub(crate) fn period(&self) -> Duration {
        self.plan.config().period
    }

    pub(crate) fn run(self) -> Run {
        Run::new(self)
    }
}

/// The plan, with a longer period if it needs one.
pub(crate) fn feasible(mut config: Config) -> Plan {
    loop {
        match Plan::new(config.clone()) {
            Err(ConfigError::Period { least, .. }) => config.period = least.mul_f64(1.1),
            plan => return plan.expect("theory allows it"),
        }
    }
}

/// The algorithm of the first node alone, which begins synchronised.
pub(crate) fn alone(config: Config, now: Instant) -> Algorithm {
    alone_at(config, now, 0)
}

/// The same of the node at this place.
pub(crate) fn alone_at(config: Config, now: Instant, me: usize) -> Algorithm {
    let keys = mainstay_agreement::sign::Keyring::ideal(me, config.nodes, 11);
    let begin = Begin {
        plan: Arc::new(Plan::new(config).expect("theory allows it")),
        me,
        origin: Origin::Together(0),
        now,
        seed: 1,
        keys: Some(keys),
    };
    Algorithm::new(begin).expect("it is built")
}

pub(crate) fn instance() -> Instance {
    Instance::new(ClusterId::from_entropy(1), "clock")
}

/// One of the events of a node.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Told {
    pub(crate) node: usize,
    pub(crate) at: Instant,
    pub(crate) event: Event,
}

/// A world that runs, and its checks.
pub(crate) struct Run {
    pub(crate) world: World<ServiceNode<Event>>,
    pub(crate) scene: Scene,
    pub(crate) roster: Vec<NodeId>,
    pub(crate) told: Vec<Told>,
    /// Clocks that are wrong for the moment, and do not know yet.
    pub(crate) exempt: Vec<usize>,
    pub(crate) worst: i64,
    /// Whether the skew is checked.
    pub(crate) judge: bool,
    versions: BTreeMap<usize, (u64, i64)>,
}

impl Run {
    fn new(scene: Scene) -> Self {
        let config = scene.plan.config();
        let nodes = config.nodes;
        let inner = scene.clone();
        let setup = Setup::new(move |node| {
            let config = inner.plan.config();
            let skew = inner.skews[node.index];
            let origin = if inner.apart.contains(&node.index) {
                // Half a day off.
                Origin::Apart(skew + 43_200_000_000_000)
            } else {
                Origin::Together(skew)
            };
            let keys = mainstay_agreement::sign::Keyring::ideal(node.index, config.nodes, 11);
            let mount = Mount {
                plan: Arc::clone(&inner.plan),
                nodes: node.roster.into(),
                origin,
                keys: Some(keys.clone()),
            };
            node.mount::<Synced>(instance(), mount);
            node.read::<Synced>(instance(), |event| event);
            if inner.liars.contains(&node.index)
                && let Some(twist) = inner.twist.clone()
            {
                let roster: Vec<NodeId> = node.roster.to_vec();
                let liar = Liar { me: node.index, nodes: config.nodes, keys: Some(keys) };
                node.twist::<Synced>(instance(), move |to, message| {
                    let to = roster.iter().position(|it| *it == to).expect("a node");
                    (twist.borrow_mut())(&liar, to, message)
                });
            }
        });
        let drifts = scene.drifts.clone();
        let setup = setup.clocks(move |node| Clock::new(EPOCH, drifts[node]));
        let setup = setup.datagrams_lost(scene.loss).turn_delay(scene.turn_delay);
        let mut options = Options::calm(Wire::Channel);
        options.delay = config.delay.min.max(Duration::from_nanos(1));
        // Where what comes is stamped, the queue is no part of the delay.
        let queue = scene.turn_delay.saturating_sub(config.queue);
        options.spread = config.delay.max - queue - options.delay;
        options.duplication = scene.duplication;
        options.tail = scene.tail;
        options.atlas = Atlas { down: nodes, lost: nodes };
        options.reconnect = Duration::from_millis(1);
        options.telling = Duration::from_millis(1);
        let (seed, faults) = (scene.seed, scene.faults.clone());
        let world = World::with_schedule(seed, nodes, setup, options, faults);
        let roster = world.roster().to_vec();
        let mut run = Self {
            world,
            roster,
            told: Vec::new(),
            exempt: Vec::new(),
            worst: 0,
            judge: true,
            versions: BTreeMap::new(),
            scene,
        };
        run.draw_ways();
        run
    }

    /// Ways of constant delay at an edge, and ways that vary.
    fn draw_ways(&mut self) {
        if matches!(self.scene.plan.config().kind, Kind::Probabilistic { .. }) {
            // A way that is always slow is never good enough.
            return;
        }
        let mut rng = Rng::new(self.scene.seed).stream("ways");
        let options = self.world.options().clone();
        let nodes = self.roster.len();
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            match rng.below(4) {
                0 => self.world.set_way(from, to, options.delay, Duration::ZERO),
                1 => {
                    let slow = options.delay + options.spread;
                    self.world.set_way(from, to, slow, Duration::ZERO);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        *self.scene.plan.bounds()
    }

    pub(crate) fn nodes(&self) -> usize {
        self.roster.len()
    }

    pub(crate) fn correct(&self) -> impl Iterator<Item = usize> + use<'_> {
        (0..self.nodes()).filter(|it| !self.scene.liars.contains(it) && !self.exempt.contains(it))
    }

    pub(crate) fn service(&self, node: usize) -> &Synced {
        service(&self.world, node).expect("it runs")
    }

    pub(crate) fn status(&self, node: usize) -> Status {
        use mainstay_base::service::Service as _;
        self.service(node).status()
    }

    /// The corrected clock of a node, in nanoseconds.
    pub(crate) fn clock(&self, node: usize) -> i64 {
        self.service(node).algorithm().clock().nanos(self.world.local(node))
    }

    pub(crate) fn is_synchronised(&self, node: usize) -> bool {
        self.service(node).algorithm().is_synchronised()
    }

    /// The skew of the correct clocks that are synchronised.
    pub(crate) fn skew(&self) -> i64 {
        skew(&self.world, &self.judged())
    }

    fn judged(&self) -> Vec<usize> {
        self.correct().collect()
    }

    /// Runs for some periods; CLK-2 is checked at every step.
    pub(crate) fn periods(&mut self, periods: f64) -> Result<(), String> {
        let time = self.scene.period().mul_f64(periods);
        self.run(time)
    }

    /// Runs for a time; CLK-2 is checked at every step, CLK-6 and who was corrected how far at every correction.
    pub(crate) fn run(&mut self, time: Duration) -> Result<(), String> {
        let judged = self.judged();
        let bound = i64::try_from(self.bounds().precision.as_nanos()).unwrap_or(i64::MAX);
        let bound = if self.judge { bound } else { i64::MAX };
        let mut worst = self.worst;
        let mut found = None;
        let reached = |world: &World<ServiceNode<Event>>| {
            let skew = skew(world, &judged);
            worst = worst.max(skew);
            if skew > bound {
                found = Some((world.now(), skew));
            }
            skew > bound
        };
        match self.world.run_until(reached, time) {
            Ok(()) | Err(Stuck::TimedOut { .. }) => {}
            Err(stuck) => return Err(stuck.to_string()),
        }
        self.worst = worst;
        self.take()?;
        match found {
            Some((at, skew)) => {
                Err(format!("CLK-2: at {at:?} a skew of {skew} ns, at most {bound}"))
            }
            None => Ok(()),
        }
    }

    fn take(&mut self) -> Result<(), String> {
        for (boot, at, event) in self.world.take_events() {
            let BootId { node, .. } = boot;
            let node = self.roster.iter().position(|it| *it == node).expect("a node");
            self.told.push(Told { node, at, event });
            if let Event::Resynced(Correction { version, to, .. }) = event {
                let last = self.versions.insert(node, (version, to));
                if last.is_some_and(|(last, _)| last >= version) {
                    return Err(format!("CLK-6: {node} goes from {last:?} to version {version}"));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn corrections(
        &self,
        node: usize,
    ) -> impl Iterator<Item = (Instant, Correction)> + '_ {
        self.told.iter().filter(move |it| it.node == node).filter_map(|it| match it.event {
            Event::Resynced(correction) => Some((it.at, correction)),
            _ => None,
        })
    }

    /// What the corrected clock of a node said just before `at`, where its hardware had no fault.
    pub(crate) fn before(&self, node: usize, at: Instant) -> i64 {
        let local = Clock::new(EPOCH, self.scene.drifts[node]).local(at).as_nanos() as i64;
        let last = self.corrections(node).take_while(|(when, _)| *when < at).last();
        match last {
            Some((_, it)) => it.to + local - it.at.as_nanos() as i64,
            None => self.scene.skews[node] + local,
        }
    }

    /// When each correct clock began a version, by version.
    pub(crate) fn versions(&self) -> BTreeMap<u64, Vec<(usize, Instant, Correction)>> {
        let mut versions: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for node in self.correct() {
            for (at, correction) in self.corrections(node) {
                versions.entry(correction.version).or_default().push((node, at, correction));
            }
        }
        versions
    }

    /// The time of the world, as clocks count it.
    pub(crate) fn truth(&self) -> i64 {
        (EPOCH.as_nanos() + u128::from(self.world.now().as_nanos())) as i64
    }

    /// Gives a node a reading of a reference.
    pub(crate) fn refer(&mut self, node: usize, value: i64) {
        let at = self.world.local(node);
        self.world.call(node, |machine, now| {
            machine.command::<Synced>(now, instance(), Command::Reference { at, value });
        });
    }

    /// The largest and the smallest long-run rate of correct clocks since `from`, off 1, in parts of a billion.
    pub(crate) fn rates(&self, from: Instant, then: &[i64]) -> (i64, i64) {
        let real = (self.world.now() - from).as_nanos() as i64;
        let rate = |node: usize| {
            let gained = i128::from(self.clock(node) - then[node] - real);
            (gained * 1_000_000_000 / i128::from(real)) as i64
        };
        let all: Vec<i64> = self.correct().map(rate).collect();
        (all.iter().copied().min().unwrap_or(0), all.iter().copied().max().unwrap_or(0))
    }

    /// A correct clock never loses the others, also not for a moment.
    pub(crate) fn keep_together(&self) -> Result<(), String> {
        match self.correct().find(|node| !self.losses(*node).is_empty()) {
            Some(node) => {
                Err(format!("CLK-2: {node} is correct, and lost: {:?}", self.losses(node)))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn losses(&self, node: usize) -> Vec<Loss> {
        let told = self.told.iter().filter(|it| it.node == node);
        let lost = told.filter_map(|it| match it.event {
            Event::Unsynchronised(why) => Some(why),
            _ => None,
        });
        lost.collect()
    }
}

fn service(world: &World<ServiceNode<Event>>, node: usize) -> Option<&Synced> {
    world.node(node)?.service::<Synced>(instance())
}

fn skew(world: &World<ServiceNode<Event>>, nodes: &[usize]) -> i64 {
    let (mut low, mut high) = (i64::MAX, i64::MIN);
    for node in nodes {
        let Some(service) = service(world, *node) else { continue };
        if service.algorithm().is_synchronised() {
            let clock = service.algorithm().clock().nanos(world.local(*node));
            (low, high) = (low.min(clock), high.max(clock));
        }
    }
    if low > high { 0 } else { high - low }
}

/// Runs scenes of many seeds on both cores; the first that fails is named with its seed.
pub(crate) fn each(seeds: std::ops::Range<u64>, check: impl Fn(u64) -> Result<(), String> + Sync) {
    let seeds = mainstay_sim::seeds(seeds);
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().is_ok_and(|it| !it.is_empty()) {
                        break;
                    }
                    if let Err(what) = check(seed)
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.push(format!("seed {seed}: {what}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no run panicked");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
