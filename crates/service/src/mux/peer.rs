//! What a node knows of a boot, and the streams to and from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::Instant;
use mainstay_base::service::Address;

use super::stream::{Incoming, Outgoing};
use super::wire::Entry;

/// A boot that the link has a session with.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) connected: bool,
    /// What it has mounted, as far as it has said so.
    pub(super) mounted: BTreeMap<Address, Entry>,
    /// Instances that were told that it is up.
    pub(super) up: BTreeSet<Address>,
    pub(super) out: BTreeMap<Address, Outgoing>,
    pub(super) incoming: BTreeMap<Address, Incoming>,
    /// Streams with something to send, by class.
    pub(super) running: [VecDeque<Address>; 4],
    /// Bytes on the way, by class.
    pub(super) flight: [u64; 4],
    /// What was taken in and is not told yet, by class.
    pub(super) untold: [u64; 4],
    pub(super) tell_at: Option<Instant>,
    /// What is mounted here has changed since it was told.
    pub(super) stale: bool,
    /// It has not answered the last list.
    pub(super) unseen: bool,
}

impl Peer {
    pub(super) fn push(
        &mut self,
        of: Address,
        view: u64,
        meta: &Bytes,
        payload: &Bytes,
    ) -> Result<(), (Bytes, Bytes)> {
        let is_up = self.up.contains(&of);
        let Some(out) = self.out.get_mut(&of) else { return Err((meta.clone(), payload.clone())) };
        if !is_up {
            out.full = true;
            return Err((meta.clone(), payload.clone()));
        }
        out.push(view, meta.clone(), payload.clone())?;
        if !out.runs && out.may_send() {
            out.runs = true;
            self.running[out.class as usize].push_back(of);
        }
        Ok(())
    }

    /// The streams of an instance are void.
    pub(super) fn forget(&mut self, of: Address) {
        self.up.remove(&of);
        self.incoming.remove(&of);
        if let Some(out) = self.out.remove(&of) {
            let class = out.class as usize;
            self.flight[class] -= out.flight();
            self.running[class].retain(|it| *it != of);
        }
    }
}
