//! A run on virtual time: three whole nodes, the store beside them, and clients.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay::{Closed, Config, GroupHandle, Level, Node, Order};
use mainstay_base::{Instant, Rng};
use mainstay_harness::{Entry, Failure, Kind, Run};
use mainstay_sim::live::{self, Room, Start, Stuck};
use mainstay_sim::{Atlas, Options, Wire};
use mainstay_stable::MemoryMedium;
use tokio::sync::mpsc;

use crate::event::Event;
use crate::pool::{Job, Message};
use crate::resource::serve;
use crate::store::JobStore;
use crate::worker::Out;
use crate::{NODES, Planted, WORK, cluster, jobs, join, name, options};

/// How long the pool may take for what is left, after everything is healed.
const REST: Duration = Duration::from_secs(30);
/// After so long a client asks another worker.
const PATIENCE: Duration = Duration::from_millis(700);
/// Words to the outside that are not taken yet.
const WORDS_MAX: usize = 1_024;

/// By what clients reach a worker.
#[derive(Clone)]
struct Handle {
    group: GroupHandle,
    /// Whoever has it keeps the node running.
    node: Node,
}

type Nodes = live::Outside<Handle>;

/// The log as it grows.
#[derive(Clone)]
struct Book {
    entries: Rc<RefCell<Vec<Entry<Event>>>>,
    nodes: Nodes,
}

impl Book {
    fn write(&self, what: Event) {
        let at = self.nodes.now() - Instant::ZERO;
        self.entries.borrow_mut().push(Entry { at, what });
    }
}

/// One run.
pub(crate) fn run(run: &Run) -> Result<Vec<Entry<Event>>, Failure> {
    let planted = run.broken.and_then(Planted::named);
    let options = match run.kind {
        Kind::Faults => options(run.seed),
        Kind::Calm => Options::calm(Wire::Channel),
        Kind::Outside => {
            let atlas = Atlas { down: NODES, lost: NODES };
            Options { atlas, ..Options::calm(Wire::Channel) }
        }
    };
    let (out, heard) = mpsc::channel(WORDS_MAX);
    let halted = Rc::<RefCell<Option<String>>>::default();
    let begin = starter(out, planted, Rc::clone(&halted));
    let mut room = Room::new(run.seed, NODES, options, run.faults.clone(), begin);
    let book = Book { entries: Rc::default(), nodes: room.outside() };
    let store = JobStore::open(Arc::new(MemoryMedium::new()), planted)?;
    let store = Rc::new(RefCell::new(store));
    let rng = Rng::new(run.seed);
    let loses = run.kind == Kind::Faults;
    room.spawn(resource(heard, Rc::clone(&store), book.clone(), rng.stream("store"), loses));
    for (at, job) in jobs(run.seed) {
        let rng = rng.stream(&format!("client of {}", job.id));
        room.spawn(submit(book.clone(), at, job, rng, planted));
    }
    let mut ended = room.run(WORK);
    if run.kind != Kind::Outside && ended.is_ok() {
        room.heal();
        let nodes = room.outside();
        let rest = async move {
            while store.borrow().results().len() < crate::JOBS as usize {
                nodes.sleep(Duration::from_millis(100)).await;
            }
        };
        ended = match room.finish(rest, REST) {
            // Which jobs are left is for the criteria to say.
            Err(Stuck::Late(_)) => Ok(()),
            ended => ended,
        };
    }
    drop(room);
    ended?;
    match halted.take() {
        Some(reason) => Err(reason.into()),
        None => Ok(book.entries.take()),
    }
}

/// Starts a worker, now and after each crash.
fn starter(
    out: mpsc::Sender<(usize, Out)>,
    planted: Option<Planted>,
    halted: Rc<RefCell<Option<String>>>,
) -> impl FnMut(Start) -> Result<Handle, String> {
    let addresses = Room::<Handle>::addresses(NODES);
    let nodes: BTreeMap<_, _> = (0..NODES).map(name).zip(addresses).collect();
    let begin = move |index, ports| -> Result<Handle, Failure> {
        let config = Config::new(cluster(), name(index), nodes.clone());
        let mut builder = Node::builder_without_tcp(config)?;
        let group = join(&mut builder, index, out.clone(), planted)?;
        Ok(Handle { group, node: builder.start_with(ports)? })
    };
    move |Start { index, ports, restored, .. }| {
        let handle = begin(index, ports).map_err(|error| error.to_string())?;
        let node = handle.node.clone();
        let (ready, closed, halted) = (node.clone(), node.closed(), Rc::clone(&halted));
        tokio::task::spawn_local(async move {
            if ready.ready().await.is_ok() {
                restored.tell();
            }
        });
        tokio::task::spawn_local(async move {
            if let Closed::Halted { reason } = closed.await {
                halted.borrow_mut().get_or_insert(format!("n{index} halted: {reason}"));
            }
        });
        Ok(handle)
    }
}

/// The store, some way off: what was sent to it arrives, whatever becomes of the sender.
async fn resource(
    mut heard: mpsc::Receiver<(usize, Out)>,
    store: Rc<RefCell<JobStore>>,
    book: Book,
    mut rng: Rng,
    loses: bool,
) {
    while let Some((node, out)) = heard.recv().await {
        match out {
            Out::Said(event) => book.write(event),
            Out::Ask(request, answer) => {
                let mut way = || Duration::from_micros(rng.between(200, 20_000));
                let (there, back) = (way(), way());
                let is_lost = loses && rng.chance(1, 20);
                let (store, book) = (Rc::clone(&store), book.clone());
                tokio::task::spawn_local(async move {
                    book.nodes.sleep(there).await;
                    let (reply, event) = serve(&mut store.borrow_mut(), node, request);
                    event.into_iter().for_each(|event| book.write(event));
                    book.nodes.sleep(back).await;
                    if !is_lost {
                        // A worker that has crashed waits no more.
                        let _ = answer.send(reply);
                    }
                });
            }
        }
    }
}

/// A client: it asks one worker after the other until it is told that its job is on the disks of a majority.
async fn submit(book: Book, at: Duration, job: Job, mut rng: Rng, planted: Option<Planted>) {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    book.nodes.sleep(at).await;
    if planted == Some(Planted::Entropy) {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        book.nodes.sleep(Duration::from_micros(drawn)).await;
    }
    let Ok(bytes) = serde_json::to_vec(&Message::Submit(job)) else { return };
    loop {
        if let Some(worker) = book.nodes.node(rng.below(NODES as u64) as usize) {
            let (group, bytes) = (worker.group.clone(), bytes.clone());
            drop(worker);
            let submitted = async {
                let receipt = group.cast_for(bytes, Order::Total, Level::Disk).await.ok()?;
                receipt.disk().await.ok()
            };
            let submitted = tokio::select! {
                biased;
                submitted = submitted => submitted,
                () = book.nodes.sleep(PATIENCE) => None,
            };
            if submitted.is_some() {
                return book.write(Event::Submitted { job: job.id });
            }
        }
        book.nodes.sleep(Duration::from_millis(20)).await;
    }
}
