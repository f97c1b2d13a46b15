//! How handles reach what lives in a host without a message for each call: a queue that is emptied once a turn.
//!
//! An actor message for each call costs more than the call. So a handle puts what it has into an [`Inbox`] and rings its [`Bell`];
//! only the first who rings wakes the host, which asks the bell at its next turn whose inboxes have something, and takes all of
//! it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::host::{Hosted, SendError, WeakHandle};

/// Who has something for a host. Cheap to clone.
pub struct Bell<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    rung: Mutex<Vec<K>>,
    /// Something was rung since the keys were last taken.
    any: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl<K> Bell<K> {
    /// A bell that wakes nobody yet.
    #[must_use]
    pub fn new() -> Self {
        let shared =
            Shared { rung: Mutex::default(), any: AtomicBool::new(false), wake: OnceLock::new() };
        Self { shared: Arc::new(shared) }
    }

    /// From here on this host is woken. It has to [`take`](Self::take) at each turn. Only the first call counts.
    pub fn hang<M: Hosted>(&self, host: WeakHandle<M>) {
        let wake = Box::new(move || {
            if let Some(host) = host.upgrade() {
                host.wake();
            }
        });
        let _ = self.shared.wake.set(wake);
    }

    /// There is something of `key`. A host that has closed is not woken.
    pub fn ring(&self, key: K) {
        lock(&self.shared.rung).push(key);
        if !self.shared.any.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.shared.wake.get()
        {
            wake();
        }
    }

    /// The keys that were rung since the last call, in order.
    #[must_use]
    pub fn take(&self) -> Vec<K> {
        // Whoever rings after this wakes the host again.
        if !self.shared.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.shared.rung))
    }
}

impl<K> Default for Bell<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Clone for Bell<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> fmt::Debug for Bell<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The room that something takes in an [`Inbox`]; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// The senders' end of a bounded queue to something that lives in a host. Cheap to clone.
pub struct Inbox<T> {
    line: Arc<Line<T>>,
}

/// The other end. When it is dropped the inbox is closed, and what is in it is dropped.
pub struct Intake<T> {
    line: Arc<Line<T>>,
}

struct Line<T> {
    queue: Mutex<Queue<T>>,
    places: Arc<Semaphore>,
    bytes_max: usize,
    ring: Box<dyn Fn() + Send + Sync>,
}

struct Queue<T> {
    waiting: VecDeque<(T, Place)>,
    /// How many were put in so far.
    count: u64,
    closed: bool,
}

/// An inbox for at most `bytes_max` bytes, that rings `key` when something comes into it while it is empty.
///
/// # Panics
/// If `bytes_max` is 0.
#[must_use]
pub fn inbox<T, K>(bell: &Bell<K>, key: K, bytes_max: usize) -> (Inbox<T>, Intake<T>)
where
    K: Copy + Send + Sync + 'static,
{
    let bytes_max = bytes_max.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
    assert!(bytes_max > 0, "an inbox has room for something");
    let bell = bell.clone();
    let line = Arc::new(Line {
        queue: Mutex::new(Queue { waiting: VecDeque::new(), count: 0, closed: false }),
        places: Arc::new(Semaphore::new(bytes_max)),
        bytes_max,
        ring: Box::new(move || bell.ring(key)),
    });
    (Inbox { line: Arc::clone(&line) }, Intake { line })
}

impl<T> Inbox<T> {
    /// Puts something in that counts for `bytes`; waits until there is room. What counts for more than the whole inbox goes in
    /// when that is empty. Who waits is served in the order of the calls. Answers its number, from 1 and without a gap.
    ///
    /// # Errors
    /// [`SendError::Closed`] with it.
    pub async fn send(&self, bytes: usize, it: T) -> Result<u64, SendError<T>> {
        match Arc::clone(&self.line.places).acquire_many_owned(self.weight(bytes)).await {
            Ok(permit) => self.put(it, permit),
            Err(_) => Err(SendError::Closed(it)),
        }
    }

    /// As [`send`](Self::send), if there is room now.
    ///
    /// # Errors
    /// [`SendError`] with it.
    pub fn try_send(&self, bytes: usize, it: T) -> Result<u64, SendError<T>> {
        match Arc::clone(&self.line.places).try_acquire_many_owned(self.weight(bytes)) {
            Ok(permit) => self.put(it, permit),
            Err(TryAcquireError::NoPermits) => Err(SendError::Full(it)),
            Err(TryAcquireError::Closed) => Err(SendError::Closed(it)),
        }
    }

    fn weight(&self, bytes: usize) -> u32 {
        bytes.clamp(1, self.line.bytes_max) as u32
    }

    fn put(&self, it: T, permit: OwnedSemaphorePermit) -> Result<u64, SendError<T>> {
        let mut queue = lock(&self.line.queue);
        if queue.closed {
            return Err(SendError::Closed(it));
        }
        let first = queue.waiting.is_empty();
        queue.waiting.push_back((it, Place { _permit: permit }));
        queue.count += 1;
        let number = queue.count;
        drop(queue);
        if first {
            (self.line.ring)();
        }
        Ok(number)
    }
}

impl<T> Intake<T> {
    /// Takes the next `most` out, in order. Each place is given back when it is dropped. False: nothing is left. As long as
    /// something is left the bell is not rung: whoever takes comes again by itself.
    pub fn take(&mut self, most: usize, into: &mut Vec<(T, Place)>) -> bool {
        let mut queue = lock(&self.line.queue);
        let count = queue.waiting.len().min(most);
        into.extend(queue.waiting.drain(..count));
        !queue.waiting.is_empty()
    }
}

impl<T> Drop for Intake<T> {
    fn drop(&mut self) {
        let mut queue = lock(&self.line.queue);
        queue.closed = true;
        let left = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.line.places.close();
        drop(left);
    }
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Self {
        Self { line: Arc::clone(&self.line) }
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("room", &self.line.places.available_permits())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Intake<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    /// The bell rings for the first thing in an empty inbox and not again until it is emptied.
    #[test]
    fn an_inbox_rings_once_until_it_is_emptied() {
        let bell = Bell::new();
        let (inbox, mut intake) = inbox::<u32, u8>(&bell, 7, 100);
        assert_eq!(inbox.try_send(10, 1).unwrap(), 1);
        assert_eq!(inbox.try_send(10, 2).unwrap(), 2);
        assert_eq!(bell.take(), [7]);
        assert_eq!(bell.take(), []);
        let mut taken = Vec::new();
        assert!(intake.take(1, &mut taken));
        inbox.try_send(10, 3).unwrap();
        assert_eq!(bell.take(), []);
        assert!(!intake.take(10, &mut taken));
        assert_eq!(taken.iter().map(|(it, _)| *it).collect::<Vec<_>>(), [1, 2, 3]);
        inbox.try_send(10, 4).unwrap();
        assert_eq!(bell.take(), [7]);
    }

    /// A place is taken until it is dropped, be the thing itself long out of the queue.
    #[test]
    fn room_is_given_back_with_the_place() {
        let bell = Bell::new();
        let (inbox, mut intake) = inbox::<u32, u8>(&bell, 7, 100);
        inbox.try_send(1_000, 1).unwrap();
        let mut taken = Vec::new();
        intake.take(9, &mut taken);
        assert!(matches!(inbox.try_send(1, 2), Err(SendError::Full(2))));
        taken.clear();
        assert_eq!(inbox.try_send(60, 2).unwrap(), 2);
        assert!(matches!(inbox.try_send(60, 3), Err(SendError::Full(3))));
    }

    /// Whoever waits for room is told when nobody takes any more.
    #[test]
    fn a_closed_inbox_gives_everything_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bell = Bell::new();
            let (inbox, intake) = inbox::<u32, u8>(&bell, 7, 100);
            inbox.try_send(100, 1).unwrap();
            let waits = inbox.send(1, 2);
            let ends = async { drop(intake) };
            let (refused, ()) = tokio::join!(waits, ends);
            assert!(matches!(refused, Err(SendError::Closed(2))));
            assert!(matches!(inbox.try_send(1, 3), Err(SendError::Closed(3))));
        });
    }
}
