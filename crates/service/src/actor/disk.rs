//! What the services of a node keep on disk: one log for all of them, and checkpoints of each.
//!
//! All records of a turn are one write of the log, so all of them are there after a crash, or none. The front of the log is cut off
//! when no instance needs it any more. An instance that is in the log and is not mounted needs all of it that is there.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use mainstay_base::codec::{self, DecodeError};
use mainstay_base::rack::LogEntry;
use mainstay_base::service::{Address, Chunks, Io};
use mainstay_base::{NodeId, ViewId};
use mainstay_runtime::{CheckpointError, Disk, LogCut, Shelf, StableLog, Store};
use mainstay_stable::{
    Checkpoints, FileMediumError, Log, Lsn, Medium, OpenCheckpointsError, OpenError, Options,
    Owner, ReadCheckpointError, Record,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::mounting::{Mount, Next, Planned, ServicesError};

/// The directory of the log, in that of the node.
const LOG: &str = "services";
const KIND: u8 = 1;
/// The first byte of a record: it begins a write, it ends one. A write of more than [`BATCH_BYTES`] is several records.
const FIRST: u8 = 1;
const LAST: u8 = 2;
const BATCH_BYTES: usize = 8 << 20;
/// Whoever pins so much of the log is asked to let go of it (64 MiB).
const COMPACT_BYTES: usize = 64 << 20;
/// To let go of more records of the index than this takes longer than a turn may.
const CUT_MAX: usize = 4_096;

/// Why what is on disk cannot be used. Nothing that was forced is changed.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum DiskError {
    /// A directory cannot be used, or another process uses it.
    #[error(transparent)]
    Directory(#[from] FileMediumError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A record of the log is not one of services.
    #[error("log record {lsn} is not one of services: {why}")]
    Record {
        /// Which.
        lsn: u64,
        /// What is wrong with it.
        why: DecodeError,
    },
    /// The checkpoints of an instance cannot be opened.
    #[error(transparent)]
    OpenCheckpoints(#[from] OpenCheckpointsError),
    /// The checkpoints of an instance cannot be read.
    #[error(transparent)]
    ReadCheckpoint(#[from] ReadCheckpointError),
}

/// What stands before an entry in a record of the log.
#[derive(Serialize, Deserialize)]
enum Head {
    Record {
        of: Address,
        io: Io,
        meta: u32,
        payload: u32,
    },
    /// As it was written before: the view of the node. What services knew it does not say.
    Node(ViewId),
    Installed {
        of: Address,
        view: ViewId,
    },
}

/// Entries as records of the log.
fn encode(entries: &[LogEntry]) -> Vec<Bytes> {
    let mut records = vec![BytesMut::from(&[FIRST][..])];
    for entry in entries {
        let (head, meta, payload) = match entry {
            LogEntry::Installed { of, view } => {
                (Head::Installed { of: *of, view: *view }, &[][..], &[][..])
            }
            LogEntry::Record { of, io, meta, payload } => {
                let (meta_len, payload_len) = (meta.len() as u32, payload.len() as u32);
                let head = Head::Record { of: *of, io: *io, meta: meta_len, payload: payload_len };
                (head, &meta[..], &payload[..])
            }
        };
        let size = meta.len() + payload.len();
        if records.last().is_some_and(|last| last.len() > 1 && last.len() + size > BATCH_BYTES) {
            records.push(BytesMut::from(&[0][..]));
        }
        let Some(record) = records.last_mut() else { continue };
        let head = codec::encode(&head);
        record.put_u32_le(head.len() as u32);
        [&head[..], meta, payload].into_iter().for_each(|part| record.put_slice(part));
    }
    if let Some(last) = records.last_mut() {
        last[0] |= LAST;
    }
    records.into_iter().map(BytesMut::freeze).collect()
}

/// Puts the records of the log together to writes. A write whose last record is missing was never stable: it is left out.
#[derive(Default)]
struct Joining {
    whole: Vec<LogEntry>,
    part: Vec<LogEntry>,
}

impl Joining {
    fn add(&mut self, flags: u8, entries: Vec<LogEntry>) {
        if flags & FIRST != 0 {
            self.part.clear();
        }
        self.part.extend(entries);
        if flags & LAST != 0 {
            self.whole.append(&mut self.part);
        }
    }
}

/// All writes that are whole; `note` is told of each record.
fn join(
    records: Vec<Record>,
    mut note: impl FnMut(Lsn, &[LogEntry], usize),
) -> Result<Vec<LogEntry>, DiskError> {
    let mut joining = Joining::default();
    for Record { lsn, payload, .. } in records {
        let bytes = payload.len();
        let failed = |why| DiskError::Record { lsn: lsn.0, why };
        let (flags, entries) = decode(payload).map_err(failed)?;
        note(lsn, &entries, bytes);
        joining.add(flags, entries);
    }
    Ok(joining.whole)
}

/// What a record of the log says: its flags, and its entries.
fn decode(mut record: Bytes) -> Result<(u8, Vec<LogEntry>), DecodeError> {
    let flags = record.try_get_u8().map_err(|_| DecodeError::Type)?;
    let mut entries = Vec::new();
    let take = |record: &mut Bytes, count: u32| {
        let count = count as usize;
        (count <= record.len()).then(|| record.split_to(count)).ok_or(DecodeError::Type)
    };
    while !record.is_empty() {
        let length = record.try_get_u32_le().map_err(|_| DecodeError::Type)?;
        let head = take(&mut record, length)?;
        entries.push(match codec::decode(&head)? {
            Head::Node(_) => continue,
            Head::Installed { of, view } => LogEntry::Installed { of, view },
            Head::Record { of, io, meta, payload } => {
                let meta = take(&mut record, meta)?;
                let payload = take(&mut record, payload)?;
                LogEntry::Record { of, io, meta, payload }
            }
        });
    }
    Ok((flags, entries))
}

/// Which records of the log hold what, from the first that is needed.
struct Index {
    next: Lsn,
    /// Of each record of the log, the last of each instance, and its bytes.
    records: VecDeque<(BTreeMap<Address, Io>, usize)>,
    /// The last record of each instance, those that were cut included.
    newest: BTreeMap<Address, Io>,
    bytes: usize,
    /// `bytes` when somebody was last asked to let go.
    asked: usize,
}

impl Index {
    fn new(next: Lsn) -> Self {
        Self { next, records: VecDeque::new(), newest: BTreeMap::new(), bytes: 0, asked: 0 }
    }

    fn note(&mut self, entries: &[LogEntry], bytes: usize) {
        let mut last = BTreeMap::new();
        for entry in entries {
            if let LogEntry::Record { of, io, .. } = entry {
                last.insert(*of, *io);
            }
        }
        self.newest.extend(&last);
        self.records.push_back((last, bytes));
        self.bytes += bytes;
        self.next = self.next.next();
    }

    /// Everything before this may go. So many records at most are looked at: those behind them go with a later one.
    fn cut(&mut self, keeps: &BTreeMap<Address, Io>) -> Lsn {
        let is_over = |(of, last): (&Address, &Io)| keeps.get(of).is_some_and(|keeps| last < keeps);
        for _ in 0..CUT_MAX {
            let over = self.records.front().filter(|(last, _)| last.iter().all(is_over));
            let Some((_, bytes)) = over else { break };
            self.bytes -= bytes;
            self.records.pop_front();
        }
        self.asked = self.asked.min(self.bytes);
        Lsn(self.next.0 - self.records.len() as u64)
    }

    /// Who is to let go of its records, and up to which: whoever needs the first one of a log that has become long.
    fn compact(&mut self, keeps: &BTreeMap<Address, Io>) -> Vec<(Address, Io)> {
        if self.bytes < self.asked + COMPACT_BYTES {
            return Vec::new();
        }
        let Some((first, _)) = self.records.front() else { return Vec::new() };
        let pins = |of: &Address| keeps.get(of).is_some_and(|keeps| first.get(of) >= Some(keeps));
        let upto: Vec<_> =
            first.keys().filter(|of| pins(of)).map(|of| (*of, self.newest[of])).collect();
        if !upto.is_empty() {
            self.asked = self.bytes;
        }
        upto
    }
}

/// Reads for a boot, folds, and gives what is to be mounted.
pub(super) type Reading<T> = Box<dyn FnOnce() -> Result<(T, Vec<Mount>), ServicesError> + Send>;

/// Where the services of a node keep what they write, through all boots of the process.
pub struct ServiceStorage {
    /// The directory of the node: nobody else has it meanwhile.
    home: Arc<dyn Medium>,
    disk: Rc<dyn Disk>,
    owner: Owner,
    /// No checkpoint is written into the last bytes of the disk.
    reserve: u64,
    log: Arc<dyn Medium>,
    shelves: BTreeMap<Address, Arc<dyn Medium>>,
}

/// What was read of it for one boot.
pub(super) struct ServiceRead {
    device: StableLog,
    index: Index,
    opened: BTreeMap<Address, Checkpoints>,
    chunks: BTreeMap<Address, VecDeque<Bytes>>,
}

/// What was read for an instance that is mounted late.
pub(super) struct LateShelf {
    of: Address,
    medium: Arc<dyn Medium>,
    owner: Owner,
    opened: Checkpoints,
    chunks: VecDeque<Bytes>,
}

impl ServiceRead {
    fn read(
        log: Arc<dyn Medium>,
        owner: Owner,
        shelves: Vec<(Address, Arc<dyn Medium>)>,
        planned: Planned,
        all: bool,
    ) -> Result<(Self, Vec<Mount>), ServicesError> {
        let (log, recovered) = Log::open(log, Options::new(owner)).map_err(DiskError::Log)?;
        let mut index = Index::new(log.first());
        let note = |lsn, entries: &[LogEntry], bytes| {
            index.next = lsn;
            index.note(entries, bytes);
        };
        let whole = join(recovered.records, note)?;
        let (mut opened, mut chunks) = (BTreeMap::new(), BTreeMap::new());
        let mut positions = BTreeMap::new();
        for (of, medium) in shelves {
            let checkpoints = Checkpoints::open(medium, owner).map_err(DiskError::from)?;
            if let Some(newest) = checkpoints.read_newest().map_err(DiskError::from)? {
                positions.insert(of, newest.position);
                chunks.insert(of, newest.chunks.into());
            }
            opened.insert(of, checkpoints);
        }
        let mounts = match all {
            true => planned.fold_all(&whole, &positions)?,
            false => planned.fold(&whole, &positions),
        };
        let device = StableLog::new(log, KIND);
        Ok((Self { device, index, opened, chunks }, mounts))
    }
}

impl ServiceStorage {
    /// In the directory `services` of the node, whose own directory is `home`.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(
        disk: Rc<dyn Disk>,
        home: Arc<dyn Medium>,
        reserve: u64,
        node: NodeId,
    ) -> Result<Self, DiskError> {
        let owner = Owner(*node.as_bytes());
        let log = disk.open(Some(LOG))?;
        Ok(Self { home, disk, owner, reserve, log, shelves: BTreeMap::new() })
    }

    /// What reads the log and the checkpoints for those that are to be mounted, and folds them. It takes as long as they are large:
    /// it is run beside the turns, when nothing of a former boot writes any more. `all`: it is an error if one of them cannot be folded.
    ///
    /// # Errors
    /// [`DiskError`]: a directory of checkpoints cannot be used.
    pub(super) fn reading(
        &mut self,
        planned: Planned,
        all: bool,
    ) -> Result<Reading<ServiceRead>, DiskError> {
        let mut shelves = Vec::new();
        for of in planned.addresses() {
            shelves.push((of, self.shelf(of)?));
        }
        let (log, owner) = (Arc::clone(&self.log), self.owner);
        Ok(Box::new(move || ServiceRead::read(log, owner, shelves, planned, all)))
    }

    /// The directory of the checkpoints of an instance.
    fn shelf(&mut self, of: Address) -> Result<Arc<dyn Medium>, DiskError> {
        let medium = match self.shelves.get(&of) {
            Some(medium) => Arc::clone(medium),
            None => self.disk.open(Some(&shelf_name(of)))?,
        };
        self.shelves.insert(of, Arc::clone(&medium));
        Ok(medium)
    }

    /// The disk, for what runs beside.
    pub(super) fn disk(&self) -> Rc<dyn Disk> {
        Rc::clone(&self.disk)
    }

    /// What reads for one instance that is mounted while the log is written: all that it wrote before is stable. Run beside the turns.
    ///
    /// # Errors
    /// [`DiskError`]: its directory of checkpoints cannot be used.
    pub(super) fn reading_late(
        &mut self,
        of: Address,
        planned: Planned,
    ) -> Result<Reading<LateShelf>, DiskError> {
        let (log, owner, medium) = (Arc::clone(&self.log), self.owner, self.shelf(of)?);
        Ok(Box::new(move || {
            let records = Log::peek(&*log, Options::new(owner)).map_err(DiskError::Log)?;
            let whole = join(records, |_, _, _| {})?;
            let opened = Checkpoints::open(medium.clone(), owner).map_err(DiskError::from)?;
            let newest = opened.read_newest().map_err(DiskError::from)?;
            let positions = newest.iter().map(|newest| (of, newest.position)).collect();
            let chunks = newest.map_or_else(VecDeque::new, |newest| newest.chunks.into());
            let mounts = planned.fold_all(&whole, &positions)?;
            Ok((LateShelf { of, medium, owner, opened, chunks }, mounts))
        }))
    }

    /// What reads for one instance that is started again while the log is written: all that it wrote is stable. Run beside the turns.
    pub(super) fn reading_again(
        &self,
        of: Address,
        next: Next,
    ) -> impl FnOnce() -> Result<(VecDeque<Bytes>, Mount), ServicesError> + Send + use<> {
        let (log, owner) = (Arc::clone(&self.log), self.owner);
        let shelf = self.shelves.get(&of).cloned();
        move || {
            let records = Log::peek(&*log, Options::new(owner)).map_err(DiskError::Log)?;
            let whole = join(records, |_, _, _| {})?;
            let (mut chunks, mut positions) = (VecDeque::new(), BTreeMap::new());
            if let Some(shelf) = shelf {
                let opened = Checkpoints::open(shelf, owner).map_err(DiskError::from)?;
                if let Some(newest) = opened.read_newest().map_err(DiskError::from)? {
                    positions.insert(of, newest.position);
                    chunks = newest.chunks.into();
                }
            }
            Ok((chunks, next.fold(&whole, &positions)?))
        }
    }

    /// Begins to write behind what was read.
    pub(super) fn begin(&self, read: ServiceRead) -> ServiceDisk {
        let ServiceRead { device, index, opened, chunks } = read;
        let cut = device.cut();
        let log = self.disk.store(Box::new(device));
        let shelf = |(of, opened): (Address, Checkpoints)| {
            let medium = self.shelves.get(&of)?;
            let mut shelf = Shelf::new(Arc::clone(medium), self.owner);
            shelf.fill(opened);
            Some((of, shelf))
        };
        ServiceDisk {
            home: Arc::clone(&self.home),
            disk: Rc::clone(&self.disk),
            reserve: self.reserve,
            log,
            cut,
            index,
            shelves: opened.into_iter().filter_map(shelf).collect(),
            chunks: Rc::new(RefCell::new(chunks)),
            cuts: VecDeque::new(),
        }
    }
}

fn shelf_name(of: Address) -> String {
    let hex: String = of.instance.as_bytes().iter().map(|it| format!("{it:02x}")).collect();
    format!("checkpoints-{:04x}-{hex}", of.channel.0)
}

pub(super) type ChunksLeft = Rc<RefCell<BTreeMap<Address, VecDeque<Bytes>>>>;

/// The log of the services of one boot, and their checkpoints.
pub(super) struct ServiceDisk {
    home: Arc<dyn Medium>,
    disk: Rc<dyn Disk>,
    reserve: u64,
    log: Box<dyn Store>,
    cut: LogCut,
    index: Index,
    shelves: BTreeMap<Address, Shelf>,
    /// Of each instance, what is left to be read of its newest checkpoint.
    chunks: ChunksLeft,
    /// Cuts that wait for the write that they rely on.
    cuts: VecDeque<(u64, Lsn)>,
}

impl ServiceDisk {
    pub(super) fn log(&mut self) -> &mut dyn Store {
        &mut *self.log
    }

    /// What completes what the log was given, and closes it. The directory of the node is kept until then.
    pub(super) fn closing(self) -> Box<dyn FnOnce() + Send> {
        let (close, home) = (self.log.closing(), self.home);
        Box::new(move || {
            close();
            drop(home);
        })
    }

    pub(super) fn reserve(&self) -> u64 {
        self.reserve
    }

    pub(super) fn disk(&self) -> Rc<dyn Disk> {
        Rc::clone(&self.disk)
    }

    pub(super) fn next_chunk(&mut self, of: Address) -> Option<Bytes> {
        self.chunks.borrow_mut().get_mut(&of)?.pop_front()
    }

    /// An instance is mounted late: its checkpoints have a place.
    pub(super) fn add(&mut self, late: LateShelf) {
        let LateShelf { of, medium, owner, opened, chunks } = late;
        let shelf = self.shelves.entry(of).or_insert_with(|| Shelf::new(medium, owner));
        shelf.fill(opened);
        self.chunks.borrow_mut().insert(of, chunks);
    }

    /// What is left to be read, for whoever reads it again.
    pub(super) fn chunks(&self) -> ChunksLeft {
        Rc::clone(&self.chunks)
    }

    /// What is to be run on the node's thread to write a checkpoint; `None` if the instance was not mounted when the boot began.
    pub(super) fn checkpoint(
        &self,
        of: Address,
        position: u64,
        alone: bool,
        source: Box<dyn Chunks>,
    ) -> Option<impl Future<Output = Result<(), CheckpointError>> + use<>> {
        let shelf = self.shelves.get(&of)?;
        Some(shelf.write(Rc::clone(&self.disk), self.reserve, position, alone, source))
    }

    /// The records of the log for the entries of a write; and who is to let go of the log.
    pub(super) fn note(
        &mut self,
        io: u64,
        entries: &[LogEntry],
        keeps: &BTreeMap<Address, Io>,
    ) -> (Vec<Bytes>, Vec<(Address, Io)>) {
        let records = encode(entries);
        // A turn that is several records is needed as long as any of them.
        for record in &records {
            self.index.note(entries, record.len());
        }
        let cut = self.index.cut(keeps);
        self.cuts.push_back((io, cut));
        (records, self.index.compact(keeps))
    }

    /// The write with this number is stable, and so is what the cuts up to it rely on.
    pub(super) fn written(&mut self, io: u64) {
        while let Some((at, cut)) = self.cuts.front()
            && *at <= io
        {
            self.cut.before(*cut);
            self.cuts.pop_front();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use mainstay_base::{Channel, ClusterId, Instance};

    fn of(channel: u16) -> Address {
        let instance = Instance::new(ClusterId::from_entropy(1), "i");
        Address { channel: Channel(channel), instance }
    }

    fn record(channel: u16, io: u64, size: usize) -> LogEntry {
        let payload = Bytes::from(vec![7; size]);
        LogEntry::Record { of: of(channel), io: Io(io), meta: "meta".into(), payload }
    }

    #[test]
    fn entries_come_back_and_garbage_is_refused() {
        let entries = vec![
            record(1, 1, 3),
            LogEntry::Installed { of: of(2), view: ViewId::NONE },
            record(2, 9, 0),
        ];
        let records = encode(&entries);
        assert_eq!(records.len(), 1);
        let join = |records: &[Bytes]| -> Result<Vec<LogEntry>, DecodeError> {
            let mut joining = Joining::default();
            for record in records {
                let (flags, entries) = decode(record.clone())?;
                joining.add(flags, entries);
            }
            Ok(joining.whole)
        };
        assert_eq!(join(&records).unwrap(), entries);
        for end in 0..records[0].len() {
            let part = join(&[records[0].slice(..end)]);
            assert!(part.is_err() || part.unwrap().len() < entries.len());
        }
        let large = vec![record(1, 1, 5 << 20), record(1, 2, 5 << 20)];
        let records = encode(&large);
        assert_eq!(records.len(), 2);
        assert_eq!(join(&records).unwrap(), large);
        // A crash in the middle of the write, and what was written after it.
        let next = encode(&entries);
        assert_eq!(join(&[records[0].clone(), next[0].clone()]).unwrap(), entries);
        assert_eq!(join(&records[..1]).unwrap(), []);
    }

    #[test]
    fn the_log_is_cut_where_nobody_needs_it() {
        let mut index = Index::new(Lsn(1));
        index.note(&[record(1, 1, 0)], 10);
        index.note(&[record(1, 2, 0), record(2, 1, 0)], 10);
        index.note(&[record(1, 3, 0)], 10);
        let mut keeps = BTreeMap::from([(of(1), Io(1)), (of(2), Io(1))]);
        assert_eq!(index.cut(&keeps), Lsn(1));
        keeps.insert(of(1), Io(4));
        assert_eq!(index.cut(&keeps), Lsn(2));
        // One that is not mounted needs what there is of it.
        keeps.remove(&of(2));
        assert_eq!(index.cut(&keeps), Lsn(2));
        keeps.insert(of(2), Io::MAX);
        assert_eq!(index.cut(&keeps), Lsn(4));
    }

    /// A long log that nobody needs any more is let go of in several turns.
    #[test]
    fn the_log_is_cut_a_slice_at_a_time() {
        let mut index = Index::new(Lsn(1));
        for io in 1..=2 * CUT_MAX as u64 {
            index.note(&[record(1, io, 0)], 10);
        }
        let keeps = BTreeMap::from([(of(1), Io::MAX)]);
        assert_eq!(index.cut(&keeps), Lsn(1 + CUT_MAX as u64));
        assert_eq!(index.cut(&keeps), Lsn(1 + 2 * CUT_MAX as u64));
        assert_eq!(index.bytes, 0);
    }

    #[test]
    fn who_pins_a_long_log_is_asked_to_let_go_once() {
        let mut index = Index::new(Lsn(1));
        index.note(&[record(1, 1, 0)], COMPACT_BYTES / 2);
        index.note(&[record(1, 2, 0), record(2, 1, 0)], COMPACT_BYTES);
        let keeps = BTreeMap::from([(of(1), Io(1)), (of(2), Io(1))]);
        assert_eq!(index.compact(&keeps), [(of(1), Io(2))]);
        assert_eq!(index.compact(&keeps), []);
        index.note(&[record(1, 3, 0)], COMPACT_BYTES);
        assert_eq!(index.compact(&keeps), [(of(1), Io(3))]);
    }
}
