//! Services that are mounted while their node runs: one after the other, each from what the disk has of it.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use mainstay_base::rack::Placement;
use mainstay_base::service::{Address, Service};
use mainstay_runtime::{Hosted, Port, blocking};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::disk::{DiskError, LateShelf, ServiceRead, ServiceStorage};
use super::handle::{ReachError, ServiceHandle};
use super::hosting::{Answer, Hosting};
use super::mounting::{Mount, Mounting, Origin, Planned, ServicesError};
use super::reach::Reach;
use crate::services::{Again, Late};
use crate::{MountError, Services};

/// Says what is to be mounted: now, and by each later boot of the process.
pub(super) type MountLate = Box<dyn FnMut(&mut Mounting<'_>) -> Result<(), MountError> + Send>;

/// Opens the place where the services of a node keep what they write, for a node that begins without services.
pub type OpenStorage = Box<dyn FnMut() -> Result<ServiceStorage, DiskError>>;

/// A service that is to be mounted.
pub(super) struct Latecomer {
    pub(super) mount: MountLate,
    /// Told in the turn in which it is mounted. Dropped: it will not be.
    pub(super) tell: oneshot::Sender<Result<(), ServicesError>>,
}

/// What was read for it, for the host.
enum Found {
    /// There is no disk.
    Nothing,
    /// It is the first one of the node that has a disk.
    Log(ServiceRead),
    Shelf(LateShelf),
}

type Outcome = Result<Found, ServicesError>;

type Reading = Box<dyn FnOnce() -> Result<(Found, Vec<Mount>), ServicesError> + Send>;

/// Those that were mounted late, and are to be.
#[derive(Default)]
pub(super) struct Latecomers {
    /// For the next boot.
    mounted: Vec<(Address, MountLate)>,
    waiting: VecDeque<(Address, Latecomer)>,
    /// What is read, and for whom.
    reading: JoinSet<()>,
    present: Option<(Address, Latecomer)>,
    /// Counts the runs of a boot: each has a seed of its own.
    runs: u64,
    /// The present run of each address that was mounted late. What a former one has under way is not for it.
    present_runs: Rc<RefCell<BTreeMap<Address, u64>>>,
}

/// A run of a service.
pub(super) struct RunMark {
    of: Address,
    run: Option<u64>,
    present: Rc<RefCell<BTreeMap<Address, u64>>>,
}

impl RunMark {
    /// No other one was begun at its address since.
    pub(super) fn is_present(&self) -> bool {
        self.present.borrow().get(&self.of).copied() == self.run
    }
}

impl Latecomers {
    /// Adds to what the next boot mounts.
    pub(super) fn plan(&mut self, planned: &mut Planned) {
        for (of, mount) in &mut self.mounted {
            if let Err(error) = planned.add(mount) {
                tracing::error!(?of, %error, "a service is not mounted again");
            }
        }
    }

    /// Its user has dismounted it: it is not mounted by later boots.
    pub(super) fn forget(&mut self, of: Address) {
        self.mounted.retain(|(it, _)| *it != of);
    }

    /// The boot is over. What is still read for it has to end before the next one reads.
    pub(super) fn end(&mut self) -> JoinSet<()> {
        self.waiting.clear();
        (self.present, self.runs) = (None, 0);
        self.present_runs.borrow_mut().clear();
        std::mem::take(&mut self.reading)
    }

    /// For the next run of an address.
    fn origin(&mut self, of: Address, origin: &Origin) -> Origin {
        self.runs += 1;
        self.present_runs.borrow_mut().insert(of, self.runs);
        origin.late(self.runs)
    }

    /// The present run of an address.
    pub(super) fn mark(&self, of: Address) -> RunMark {
        let present = Rc::clone(&self.present_runs);
        let run = present.borrow().get(&of).copied();
        RunMark { of, run, present }
    }
}

impl<M: Hosted> Hosting<M> {
    /// Mounts it as soon as those that came before it are mounted.
    pub(super) fn begin_late(&mut self, again: Again, port: &Port<'_, M>) {
        let Again { of, plan } = again;
        if let Ok(latecomer) = plan.downcast::<Latecomer>() {
            self.late.waiting.push_back((of, *latecomer));
            self.next_late(port);
        }
    }

    fn next_late(&mut self, port: &Port<'_, M>) {
        while self.late.present.is_none()
            && let Some((of, mut latecomer)) = self.late.waiting.pop_front()
        {
            let reading = self.reading_late(of, &mut latecomer.mount);
            self.late.present = Some((of, latecomer));
            // One that cannot even be read for is told so in the same way.
            let reading = reading.unwrap_or_else(|error| Box::new(move || Err(error)));
            self.read_late(of, reading, port);
        }
    }

    fn reading_late(
        &mut self,
        of: Address,
        mount: &mut MountLate,
    ) -> Result<Reading, ServicesError> {
        let origin = self.late.origin(of, &self.origin);
        let planned = Planned::late(origin, mount)?;
        if self.storage.is_none()
            && let Some(open) = &mut self.open
        {
            self.storage = Some(open()?);
        }
        let Some(storage) = &mut self.storage else {
            return Ok(Box::new(move || {
                Ok((Found::Nothing, planned.fold_all(&[], &BTreeMap::new())?))
            }));
        };
        if self.disk.is_none() {
            let reading = storage.reading(planned, true)?;
            return Ok(Box::new(move || {
                reading().map(|(read, mounts)| (Found::Log(read), mounts))
            }));
        }
        let reading = storage.reading_late(of, planned)?;
        Ok(Box::new(move || reading().map(|(shelf, mounts)| (Found::Shelf(shelf), mounts))))
    }

    fn read_late(&mut self, of: Address, reading: Reading, port: &Port<'_, M>) {
        // A former run of it wrote a checkpoint perhaps.
        let mut writing = self.writing.remove(&of).unwrap_or_default();
        let disk = self.storage.as_ref().map(ServiceStorage::disk);
        let (handle, life, input) = (port.handle(), self.life, self.input);
        while self.late.reading.try_join_next().is_some() {}
        self.late.reading.spawn_local(async move {
            while writing.join_next().await.is_some() {}
            let read = match disk {
                Some(disk) => blocking(&*disk, reading).await,
                None => Ok(reading()),
            };
            // The node ends.
            let Ok(read) = read else { return };
            let change = Box::new(move |services: &mut Services, now| {
                let mounted: Outcome = read.and_then(|(found, mounts)| {
                    if matches!(found, Found::Nothing) {
                        services.begin_anew(of);
                    }
                    mounts.into_iter().try_for_each(|mount| mount(services, now))?;
                    Ok(found)
                });
                let found: Box<dyn Any + Send> = Box::new(mounted);
                services.mounted_late(Late { of, found });
            });
            if let Some(handle) = handle.upgrade() {
                // A host that has closed needs nothing any more.
                let _ = handle.send(input(life, Answer::Change(change))).await;
            }
        });
    }

    /// It is mounted, or cannot be: what it writes from here on has its place.
    pub(super) fn end_late(&mut self, Late { of, found }: Late, port: &Port<'_, M>) {
        let Some((_, Latecomer { mount, tell })) = self.late.present.take_if(|(it, _)| *it == of)
        else {
            return;
        };
        let Ok(mounted) = found.downcast::<Outcome>() else { return };
        let told = mounted.map(|found| {
            self.late.forget(of);
            self.late.mounted.push((of, mount));
            match found {
                Found::Log(read) => {
                    self.disk = self.storage.as_ref().map(|storage| storage.begin(read));
                    self.start_log(port);
                }
                Found::Shelf(shelf) => {
                    if let Some(disk) = &mut self.disk {
                        disk.add(shelf);
                    }
                }
                Found::Nothing => {}
            }
        });
        // Nobody waits any more: it is mounted all the same.
        drop(tell.send(told));
        self.next_late(port);
    }
}

/// Why a service is not mounted on a node that runs. Nothing changed, but for directories newly made; to try again is safe.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum MountLateError {
    /// The node was not reached. `NotMounted`: it was declared dead, and begins anew.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The service cannot be mounted, or what the disk has of it cannot be used.
    #[error(transparent)]
    Services(#[from] ServicesError),
}

impl Reach {
    /// Mounts the instance `name` of a service on a node that runs, or beside it: from what the disk has of it, which is read beside the turns.
    /// In its first turn it is told the view and the peers that are up. `config` is asked now, and by each later boot of the process, which
    /// mounts it as well: until its user [dismounts](ServiceHandle::dismount) it.
    ///
    /// # Errors
    /// [`MountLateError`].
    pub async fn mount<S: Service>(
        &self,
        name: &str,
        placement: Option<Placement>,
        mut config: impl FnMut(&Mounting<'_>) -> S::Config + Send + 'static,
    ) -> Result<ServiceHandle<S>, MountLateError> {
        let (handle, instance) = (self.service::<S>(name), name.to_owned());
        let of = Address { channel: S::CHANNEL, instance: handle.instance() };
        let mount: MountLate = Box::new(move |mounting: &mut Mounting<'_>| {
            let config = config(mounting);
            let mounted = match placement {
                None => mounting.mount::<S>(&instance, config),
                Some(placement) => mounting.beside::<S>(&instance, placement, config),
            };
            mounted.map(drop)
        });
        let (tell, told) = oneshot::channel();
        let plan = Box::new(Latecomer { mount, tell });
        let begun = handle.between(move |services, _| {
            services.check_place::<S>(of)?;
            services.begin_late(Again { of, plan });
            Ok::<(), MountError>(())
        });
        begun.await?.map_err(ServicesError::Mount)?;
        match told.await {
            Ok(mounted) => Ok(mounted.map(|()| handle)?),
            Err(_) if self.courier()?.is_closed() => Err(ReachError::Closed.into()),
            Err(_) => Err(ReachError::NotMounted.into()),
        }
    }
}
