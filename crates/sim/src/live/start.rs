//! What a node is started with, and what becomes of its boot.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use mainstay_runtime::{Closed, Ports};

use super::stream::ClientPort;

/// What the node `index` is called.
pub(super) fn name(index: usize) -> String {
    format!("n{index}")
}

/// The first node that ended by itself, and why.
pub(super) type Halted = Rc<RefCell<Option<(usize, String)>>>;

/// What a node is started with.
pub struct Start {
    /// Which node, from 0.
    pub index: usize,
    /// What it is called: `n0`, and so on.
    pub name: String,
    /// Where all nodes listen, by name.
    pub nodes: BTreeMap<String, SocketAddr>,
    /// It has never run before: its disk is empty as a new one is, not as a lost one.
    pub first: bool,
    /// Its outside.
    pub ports: Ports,
    /// Where it may have clients connect.
    pub port: ClientPort,
    /// To be told when the node has all of its state.
    pub restored: Restored,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The word of a boot that its node lacks nothing: only then another one may lose its disk. Until then the node counts as
/// one that has lost its own.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    node: usize,
    is_told: Rc<Cell<bool>>,
    halted: Halted,
}

impl Restored {
    pub(super) fn new(node: usize, halted: &Halted) -> Self {
        Self { node, is_told: Rc::default(), halted: Rc::clone(halted) }
    }

    /// It lacks nothing.
    pub fn tell(&self) {
        self.is_told.set(true);
    }

    pub(super) fn is_told(&self) -> bool {
        self.is_told.get()
    }

    /// Follows the boot, on its `LocalSet`: tells when `ready` says so, and ends the run with [`Stuck::Halted`](super::Stuck::Halted) if
    /// the node halts.
    ///
    /// # Panics
    /// Outside a `LocalSet`.
    pub fn follow<E: 'static>(
        self,
        ready: impl Future<Output = Result<(), E>> + 'static,
        closed: impl Future<Output = Closed> + 'static,
    ) {
        let told = self.clone();
        tokio::task::spawn_local(async move {
            if ready.await.is_ok() {
                told.tell();
            }
        });
        tokio::task::spawn_local(async move {
            if let Closed::Halted { reason } = closed.await {
                self.halted.borrow_mut().get_or_insert((self.node, reason.to_string()));
            }
        });
    }
}
