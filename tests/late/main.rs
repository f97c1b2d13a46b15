//! Services that are mounted while whole nodes run, on virtual time: a node that is declared dead and begins anew mounts them again, from what its disk
//! has of them, and one that was dismounted it does not.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::cell::RefCell;
use std::rc::Rc;

use mainstay::service::{Class, In, Io, Logged, Never, Out, Outbox, Service, Start as Begin, Wire};
use mainstay::{Channel, Instant as Now, Machine, Node, ReachError, ServiceHandle};
use mainstay_base::{Duration, Instant};
use mainstay_kit as kit;
use mainstay_sim::live::{Outside, Plan, Run, swarm};
use mainstay_sim::{Atlas, Fault, FaultEvent};
use serde::{Deserialize, Serialize};

/// Counts the lines that it has written.
struct Scribe {
    out: Outbox<Self>,
    lines: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line;

impl Wire for Line {}

impl Machine for Scribe {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: Now, input: In<Self>) {
        match input {
            In::Command(()) => drop(self.out.persist(Line)),
            In::Written(io) => self.lines = io.0,
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn end_turn(&mut self, _: Now) {}

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Now> {
        None
    }
}

impl Service for Scribe {
    const CHANNEL: Channel = Channel(0x4050);
    const NAME: &'static str = "scribe";
    const CLASS: Class = Class::Calls;
    type Message = Never;
    type Record = Line;
    type Command = ();
    type Event = Never;
    type Job = Never;
    type Done = Never;
    type Past = Io;
    type Config = ();
    type Status = u64;

    fn fold(past: &mut Io, logged: Logged<Line>) {
        if let Logged::Record(io, Line) = logged {
            *past = io;
        }
    }

    fn recover((): (), start: Begin<Io>) -> Self {
        Self { out: Outbox::new(start.past), lines: start.past.0 }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn keeps(&self) -> Io {
        Io(1)
    }

    fn status(&self) -> u64 {
        self.lines
    }
}

async fn written(nodes: &Outside<Node>, scribe: &ServiceHandle<Scribe>, lines: u64) {
    while scribe.status().await != Ok(lines) {
        nodes.sleep(Duration::from_millis(5)).await;
    }
}

/// Mounts two, dismounts one, and waits until the node has begun anew.
async fn work(nodes: Outside<Node>) -> Result<(), String> {
    let node = nodes.node(1).ok_or("it runs")?;
    node.ready().await.map_err(|error| error.to_string())?;
    let mounted = async |name: &str| {
        let scribe = node.mount::<Scribe>(name, |_| ()).await;
        scribe.map_err(|error| error.to_string())
    };
    let (stays, goes) = (mounted("stays").await?, mounted("goes").await?);
    for scribe in [&stays, &goes] {
        for _ in 0..3 {
            scribe.send(()).await.map_err(|error| error.to_string())?;
        }
        written(&nodes, scribe, 3).await;
    }
    goes.dismount().await.map_err(|error| error.to_string())?;
    let restarts = async || node.status().await.map_or(0, |status| status.restarts);
    while restarts().await == 0 || !*node.watch_ready().borrow() {
        nodes.sleep(Duration::from_millis(20)).await;
    }
    written(&nodes, &stays, 3).await;
    stays.send(()).await.map_err(|error| error.to_string())?;
    written(&nodes, &stays, 4).await;
    let gone = goes.status().await;
    if gone == Err(ReachError::NotMounted) { Ok(()) } else { Err(format!("{gone:?}")) }
}

fn scenario(run: &Run<'_>) -> Result<u128, String> {
    let mut room = run.room(|start| {
        let started = kit::start(start, |config| config, |_| Ok(()));
        started.map(|(node, ())| node)
    });
    let outcome = Rc::<RefCell<Option<Result<(), String>>>>::default();
    let into = Rc::clone(&outcome);
    run.worker(&room, 0, move |nodes, _, _| async move {
        let worked = work(nodes).await;
        *into.borrow_mut() = Some(worked);
    });
    run.play(&mut room)?;
    outcome.take().ok_or("it has not ended")??;
    Ok(room.hash())
}

/// Checks that a late service outlives the boot that mounted it.
#[test]
fn a_node_that_begins_anew_mounts_what_was_mounted_late() {
    let mut plan = Plan::new(3, Atlas { down: 1, lost: 0 });
    // Long enough that the others go on without it.
    let fault = Fault::Pause { node: 1, length: Duration::from_secs(2) };
    plan.script = Some(vec![FaultEvent { at: Instant::ZERO + Duration::from_secs(4), fault }]);
    (plan.twice_every, plan.work) = (1, Duration::from_secs(8));
    swarm(0..3, &plan, scenario);
}
