//! Events of a service on their way to an actor.
//!
//! An actor subscribes with a `Recipient<Events<E>>`. Events are put into its mailbox without a wait and are counted until it has
//! dropped them; when [`Door::new`]'s bound is reached the service is told that this reader is full, and that it has room when half
//! of them are gone. So nothing waits for an actor, and nothing is lost in silence: a reader that is told more while it is full
//! loses its subscription, and the last message that it gets says so.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix::{Message, Recipient};
use mainstay_base::rack::{Offered, Reader};

/// Events of one turn of a service, in order. They count as unread until this is dropped.
#[derive(Debug)]
pub struct Events<E> {
    events: Vec<E>,
    is_end: bool,
    _place: Place,
}

impl<E: Send + 'static> Message for Events<E> {
    type Result = ();
}

impl<E> Events<E> {
    /// Nothing comes after this: the service is gone, or this reader was full and was told more. What it was not told is
    /// lost to it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.is_end
    }

    /// Takes the events out. They still count until the rest is dropped.
    pub fn take(&mut self) -> Vec<E> {
        std::mem::take(&mut self.events)
    }
}

impl<E> Deref for Events<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.events
    }
}

/// What is unread, and who is to be told that there is room.
///
/// The reader stores `full` and then looks at `unread`; the actor takes from `unread` and then looks at `full`. Only in one order of all
/// four does one of them see the other: weaker orders lose the word that there is room.
struct Gauge {
    /// How many, or what they weigh together.
    unread: AtomicUsize,
    max: usize,
    /// The service was told that it is full.
    full: AtomicBool,
    room: Box<dyn Fn() + Send + Sync>,
}

/// So many events of a gauge.
struct Place {
    gauge: Arc<Gauge>,
    count: usize,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.count)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.gauge.unread.fetch_sub(self.count, Ordering::SeqCst) - self.count;
        if left <= self.gauge.max / 2 && self.gauge.full.swap(false, Ordering::SeqCst) {
            (self.gauge.room)();
        }
    }
}

/// A reader that puts events into the mailbox of an actor.
pub struct Door<E: Send + 'static> {
    to: Recipient<Events<E>>,
    gauge: Arc<Gauge>,
    weigh: fn(&E) -> usize,
}

impl<E: Send + 'static> Door<E> {
    /// `max`: with so many unread events the reader is full. `room`: is called, on the actor's thread, when half of them are
    /// read after that.
    #[must_use]
    pub fn new(
        to: Recipient<Events<E>>,
        max: usize,
        room: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let gauge = Gauge {
            unread: AtomicUsize::new(0),
            max: max.max(1),
            full: AtomicBool::new(false),
            room: Box::new(room),
        };
        Self { to, gauge: Arc::new(gauge), weigh: |_| 1 }
    }

    /// An event counts for so much, and not for one.
    #[must_use]
    pub fn weighing(mut self, weigh: fn(&E) -> usize) -> Self {
        self.weigh = weigh;
        self
    }

    fn send(&self, events: Vec<E>, is_end: bool) {
        let count = events.iter().map(self.weigh).sum();
        self.gauge.unread.fetch_add(count, Ordering::SeqCst);
        let place = Place { gauge: Arc::clone(&self.gauge), count };
        // It does not count against the actor's own bound: the gauge is the bound.
        self.to.do_send(Events { events, is_end, _place: place });
    }
}

impl<E: Send + 'static> Reader<E> for Door<E> {
    fn read(&mut self, events: Vec<E>) -> Offered {
        if !self.to.connected() {
            return Offered::Gone;
        }
        self.send(events, false);
        let unread = || self.gauge.unread.load(Ordering::SeqCst);
        if unread() < self.gauge.max {
            return Offered::Room;
        }
        self.gauge.full.store(true, Ordering::SeqCst);
        // The actor may have read them meanwhile, when nobody was to be told yet.
        if unread() <= self.gauge.max / 2 && self.gauge.full.swap(false, Ordering::SeqCst) {
            return Offered::Room;
        }
        Offered::Full
    }
}

/// A reader that loses its subscription when it is told more while it is full; the one who tells needs to know no more.
pub struct Subscriber<E: Send + 'static> {
    door: Door<E>,
    full: Arc<AtomicBool>,
}

impl<E: Send + 'static> Subscriber<E> {
    /// An actor, and how much of what it was told may be unread; an event counts as `weigh` says.
    #[must_use]
    pub fn new(to: Recipient<Events<E>>, unread_max: usize, weigh: fn(&E) -> usize) -> Self {
        Self::waking(to, unread_max, weigh, || {})
    }

    /// As [`new`](Self::new); `room` is called, on the actor's thread, when there is room again after there was none.
    #[must_use]
    pub fn waking(
        to: Recipient<Events<E>>,
        unread_max: usize,
        weigh: fn(&E) -> usize,
        room: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let full = Arc::new(AtomicBool::new(false));
        let clears = Arc::clone(&full);
        let door = Door::new(to, unread_max, move || {
            clears.store(false, Ordering::SeqCst);
            room();
        });
        Self { door: door.weighing(weigh), full }
    }

    /// It can be told more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.full.load(Ordering::SeqCst)
    }

    /// The actor runs.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.door.to.connected()
    }

    /// Tells it. False: it is gone, or was told more than it has room for; it is to be dropped, and hears that this is the end.
    #[must_use]
    pub fn tell(&mut self, events: Vec<E>) -> bool {
        if self.full.load(Ordering::SeqCst) {
            return false;
        }
        // Before the door may say that there is room again.
        self.full.store(true, Ordering::SeqCst);
        match self.door.read(events) {
            Offered::Room => self.full.store(false, Ordering::SeqCst),
            Offered::Full => {}
            Offered::Gone => return false,
        }
        true
    }
}

impl<E: Send + 'static> Drop for Door<E> {
    fn drop(&mut self) {
        self.send(Vec::new(), true);
    }
}
