//! Room on the disk: a node refuses what is new before its disk is full, and so still has the room to take part in views and to
//! log what the others cast.

use std::rc::Rc;

use mainstay_base::Duration;
use mainstay_runtime::{Disk, TimeSource, WeakHandle, is_short, is_short_still};
use tokio::sync::Notify;

use super::machine::{Input, Site};

/// After so many bytes that were written the room is looked at again (1 MiB).
const LOOK_BYTES: usize = 1 << 20;
/// It is looked at so often at least: others may write there, too.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks at the room beside the turns, and tells the machine when there is too little, and when there is enough again.
pub(super) struct Room {
    look: Rc<Notify>,
    /// Since the last look that was asked for.
    written: usize,
}

impl Room {
    /// Begins to look. It ends with the host.
    pub(super) fn watch(
        disk: Rc<dyn Disk>,
        reserve: u64,
        time: Rc<dyn TimeSource>,
        handle: WeakHandle<Site>,
    ) -> Self {
        let look = Rc::new(Notify::new());
        let asked = Rc::clone(&look);
        // A disk that does not say needs nobody who asks.
        if disk.space().is_some() {
            drop(tokio::task::spawn_local(async move {
                let mut told = false;
                loop {
                    let short = match told {
                        false => is_short(&*disk, reserve),
                        true => is_short_still(&*disk, reserve),
                    };
                    let Some(handle) = handle.upgrade() else { return };
                    if short != told {
                        told = short;
                        if handle.send(Input::DiskShort(short)).await.is_err() {
                            return;
                        }
                    }
                    drop(handle);
                    tokio::select! {
                        () = asked.notified() => {}
                        () = time.sleep_until(time.now() + LOOK_EVERY) => {}
                    }
                }
            }));
        }
        Self { look, written: 0 }
    }

    /// So many bytes are to be written.
    pub(super) fn take(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes);
        if self.written >= LOOK_BYTES {
            self.written = 0;
            self.look.notify_one();
        }
    }
}
