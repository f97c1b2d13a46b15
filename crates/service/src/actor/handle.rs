//! How users reach the services of a station.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_base::rack::{Given, Mounted};
use mainstay_base::service::{Address, Ask, ReaderChange, ReaderId, Service};
use mainstay_base::{BootId, ClusterId, Instance, Instant};
use mainstay_runtime::{Closed, Door, Events, HostHandle, Recipient, WeakHandle};
use tokio::sync::oneshot;

use crate::{Input, Request, Services, Standing, Station};

/// Readers that have room, and could not be announced because the mailbox was full.
#[derive(Clone, Default)]
pub(super) struct Owing(Arc<Mutex<Vec<(Address, ReaderId)>>>);

impl Owing {
    pub(super) fn take(&self) -> Vec<(Address, ReaderId)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, of: Address, reader: ReaderId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((of, reader));
    }
}

/// What tells a service that a reader has room again.
pub(super) fn has_room(of: Address, reader: ReaderId) -> Input {
    Input::Service(Request::Give(of, Given::Reader { reader, change: ReaderChange::Room }))
}

/// A station: cheap to clone, `Send` and `Sync`. The station stops when the last handle is dropped, those of its services included:
/// an actor on the same thread that keeps one keeps the station running.
#[derive(Clone)]
pub struct StationHandle {
    host: HostHandle<Station>,
    cluster: ClusterId,
    readers: Arc<AtomicU64>,
    owing: Owing,
}

impl StationHandle {
    pub(super) fn new(host: HostHandle<Station>, cluster: ClusterId, owing: Owing) -> Self {
        Self { host, cluster, readers: Arc::default(), owing }
    }

    /// The instance `name` of a service. Whether it is mounted shows when it is used.
    #[must_use]
    pub fn service<S: Service>(&self, name: &str) -> ServiceHandle<S> {
        let instance = Instance::new(self.cluster, name);
        ServiceHandle { station: self.clone(), instance, service: PhantomData }
    }

    /// Asks the station to stop: what was admitted is still taken in.
    pub fn stop(&self) {
        self.host.stop();
    }

    /// How the station ended, as soon as it has. The future holds no handle.
    pub fn closed(&self) -> impl Future<Output = Closed> + Send + use<> {
        self.host.closed()
    }
}

impl fmt::Debug for StationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StationHandle").field(&self.host).finish()
    }
}

/// One service of a station.
pub struct ServiceHandle<S> {
    station: StationHandle,
    instance: Instance,
    service: PhantomData<fn() -> S>,
}

/// Why a service was not reached. Nothing changed.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReachError {
    /// It is not mounted.
    #[error("no such service is mounted")]
    NotMounted,
    /// The station has ended.
    #[error("the station has ended")]
    Closed,
}

impl<S: Service> ServiceHandle<S> {
    fn address(&self) -> Address {
        Address { channel: S::CHANNEL, instance: self.instance }
    }

    /// Which one of its kind it is.
    #[must_use]
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Gives the service a command; waits while the station has more to do than it takes in. A command for a service that is
    /// not mounted is dropped and counted.
    ///
    /// # Errors
    /// The station has ended.
    pub async fn send(&self, command: S::Command) -> Result<(), ReachError> {
        let ask = Ask::of::<S>(self.instance, vec![command]);
        let sent = self.station.host.send(Input::Service(Request::Ask(ask))).await;
        sent.map_err(|_| ReachError::Closed)
    }

    /// Asks something of the services between two turns.
    async fn between<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Services, Instant) -> T + Send + 'static,
    ) -> Result<T, ReachError> {
        let (tell, told) = oneshot::channel();
        let change = Box::new(move |services: &mut Services, now| {
            // Nobody waits any more: then nobody is told.
            let _ = tell.send(ask(services, now));
        });
        let input = Input::Service(Request::Change(change));
        self.station.host.send(input).await.map_err(|_| ReachError::Closed)?;
        told.await.map_err(|_| ReachError::Closed)
    }

    /// Asks something of this service between two turns.
    async fn with<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Mounted<S>) -> T + Send + 'static,
    ) -> Result<T, ReachError> {
        let instance = self.instance;
        let mounted =
            move |services: &mut Services, _| services.rack_mut().get_mut::<S>(instance).map(ask);
        self.between(mounted).await?.ok_or(ReachError::NotMounted)
    }

    /// From here on an actor is told what the service tells, in order. With `unread_max` unread events it is full (1 at least): one that
    /// is told more loses its subscription. A turn may bring many events at once. The last message says that it is the
    /// [end](Events::is_end).
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn subscribe(
        &self,
        to: Recipient<Events<S::Event>>,
        unread_max: usize,
    ) -> Result<ReaderId, ReachError> {
        let (of, owing) = (self.address(), self.station.owing.clone());
        let reader = ReaderId(self.station.readers.fetch_add(1, Ordering::Relaxed));
        let station: WeakHandle<Station> = self.station.host.downgrade();
        let room = move || {
            let Some(station) = station.upgrade() else { return };
            // First: if the mailbox is full a turn is to come, and it takes this along.
            owing.put(of, reader);
            let wake = Box::new(|_: &mut Services, _| {});
            // A host that has closed needs no readers.
            let _ = station.try_send(Input::Service(Request::Change(wake)));
        };
        let door = Door::new(to, unread_max, room);
        self.with(move |mounted| mounted.subscribe(reader, door)).await?;
        Ok(reader)
    }

    /// Ends a subscription. The actor is told that it is the end.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn unsubscribe(&self, reader: ReaderId) -> Result<(), ReachError> {
        let (of, gone) = (self.address(), ReaderChange::Gone);
        let given = Given::Reader { reader, change: gone };
        self.between(move |services, now| services.give(now, of, given)).await.map(drop)
    }

    /// How the service is.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn status(&self) -> Result<S::Status, ReachError>
    where
        S::Status: Send,
    {
        self.with(|mounted| mounted.service().status()).await
    }

    /// How each peer that was ever connected stands to the service: why it does not hear one, for instance.
    ///
    /// # Errors
    /// [`ReachError::Closed`].
    pub async fn peers(&self) -> Result<Vec<(BootId, Standing)>, ReachError> {
        let of = self.address();
        self.between(move |services, _| services.mux().standing(of).collect()).await
    }

    /// The service comes to its end: it is told so, turned once more, and gone. False if it is not mounted.
    ///
    /// # Errors
    /// [`ReachError::Closed`].
    pub async fn dismount(&self) -> Result<bool, ReachError> {
        let of = self.address();
        self.between(move |services, now| services.dismount(now, of)).await
    }
}

impl<S> Clone for ServiceHandle<S> {
    fn clone(&self) -> Self {
        Self { station: self.station.clone(), instance: self.instance, service: PhantomData }
    }
}

impl<S> fmt::Debug for ServiceHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceHandle").field("instance", &self.instance).finish_non_exhaustive()
    }
}
