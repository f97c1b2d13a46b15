//! What becomes of calls when their server comes, goes, or has forgotten them.

use std::collections::BTreeSet;

use bytes::Bytes;
use mainstay_base::{Instant, NodeId};

use super::{Binding, Calls, Lane, State};
use crate::lines::Lines;
use crate::wire::Item;
use crate::{Reason, Request, Semantics};

impl Calls {
    /// A server was heard: what it remembers is called so. `is_new`: it is connected anew.
    pub(crate) fn on_bound(
        &mut self,
        now: Instant,
        lines: &mut Lines,
        server: NodeId,
        memory: u64,
        (is_kept, window): (bool, u32),
    ) {
        let former = self.servers.entry(server).or_default().memory;
        if former != memory {
            self.lose(now, lines, server);
        }
        let own = self.config.window;
        let binding = self.servers.entry(server).or_default();
        if former != memory {
            *binding = Binding {
                memory,
                waits: std::mem::take(&mut binding.waits),
                lanes: std::mem::take(&mut binding.lanes),
                ..Binding::default()
            };
        }
        (binding.is_kept, binding.is_bound) = (is_kept, true);
        binding.window = window.min(own) as usize;
        // What was sent to a boot that is gone is void.
        let sent: Vec<(u64, u64)> = binding.sent.iter().map(|(seq, id)| (*seq, *id)).collect();
        self.open(lines, server);
        for (seq, id) in sent {
            if let Some(State::Sent { after, .. }) = self.open.get(&id).map(|call| &call.state) {
                let after = *after;
                self.send(now, lines, id, seq, after, 0);
            }
        }
        self.issue(now, lines, server);
    }

    /// Says which calls are open.
    pub(super) fn open(&mut self, lines: &mut Lines, server: NodeId) {
        self.speak(lines, server);
        let Some(binding) = self.servers.get(&server).filter(|it| it.last > 0) else { return };
        // What was given up in a lane is told with its place in the lane.
        let (next, floor) = (binding.last + 1, binding.floor());
        let gone = binding.lanes.values().flat_map(|lane| &lane.gone).copied();
        let gone: Vec<(u64, u64)> = gone.filter(|(seq, _)| *seq >= floor).collect();
        let sent = binding.sent.keys().copied();
        let open: BTreeSet<u64> = sent.chain(gone.iter().map(|(seq, _)| *seq)).collect();
        let open = open.into_iter().collect();
        lines.say(server, Item::Open { next, open }, Bytes::new());
        for (seq, after) in gone {
            lines.say(server, Item::Cancel { seq, after }, Bytes::new());
        }
    }

    /// The server's boot is gone. One that remembers may come back.
    pub(crate) fn on_gone(&mut self, now: Instant, lines: &mut Lines, server: NodeId) {
        let Some(binding) = self.servers.get_mut(&server) else { return };
        binding.is_bound = false;
        if !binding.is_kept {
            self.lose(now, lines, server);
        }
    }

    #[cfg(test)]
    pub(crate) fn knows(&self, server: NodeId) -> bool {
        self.servers.contains_key(&server)
    }

    /// The server is gone for ever: if nothing waits for it, it is forgotten.
    pub(crate) fn forget(&mut self, server: NodeId) {
        let is_idle = |it: &Binding| it.waits.is_empty() && it.sent.is_empty();
        if self.servers.get(&server).is_some_and(|it| !it.is_kept && is_idle(it)) {
            self.servers.remove(&server);
        }
    }

    /// The server is not connected: what was sent arrives when it is again.
    pub(crate) fn on_down(&mut self, server: NodeId) {
        let _ = self.servers.get_mut(&server).map(|binding| binding.is_bound = false);
    }

    /// What the server remembered is gone: calls that were sent fail, or begin anew where they may be executed again.
    fn lose(&mut self, now: Instant, lines: &mut Lines, server: NodeId) {
        let Some(binding) = self.servers.get_mut(&server) else { return };
        let sent: Vec<(u64, u64)> = std::mem::take(&mut binding.sent).into_iter().collect();
        binding.gone.clear();
        for lane in binding.lanes.values_mut() {
            lane.gone.clear();
        }
        for (seq, id) in sent {
            let Some(call) = self.open.get_mut(&id) else { continue };
            call.state = State::Waits;
            call.watch(&mut self.timers, id, call.deadline);
            call.may_have_begun = true;
            let Request { semantics, lane, .. } = call.request;
            let Some(binding) = self.servers.get_mut(&server) else { continue };
            binding.waits.insert(id);
            if let Some(lane) = lane.and_then(|lane| binding.lanes.get_mut(&lane)) {
                lane.sent.remove(&seq);
                lane.waits += 1;
            }
            let again = semantics == Semantics::AtLeastOnce
                || mainstay_base::fault!(self.config, RepeatsAtNewServer);
            if !again {
                self.fail(now, lines, id, Reason::ServerLost);
            }
        }
        lines.line(server).head.over.clear();
    }
}

impl Binding {
    /// The server hears that all calls below are over: those that were given up need not be named any more.
    pub(super) fn pass(&mut self, floor: u64) {
        while let Some((_, name)) = self.gone.first().copied().filter(|(seq, _)| *seq < floor) {
            self.gone.pop_first();
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.gone.retain(|(seq, _)| *seq >= floor);
                self.tidy(name);
            }
        }
    }

    /// A lane of which nothing is left is forgotten.
    pub(super) fn tidy(&mut self, name: u32) {
        let is_done = |it: &Lane| it.waits == 0 && it.sent.is_empty() && it.gone.is_empty();
        if self.lanes.get(&name).is_some_and(is_done) {
            self.lanes.remove(&name);
        }
    }

    /// It was never heard, and nothing waits for it: a name that means no node, perhaps.
    pub(super) fn is_unknown(&self) -> bool {
        self.memory == 0 && self.waits.is_empty() && self.sent.is_empty() && self.lanes.is_empty()
    }

    /// All calls below are over.
    pub(super) fn floor(&self) -> u64 {
        self.sent.keys().next().copied().unwrap_or(self.last + 1)
    }
}
