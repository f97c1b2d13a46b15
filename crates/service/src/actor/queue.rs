//! Many commands a turn for one service: they wait in a queue that the node takes as a whole.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstay_base::service::{Ask, Service};

use super::handle::{ReachError, ServiceHandle};
use crate::Request;

/// Gives commands to a service as [`ServiceHandle::try_send`] does, for those who give many: only the first one in a turn wakes the node.
/// Cheap to clone.
pub struct CommandQueue<S: Service> {
    handle: ServiceHandle<S>,
    waiting: Arc<Mutex<Waiting<S::Command>>>,
    max: usize,
}

struct Waiting<C> {
    commands: Vec<C>,
    /// The node will take them.
    is_rung: bool,
}

impl<S: Service> CommandQueue<S> {
    /// At most `max` commands wait.
    #[must_use]
    pub fn new(handle: ServiceHandle<S>, max: usize) -> Self {
        let waiting = Waiting { commands: Vec::new(), is_rung: false };
        Self { handle, waiting: Arc::new(Mutex::new(waiting)), max }
    }

    /// Gives the service a command, if there is room now: `Ok` says that the node will hand it on. If the service is not mounted then, or
    /// the node has begun anew, it is dropped.
    ///
    /// # Errors
    /// As [`ServiceHandle::try_send`].
    pub fn push(&self, command: S::Command) -> Result<(), ReachError> {
        if self.handle.placement().is_some() {
            return self.handle.try_send(command);
        }
        let courier = self.handle.reach().courier()?;
        // It is locked until the node has been told: what others put in meanwhile would be lost with a word that did not arrive.
        let mut waiting = lock(&self.waiting);
        if waiting.commands.len() >= self.max {
            return Err(ReachError::Full);
        }
        if waiting.is_rung {
            if courier.is_closed() {
                return Err(ReachError::Closed);
            }
            waiting.commands.push(command);
            return Ok(());
        }
        let (instance, standing) = (self.handle.instance(), Arc::new(AtomicU8::new(NEW)));
        let mut rung = Rung { waiting: Arc::clone(&self.waiting), standing: Arc::clone(&standing) };
        let take = move |services: &mut crate::Services, now| {
            let commands = rung.take();
            services.ask(now, Ask::of::<S>(instance, commands));
        };
        courier.try_send(Request::Change(Box::new(take)))?;
        let told = standing.compare_exchange(NEW, TOLD, Ordering::SeqCst, Ordering::SeqCst);
        // The node may have dropped it already.
        told.map_err(|_| ReachError::NotMounted)?;
        waiting.commands.push(command);
        waiting.is_rung = true;
        Ok(())
    }
}

impl<S: Service<Command: Clone>> CommandQueue<S> {
    /// Gives the service a command that must not be lost: without room it waits, beside the caller. A service that has ended gets nothing.
    ///
    /// # Panics
    /// Outside a `LocalSet` of a tokio runtime, without room.
    pub fn give(&self, command: S::Command) {
        let Err(ReachError::Full) = self.push(command.clone()) else { return };
        let handle = self.handle.clone();
        tokio::task::spawn_local(async move {
            let _ = handle.send(command).await;
        });
    }
}

/// The node was told. If it never takes what waits, because it has ended or begun anew, that is dropped.
struct Rung<C> {
    waiting: Arc<Mutex<Waiting<C>>>,
    standing: Arc<AtomicU8>,
}

/// Whoever rings is not sure yet that the node was told.
const NEW: u8 = 0;
/// It was, and takes what waits.
const TOLD: u8 = 1;
/// It has taken it, or never will.
const DONE: u8 = 2;

impl<C> Rung<C> {
    fn take(&mut self) -> Vec<C> {
        // Whoever has rung has put its command in by the time that this is locked.
        let mut waiting = lock(&self.waiting);
        self.standing.store(DONE, Ordering::SeqCst);
        waiting.is_rung = false;
        std::mem::take(&mut waiting.commands)
    }
}

impl<C> Drop for Rung<C> {
    fn drop(&mut self) {
        // After a take others may have rung again. One who is just ringing sees that it was for nothing.
        if self.standing.swap(DONE, Ordering::SeqCst) == TOLD {
            self.take();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Service> Clone for CommandQueue<S> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), waiting: Arc::clone(&self.waiting), max: self.max }
    }
}

impl<S: Service> fmt::Debug for CommandQueue<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandQueue").field("max", &self.max).finish_non_exhaustive()
    }
}
