//! What a plain load of a node's files takes: one thread reads the newest checkpoint and the tail of the log, and makes the
//! state of them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use mainstay_base::{ClusterId, GroupId, MessageId, NodeId, Position, SiteId, ViewId};
use mainstay_directory::Directory;
use mainstay_multicast::{Entries, Record as Of};
use mainstay_paradigm::Replica;
use mainstay_site::Record;
use mainstay_stable::{Checkpoints, FileMedium, Log, Options, Owner};

use crate::node::Bounds;

const SHELF: &str = "checkpoints-";

/// The replica of the node of this name, from its files below `dir`, which nobody else has open. A torn tail of the log is cut
/// off, and what a crash left of an unfinished checkpoint is removed, as a node does.
pub(crate) fn load(
    dir: &Path,
    cluster: ClusterId,
    name: &str,
    bounds: &Bounds,
) -> io::Result<Replica<Directory>> {
    let owner = Owner(*NodeId::new(cluster, name).as_bytes());
    let medium = |path: &Path| FileMedium::open(path).map(Arc::new).map_err(io::Error::other);
    let (_, recovered) = Log::open(medium(dir)?, Options::new(owner)).map_err(io::Error::other)?;
    let mut tail = Tail::new(GroupId::new(cluster, mainstay::Config::GROUP));
    for record in recovered.records {
        tail.record(record.payload)?;
    }
    let mut replica = Replica::new(bounds.replica()?, bounds.directory());
    drop(replica.begin_restore(bounds.directory()));
    let checkpoints = Checkpoints::open(medium(&shelf(dir)?)?, owner).map_err(io::Error::other)?;
    let newest = checkpoints.read_newest().map_err(io::Error::other)?;
    let position = newest.as_ref().map_or(Position::ZERO, |it| Position(it.position));
    for chunk in newest.into_iter().flat_map(|it| it.chunks) {
        replica.restore_chunk(&chunk).map_err(io::Error::other)?;
    }
    replica.restored(position).map_err(io::Error::other)?;
    for (at, message, payload) in tail.messages {
        // One that the checkpoint has is passed over.
        replica.deliver(Position(at), message, payload, false).map_err(io::Error::other)?;
        while replica.poll_output().is_some() {}
        replica.take_work();
    }
    Ok(replica)
}

/// The directory of the one group's checkpoints.
pub(crate) fn shelf(dir: &Path) -> io::Result<std::path::PathBuf> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SHELF) {
            return Ok(entry.path());
        }
    }
    Err(io::Error::other("the node has no checkpoints"))
}

type Message = (u64, MessageId, Bytes);

/// The messages that the log has, by ascending positions without a hole.
struct Tail {
    group: GroupId,
    messages: Vec<Message>,
    /// What was held for a view: it counts when the log says that the view came.
    held: Option<(ViewId, Vec<Message>)>,
}

impl Tail {
    fn new(group: GroupId) -> Self {
        Self { group, messages: Vec::new(), held: None }
    }

    fn record(&mut self, mut bytes: Bytes) -> io::Result<()> {
        let kind = bytes.try_get_u16_le().map_err(io::Error::other)?;
        match Record::decode(kind, bytes).map_err(io::Error::other)? {
            Record::Membership(durable) => self.installed(durable.installed.id),
            Record::Group(record) if record.group() == self.group => self.of_group(record),
            Record::Group(_) => {}
        }
        Ok(())
    }

    fn of_group(&mut self, record: Of) {
        match record {
            Of::Start { view, .. } => self.installed(view),
            Of::Entries { view, entries, .. } => {
                self.installed(view);
                self.append(unpack(&entries));
            }
            Of::Hold { last, begins, entries, .. } => {
                let new = unpack(&entries);
                match &mut self.held {
                    Some((_, held)) if !begins => held.extend(new),
                    _ => self.held = Some((last.0, new)),
                }
            }
            Of::Whole { .. } => {}
        }
    }

    fn installed(&mut self, view: ViewId) {
        if let Some((_, messages)) = self.held.take_if(|held| held.0 == view) {
            self.append(messages);
        }
    }

    /// What was logged at these positions and behind is void.
    fn append(&mut self, new: Vec<Message>) {
        let Some((first, ..)) = new.first() else { return };
        let kept = self.messages.partition_point(|(at, ..)| at < first);
        self.messages.truncate(kept);
        if self.messages.last().is_some_and(|(last, ..)| last + 1 != *first) {
            self.messages.clear();
        }
        self.messages.extend(new);
    }
}

fn unpack(entries: &Entries) -> Vec<Message> {
    let mut payload = entries.payload.clone();
    let names = entries.runs.iter().flat_map(|(sender, first, count)| {
        (0..u64::from(*count)).map(move |step| (*sender, first.saturating_add(step)))
    });
    let message = |(((sender, sequence), len), at): (((SiteId, u64), &u32), u64)| {
        let bytes = payload.split_to((*len as usize).min(payload.len()));
        (at, MessageId { sender, sequence }, bytes)
    };
    names.zip(&entries.lens).zip(entries.first..).map(message).collect()
}
