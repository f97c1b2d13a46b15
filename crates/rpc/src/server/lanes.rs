//! Lanes: the calls of one caller, one after the other (RPC-5).
//!
//! A client's caller numbers its calls along with those of all callers of the node, so numbers of a lane have gaps. Each call says which one
//! of its lane came before it. It begins when that one is over, here or for the client. Calls that the client has given up are named
//! by the next one of the lane, and are over with that.

use std::collections::BTreeSet;

use mainstay_base::{Instant, NodeId};

use super::{Server, State};
use crate::lines::Lines;

#[derive(Clone, Hash, Debug, Default)]
pub(super) struct Lane {
    /// One call of it has begun and has not stopped.
    is_taken: bool,
    held: BTreeSet<u64>,
}

impl Server {
    pub(super) fn enter_lane(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        of: NodeId,
        lane: u32,
        seq: u64,
    ) {
        if mainstay_base::fault!(self.config, IgnoresOrder) {
            return self.ready(now, lines, of, seq);
        }
        let Some(client) = self.clients.get_mut(&of) else { return };
        client.lanes.entry(lane).or_default().held.insert(seq);
        self.try_lane(now, lines, of, lane);
    }

    /// Begins the next call of the lane, if it is its turn.
    fn try_lane(&mut self, now: Instant, lines: &mut Lines, of: NodeId, lane: u32) {
        let Some(client) = self.clients.get_mut(&of) else { return };
        let Some(it) = client.lanes.get_mut(&lane) else { return };
        if it.is_taken {
            return;
        }
        let Some(seq) = it.held.first().copied() else {
            client.lanes.remove(&lane);
            return;
        };
        let after = client.calls.get(&seq).and_then(|entry| entry.call.order.as_ref());
        let after = after.map_or(0, |order| order.after);
        let is_done =
            |entry: &super::Entry| matches!(entry.state, State::Ending(_) | State::Over(_));
        let is_next = client.is_over(after) || client.calls.get(&after).is_some_and(is_done);
        if !is_next && after != 0 {
            return;
        }
        if let Some(it) = client.lanes.get_mut(&lane) {
            it.held.remove(&seq);
            it.is_taken = true;
        }
        self.ready(now, lines, of, seq);
    }

    /// A call that had begun has stopped.
    pub(super) fn leave_lane(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        of: NodeId,
        lane: Option<u32>,
        life: u64,
    ) {
        let (Some(lane), Some(client)) = (lane, self.clients.get_mut(&of)) else { return };
        if client.life != life {
            return;
        }
        if let Some(it) = client.lanes.get_mut(&lane) {
            it.is_taken = false;
        }
        self.try_lane(now, lines, of, lane);
    }

    /// A call that was held does not begin any more: it was next in its lane, or stood further behind.
    pub(super) fn skip_in_lane(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        of: NodeId,
        lane: u32,
        seq: u64,
    ) {
        let Some(client) = self.clients.get_mut(&of) else { return };
        let life = client.life;
        let Some(it) = client.lanes.get_mut(&lane) else { return };
        if it.held.remove(&seq) {
            return self.try_lane(now, lines, of, lane);
        }
        // It had the lane, and waited for a place.
        self.leave_lane(now, lines, of, Some(lane), life);
    }

    /// Calls are over that others may have waited for.
    pub(super) fn try_lanes(&mut self, now: Instant, lines: &mut Lines, of: NodeId) {
        let Some(client) = self.clients.get(&of) else { return };
        let waits = client.lanes.iter().filter(|(_, it)| !it.is_taken);
        let lanes: Vec<u32> = waits.map(|(lane, _)| *lane).collect();
        for lane in lanes {
            self.try_lane(now, lines, of, lane);
        }
    }
}
