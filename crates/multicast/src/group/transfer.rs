//! State for joiners.

use std::collections::BTreeSet;

use bytes::Bytes;
use mainstay_base::{BootId, Instant, Position};

use super::Group;
use crate::config::FRAME_BYTES;
use crate::event::Event;
use crate::message::Message;
use crate::record::Record;

/// What the sponsor of a view sends.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Sponsor {
    position: Position,
    joiners: BTreeSet<BootId>,
    /// Of these, who has not handed up the last part.
    waiting: BTreeSet<BootId>,
    /// Bytes sent.
    offset: u64,
    /// Of the last chunk, what is not sent yet.
    rest: Bytes,
    /// There is no chunk after it.
    last: bool,
    /// A chunk was asked for.
    wanted: bool,
}

/// What a joiner has got.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Restore {
    position: Position,
    offset: u64,
    complete: bool,
    /// The layer above has the last part: the sponsor may send the next one.
    taken: bool,
}

impl Group {
    /// A view begins: joiners want the state as of its start.
    pub(super) fn begin_transfer(&mut self) {
        (self.sponsor, self.restore) = (None, None);
        let Some(current) = &self.current else { return };
        let position = self.position();
        if !self.whole {
            self.restore = Some(Restore { position, offset: 0, complete: false, taken: true });
            return;
        }
        let joiners = current.members.iter().filter(|member| !member.whole);
        let joiners: BTreeSet<BootId> = joiners.map(|known| known.member.boot()).collect();
        if !joiners.is_empty() && current.sponsor == current.me {
            self.sponsor = Some(Sponsor {
                position,
                joiners,
                waiting: BTreeSet::new(),
                offset: 0,
                rest: Bytes::new(),
                last: false,
                wanted: true,
            });
            self.event(Event::SnapshotWanted { position });
        }
    }

    /// A chunk of the state as of `position`, in answer to [`Event::SnapshotWanted`] or [`Event::ChunkWanted`]; of any
    /// size. One that nobody asked for is dropped.
    pub fn snapshot_chunk(&mut self, _now: Instant, position: Position, chunk: Bytes, last: bool) {
        let Some(sponsor) = &mut self.sponsor else { return };
        if sponsor.position == position && std::mem::take(&mut sponsor.wanted) {
            (sponsor.rest, sponsor.last) = (chunk, last);
            self.send_part();
        }
    }

    fn send_part(&mut self) {
        let (Some(current), Some(sponsor)) = (&self.current, &mut self.sponsor) else { return };
        let payload = sponsor.rest.split_to(sponsor.rest.len().min(FRAME_BYTES));
        let (view, position, offset) = (current.id, sponsor.position, sponsor.offset);
        let last = sponsor.last && sponsor.rest.is_empty();
        sponsor.offset += payload.len() as u64;
        sponsor.waiting.clone_from(&sponsor.joiners);
        let message = Message::Transfer { view, position, offset, last, payload };
        for to in sponsor.joiners.clone() {
            self.send(to, message.clone());
        }
    }

    pub(super) fn on_transfer_ack(&mut self, rank: usize, position: Position, offset: u64) -> bool {
        let (Some(current), Some(sponsor)) = (&self.current, &mut self.sponsor) else {
            return false;
        };
        let boot = current.members[rank].member.boot();
        let is_current = (position, offset) == (sponsor.position, sponsor.offset);
        if !is_current || !sponsor.waiting.remove(&boot) {
            return false;
        }
        if !sponsor.waiting.is_empty() {
            return true;
        }
        if !sponsor.rest.is_empty() {
            self.send_part();
        } else if sponsor.last {
            self.sponsor = None;
        } else {
            sponsor.wanted = true;
            self.event(Event::ChunkWanted { position });
        }
        true
    }

    pub(super) fn on_transfer(
        &mut self,
        rank: usize,
        position: Position,
        offset: u64,
        last: bool,
        bytes: Bytes,
    ) -> bool {
        let (Some(current), Some(restore)) = (&self.current, &mut self.restore) else {
            return false;
        };
        let is_next = (position, offset) == (restore.position, restore.offset);
        if !is_next || restore.complete || rank != current.sponsor {
            return false;
        }
        restore.offset += bytes.len() as u64;
        (restore.complete, restore.taken) = (last, false);
        self.event(Event::RestoreChunk { position, offset, bytes, last });
        true
    }

    /// The layer above has taken in the part of [`Event::RestoreChunk`] that ends at `offset`: now the sponsor may send
    /// the next one. So a joiner gets no more at a time than it can take in. One that was not asked for is ignored.
    pub fn chunk_taken(&mut self, _now: Instant, position: Position, offset: u64) {
        let (Some(current), Some(restore)) = (&self.current, &mut self.restore) else { return };
        if (position, offset) != (restore.position, restore.offset)
            || std::mem::replace(&mut restore.taken, true)
        {
            return;
        }
        let (to, view) = (current.members[current.sponsor].member.boot(), current.id);
        self.send(to, Message::TransferAck { view, position, offset });
    }

    /// The layer above has the transferred state as of `position`; for a `Disk` group a checkpoint of it is forced. The
    /// member is whole from here on, or when that is on disk. Ignored if a later view has begun.
    pub fn restored(&mut self, now: Instant, position: Position) {
        let is_done = |it: &Restore| it.complete && it.position == position;
        if self.wedged || !self.restore.as_ref().is_some_and(is_done) {
            return;
        }
        let upto = self.restore.as_ref().map_or(0, |restore| restore.offset);
        self.chunk_taken(now, position, upto);
        self.restore = None;
        if self.config.is_disk() {
            let (group, view) = (self.config.group, self.data.view);
            self.whole_io = Some(self.write(Record::Whole { group, view }));
        } else {
            self.become_whole();
        }
    }

    /// The past is complete. In a wedged group it counts no more: the next view begins another transfer.
    pub(super) fn become_whole(&mut self) {
        if self.wedged {
            return;
        }
        self.whole = true;
        self.report_now = true;
    }
}
