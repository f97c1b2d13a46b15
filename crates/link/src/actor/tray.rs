//! Events of a link for a task that takes them one by one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstay_base::rack::{Offered, Reader};
use mainstay_runtime::Bell;
use tokio::sync::Notify;

use super::event::{LinkEvent, Ring, event_weight};

struct Shared {
    tray: Mutex<Tray>,
    more: Notify,
    bytes_max: usize,
    bell: Bell<Ring>,
}

#[derive(Default)]
struct Tray {
    events: VecDeque<LinkEvent>,
    bytes: usize,
    /// The link was told that there is no room.
    is_full: bool,
    /// Nothing comes any more.
    has_ended: bool,
    /// Nobody reads any more.
    is_left: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The link's end.
pub(super) struct Into(Arc<Shared>);

/// The events of a link, in order. While they are not taken the link waits; when they are dropped it stops.
pub struct LinkEvents(Arc<Shared>);

pub(super) fn tray(bytes_max: usize, bell: Bell<Ring>) -> (Into, LinkEvents) {
    let (tray, more) = (Mutex::default(), Notify::new());
    let shared = Arc::new(Shared { tray, more, bytes_max: bytes_max.max(1), bell });
    (Into(Arc::clone(&shared)), LinkEvents(shared))
}

impl Reader<LinkEvent> for Into {
    fn read(&mut self, events: Vec<LinkEvent>) -> Offered {
        let mut tray = self.0.lock();
        if tray.is_left {
            return Offered::Gone;
        }
        tray.bytes += events.iter().map(event_weight).sum::<usize>();
        tray.events.extend(events);
        tray.is_full = tray.bytes >= self.0.bytes_max;
        let offered = if tray.is_full { Offered::Full } else { Offered::Room };
        drop(tray);
        self.0.more.notify_one();
        offered
    }
}

impl Drop for Into {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.more.notify_one();
    }
}

impl LinkEvents {
    /// The next event; `None` when the link has ended. If the future is dropped nothing is lost.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.0.more.notified().await;
        }
    }

    /// `None`: it is to come.
    fn take(&mut self) -> Option<Option<LinkEvent>> {
        let mut tray = self.0.lock();
        let Some(event) = tray.events.pop_front() else {
            return tray.has_ended.then_some(None);
        };
        tray.bytes -= event_weight(&event);
        let has_room = tray.bytes <= self.0.bytes_max / 2;
        let rings = has_room && std::mem::take(&mut tray.is_full);
        drop(tray);
        if rings {
            self.0.bell.ring(Ring::Room);
        }
        Some(Some(event))
    }
}

impl Drop for LinkEvents {
    fn drop(&mut self) {
        let mut tray = self.0.lock();
        tray.is_left = true;
        let left = std::mem::take(&mut tray.events);
        drop((tray, left));
        self.0.bell.ring(Ring::Left);
    }
}

impl fmt::Debug for LinkEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkEvents").finish_non_exhaustive()
    }
}
