//! Room on the disk: a node refuses what is new before its disk is full, and so still has the room to take part in views and to
//! log what the others cast.

use std::cell::Cell;
use std::rc::Rc;

use mainstay_base::Duration;
use mainstay_runtime::{Disk, Space, TimeSource, WeakHandle};

use super::application::Command;
use super::machine::{Input, Site};

/// After so many bytes that were written the room is looked at again (1 MiB).
const LOOK_BYTES: usize = 1 << 20;
/// How often it is looked at while there is too little.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The reserve is no larger than this part of the disk.
const RESERVE_PART: u64 = 8;

/// Whether less than the reserve is free. False where the disk does not say.
pub(super) fn is_short(disk: &dyn Disk, reserve: u64) -> bool {
    let short = |Space { free, total }| free < reserve.min(total / RESERVE_PART);
    disk.space().is_some_and(short)
}

/// Looks at the room while the log is written.
pub(super) struct Room {
    disk: Rc<dyn Disk>,
    reserve: u64,
    time: Rc<dyn TimeSource>,
    /// Since the last look.
    written: usize,
    /// What the machine was told last.
    short: Rc<Cell<bool>>,
}

impl Room {
    pub(super) fn new(disk: Rc<dyn Disk>, reserve: u64, time: Rc<dyn TimeSource>) -> Self {
        Self { disk, reserve, time, written: LOOK_BYTES, short: Rc::default() }
    }

    /// So many bytes are to be written. True if the machine is to be told that there is too little room; it hears from
    /// `handle` when there is enough again.
    pub(super) fn take<C: Command>(&mut self, bytes: usize, handle: WeakHandle<Site<C>>) -> bool {
        self.written = self.written.saturating_add(bytes);
        if self.written < LOOK_BYTES || self.short.get() {
            return false;
        }
        self.written = 0;
        let short = is_short(&*self.disk, self.reserve);
        if short {
            self.short.set(true);
            self.wait(handle);
        }
        short
    }

    fn wait<C: Command>(&self, handle: WeakHandle<Site<C>>) {
        let (disk, reserve, time) = (Rc::clone(&self.disk), self.reserve, Rc::clone(&self.time));
        let told = Rc::clone(&self.short);
        drop(tokio::task::spawn_local(async move {
            loop {
                time.sleep_until(time.now() + LOOK_EVERY).await;
                let Some(handle) = handle.upgrade() else { return };
                if !is_short(&*disk, reserve) {
                    told.set(false);
                    // A host that has closed needs no room.
                    let _ = handle.send(Input::DiskShort(false)).await;
                    return;
                }
            }
        }));
    }
}
