//! What a boot of a node is to mount: said on the node's thread, folded beside it, mounted when the boot begins.

use std::collections::BTreeMap;

use mainstay_base::rack::beside::{Desk, Opening};
use mainstay_base::rack::{
    self, BadRecord, Breach, LogEntry, Mounted, Placement, Proxy, check_place, fold,
};
use mainstay_base::service::{Address, Service, Start};
use mainstay_base::{BootId, ClusterId, Instance, Instant, NodeId, Rng};
use mainstay_runtime::{LocalReader, caught};
use thiserror::Error;

use super::beside::Line;
use super::disk::DiskError;
use crate::mux::MOUNTED_MAX;
use crate::{MountError, Services};

/// Why the services of a node do not begin. Nothing of them runs; what is on disk is as it was, but for directories newly made.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum ServicesError {
    /// What is on disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A record of the log is none of the service that is to be mounted.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// The service panicked when it [folded](Service::fold) what the log has of it.
    #[error("the service panicked over what the log has of it: {reason}")]
    Fold {
        /// Which.
        of: Address,
        /// What it said.
        reason: String,
    },
    /// A service cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Puts one service in its place when a boot begins.
pub type Mount = Box<dyn FnOnce(&mut Services, Instant) -> Result<(), MountError> + Send>;

/// The past is folded, of the log and the position of the newest checkpoint.
type Fold = Box<dyn FnOnce(&[LogEntry], Option<u64>) -> Result<Mount, ServicesError> + Send>;

enum Step {
    Service(Address, Fold),
    Other(Mount),
}

/// The boot that services are mounted by, and what they are given of it.
#[derive(Clone)]
pub(super) struct Origin {
    cluster: ClusterId,
    me: BootId,
    roster: Vec<NodeId>,
    seed: u64,
    local: Option<LocalReader>,
    /// Whether there is a place for them is looked at when they are mounted.
    is_late: bool,
}

impl Origin {
    /// For a service that is mounted late, as the one with this number.
    pub(super) fn late(&self, number: u64) -> Self {
        let seed = Rng::new(self.seed).stream(&format!("late {number}")).next_u64();
        Self { seed, is_late: true, ..self.clone() }
    }
}

/// What a boot is to mount, in order.
pub struct Planned {
    steps: Vec<Step>,
    origin: Origin,
}

impl Planned {
    /// Asks `mount` what is to be mounted by the boot `me`. `seed` is where the seeds of the services are from, `local` reads the node's clock.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn gather(
        cluster: ClusterId,
        me: BootId,
        roster: Vec<NodeId>,
        seed: u64,
        local: Option<LocalReader>,
        mount: impl FnOnce(&mut Mounting<'_>) -> Result<(), MountError>,
    ) -> Result<Self, MountError> {
        let origin = Origin { cluster, me, roster, seed, local, is_late: false };
        let mut planned = Self { steps: Vec::new(), origin };
        planned.add(mount)?;
        Ok(planned)
    }

    /// What is mounted late.
    pub(super) fn late(
        origin: Origin,
        mount: impl FnOnce(&mut Mounting<'_>) -> Result<(), MountError>,
    ) -> Result<Self, MountError> {
        let mut planned = Self { steps: Vec::new(), origin };
        planned.add(mount)?;
        Ok(planned)
    }

    /// More of it, behind the rest.
    pub(super) fn add(
        &mut self,
        mount: impl FnOnce(&mut Mounting<'_>) -> Result<(), MountError>,
    ) -> Result<(), MountError> {
        let Origin { cluster, me, roster, seed, local, is_late } = self.origin.clone();
        let steps = &mut self.steps;
        let seeds = Rng::new(seed);
        mount(&mut Mounting { steps, seeds, cluster, is_late, me, roster, local })
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        self.steps.iter().filter_map(Step::address).copied().collect()
    }

    /// Folds what the log has. It takes time in proportion to the log. A service that cannot be folded is not mounted, and the others are.
    #[must_use]
    pub fn fold(self, log: &[LogEntry], checkpoints: &BTreeMap<Address, u64>) -> Vec<Mount> {
        let fold = |step| match step {
            Step::Service(of, fold) => {
                let folded = fold(log, checkpoints.get(&of).copied());
                folded.unwrap_or_else(|error| refuse(of, &error))
            }
            Step::Other(mount) => mount,
        };
        self.steps.into_iter().map(fold).collect()
    }

    /// The same, if all services can be folded.
    pub(super) fn fold_all(
        self,
        log: &[LogEntry],
        checkpoints: &BTreeMap<Address, u64>,
    ) -> Result<Vec<Mount>, ServicesError> {
        let fold = |step| match step {
            Step::Service(of, fold) => fold(log, checkpoints.get(&of).copied()),
            Step::Other(mount) => Ok(mount),
        };
        self.steps.into_iter().map(fold).collect()
    }
}

/// The next run of a service that has fallen.
pub(super) struct Next {
    of: Address,
    fold: Fold,
}

impl Next {
    pub(super) fn of<S: Service>(line: &Line, config: S::Config) -> Self {
        let seed = Rng::new(line.seed).stream("again").next_u64();
        let fold = beside::<S>(line.me, line.of.instance, seed, line.placement, config);
        Self { of: line.of, fold }
    }

    /// See [`Planned::fold_all`].
    pub(super) fn fold(
        self,
        log: &[LogEntry],
        checkpoints: &BTreeMap<Address, u64>,
    ) -> Result<Mount, ServicesError> {
        (self.fold)(log, checkpoints.get(&self.of).copied())
    }
}

/// A service is to be mounted, of what the log has of it.
fn folding<S: Service>(
    instance: Instance,
    mount: impl FnOnce(S::Past, Option<u64>, &mut Services, Instant) -> Result<(), MountError>
    + Send
    + 'static,
) -> Fold {
    let of = Address { channel: S::CHANNEL, instance };
    Box::new(move |log: &[LogEntry], checkpoint| {
        let folded = caught(|| fold::<S>(instance, log));
        let past = folded.map_err(|reason| ServicesError::Fold { of, reason })??;
        let is_of =
            |entry: &&LogEntry| matches!(entry, LogEntry::Record { of: it, .. } if *it == of);
        let last = log.iter().rev().find(is_of).and_then(|entry| match entry {
            LogEntry::Record { io, .. } => Some(*io),
            LogEntry::Installed { .. } => None,
        });
        Ok(Box::new(move |services: &mut Services, now| {
            if let Some(last) = last {
                services.begin_behind(of, last);
            }
            match mount(past, checkpoint, services, now) {
                Err(MountError::Rack(rack::MountError::Missing { needs, .. }))
                    if services.has_stopped(needs) =>
                {
                    services.refuse(of, Breach::Needs(needs));
                    Ok(())
                }
                mounted => mounted,
            }
        }))
    })
}

/// It is not mounted; whoever asks is told why.
fn refuse(of: Address, error: &ServicesError) -> Mount {
    tracing::error!(?of, %error, "a service does not begin");
    let breach = match error {
        ServicesError::Record(BadRecord { io, why, .. }) => {
            Breach::Unreadable { io: *io, why: *why }
        }
        _ => Breach::Fold,
    };
    Box::new(move |services: &mut Services, _| {
        services.refuse(of, breach);
        Ok(())
    })
}

/// A service is to be mounted in an actor of its own.
fn beside<S: Service>(
    me: BootId,
    instance: Instance,
    seed: u64,
    placement: Placement,
    config: S::Config,
) -> Fold {
    folding::<S>(instance, move |past, checkpoint, services, now| {
        let agreed = S::agreed(&config);
        let open = Box::new(move |now| {
            let start = Start { me, instance, past, checkpoint, now, seed };
            Desk::new(Mounted::<S>::recover(config, start))
        });
        let opening = Opening { placement, me, seed, open };
        services.mount_beside::<S>(now, Proxy::new::<S>(instance, agreed, opening)).map(drop)
    })
}

impl Step {
    fn address(&self) -> Option<&Address> {
        match self {
            Self::Service(of, _) => Some(of),
            Self::Other(_) => None,
        }
    }
}

/// Takes down what a boot of a node is to mount, before it begins.
pub struct Mounting<'a> {
    steps: &'a mut Vec<Step>,
    seeds: Rng,
    cluster: ClusterId,
    is_late: bool,
    /// The boot.
    pub me: BootId,
    /// All nodes.
    pub roster: Vec<NodeId>,
    /// Reads the clock by which the node is driven, from any thread; `None` where that belongs to the node's thread, as in a simulation.
    pub local: Option<LocalReader>,
}

impl Mounting<'_> {
    /// The address that a service gets, and its seed.
    fn place<S: Service>(&mut self, name: &str) -> Result<(Address, u64), MountError> {
        let instance = Instance::new(self.cluster, name);
        let of = Address { channel: S::CHANNEL, instance };
        if !self.is_late {
            let mounted = || self.steps.iter().filter_map(Step::address);
            if mounted().count() >= MOUNTED_MAX {
                return Err(MountError::TooMany);
            }
            check_place::<S, _>(of, mounted)?;
        }
        let seed = self.seeds.stream(&format!("{of:?}")).next_u64();
        Ok((of, seed))
    }

    /// Mounts the instance `name` of a service, recovered from what the disk has of it. The same name at all nodes makes
    /// them hear each other. What it stands on ([`Service::NEEDS`]) is mounted before it.
    ///
    /// # Errors
    /// [`MountError`]; the boot does not begin then.
    pub fn mount<S: Service>(
        &mut self,
        name: &str,
        config: S::Config,
    ) -> Result<Instance, MountError> {
        let (of, seed) = self.place::<S>(name)?;
        let (me, instance) = (self.me, of.instance);
        let fold = folding::<S>(instance, move |past, checkpoint, services, now| {
            let start = Start { me, instance, past, checkpoint, now, seed };
            services.mount(now, Mounted::<S>::recover(config, start)).map(drop)
        });
        self.steps.push(Step::Service(of, fold));
        Ok(instance)
    }

    /// The same in an actor of its own beside the node ([`rack::beside`](mainstay_base::rack::beside)). The service does not notice: it is told the
    /// same, in the same order, in batches. What is one turn of a mounted service may be several turns here: what it sends and
    /// writes is carried out in the node's next turn, and what it asks another service, or is told by one, comes a turn later. What
    /// comes for it is granted again when it has taken it in, so one that is slow stops its own channel and nothing else. A panic of it ends
    /// this service and nothing else, until it is [started again](crate::ServiceHandle::start_again).
    ///
    /// # Errors
    /// [`MountError`]; the boot does not begin then.
    pub fn beside<S: Service>(
        &mut self,
        name: &str,
        placement: Placement,
        config: S::Config,
    ) -> Result<Instance, MountError> {
        let (of, seed) = self.place::<S>(name)?;
        let fold = beside::<S>(self.me, of.instance, seed, placement, config);
        self.steps.push(Step::Service(of, fold));
        Ok(of.instance)
    }

    /// What the disk has of the instance `name` of a kind of service, which is not mounted any more, is not needed. Otherwise it is
    /// kept for the day when it is mounted again, and the log is not cut behind it. Its checkpoints stay where they are.
    pub fn forget<S: Service>(&mut self, name: &str) {
        let instance = Instance::new(self.cluster, name);
        let of = Address { channel: S::CHANNEL, instance };
        self.other(move |services| services.forget(of));
    }

    /// The instance `name` of a kind of service is open to [guests](crate::StationParts::guests), who neither hear of others nor reach them.
    pub fn open_to_guests<S: Service>(&mut self, name: &str) {
        let instance = Instance::new(self.cluster, name);
        let of = Address { channel: S::CHANNEL, instance };
        self.other(move |services| services.open_to_guests(of));
    }

    /// From here on `T` is told what `S` tells, in the same turn.
    pub fn listen<S: Service, T: Service>(&mut self, of: Instance, to: Instance) {
        let of = Address { channel: S::CHANNEL, instance: of };
        let to = Address { channel: T::CHANNEL, instance: to };
        self.other(move |services| services.rack_mut().listen(of, to));
    }

    fn other(&mut self, change: impl FnOnce(&mut Services) + Send + 'static) {
        let mount = move |services: &mut Services, _| {
            change(services);
            Ok(())
        };
        self.steps.push(Step::Other(Box::new(mount)));
    }
}
