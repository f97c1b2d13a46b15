//! A swarm of runs of one replicated state machine with clients.

use std::fmt::{self, Debug};
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use mainstay::{Commands, Config, Durability, Replicated, TraceSink};
use mainstay_base::Duration;
use mainstay_check::linear::{Model, Outcome};
use mainstay_sim::live::{self, Found, Plan, Room, Run, Start};
use mainstay_sim::{Atlas, FaultEvent};

use crate::client::{Book, Client};
use crate::linear::{Asked, Itself, linearisable};
use crate::place::{all_are_one, differing, name, replica, same_state};
use crate::traces::Traces;

type Working = Pin<Box<dyn Future<Output = ()>>>;
type Work<S> = Rc<dyn Fn(Client<S>) -> Working>;
type Judge<S> = Box<dyn Fn(&S, &[Asked<S>]) -> Result<(), String>>;
type Linear<S> = Box<dyn Fn(&[Asked<S>]) -> Result<(), String>>;
type Configure = Rc<dyn Fn(Config) -> Config>;

/// What came of a run in which nothing was wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Of all that happened.
    pub hash: u128,
    /// Commands that were answered.
    pub answered: usize,
    /// Commands of which nobody knows whether they were executed.
    pub unknown: usize,
    /// Faults that took place.
    pub faults: u64,
    /// Crashes among them.
    pub crashes: u64,
}

/// A swarm of runs of the replicated state machine `S`: whole nodes and clients in a room, with faults out of a seed.
///
/// Of each run it is asked that the clients end, that all nodes come to one view and one state, that one order explains all
/// answers that clients got (for the model see [`model`](Self::model)), that the traces of the nodes keep every property of
/// views and multicast, and what the [checks](Self::check) say. Each seed is run twice, and must go the same way.
pub struct Cluster<S: Commands> {
    seeds: Range<u64>,
    plan: Plan,
    configure: Configure,
    work: Work<S>,
    linear: Option<Linear<S>>,
    judges: Vec<Judge<S>>,
}

impl<S> Cluster<S>
where
    S: Commands<Command: Clone + Debug, Reply: Clone + PartialEq + Debug> + Clone + Debug + Default,
{
    /// A run for each of the seeds; `MAINSTAY_SEED` and `MAINSTAY_SEEDS` in the environment say others. Three nodes with disks, of which
    /// one may be down at a time, and three clients that do nothing.
    #[must_use]
    pub fn swarm(seeds: Range<u64>) -> Self {
        let mut plan = Plan::new(3, Atlas { down: 1, lost: 0 });
        (plan.clients, plan.twice_every) = (3, 1);
        Self {
            seeds,
            plan,
            configure: Rc::new(|config| config),
            work: Rc::new(|_| Box::pin(async {})),
            linear: Some(Box::new(|history| linearisable(&Itself::<S>::new(), history, |_| ()))),
            judges: Vec::new(),
        }
    }

    /// How many nodes there are. Default 3.
    #[must_use]
    pub fn nodes(mut self, count: usize) -> Self {
        self.plan.nodes = count;
        self
    }

    /// How many nodes may be down, and how many may have lost their disk, at a time. Default 1 and 0. Pauses and cuts are not
    /// counted: they may strike everybody.
    #[must_use]
    pub fn atlas(mut self, down: usize, lost: usize) -> Self {
        self.plan.atlas = Atlas { down, lost };
        self
    }

    /// Without disks: everything is in memory, and a crash loses what a node has. Then an atlas of more than a minority is
    /// beyond what the nodes promise.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.plan.disks = false;
        self
    }

    /// These faults in every run, as a failed run has them ([`Found::faults`]) or as a test wants them, instead of those that are
    /// drawn. One that is beyond the atlas fails the run.
    #[must_use]
    pub fn faults(mut self, script: Vec<FaultEvent>) -> Self {
        self.plan.script = Some(script);
        self
    }

    /// How long there are faults and [`Client::is_over`] is false, in virtual time. Default 3 s.
    #[must_use]
    pub fn work(mut self, length: Duration) -> Self {
        self.plan.work = length;
        self
    }

    /// How many clients there are. Default 3.
    #[must_use]
    pub fn clients(mut self, count: usize) -> Self {
        self.plan.clients = count;
        self
    }

    /// What each client does.
    #[must_use]
    pub fn client<F>(mut self, work: impl Fn(Client<S>) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        self.work = Rc::new(move |client| Box::pin(work(client)));
        self
    }

    /// Changes the settings of the nodes.
    #[must_use]
    pub fn configure(mut self, configure: impl Fn(Config) -> Config + 'static) -> Self {
        self.configure = Rc::new(configure);
        self
    }

    /// The sequential object whose answers the clients must get; independent parts of it are judged apart. Default: `S` itself, on
    /// one machine and in one part, which says whether the replication is right, and not whether `S` is.
    #[must_use]
    pub fn model<M, K>(mut self, model: M, part: impl Fn(&S::Command) -> K + 'static) -> Self
    where
        M: Model<Op = S::Command, Ret = S::Reply> + 'static,
        K: Ord + Debug,
    {
        self.linear = Some(Box::new(move |history| linearisable(&model, history, &part)));
        self
    }

    /// No sequential object: for answers that depend on positions or views, which [checks](Self::check) have to judge.
    #[must_use]
    pub fn without_model(mut self) -> Self {
        self.linear = None;
        self
    }

    /// What else is to be so, of the state that all nodes have in the end and of what clients asked and were told.
    #[must_use]
    pub fn check(
        mut self,
        judge: impl Fn(&S, &[Asked<S>]) -> Result<(), String> + 'static,
    ) -> Self {
        self.judges.push(Box::new(judge));
        self
    }

    /// Runs all seeds.
    ///
    /// # Panics
    /// If something is wrong in a run: with its seed, and with the faults without which it would not be.
    pub fn run(self) -> Vec<Report> {
        live::swarm(self.seeds.clone(), &self.plan, |run| self.scenario(run))
    }

    /// Runs the seeds until something is wrong: for a test that looks for what was planted.
    ///
    /// # Errors
    /// The first run in which something is wrong, with as few faults as it takes.
    pub fn find(self) -> Result<Vec<Report>, Found> {
        live::find(self.seeds.clone(), &self.plan, |run| self.scenario(run))
    }

    fn scenario(&self, run: &Run<'_>) -> Result<Report, String> {
        let traces = Arc::<Traces>::default();
        let mut room = run.room(self.starter(Arc::clone(&traces)));
        let book = Book::<S>::default();
        for number in 0..self.plan.clients {
            let (ports, book) = (room.outside().client(), Rc::clone(&book));
            let work = Rc::clone(&self.work);
            run.worker(&room, number, move |nodes, rng, until| async move {
                let client = Client::connect(number, ports, nodes, rng, until, Rc::clone(&book));
                match client {
                    Ok(client) => work(client).await,
                    Err(error) => book.borrow_mut().wrong = Some(error.to_string()),
                }
            });
        }
        run.play(&mut room)?;
        let nodes = room.outside();
        let whole = run.finish(&mut room, all_are_one(nodes.clone(), self.plan.nodes));
        let statuses = whole.map_err(|stuck| format!("the nodes do not become one: {stuck}"))?;
        if let Err(text) = same_state(&statuses) {
            let states = self.states(run, &mut room)?;
            let named: Vec<_> = statuses.iter().map(name).zip(states).collect();
            return Err(text + &differing(&named).unwrap_or_default());
        }
        traces.judge(&statuses)?;
        let state =
            run.finish(&mut room, async move { nodes.node(0)?.read_local(S::clone).await.ok() })?;
        let state = state.ok_or("the first node does not answer")?;
        let book = book.take();
        if let Some(wrong) = book.wrong {
            return Err(wrong);
        }
        if let Some(linear) = &self.linear {
            linear(&book.history)?;
        }
        self.judges.iter().try_for_each(|judge| judge(&state, &book.history))?;
        let is_unknown = |asked: &&Asked<S>| asked.outcome == Outcome::Unknown;
        let unknown = book.history.iter().filter(is_unknown).count();
        let (faults, crashes) = (room.stats().faults, room.stats().crashes);
        Ok(Report {
            hash: room.hash(),
            answered: book.history.len() - unknown,
            unknown,
            faults,
            crashes,
        })
    }

    /// The state that each node has in the end.
    fn states(
        &self,
        run: &Run<'_>,
        room: &mut Room<Replicated<S>>,
    ) -> Result<Vec<Option<S>>, String> {
        let (nodes, count) = (room.outside(), self.plan.nodes);
        run.finish(room, async move {
            let mut states = Vec::new();
            for index in 0..count {
                states.push(match nodes.node(index) {
                    Some(node) => node.read_local(S::clone).await.ok(),
                    None => None,
                });
            }
            states
        })
    }

    /// Starts a node that serves clients.
    fn starter(
        &self,
        traces: Arc<Traces>,
    ) -> impl FnMut(Start) -> Result<Replicated<S>, String> + use<S> {
        let configure = Rc::clone(&self.configure);
        let durability = if self.plan.disks { Durability::Disk } else { Durability::Memory };
        move |start| {
            let (port, traces) = (start.port.clone(), Arc::clone(&traces) as Arc<dyn TraceSink>);
            let settings = |config: Config| configure(config.durability(durability).trace(traces));
            let machine = replica(start, settings, S::default)?;
            let served = machine.clone();
            tokio::task::spawn_local(async move {
                served.serve_clients(port.listen(), |_, _| Vec::new()).await;
            });
            Ok(machine)
        }
    }
}

impl<S: Commands> Debug for Cluster<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("seeds", &self.seeds)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}
