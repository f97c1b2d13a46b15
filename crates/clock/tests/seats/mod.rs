//! Nodes with a clock service in the simulated world: what each has outside its machine, and what its readers see at each step.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_agreement::sign::Keyring;
use mainstay_base::{ClusterId, Duration, Instance, Instant, NodeId};
use mainstay_clock::fault::Fault as Broken;
use mainstay_clock::sync::global::{Config, Event, GlobalClock, Promise};
use mainstay_clock::sync::{self, Kind, Mount, Origin, Plan};
use mainstay_sim::service::ServiceNode;
use mainstay_sim::{Atlas, Options, Wire, World};

/// Local clocks do not begin at zero: they may be stepped back.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_000);

pub(crate) fn instance() -> Instance {
    Instance::new(ClusterId::from_entropy(1), "clock")
}

/// What a node has outside its machine: the handle of the present boot, and the local clock that it reads.
#[derive(Clone, Default)]
pub(crate) struct Seat {
    pub(crate) clock: GlobalClock,
    pub(crate) local: Arc<AtomicU64>,
    pub(crate) boots: u64,
}

impl Seat {
    /// Another process begins: what is left of the former one is on its disk.
    pub(crate) fn boot(&mut self, now: Instant) -> GlobalClock {
        self.clock = GlobalClock::new();
        self.boots += 1;
        let local = Arc::clone(&self.local);
        local.store(now.as_nanos(), Ordering::Relaxed);
        let read = move || Instant::from_nanos(local.load(Ordering::Relaxed));
        self.clock.attach(Arc::new(read));
        self.clock.clone()
    }

    /// The handle, when the local clock says so much.
    pub(crate) fn at(&self, local: Instant) -> &GlobalClock {
        self.local.store(local.as_nanos(), Ordering::Relaxed);
        &self.clock
    }
}

pub(crate) type Seats = Rc<RefCell<Vec<Seat>>>;

pub(crate) fn seats(count: usize) -> Seats {
    Rc::new(RefCell::new((0..count).map(|_| Seat::default()).collect()))
}

/// What a node mounts whose clock is kept together with those of all others: with ideal keys, and a reading stored four periods ahead.
pub(crate) fn config(
    plan: &Arc<Plan>,
    (roster, index): (&[NodeId], usize),
    origin: Origin,
    clock: GlobalClock,
    broken: Option<Broken>,
) -> Config {
    let keys = Some(Keyring::ideal(index, roster.len(), 11));
    let mount = Mount { plan: Arc::clone(plan), nodes: roster.into(), origin, keys };
    let mut config = Config::new(mount, clock).unwrap();
    config.reserve = Some(plan.config().period * 4);
    config.fault = broken;
    config
}

/// A network as the plan says that it is.
pub(crate) fn network(config: &sync::Config) -> Options {
    let mut options = Options::calm(Wire::Channel);
    options.delay = config.delay.min.max(Duration::from_nanos(1));
    options.spread = config.delay.max - options.delay;
    options.atlas = Atlas { down: 1, lost: 0 };
    options.reconnect = Duration::from_millis(1);
    options.telling = Duration::from_millis(1);
    options
}

/// What the world says the time is, as clocks count it.
pub(crate) fn truth(world: &World<ServiceNode<Event>>) -> i64 {
    (EPOCH.as_nanos() + u128::from(world.now().as_nanos())) as i64
}

/// What a reader of one node saw last.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) boots: u64,
    pub(crate) real: u64,
    pub(crate) time: u64,
    pub(crate) version: u64,
    pub(crate) synchronised: bool,
}

impl Seen {
    /// Looks at the clock of a node, and whether it went on as is promised since the last look: CLK-1, CLK-3, CLK-6, CLK-10.
    pub(crate) fn look(
        world: &World<ServiceNode<Event>>,
        node: usize,
        seat: &Seat,
        promise: &Promise,
        last: &mut Option<Self>,
    ) -> Result<Self, String> {
        let clock = seat.at(world.local(node));
        let ((time, version), synchronised) = (clock.now(), clock.is_synchronised());
        let (time, real, boots) = (time.as_nanos(), world.now().as_nanos(), seat.boots);
        let now = Self { boots, real, time, version, synchronised };
        let last = last.replace(now).unwrap_or(now);
        if time < last.time {
            return Err(format!("CLK-1, CLK-10: {node} goes back by {}", last.time - time));
        }
        if last.boots == boots && version < last.version {
            return Err(format!("CLK-6: {node} goes from version {} to {version}", last.version));
        }
        let (spent, passed) = (time - last.time, real - last.real);
        let most = u128::from(passed) * u128::from(promise.rate) / 1_000_000_000 + 3;
        let is_promised = last.boots == boots && last.synchronised && synchronised;
        if is_promised && world.is_up(node) && u128::from(spent.abs_diff(passed)) > most {
            return Err(format!("CLK-3: {node} makes {spent} of {passed} ns"));
        }
        Ok(now)
    }
}

/// The skew of these readings, which is within what is promised: CLK-2.
pub(crate) fn skew(readings: &[u64], promise: &Promise) -> Result<i64, String> {
    let (low, high) = (readings.iter().min(), readings.iter().max());
    let skew = low.zip(high).map_or(0, |(low, high)| high - low);
    if u128::from(skew) > promise.precision.as_nanos() {
        return Err(format!("CLK-2: a skew of {skew} ns, {:?} at most", promise.precision));
    }
    Ok(skew as i64)
}

/// Whether a clock of this kind needs no other node.
pub(crate) fn stands_alone(kind: &Kind) -> bool {
    matches!(kind, Kind::Interval { .. } | Kind::External { .. })
}

/// Checks so many seeds, or as many times more as a soak wants, on two threads.
pub(crate) fn each(seeds: u64, check: impl Fn(u64) -> Result<(), String> + Sync) {
    let seeds = mainstay_sim::seeds(0..seeds);
    let (next, failed) = (AtomicU64::new(seeds.start), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().is_some() {
                        break;
                    }
                    if let Err(what) = check(seed) {
                        *failed.lock().unwrap() = Some(format!("seed {seed}: {what}"));
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner().unwrap(), None);
}
