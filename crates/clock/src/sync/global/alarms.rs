//! Who waits for a reading of the clock: outside the service, woken by it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// What becomes of who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rung {
    /// The clock has said so.
    Due,
    /// As many wait as may.
    Refused,
    /// The service has ended.
    Ended,
}

enum Alarm {
    /// Somebody polls.
    Waits(Option<Waker>),
    /// Something is to be done, once. Whether the service has placed it, and who waits for that.
    Does {
        it: Box<dyn FnOnce(Rung) + Send>,
        placed: bool,
        waker: Option<Waker>,
    },
    Rung(Rung),
}

/// Alarms by number. Each is rung once.
#[derive(Default)]
pub(super) struct Alarms {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    set: BTreeMap<u64, Alarm>,
    last: u64,
}

impl Alarms {
    /// One that is polled.
    pub(super) fn waiting(&self) -> u64 {
        self.put(Alarm::Waits(None))
    }

    /// One that does something.
    pub(super) fn doing(&self, it: impl FnOnce(Rung) + Send + 'static) -> u64 {
        self.put(Alarm::Does { it: Box::new(it), placed: false, waker: None })
    }

    fn put(&self, alarm: Alarm) -> u64 {
        let mut inner = self.lock();
        inner.last += 1;
        let id = inner.last;
        inner.set.insert(id, alarm);
        id
    }

    /// It does not matter any more. False: it was rung.
    pub(super) fn remove(&self, id: u64) -> bool {
        let removed = self.lock().set.remove(&id);
        removed.is_some_and(|alarm| !matches!(alarm, Alarm::Rung(_)))
    }

    /// The service has it: it will ring.
    pub(super) fn placed(&self, id: u64) {
        let mut inner = self.lock();
        let Some(Alarm::Does { placed, waker, .. }) = inner.set.get_mut(&id) else { return };
        *placed = true;
        let waker = waker.take();
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whether one that does something is placed, or rung by now; [`Rung::Refused`] or [`Rung::Ended`] before it was.
    pub(super) fn poll_placed(&self, id: u64, with: &Waker) -> Poll<Result<(), Rung>> {
        match self.lock().set.get_mut(&id) {
            Some(Alarm::Does { placed: false, waker, .. }) => {
                *waker = Some(with.clone());
                Poll::Pending
            }
            Some(Alarm::Rung(rung)) => Poll::Ready(Err(*rung)),
            // It was placed, and has rung perhaps.
            _ => Poll::Ready(Ok(())),
        }
    }

    pub(super) fn poll(&self, id: u64, waker: &Waker) -> Poll<Rung> {
        match self.lock().set.get_mut(&id) {
            Some(Alarm::Rung(rung)) => Poll::Ready(*rung),
            Some(alarm) => {
                *alarm = Alarm::Waits(Some(waker.clone()));
                Poll::Pending
            }
            None => Poll::Ready(Rung::Ended),
        }
    }

    /// It is over for this one.
    pub(super) fn ring(&self, id: u64, rung: Rung) {
        let mut inner = self.lock();
        let Some(alarm) = inner.set.remove(&id) else { return };
        match alarm {
            Alarm::Waits(waker) => {
                inner.set.insert(id, Alarm::Rung(rung));
                drop(inner);
                waker.into_iter().for_each(Waker::wake);
            }
            Alarm::Does { it, placed, waker } => {
                if !placed {
                    inner.set.insert(id, Alarm::Rung(rung));
                }
                drop(inner);
                it(rung);
                waker.into_iter().for_each(Waker::wake);
            }
            Alarm::Rung(_) => drop(inner.set.insert(id, alarm)),
        }
    }

    /// It is over for all.
    pub(super) fn end(&self) {
        let all: Vec<u64> = self.lock().set.keys().copied().collect();
        all.into_iter().for_each(|id| self.ring(id, Rung::Ended));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarms").field("set", &self.lock().set.len()).finish()
    }
}
