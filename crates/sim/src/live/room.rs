//! The room: who is polled when, and what happens to them.

mod strike;
mod tasks;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use mainstay_base::{Duration, Instant, Rng};
use mainstay_runtime::{Ports, SeededEntropy};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::disk::{LiveDisk, Platter};
use super::kernel::{Clock, Kernel, Task};
use super::net::{Captured, Gone, Net, address};
use super::outside::Outside;
use super::start::{Halted, Restored, Start, name};
use super::stream::ClientPort;
use super::told::{LeftOut, Stats, Stuck};
use super::transport::LiveTransport;
use crate::Options;
use crate::schedule::{Action, Disk, FaultEvent};
use tasks::Tasks;

/// What an event of the trace is.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Kind {
    Network = 1,
    Forced = 2,
    Crashed = 3,
    Started = 4,
    Begun = 5,
    Noted = 6,
}

/// A node, and what outlives its boots.
struct Place {
    /// The task set of the present boot.
    tasks: Option<Tasks>,
    platter: Rc<RefCell<Platter>>,
    boots: u64,
    pauses: usize,
    /// Until when it is at work on a turn.
    busy: Rc<Cell<Instant>>,
    /// Its disk was lost, and it has not said that it has everything again.
    lost: bool,
    restored: Restored,
    /// The faults that wait for a forced write.
    doomed: Vec<usize>,
}

/// So often a node may be polled before time passes.
const POLLS_MAX: u32 = 100_000;

type Begin<H> = Box<dyn FnMut(Start) -> Result<H, String>>;
pub(super) type Handles<H> = Rc<RefCell<Vec<Option<H>>>>;

/// Whole nodes, each with a handle `H` by which clients reach it.
pub struct Room<H> {
    seed: u64,
    options: Options,
    faults: Vec<FaultEvent>,
    /// Raised when all is healed: begins and ends of an older epoch are void.
    epoch: u32,
    drift: u64,
    kernel: Rc<Kernel>,
    net: Rc<RefCell<Net>>,
    places: Vec<Place>,
    handles: Handles<H>,
    clients: Tasks,
    begin: Begin<H>,
    driver: Arc<Notify>,
    stats: Stats,
    left_out: LeftOut,
    is_strict: bool,
    has_disks: bool,
    stuck: Option<Stuck>,
    halted: Halted,
    origin: tokio::time::Instant,
    /// Dropped last: task sets are dropped in it.
    runtime: Rc<Runtime>,
}

impl<H> fmt::Debug for Room<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("seed", &self.seed)
            .field("now", &self.kernel.now())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl<H: Clone + 'static> Room<H> {
    /// A room of `nodes` nodes, which `begin` starts now and after each crash, on the `LocalSet` of the boot. The faults come
    /// in their time; those that the [`Atlas`](crate::Atlas) of `options` does not allow are [left out](Self::left_out), or end a
    /// [strict](Self::strict) room. Of `options`, the
    /// delays, the tail, `telling`, `disk` and the atlas matter here.
    ///
    /// # Panics
    /// If the operating system gives no runtime.
    pub fn new(
        seed: u64,
        nodes: usize,
        options: Options,
        faults: Vec<FaultEvent>,
        begin: impl FnMut(Start) -> Result<H, String> + 'static,
    ) -> Self {
        let built = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = Rc::new(built.expect("the operating system gives a runtime"));
        let origin = runtime.block_on(async { tokio::time::Instant::now() });
        let rng = Rng::new(seed);
        let kernel = Rc::new(Kernel::default());
        let net = Net::new(Rc::clone(&kernel), rng.stream("network"), options.clone(), nodes);
        let place = |node: usize| {
            let rng = rng.stream(&format!("disk {node}"));
            let platter = Platter::new(Rc::clone(&kernel), node, rng, options.disk);
            Place {
                tasks: None,
                platter: Rc::new(RefCell::new(platter)),
                boots: 0,
                pauses: 0,
                busy: Rc::default(),
                lost: false,
                restored: Restored::default(),
                doomed: Vec::new(),
            }
        };
        let driver = Arc::new(Notify::new());
        for (fault, event) in faults.iter().enumerate() {
            kernel.at(event.at, Task::Begin { fault, epoch: 0 });
        }
        Self {
            seed,
            faults,
            epoch: 0,
            drift: 0,
            net: Rc::new(RefCell::new(net)),
            places: (0..nodes).map(place).collect(),
            handles: Rc::new(RefCell::new(vec![None; nodes])),
            clients: Tasks::new(&driver),
            begin: Box::new(begin),
            driver,
            stats: Stats::default(),
            left_out: LeftOut::default(),
            is_strict: false,
            has_disks: true,
            stuck: None,
            halted: Halted::default(),
            origin,
            runtime,
            kernel,
            options,
        }
    }

    /// Where the nodes listen, in their order.
    #[must_use]
    pub fn addresses(nodes: usize) -> Vec<SocketAddr> {
        (0..nodes).map(address).collect()
    }

    /// A fault that cannot take place within the model ends the run with [`Stuck::Beyond`], instead of being left out: for scripts
    /// that somebody wrote.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.is_strict = true;
        self
    }

    /// The nodes have no disks: a crash loses all that they have.
    #[must_use]
    pub fn without_disks(mut self) -> Self {
        self.has_disks = false;
        self
    }

    /// Each way between two processes carries so many bytes in a second, one thing after the other; the delay comes on top.
    /// Default: no bound.
    #[must_use]
    pub fn rate(self, bytes: u64) -> Self {
        self.net.borrow_mut().limit(bytes);
        self
    }

    /// The clocks run up to so many millionths fast or slow, each boot's at a rate of its own. Default 0. To be set
    /// before the first run.
    #[must_use]
    pub fn drift(mut self, millionths: u32) -> Self {
        self.drift = u64::from(millionths.min(999_999));
        self
    }

    /// From here on the disks say that they have forced what they have not: beyond every guarantee, so that a test can
    /// show that it would notice.
    pub fn lie(&self) {
        self.places.iter().for_each(|place| place.platter.borrow().lie());
    }

    /// What clients see.
    #[must_use]
    pub fn outside(&self) -> Outside<H> {
        Outside {
            seed: self.seed,
            kernel: Rc::clone(&self.kernel),
            net: Rc::clone(&self.net),
            handles: Rc::clone(&self.handles),
        }
    }

    /// Runs a client beside the nodes. It suffers no faults, and ends with the room.
    pub fn spawn(&self, client: impl Future<Output = ()> + 'static) {
        drop(self.clients.set.spawn_local(client));
    }

    /// Runs for so long.
    ///
    /// # Errors
    /// [`Stuck::Start`].
    pub fn run(&mut self, length: Duration) -> Result<(), Stuck> {
        let until = self.kernel.now() + length;
        self.drive(until, || false)
    }

    /// Runs until the client is ready, for so long at most.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn finish<T: 'static>(
        &mut self,
        client: impl Future<Output = T> + 'static,
        most: Duration,
    ) -> Result<T, Stuck> {
        let result = Rc::new(RefCell::new(None));
        let place = Rc::clone(&result);
        self.spawn(async move {
            let ready = client.await;
            *place.borrow_mut() = Some(ready);
        });
        let until = self.kernel.now() + most;
        self.drive(until, || result.borrow().is_some())?;
        let ready = result.borrow_mut().take();
        ready.ok_or(Stuck::Late(most))
    }

    /// Ends all faults and the schedule, and starts whoever is down.
    pub fn heal(&mut self) {
        self.epoch += 1;
        self.net.borrow_mut().heal();
        self.kernel.points().heal();
        for node in 0..self.places.len() {
            let place = &mut self.places[node];
            (place.pauses, place.doomed) = (0, Vec::new());
            place.platter.borrow_mut().heal();
            if place.tasks.is_none() {
                self.start(node);
            }
        }
    }

    /// A hash over all events so far: what came over the network, what was forced, faults, and what clients
    /// [noted](Outside::note).
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.kernel.hash()
    }

    /// Events so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.kernel.steps()
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The faults that did not take place, in order; whoever shares it sees more of them as they come.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        Rc::clone(&self.left_out)
    }

    /// How often a node has done what so far, over all its boots: the numbers of the [points](crate::Point) at which a script
    /// can have it crash. What comes or leaves in one batch counts frame by frame, also from and to clients; a timer is one of the
    /// node's clock, and not of tokio; a write is a forced one of the log, and not of a checkpoint or a cell.
    #[must_use]
    pub fn points(&self, node: usize) -> BTreeMap<Action, u64> {
        self.kernel.points().counts(node)
    }

    /// From here on what nodes send each other is kept as it comes in, for [`replay`](Self::replay).
    pub fn capture(&self) {
        self.net.borrow_mut().captured.get_or_insert_default();
    }

    /// What was captured so far, in order.
    #[must_use]
    pub fn captured(&self) -> Vec<Captured> {
        self.net.borrow().captured.clone().unwrap_or_default()
    }

    /// Sends captured frames again, as they were, on a connection that stands between the two nodes now: perhaps to a later
    /// boot, perhaps of a later one. False if none stands.
    pub fn replay(&self, captured: Captured) -> bool {
        self.net.borrow_mut().replay(captured)
    }

    fn start(&mut self, node: usize) {
        let rng = Rng::new(self.seed);
        let nodes = self.places.len();
        let place = &mut self.places[node];
        place.boots += 1;
        place.restored = Restored::new(node, &self.halted);
        self.kernel.points().is_down(node);
        place.busy = Rc::default();
        let mut of_boot = rng.stream(&format!("boot {} of {node}", place.boots));
        let drift = of_boot.below(2 * self.drift + 1) as i64 - self.drift as i64;
        let kernel = Rc::clone(&self.kernel);
        kernel.note(Kind::Started as u8, node, place.boots);
        let ports = Ports {
            transport: Box::new(LiveTransport::new(Rc::clone(&self.net), node)),
            disk: self.has_disks.then(|| Box::new(LiveDisk::new(Rc::clone(&place.platter))) as _),
            time: Rc::new(Clock {
                origin: kernel.now(),
                kernel,
                drift,
                busy: Rc::clone(&place.busy),
                of: Some(node),
            }),
            entropy: Box::new(SeededEntropy::new(of_boot.stream("entropy"))),
        };
        let start = Start {
            index: node,
            name: name(node),
            nodes: (0..nodes).map(|node| (name(node), address(node))).collect(),
            first: place.boots == 1,
            ports,
            port: ClientPort::attach(&self.net, nodes + node),
            restored: place.restored.clone(),
        };
        let tasks = Tasks::new(&self.driver);
        let started = {
            let _runtime = self.runtime.enter();
            let _set = tasks.set.enter();
            (self.begin)(start)
        };
        let place = &mut self.places[node];
        place.tasks = Some(tasks);
        match started {
            Ok(handle) => self.handles.borrow_mut()[node] = Some(handle),
            Err(reason) => {
                self.stuck.get_or_insert(Stuck::Start { node, reason });
            }
        }
    }

    /// The node is gone: first its ports are cut, then its tasks are dropped.
    fn crash(&mut self, node: usize, power: bool, found: Disk) {
        let nodes = self.places.len();
        let place = &mut self.places[node];
        let gone = if power { Gone::Power } else { Gone::Killed };
        self.net.borrow_mut().detach(node, gone);
        self.net.borrow_mut().detach(nodes + node, gone);
        let unfinished = place.platter.borrow_mut().crash(power, found);
        self.kernel.note(Kind::Crashed as u8, node, unfinished as u64);
        (place.pauses, place.doomed) = (0, Vec::new());
        place.lost |= found != Disk::Kept;
        self.stats.crashes += 1;
        self.stats.power += u64::from(power);
        self.stats.unfinished += u64::from(unfinished > 0);
        self.stats.lost += u64::from(found != Disk::Kept);
        let _runtime = self.runtime.enter();
        drop(place.tasks.take());
        let handle = self.handles.borrow_mut()[node].take();
        drop(handle);
    }

    fn drive(&mut self, until: Instant, ready: impl Fn() -> bool) -> Result<(), Stuck> {
        for node in 0..self.places.len() {
            if self.places[node].boots == 0 {
                self.start(node);
            }
        }
        let runtime = Rc::clone(&self.runtime);
        runtime.block_on(async {
            while self.stuck.is_none() {
                self.settle().await;
                if ready() {
                    break;
                }
                let next = self.kernel.next().filter(|next| *next <= until);
                let moment = next.unwrap_or(until);
                if !self.pass(moment).await {
                    continue;
                }
                let Some(task) = next.and_then(|_| self.kernel.take()) else { break };
                self.perform(task);
            }
        });
        self.stuck.clone().map_or(Ok(()), Err)
    }

    /// Lets everybody do what there is to do.
    async fn settle(&mut self) {
        for polls in 0.. {
            let mut polled = false;
            for node in 0..self.places.len() {
                let place = &mut self.places[node];
                let awake = place.pauses == 0 && place.busy.get() <= self.kernel.now();
                let awake = place.tasks.as_mut().filter(|_| awake);
                if let Some(tasks) = awake.filter(|tasks| tasks.is_woken()) {
                    if polls == POLLS_MAX {
                        self.stuck.get_or_insert(Stuck::Spins { node, polls });
                    }
                    tasks.poll();
                    polled = true;
                    self.strike();
                }
            }
            if self.clients.is_woken() {
                self.clients.poll();
                polled = true;
            }
            if let Some((node, reason)) = self.halted.borrow_mut().take() {
                self.stuck.get_or_insert(Stuck::Halted { node, reason });
            }
            if !polled || self.stuck.is_some() {
                return;
            }
            // tokio wakes those that gave way to others only when it gets its turn.
            tokio::task::yield_now().await;
        }
    }

    fn anybody_woken(&self) -> bool {
        let now = self.kernel.now();
        let mut places =
            self.places.iter().filter(|place| place.pauses == 0 && place.busy.get() <= now);
        places.any(|place| place.tasks.as_ref().is_some_and(Tasks::is_woken))
            || self.clients.is_woken()
    }

    /// Lets time pass; `false` if a timer of tokio's woke somebody on the way.
    async fn pass(&mut self, moment: Instant) -> bool {
        let target = self.origin + (moment - Instant::ZERO);
        if tokio::time::Instant::now() < target {
            let mut sleep = pin!(tokio::time::sleep_until(target));
            loop {
                let mut notified = pin!(self.driver.notified());
                let slept = std::future::poll_fn(|context| {
                    if sleep.as_mut().poll(context).is_ready() {
                        return Poll::Ready(true);
                    }
                    notified.as_mut().poll(context).map(|()| false)
                });
                if slept.await {
                    break;
                }
                if self.anybody_woken() {
                    let now = Instant::ZERO + self.origin.elapsed();
                    self.kernel.set_now(now.min(moment));
                    return false;
                }
            }
        }
        self.kernel.set_now(moment);
        !self.anybody_woken()
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Wake { of: Some(node), .. } if self.kernel.reach(node, Action::Timer) => {}
            Task::Wake { waker, .. } => waker.wake(),
            Task::Free => {}
            Task::Syn { dial } => self.net.borrow_mut().on_syn(dial),
            Task::Unanswered { dial } => self.net.borrow_mut().on_unanswered(dial),
            Task::Arrive { conn, end } => self.net.borrow_mut().on_arrive(conn, end),
            Task::Break { conn, end, if_cut } => self.net.borrow_mut().on_break(conn, end, if_cut),
            Task::Begin { fault, epoch } if epoch == self.epoch => self.on_begin(fault),
            Task::End { fault, epoch } if epoch == self.epoch => self.on_end(fault),
            Task::Restart { node, boot } => {
                let place = &self.places[node];
                if place.boots == boot && place.tasks.is_none() {
                    self.start(node);
                }
            }
            Task::Begin { .. } | Task::End { .. } => {}
        }
        for node in 0..self.places.len() {
            let place = &mut self.places[node];
            if !place.doomed.is_empty() && place.platter.borrow().is_writing() {
                std::mem::take(&mut place.doomed)
                    .into_iter()
                    .for_each(|fault| self.on_crash(fault));
            }
        }
        self.strike();
    }
}

impl<H> Drop for Room<H> {
    fn drop(&mut self) {
        let _runtime = self.runtime.enter();
        let nodes = self.places.len();
        for (node, place) in self.places.iter_mut().enumerate() {
            self.net.borrow_mut().detach(node, Gone::Power);
            self.net.borrow_mut().detach(nodes + node, Gone::Power);
            place.platter.borrow_mut().crash(true, Disk::Kept);
            drop(place.tasks.take());
        }
        self.clients.set = LocalSet::new();
        let handles = std::mem::take(&mut *self.handles.borrow_mut());
        drop(handles);
    }
}
