//! How the services of a node are reached from outside, whatever hosts them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use mainstay_base::service::{Address, ReaderId, Service};
use mainstay_base::{ClusterId, Instance};
use mainstay_runtime::{Bell, Hosted, SendError, WeakHandle};

use super::beside::Line;
use super::handle::{ReachError, ServiceHandle};
use crate::Request;

/// Leads to the services of a node, also before the node has started: handles of its services can be made at any time. Cheap to
/// clone; it does not keep the node running.
#[derive(Clone)]
pub struct Reach {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: ClusterId,
    courier: OnceLock<Box<dyn Courier>>,
    readers: AtomicU64,
    bell: Bell<(Address, ReaderId)>,
    /// Rung for services beside the node that have something for it.
    beside: Bell<Address>,
    /// Those that are there, or have fallen.
    lines: Mutex<BTreeMap<Address, Arc<Line>>>,
    /// There has been one: else nobody looks for it.
    any: AtomicBool,
    closers: Mutex<Vec<Closer>>,
}

type Closing = Pin<Box<dyn Future<Output = ()> + Send>>;
/// `None`: nobody is there any more.
type Closer = Box<dyn Fn(Duration) -> Option<Closing> + Send>;

impl Reach {
    /// Leads nowhere yet.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        let (courier, readers, bell) = (OnceLock::new(), AtomicU64::new(0), Bell::new());
        let (beside, lines, any) = (Bell::new(), Mutex::default(), AtomicBool::new(false));
        let closers = Mutex::default();
        let shared = Shared { cluster, courier, readers, bell, beside, lines, any, closers };
        Self { shared: Arc::new(shared) }
    }

    /// From here on it leads to this host; `input` makes a request an input of its machine. Only the first call counts.
    pub fn lead<M: Hosted>(&self, host: WeakHandle<M>, input: fn(Request) -> M::Input) {
        self.shared.bell.hang(host.clone());
        self.shared.beside.hang(host.clone());
        let _ = self.shared.courier.set(Box::new(Post { host, input }));
    }

    /// The node is to be stopped soon: those who hand out work of its services finish what was accepted, and refuse the rest. It ends when all have,
    /// which they do in about that time. The node goes on: whoever calls this stops it then.
    pub async fn close(&self, within: Duration) {
        // They go on side by side. Whoever answers none is gone.
        let mut all: Vec<Closing> = Vec::new();
        lock(&self.shared.closers).retain(|closer| {
            let closing = closer(within);
            let is_there = closing.is_some();
            all.extend(closing);
            is_there
        });
        std::future::poll_fn(|context| {
            all.retain_mut(|one| one.as_mut().poll(context).is_pending());
            if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Somebody is to be asked when the node is about to close.
    pub(super) fn closes(&self, closer: impl Fn(Duration) -> Option<Closing> + Send + 'static) {
        let mut closers = lock(&self.shared.closers);
        // A desk that is opened again leaves its former word behind.
        closers.retain(|closer| closer(Duration::ZERO).is_some());
        closers.push(Box::new(closer));
    }

    /// Rung for readers that have room again.
    pub(super) fn bell(&self) -> Bell<(Address, ReaderId)> {
        self.shared.bell.clone()
    }

    /// The instance `name` of a service. Whether it is mounted shows when it is used. The handle does not keep the node running.
    #[must_use]
    pub fn service<S: Service>(&self, name: &str) -> ServiceHandle<S> {
        ServiceHandle::new(self.clone(), Instance::new(self.shared.cluster, name), None)
    }

    pub(super) fn beside(&self) -> Bell<Address> {
        self.shared.beside.clone()
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<Address, Arc<Line>>> {
        self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to a service beside the node, if it is one.
    pub(super) fn line(&self, of: Address) -> Option<Arc<Line>> {
        if !self.shared.any.load(Ordering::Acquire) {
            return None;
        }
        self.lines().get(&of).cloned()
    }

    pub(super) fn enter(&self, line: Arc<Line>) {
        self.lines().insert(line.of, line);
        self.shared.any.store(true, Ordering::Release);
    }

    pub(super) fn leave(&self, of: Address) {
        self.lines().remove(&of);
    }

    pub(super) fn next_reader(&self) -> ReaderId {
        ReaderId(self.shared.readers.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn courier(&self) -> Result<&dyn Courier, ReachError> {
        self.shared.courier.get().map(|courier| &**courier).ok_or(ReachError::NotStarted)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach").finish_non_exhaustive()
    }
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), ReachError>> + Send + 'a>>;

/// Brings requests to a host of any machine.
pub(super) trait Courier: Send + Sync {
    /// Waits while the host has more to do than it takes in.
    fn send(&self, request: Request) -> Sending<'_>;

    /// Refuses if there is no room.
    fn try_send(&self, request: Request) -> Result<(), ReachError>;

    fn is_closed(&self) -> bool;
}

struct Post<M: Hosted> {
    host: WeakHandle<M>,
    input: fn(Request) -> M::Input,
}

impl<M: Hosted> Courier for Post<M> {
    fn send(&self, request: Request) -> Sending<'_> {
        let (host, input) = (self.host.upgrade(), (self.input)(request));
        Box::pin(async move {
            let host = host.ok_or(ReachError::Closed)?;
            host.send(input).await.map_err(|_| ReachError::Closed)
        })
    }

    fn try_send(&self, request: Request) -> Result<(), ReachError> {
        let host = self.host.upgrade().ok_or(ReachError::Closed)?;
        host.try_send((self.input)(request)).map_err(|error| match error {
            SendError::Full(_) => ReachError::Full,
            SendError::Closed(_) => ReachError::Closed,
        })
    }

    fn is_closed(&self) -> bool {
        self.host.upgrade().is_none_or(|host| host.is_closed())
    }
}
