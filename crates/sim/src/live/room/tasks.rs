//! The tasks of a boot, or of the clients.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use tokio::sync::Notify;
use tokio::task::LocalSet;

/// Remembers that a task set has something to do.
struct Flag {
    woken: AtomicBool,
    driver: Arc<Notify>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        self.driver.notify_one();
    }
}

/// A task set, polled when somebody woke it.
pub(super) struct Tasks {
    pub(super) set: LocalSet,
    flag: Arc<Flag>,
    waker: Waker,
}

impl Tasks {
    pub(super) fn new(driver: &Arc<Notify>) -> Self {
        let flag = Arc::new(Flag { woken: AtomicBool::new(true), driver: Arc::clone(driver) });
        Self { set: LocalSet::new(), waker: Waker::from(Arc::clone(&flag)), flag }
    }

    pub(super) fn is_woken(&self) -> bool {
        self.flag.woken.load(Ordering::Relaxed)
    }

    pub(super) fn poll(&mut self) {
        self.flag.woken.store(false, Ordering::Relaxed);
        // Whether it has tasks left does not matter: it may get others.
        let _ = Pin::new(&mut self.set).poll(&mut Context::from_waker(&self.waker));
    }
}
