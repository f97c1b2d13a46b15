//! Tasks on the node's thread, beside the node: they end with it.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;

use mainstay_runtime::{Closed, Entropy, EntropyError, LocalFuture, TimeSource};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Tasks that wait to be started; further ones wait for room.
const WAITING_MAX: usize = 64;

/// What a task may want of the node's outside.
pub(crate) struct Outside {
    pub(crate) time: Rc<dyn TimeSource>,
    pub(crate) entropy: Shared,
}

/// The node's entropy, for several.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<Box<dyn Entropy>>>);

impl Shared {
    pub(crate) fn new(entropy: Box<dyn Entropy>) -> Self {
        Self(Rc::new(RefCell::new(entropy)))
    }
}

impl Entropy for Shared {
    fn draw(&mut self) -> Result<u128, EntropyError> {
        self.0.borrow_mut().draw()
    }
}

/// Begins a task, on the node's thread.
type Begin = Box<dyn FnOnce(&Outside) -> LocalFuture<()> + Send>;

/// Starts tasks, from any thread. Cheap to clone; before the node's start they wait for it.
#[derive(Clone)]
pub(crate) struct Tasks(mpsc::Sender<Begin>);

impl Tasks {
    pub(crate) fn new() -> (Self, Runner) {
        let (tasks, begun) = mpsc::channel(WAITING_MAX);
        (Self(tasks), Runner(begun))
    }

    /// False: the node has ended, or will not start.
    pub(crate) async fn begin(
        &self,
        begin: impl FnOnce(&Outside) -> LocalFuture<()> + Send + 'static,
    ) -> bool {
        self.0.send(Box::new(begin)).await.is_ok()
    }
}

/// Runs the tasks.
pub(crate) struct Runner(mpsc::Receiver<Begin>);

impl Runner {
    /// Runs them until the node has closed; then those that still run are dropped.
    pub(crate) async fn run(mut self, outside: Outside, closed: impl Future<Output = Closed>) {
        let mut tasks = JoinSet::new();
        let run = async {
            while let Some(begin) = self.0.recv().await {
                while tasks.try_join_next().is_some() {}
                tasks.spawn_local(begin(&outside));
            }
            // No handle is left; what runs goes on.
            pending::<()>().await;
        };
        tokio::select! {
            biased;
            _ = closed => {}
            () = run => {}
        }
    }
}
