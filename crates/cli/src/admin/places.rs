//! Who is served at the admin port at a time.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::task::{AbortHandle, JoinSet, yield_now};

/// A connection, and whether it has asked for something.
struct Served {
    task: AbortHandle,
    asked: Rc<Cell<bool>>,
}

/// Connections that are served, the oldest first. Dropping it closes them.
pub(super) struct Places {
    tasks: JoinSet<()>,
    served: VecDeque<Served>,
    most: usize,
}

impl Places {
    /// For so many connections, one of them that waits for a place; for at least one that is served.
    pub(super) fn new(clients_max: usize) -> Self {
        let most = clients_max.saturating_sub(1).max(1);
        Self { tasks: JoinSet::new(), served: VecDeque::new(), most }
    }

    /// Waits for a place. Where all are taken the oldest connection that has not asked for anything gives way; where all
    /// have asked, the first that is answered.
    pub(super) async fn free(&mut self) {
        if self.is_full() {
            // What has arrived is read first: who was accepted just now may have asked already.
            yield_now().await;
        }
        while self.is_full() {
            if let Some(idle) = self.served.iter().position(|it| !it.asked.get()) {
                let idle = self.served.remove(idle);
                idle.inspect(|idle| idle.task.abort());
            }
            // One that was closed, or that was answered meanwhile.
            let _ = self.tasks.join_next().await;
        }
    }

    fn is_full(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.served.retain(|it| !it.task.is_finished());
        self.tasks.len() >= self.most
    }

    /// Serves a connection by `serve`, which says in the cell when it was asked for something.
    pub(super) fn take<F: Future<Output = ()> + 'static>(
        &mut self,
        serve: impl FnOnce(Rc<Cell<bool>>) -> F,
    ) {
        let asked = Rc::new(Cell::new(false));
        let task = self.tasks.spawn_local(serve(Rc::clone(&asked)));
        self.served.push_back(Served { task, asked });
    }
}
