//! A run on virtual time: three whole nodes, the store beside them, and clients.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay::{GroupHandle, Level, Node, NodeBuilder, Order};
use mainstay_base::{Instant, Rng};
use mainstay_harness::{Entry, Failure, Kind, Run};
use mainstay_kit as kit;
use mainstay_sim::live::{self, Start, Stuck};
use mainstay_stable::MemoryMedium;
use tokio::sync::mpsc;

use crate::event::Event;
use crate::pool::{Job, Message};
use crate::resource::serve;
use crate::store::JobStore;
use crate::worker::Out;
use crate::{NODES, Planted, WORK, jobs, join, options};

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
    _node: Node,
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
    let (out, heard) = mpsc::channel(WORDS_MAX);
    let mut room = run.room(NODES, options(run.seed), starter(out, planted));
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
    Ok(book.entries.take())
}

/// Starts a worker, now and after each crash.
fn starter(
    out: mpsc::Sender<(usize, Out)>,
    planted: Option<Planted>,
) -> impl FnMut(Start) -> Result<Handle, String> {
    move |start| {
        let (index, out) = (start.index, out.clone());
        let build = |builder: &mut NodeBuilder| join(builder, index, out, planted);
        let (node, group) = kit::start(start, |config| config, build)?;
        Ok(Handle { group, _node: node })
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
