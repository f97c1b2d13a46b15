//! Whether an execution is still wanted: a flag that can be waited for, and costs little where nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Clone, Default, Debug)]
pub(super) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Default, Debug)]
struct Shared {
    is_stopped: AtomicBool,
    told: Notify,
}

impl Stop {
    pub(super) fn stop(&self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        self.shared.told.notify_waiters();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.shared.is_stopped.load(Ordering::SeqCst)
    }

    pub(super) async fn stopped(&self) {
        let told = self.shared.told.notified();
        // It is counted among those that are notified from here on.
        if !self.is_stopped() {
            told.await;
        }
    }
}
