//! Room on the disk: a node refuses what is new before its disk is full, and so still has the room to take part in views and to
//! log what the others cast.

use std::rc::Rc;

use mainstay_base::Duration;
use tokio::sync::Notify;

use crate::host::{Hosted, WeakHandle};
use crate::ports::{Disk, TimeSource};
use crate::shelf::{is_short, is_short_still};

/// After so many bytes that were written the room is looked at again (1 MiB).
const LOOK_BYTES: usize = 1 << 20;
/// It is looked at so often at least: others may write there, too.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks at the room of a disk beside the turns, and tells a machine when less than the reserve is free, and when there is enough
/// again. It ends with its host, or soon after it is dropped.
pub struct Room {
    look: Rc<Notify>,
    /// Bytes since the last look that was asked for.
    written: usize,
}

impl Room {
    /// Begins to look. `input` makes the word, true if it is too little, an input of the machine. On a thread with a `LocalSet`.
    pub fn watch<M: Hosted>(
        disk: Rc<dyn Disk>,
        reserve: u64,
        time: Rc<dyn TimeSource>,
        handle: WeakHandle<M>,
        input: impl Fn(bool) -> M::Input + 'static,
    ) -> Self {
        let look = Rc::new(Notify::new());
        let asked = Rc::clone(&look);
        // A disk that does not say needs nobody who asks.
        if disk.space().is_some() {
            drop(tokio::task::spawn_local(async move {
                let mut told = false;
                // The other one is who watches.
                while Rc::strong_count(&asked) > 1 {
                    let short = match told {
                        false => is_short(&*disk, reserve),
                        true => is_short_still(&*disk, reserve),
                    };
                    let Some(handle) = handle.upgrade() else { return };
                    if short != told {
                        told = short;
                        if handle.send(input(short)).await.is_err() {
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
    pub fn take(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes);
        if self.written >= LOOK_BYTES {
            self.written = 0;
            self.look.notify_one();
        }
    }
}
