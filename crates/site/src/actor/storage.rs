//! What a site keeps on disk: identity, one log, checkpoints of each group.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::service::Chunks;
use mainstay_base::{ClusterId, GroupId, NodeId, Position};
use mainstay_membership::Durable;
use mainstay_runtime::{CheckpointError, Disk, LogDevice as _, Shelf, Store, discard_checkpoints};
use mainstay_service::DiskError;
use mainstay_service::actor::{OpenStorage, ServiceStorage};
use mainstay_stable::{
    Checkpoints, FileMediumError, Log, Lsn, Medium, OpenCheckpointsError, OpenError, Options,
    Owner, ReadCheckpointError,
};
use thiserror::Error;

use super::identity::{Bootstrap, Home, IdentityError};
use super::log::{self, Ledger, SiteLog};
use crate::core::{Past, Record, RecordError};

/// Why what is on disk cannot be used. Nothing that was forced is changed. The causes are its `source`s, not in its text.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum StorageError {
    /// It has no identity, or another one.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A record is not one of a site.
    #[error("log record {lsn}")]
    Record {
        /// Which.
        lsn: u64,
        /// What is wrong.
        source: RecordError,
    },
    /// The log has messages of a group that is on disk no more. Without it the node would lose what it has of that group: name the group
    /// again, or say that it is [to be forgotten](super::SiteParts::forgotten).
    #[error("the log has messages of a group that was on disk here, and is not now (its id is {}): start the node with it on disk, or give it up by its name with `NodeBuilder::forget_group`", hex(*group))]
    GroupMissing {
        /// Which.
        group: GroupId,
    },
    /// The first record cannot be written, or the checkpoints of a group that is forgotten cannot be removed.
    #[error("the disk cannot be written")]
    First(#[from] std::io::Error),
    /// The directory of a group's checkpoints cannot be used.
    #[error(transparent)]
    Directory(#[from] FileMediumError),
    /// The checkpoints of a group cannot be opened.
    #[error(transparent)]
    OpenCheckpoints(#[from] OpenCheckpointsError),
    /// They cannot be read. Damaged ones are no error: the group gets its state elsewhere.
    #[error(transparent)]
    ReadCheckpoint(#[from] ReadCheckpointError),
}

/// What a boot begins with.
pub(super) struct Recovered {
    pub(super) past: Past,
    /// The chunks of each group's newest checkpoint.
    pub(super) checkpoints: BTreeMap<GroupId, Vec<Bytes>>,
    pub(super) log: Box<dyn Store>,
    /// What of the log is needed.
    pub(super) ledger: Ledger,
}

/// Where each group on disk keeps its checkpoints.
type Shelves = [(GroupId, Arc<dyn Medium>)];

/// What was read from the disk, folded.
pub(super) struct Read {
    past: Past,
    checkpoints: BTreeMap<GroupId, Vec<Bytes>>,
    opened: BTreeMap<GroupId, Checkpoints>,
    device: SiteLog,
    ledger: Ledger,
}

impl Read {
    /// `founders`: the log is to begin with the word that they make the cluster, if it is empty.
    fn log(
        home: Arc<dyn Medium>,
        owner: Owner,
        founders: Option<BTreeSet<NodeId>>,
        (shelves, forgotten): (&Shelves, &BTreeMap<GroupId, Arc<dyn Medium>>),
        disk: &str,
    ) -> Result<Self, StorageError> {
        let (log, recovered) = Log::open(home, Options::new(owner))?;
        if recovered.discarded_bytes > 0 {
            let bytes = recovered.discarded_bytes;
            tracing::warn!(disk, bytes, "a torn tail of the log was cut off");
        }
        let mut past = Past::new();
        let before = log.first().0.saturating_sub(1);
        let mut ledger = Ledger::new(Lsn(before), shelves.iter().map(|(group, _)| *group));
        let is_empty = recovered.records.is_empty();
        for logged in recovered.records {
            let lsn = logged.lsn.0;
            let failed = |source| StorageError::Record { lsn, source };
            let record = log::decode(logged.payload.clone()).map_err(failed)?;
            if let Record::Group(of) = &record
                && let group = of.group()
                && !forgotten.contains_key(&group)
                && shelves.iter().all(|(it, _)| *it != group)
            {
                return Err(StorageError::GroupMissing { group });
            }
            ledger.note(&record, &logged.payload);
            past.record(record);
        }
        let mut device = SiteLog::new(log);
        if let Some(founders) = founders.filter(|_| is_empty) {
            let record = Record::Membership(Box::new(Durable::bootstrap(founders)));
            let bytes = log::encode(&record);
            ledger.note(&record, &bytes);
            device.append(vec![bytes])?;
            device.force()?;
            past.record(record);
        }
        let (checkpoints, opened) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { past, checkpoints, opened, device, ledger })
    }

    fn checkpoints_of(
        &mut self,
        group: GroupId,
        medium: Arc<dyn Medium>,
        owner: Owner,
    ) -> Result<(), StorageError> {
        let opened = Checkpoints::open(medium, owner)?;
        match opened.read_newest() {
            Ok(None) => {}
            Ok(Some(newest)) => {
                self.past.checkpoint(group, Position(newest.position));
                self.checkpoints.insert(group, newest.chunks);
            }
            Err(error @ ReadCheckpointError::Damaged(_)) => {
                tracing::error!(?group, %error, "the group's state has to come from elsewhere");
            }
            Err(error) => return Err(error.into()),
        }
        for position in opened.positions() {
            self.ledger.checkpoint(group, Position(position), false);
        }
        self.opened.insert(group, opened);
        Ok(())
    }
}

pub(super) struct Storage {
    home: Home,
    disk: Rc<dyn Disk>,
    /// No checkpoint is written into the last bytes of the disk.
    reserve: u64,
    owner: Owner,
    roster: BTreeSet<NodeId>,
    shelves: BTreeMap<GroupId, Shelf>,
    /// What the disk has of these is not needed, and where their checkpoints are.
    forgotten: BTreeMap<GroupId, Arc<dyn Medium>>,
}

impl Storage {
    pub(super) fn open(
        disk: Box<dyn Disk>,
        reserve: u64,
        (cluster, name): (ClusterId, &str),
        (bootstrap, fresh): (bool, u128),
        roster: BTreeSet<NodeId>,
        (groups, forgotten): (impl Iterator<Item = GroupId>, BTreeSet<GroupId>),
    ) -> Result<Self, StorageError> {
        let home = Home::open(&*disk, cluster, name, bootstrap, fresh)?;
        let owner = Owner(*NodeId::new(cluster, name).as_bytes());
        let mut shelves = BTreeMap::new();
        for group in groups {
            let medium = disk.open(Some(&shelf_name(group)))?;
            shelves.insert(group, Shelf::new(medium, owner));
        }
        let mut left = BTreeMap::new();
        for group in forgotten.into_iter().filter(|group| !shelves.contains_key(group)) {
            left.insert(group, disk.open(Some(&shelf_name(group)))?);
        }
        let forgotten = left;
        Ok(Self { home, disk: disk.into(), reserve, owner, roster, shelves, forgotten })
    }

    /// What reads and folds everything on disk. It takes as long as the log and the checkpoints are large: the caller runs
    /// it beside the turns, when nothing of a former boot writes any more.
    pub(super) fn reading(&self) -> impl FnOnce() -> Result<Read, StorageError> + Send + use<> {
        let (home, owner) = (Arc::clone(&self.home.medium), self.owner);
        let founds = self.home.identity().bootstrap == Bootstrap::Intended;
        let founders = founds.then(|| self.roster.clone());
        let shelf = |(group, shelf): (&GroupId, &Shelf)| (*group, shelf.medium());
        let shelves: Vec<_> = self.shelves.iter().map(shelf).collect();
        let (forgotten, disk) = (self.forgotten.clone(), format!("{:?}", self.disk));
        move || {
            let of = (&shelves[..], &forgotten);
            let mut read = Read::log(home, owner, founders, of, &disk)?;
            // A group of that name that is made later has another past.
            forgotten.values().try_for_each(|medium| discard_checkpoints(&**medium))?;
            for (group, medium) in shelves {
                read.checkpoints_of(group, medium, owner)?;
            }
            read.past.finish();
            Ok(read)
        }
    }

    /// The name of the directory.
    pub(super) fn name(&self) -> u128 {
        self.home.identity().disk
    }

    /// Less room than this is too little.
    pub(super) fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Where the mounted services keep what they write: in a directory of the node's own one.
    pub(super) fn services(&self, node: NodeId) -> Result<ServiceStorage, DiskError> {
        let home = Arc::clone(&self.home.medium);
        ServiceStorage::open(Rc::clone(&self.disk), home, self.reserve, node)
    }

    /// The same, when the first service is mounted on a node that began without one.
    pub(super) fn open_services(&self, node: NodeId) -> OpenStorage {
        let (home, disk) = (Arc::clone(&self.home.medium), Rc::clone(&self.disk));
        let reserve = self.reserve;
        Box::new(move || ServiceStorage::open(Rc::clone(&disk), Arc::clone(&home), reserve, node))
    }

    /// The disk, for what runs beside.
    pub(super) fn disk(&self) -> Rc<dyn Disk> {
        Rc::clone(&self.disk)
    }

    /// Begins to write behind what was read.
    pub(super) fn recover(&mut self, read: Read) -> Result<Recovered, StorageError> {
        let Read { past, checkpoints, opened, device, ledger } = read;
        if self.home.identity().bootstrap == Bootstrap::Intended {
            self.home.bootstrapped()?;
        }
        for (group, opened) in opened {
            if let Some(shelf) = self.shelves.get_mut(&group) {
                shelf.fill(opened);
            }
        }
        let log = self.disk.store(Box::new(device));
        Ok(Recovered { past, checkpoints, log, ledger })
    }

    /// What is to run on the site's thread to write a checkpoint of `group`; `None` if it has none.
    pub(super) fn checkpoint(
        &self,
        group: GroupId,
        position: Position,
        alone: bool,
        source: Box<dyn Chunks>,
    ) -> Option<impl Future<Output = Result<(), CheckpointError>> + use<>> {
        let shelf = self.shelves.get(&group)?;
        Some(shelf.write(Rc::clone(&self.disk), self.reserve, position.0, alone, source))
    }
}

fn shelf_name(group: GroupId) -> String {
    format!("checkpoints-{}", hex(group))
}

pub(super) fn hex(group: GroupId) -> String {
    group.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
