//! How users reach the services of a node.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::rack::{Breach, Given, Mounted, Placement, Reader};
use mainstay_base::service::{Address, Ask, ReaderChange, ReaderId, Service};
use mainstay_base::{BootId, Instance, Instant};
use mainstay_runtime::{Closed, Door, Events, HostHandle, Recipient};
use tokio::sync::oneshot;

use super::beside::Line;
use super::hosting::{Asker, Restart};
use super::late::MountLateError;
use super::mounting::{Mounting, Next, ServicesError};
use super::reach::Reach;
use crate::services::Again;
use crate::{Request, Services, Standing, Station};

/// A station: cheap to clone, `Send` and `Sync`. The station stops when the last handle is dropped, those of its services included:
/// an actor on the same thread that keeps one keeps the station running.
#[derive(Clone)]
pub struct StationHandle {
    host: HostHandle<Station>,
    reach: Reach,
}

impl StationHandle {
    pub(super) fn new(host: HostHandle<Station>, reach: Reach) -> Self {
        Self { host, reach }
    }

    /// The instance `name` of a service. Whether it is mounted shows when it is used.
    #[must_use]
    pub fn service<S: Service>(&self, name: &str) -> ServiceHandle<S> {
        let host = Arc::new(self.host.clone());
        ServiceHandle { keeps: Some(host), ..self.reach.service(name) }
    }

    /// Mounts a service on the station while it runs, or beside it. See [`Reach::mount`].
    ///
    /// # Errors
    /// [`MountLateError`].
    pub async fn mount<S: Service>(
        &self,
        name: &str,
        placement: Option<Placement>,
        config: impl FnMut(&Mounting<'_>) -> S::Config + Send + 'static,
    ) -> Result<ServiceHandle<S>, MountLateError> {
        let handle = self.reach.mount(name, placement, config).await?;
        Ok(ServiceHandle { keeps: Some(Arc::new(self.host.clone())), ..handle })
    }

    /// Asks the station to stop: what was admitted is still taken in.
    pub fn stop(&self) {
        self.host.stop();
    }

    /// Stops, but first has what was accepted finished, and the rest refused ([`Reach::close`]), which takes about that time at most; by services that know how to,
    /// as remote calls do. How the station ended.
    pub async fn close(&self, within: Duration) -> Closed {
        self.reach.close(within).await;
        self.stop();
        self.closed().await
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

/// One service of a node, mounted there or alone: cheap to clone, `Send` and `Sync`.
///
/// One of a station keeps the station running. One of a site does not. A site may be declared dead by the others and begin anew
/// in its process: until its services are mounted again they count as not mounted, and each subscription has ended.
pub struct ServiceHandle<S> {
    reach: Reach,
    instance: Instance,
    /// The host, if the handle is to keep it running.
    keeps: Option<Arc<dyn Any + Send + Sync>>,
    service: PhantomData<fn() -> S>,
}

/// Why a service was not reached. Nothing changed.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReachError {
    /// The node has not started yet.
    #[error("the node has not started")]
    NotStarted,
    /// It is not mounted, or its node was declared dead and begins anew.
    #[error("no such service is mounted")]
    NotMounted,
    /// It panicked in an actor of its own, and was not started again. What it was given last it may have got.
    #[error("the service has panicked, and was not started again")]
    Fallen,
    /// It broke a rule of its host, and was stopped; it was not mounted or started again since. What it was given last it may have got.
    #[error("the service was stopped: {0}")]
    Stopped(Breach),
    /// The node, or the service if it is beside it, has more to do than it takes in. Trying again later may help.
    #[error("the node has more to do than it takes in")]
    Full,
    /// The node has ended.
    #[error("the node has ended")]
    Closed,
}

/// Why a service does not begin again. What is on disk is as it was.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum AgainError {
    /// It has not fallen: it runs, it was dismounted, it is not beside the node, or another caller starts it again already.
    #[error("the service has not fallen")]
    NotFallen,
    /// The node was not reached.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// It cannot be recovered, or has no place any more.
    #[error(transparent)]
    Services(#[from] ServicesError),
}

/// Why one that is not on the rack is not.
fn why(services: &Services, of: Address) -> ReachError {
    services.breach(of).map_or(ReachError::NotMounted, ReachError::Stopped)
}

impl<S: Service> ServiceHandle<S> {
    pub(super) fn new(
        reach: Reach,
        instance: Instance,
        keeps: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self { reach, instance, keeps, service: PhantomData }
    }

    fn address(&self) -> Address {
        Address { channel: S::CHANNEL, instance: self.instance }
    }

    pub(super) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Which one of its kind it is.
    #[must_use]
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Gives the service a command; waits while the node has more to do than it takes in, and until the service has it.
    ///
    /// # Errors
    /// [`ReachError`], never `Full`. Where it is `NotMounted` or `NotStarted` the service has not got it; where it is `Closed`, `Fallen` or
    /// `Stopped` the node or the service has ended.
    pub async fn send(&self, command: S::Command) -> Result<(), ReachError> {
        let ask = Ask::of::<S>(self.instance, vec![command]);
        let (of, mut ask) = (self.address(), ask);
        loop {
            if let Some(line) = self.line() {
                let taken = self.told(line.ask(move |desk, now| desk.ask(now, ask)).await)?;
                return if taken { Ok(()) } else { Err(line.why()) };
            }
            let asked = move |services: &mut Services, now| match services.is_beside(of) {
                true => Err(ask),
                false => Ok(services.ask(now, ask).then_some(()).ok_or_else(|| why(services, of))),
            };
            match self.between(asked).await? {
                Ok(taken) => return taken,
                // Its actor starts with the end of the turn.
                Err(back) => ask = back,
            }
        }
    }

    /// Gives the service a command, if there is room now, and does not wait: `Ok` says that the node will hand it on. If the service is not
    /// mounted then, it is dropped and counted.
    ///
    /// # Errors
    /// [`ReachError::Closed`], [`ReachError::NotStarted`], [`ReachError::Full`]; of a service beside the node all.
    pub fn try_send(&self, command: S::Command) -> Result<(), ReachError> {
        let ask = Ask::of::<S>(self.instance, vec![command]);
        if let Some(line) = self.line() {
            return line.try_ask(ask);
        }
        self.reach.courier()?.try_send(Request::Ask(ask))
    }

    /// What an actor answered: one that its node has ended with itself is not merely not mounted.
    fn told<T>(&self, told: Result<T, ReachError>) -> Result<T, ReachError> {
        told.map_err(|error| match (error, self.reach.courier()) {
            (ReachError::NotMounted, Ok(courier)) if courier.is_closed() => ReachError::Closed,
            _ => error,
        })
    }

    /// Asks something of the services between two turns.
    pub(super) async fn between<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Services, Instant) -> T + Send + 'static,
    ) -> Result<T, ReachError> {
        let (tell, told) = oneshot::channel();
        let change = Box::new(move |services: &mut Services, now| {
            // Nobody waits any more: then nobody is told.
            let _ = tell.send(ask(services, now));
        });
        let courier = self.reach.courier()?;
        courier.send(Request::Change(change)).await?;
        told.await.map_err(|_| match courier.is_closed() {
            true => ReachError::Closed,
            // A boot that is dead has no services.
            false => ReachError::NotMounted,
        })
    }

    /// Asks something of this service between two turns.
    async fn with<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Mounted<S>) -> T + Send + 'static,
    ) -> Result<T, ReachError> {
        let (of, instance, mut ask) = (self.address(), self.instance, ask);
        loop {
            if let Some(line) = self.line() {
                let told = line.ask(move |desk, _| desk.get_mut::<S>().map(ask)).await;
                return self.told(told)?.ok_or_else(|| line.why());
            }
            let asked = move |services: &mut Services, _| {
                if services.is_beside(of) {
                    return Err(ask);
                }
                let told = services.rack_mut().get_mut::<S>(instance).map(ask);
                Ok(told.ok_or_else(|| why(services, of)))
            };
            match self.between(asked).await? {
                Ok(told) => return told,
                // Its actor starts with the end of the turn.
                Err(back) => ask = back,
            }
        }
    }

    /// From here on an actor is told what the service tells, in order. With `unread_max` unread events it is full (1 at least): one that
    /// is told more loses its subscription. A turn may bring many events at once. The last message says that it is the
    /// [end](Events::is_end): the actor was told too much, the service was dismounted, the node has ended, or it was declared dead;
    /// in the last case it subscribes again, and has to ask for what it missed.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn subscribe(
        &self,
        to: Recipient<Events<S::Event>>,
        unread_max: usize,
    ) -> Result<ReaderId, ReachError> {
        let (of, bell, reader) = (self.address(), self.reach.bell(), self.reach.next_reader());
        let door = Door::new(to, unread_max, move || bell.ring((of, reader)));
        self.with(move |mounted| mounted.subscribe(reader, door)).await?;
        Ok(reader)
    }

    /// From here on a reader of one's own is told what the service tells, in its turns and on its thread: it must not block. It is dropped
    /// when the service has ended. `None`, and it is dropped: it is [exclusive](Reader::is_exclusive), and so is one that is there.
    ///
    /// # Errors
    /// [`ReachError`]; the reader is dropped.
    pub async fn attach(
        &self,
        reader: impl Reader<S::Event> + Send,
    ) -> Result<Option<ReaderId>, ReachError> {
        let id = self.reach.next_reader();
        let attach = move |mounted: &mut Mounted<S>| {
            if reader.is_exclusive() && mounted.has_exclusive() {
                return None;
            }
            mounted.subscribe(id, reader);
            Some(id)
        };
        self.with(attach).await
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
    /// [`ReachError`].
    pub async fn peers(&self) -> Result<Vec<(BootId, Standing)>, ReachError> {
        let of = self.address();
        self.between(move |services, _| services.mux().standing(of).collect()).await
    }

    /// Where a service that is beside its node runs. `None`: it is mounted on the node, or not at all.
    #[must_use]
    pub fn placement(&self) -> Option<Placement> {
        self.line().filter(|line| line.is_on()).map(|line| line.placement)
    }

    /// Starts a service beside the node again that has [fallen](ReachError::Fallen) or was [stopped](ReachError::Stopped), at its place and under its address: from what the log and the newest
    /// checkpoint have of it; without a disk anew. The log is read beside the node's turns. Whoever was subscribed subscribes again,
    /// and has to ask for what it missed.
    ///
    /// # Errors
    /// [`AgainError`].
    pub async fn start_again(&self, config: S::Config) -> Result<(), AgainError> {
        let of = self.address();
        let line = self.line().ok_or(AgainError::NotFallen)?;
        if !line.has_fallen().await {
            return Err(AgainError::NotFallen);
        }
        // Two that read the log would begin where the first one has gone on already.
        let claim = line.claim().ok_or(AgainError::NotFallen)?;
        let (tell, told) = oneshot::channel();
        let next = Next::of::<S>(&line, config);
        let restart = Restart { next, asker: Asker { claim, tell } };
        let again = Again { of, plan: Box::new(restart) };
        self.between(move |services, _| services.begin_again(again)).await?;
        // Else the node has ended or begins anew.
        told.await.map_err(|_| ReachError::NotMounted)??;
        // Its actor starts with the end of the turn: whoever goes on now is not to find the former one.
        while self.line().is_some_and(|it| Arc::ptr_eq(&it, &line)) {
            if self.between(|_, _| ()).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn line(&self) -> Option<Arc<Line>> {
        self.reach.line(self.address())
    }

    /// The service comes to its end: it is told so, turned once more, and gone; one beside the node when its actor has done that. False if
    /// it is not mounted. What the disk has of it stays there, for the day when it is [mounted](Reach::mount) again. A node that is declared
    /// dead and begins anew mounts it again if it was there when the node started, and not if it was mounted later.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn dismount(&self) -> Result<bool, ReachError> {
        let of = self.address();
        self.between(move |services, now| services.dismount(now, of)).await
    }
}

impl<S> Clone for ServiceHandle<S> {
    fn clone(&self) -> Self {
        let Self { reach, instance, keeps, .. } = self;
        let (reach, keeps) = (reach.clone(), keeps.clone());
        Self { reach, instance: *instance, keeps, service: PhantomData }
    }
}

impl<S> fmt::Debug for ServiceHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceHandle").field("instance", &self.instance).finish_non_exhaustive()
    }
}
