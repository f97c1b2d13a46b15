//! Room on the disk: a node refuses what is new before its disk is full, and so still has the room to take part in views and to
//! log what the others cast.

use std::rc::Rc;

use mainstay_base::Duration;
use mainstay_runtime::{Disk, Space, TimeSource, WeakHandle};
use tokio::sync::Notify;

use super::application::Command;
use super::machine::{Input, Site};

/// After so many bytes that were written the room is looked at again (1 MiB).
const LOOK_BYTES: usize = 1 << 20;
/// It is looked at so often at least: others may write there, too.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The reserve is no larger than this part of the disk.
const RESERVE_PART: u64 = 8;

/// There is enough again with this part of the reserve above it: a node at the limit would refuse and take commands in turn.
const MARGIN_PART: u64 = 8;

/// Whether less than the reserve is free. False where the disk does not say.
pub(super) fn is_short(disk: &dyn Disk, reserve: u64) -> bool {
    disk.space().is_some_and(|space| space.free < limit(space, reserve))
}

/// Whether too little is free still, where it was too little.
fn is_short_still(disk: &dyn Disk, reserve: u64) -> bool {
    let still = |space: Space| {
        let limit = limit(space, reserve);
        space.free < limit.saturating_add(limit / MARGIN_PART)
    };
    disk.space().is_some_and(still)
}

fn limit(space: Space, reserve: u64) -> u64 {
    reserve.min(space.total / RESERVE_PART)
}

/// Looks at the room beside the turns, and tells the machine when there is too little, and when there is enough again.
pub(super) struct Room {
    look: Rc<Notify>,
    /// Since the last look that was asked for.
    written: usize,
}

impl Room {
    /// Begins to look. It ends with the host.
    pub(super) fn watch<C: Command>(
        disk: Rc<dyn Disk>,
        reserve: u64,
        time: Rc<dyn TimeSource>,
        handle: WeakHandle<Site<C>>,
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
