//! Guests: processes outside the roster.

use std::collections::{BTreeSet, VecDeque};

use mainstay_base::service::Address;
use mainstay_base::{BootId, Duration, fault};

use super::{Mux, PART_BYTES};

/// Most bytes of each class on the way between a node and a guest (128 KiB).
pub const GUEST_WINDOW: u64 = 2 * PART_BYTES as u64;
/// Most bytes of messages that guests have begun to send and not ended (64 MiB).
pub const GUEST_PARTS_BYTES: usize = 64 << 20;
/// So long a guest may be without a connection before what is on the way to and from it is void (10 s).
pub const GUEST_KEEP: Duration = Duration::from_secs(10);
/// Most instances that a guest may have mounted.
pub(super) const GUEST_MOUNTED_MAX: usize = 64;
/// So many of the guests that are gone are remembered, in case something is still sent to them.
const GUESTS_GONE_MAX: usize = 256;

/// What a node knows of its guests, beyond what it knows of any peer.
#[derive(Default)]
pub(super) struct Guests {
    /// This process is a guest itself: all that is mounted is open.
    pub(super) am_one: bool,
    /// What guests hear.
    open: BTreeSet<Address>,
    /// The last that are gone; at most [`GUESTS_GONE_MAX`].
    gone: VecDeque<BootId>,
    /// Whose sessions the link is to end.
    to_end: VecDeque<BootId>,
}

impl Guests {
    pub(super) fn on_up(&mut self, boot: BootId) {
        self.gone.retain(|gone| *gone != boot);
    }

    pub(super) fn on_gone(&mut self, boot: BootId) {
        self.gone.push_back(boot);
        self.gone.drain(..self.gone.len().saturating_sub(GUESTS_GONE_MAX));
    }

    pub(super) fn is_gone(&self, boot: BootId) -> bool {
        self.gone.contains(&boot)
    }

    pub(super) fn end(&mut self, boot: BootId) {
        self.to_end.push_back(boot);
    }
}

impl Mux {
    /// This process is a guest of its peers.
    pub fn be_guest(&mut self) {
        self.guests.am_one = true;
    }

    /// From here on guests hear an instance, mounted now or later.
    pub fn open_to_guests(&mut self, of: Address) {
        self.guests.open.insert(of);
        let guests = self.peers.iter_mut().filter(|(_, peer)| peer.guest);
        let guests: Vec<BootId> = guests.map(|(boot, peer)| (peer.stale = true, *boot).1).collect();
        for boot in guests {
            self.touched.insert(boot);
            self.meet(boot);
        }
    }

    /// Whether a peer may hear of an instance, and speak to it.
    pub(super) fn is_open(&self, of: Address, to_guest: bool) -> bool {
        let guests = &self.guests;
        !to_guest || guests.am_one || guests.open.contains(&of) || fault!(self, OpenToAll)
    }

    /// The next guest whose session the link is to end.
    pub fn poll_to_end(&mut self) -> Option<BootId> {
        self.guests.to_end.pop_front()
    }
}
