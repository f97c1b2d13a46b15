//! A run of real processes, one for each worker. This process has the store and is the client.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mainstay::{Config, GroupHandle, Level, Node, Order};
use mainstay_harness::process::{Child, Processes};
use mainstay_harness::{Entry, Failure, Run};
use mainstay_stable::FileMedium;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::event::Event;
use crate::pool::{Job, Message};
use crate::resource::serve;
use crate::store::JobStore;
use crate::worker::{Out, Reply, Request};
use crate::{JOBS, NODES, Planted, cluster, jobs, join, name};

/// A run that is not over by then ends as it is.
const MOST: Duration = Duration::from_secs(40);
/// After so long a client asks another worker.
const PATIENCE: Duration = Duration::from_secs(1);
/// Words that are not taken yet.
const WORDS_MAX: usize = 1_024;

/// What a worker's process says.
#[derive(Serialize, Deserialize)]
enum Line {
    Said(Event),
    Ask { number: u64, request: Request },
}

/// What it is told.
#[derive(Serialize, Deserialize)]
enum Told {
    Submit(Job),
    Reply { number: u64, reply: Reply },
}

/// One run.
pub(crate) fn run(run: &Run) -> Result<Vec<Entry<Event>>, Failure> {
    let mut processes = Processes::start(NODES, run)?;
    let medium = FileMedium::open(processes.directory().join("store"))?;
    let mut store = JobStore::open(Arc::new(medium), run.broken.and_then(Planted::named))?;
    let (mut log, mut due, mut turn) = (Vec::new(), jobs(run.seed), 0);
    let is_done = |store: &JobStore| store.results().len() as u64 == JOBS;
    while processes.elapsed() < MOST && !(processes.is_calm() && is_done(&store)) {
        let now = processes.elapsed();
        for (at, job) in due.iter_mut().filter(|(at, _)| *at <= now) {
            turn = (turn + 1) % NODES;
            processes.tell(turn, &Told::Submit(*job));
            *at = now + PATIENCE;
        }
        let next = due.iter().map(|(at, _)| *at).min().unwrap_or(now + PATIENCE);
        let Some((from, line)) = processes.next(next)? else { continue };
        let what = match line {
            Line::Said(event) => Some(event),
            Line::Ask { number, request } => {
                let (reply, event) = serve(&mut store, from.node, request);
                processes.answer(from, &Told::Reply { number, reply });
                event
            }
        };
        if let Some(Event::Submitted { job: submitted }) = what {
            due.retain(|(_, job)| job.id != submitted);
        }
        log.extend(what.map(|what| Entry { at: processes.elapsed(), what }));
    }
    Ok(log)
}

/// A worker's process. It ends with its input.
pub(crate) fn child(child: Child) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work(Arc::new(child)))
}

async fn work(child: Arc<Child>) -> Result<(), Failure> {
    let nodes = (0..NODES).map(name).zip(child.addresses.iter().copied()).collect();
    let config = Config::new(cluster(), name(child.index), nodes).data_dir(&child.directory);
    let mut builder = Node::builder(config)?;
    let planted = child.broken.as_deref().and_then(Planted::named);
    let (out, mut heard) = mpsc::channel(WORDS_MAX);
    let group = join(&mut builder, child.index, out.clone(), planted)?;
    let node = builder.start()?;
    let (tell, mut told) = mpsc::channel(WORDS_MAX);
    child.hear(move |line| tell.blocking_send(line).is_ok());
    let mut closed = pin!(node.closed());
    let mut waiting = BTreeMap::<u64, oneshot::Sender<Reply>>::new();
    let mut last = 0;
    loop {
        tokio::select! {
            biased;
            Some((_, said)) = heard.recv() => match said {
                Out::Said(event) => child.say(&Line::Said(event)),
                Out::Ask(request, answer) => {
                    last += 1;
                    waiting.retain(|_, answer| !answer.is_closed());
                    waiting.insert(last, answer);
                    child.say(&Line::Ask { number: last, request });
                }
            },
            closed = &mut closed => return Err(format!("the node has ended: {closed:?}").into()),
            line = told.recv() => match line {
                // The other side is gone.
                None => {
                    node.close().await;
                    return Ok(());
                }
                Some(Told::Submit(job)) => {
                    tokio::task::spawn_local(submit(Arc::clone(&child), group.clone(), job));
                }
                Some(Told::Reply { number, reply }) => {
                    if let Some(answer) = waiting.remove(&number) {
                        // A worker that gave up waits no more.
                        let _ = answer.send(reply);
                    }
                }
            },
        }
    }
}

/// Says when a job is on the disks of a majority.
async fn submit(child: Arc<Child>, group: GroupHandle, job: Job) {
    let Ok(bytes) = serde_json::to_vec(&Message::Submit(job)) else { return };
    let Ok(receipt) = group.cast_for(bytes, Order::Total, Level::Disk).await else { return };
    if receipt.disk().await.is_ok() {
        child.say(&Line::Said(Event::Submitted { job: job.id }));
    }
}
