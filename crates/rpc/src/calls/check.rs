//! What holds of the client's half at all times, and what it is in.

use std::hash::{Hash, Hasher};

use super::{Calls, GONE_MAX};

impl Calls {
    /// Panics if something is not as it should be.
    pub(crate) fn check(&self) {
        assert!(self.open.len() <= self.config.calls_max, "calls are bounded");
        assert_eq!(self.open.len(), self.tokens.len(), "each open call has a caller");
        for binding in self.servers.values() {
            assert!(binding.sent.len() <= self.config.window as usize, "the window is kept");
            let lanes = binding.lanes.values();
            let gone_max = GONE_MAX + self.config.window as usize;
            assert!(lanes.clone().all(|lane| lane.gone.len() <= gone_max), "lanes are bounded");
            let sent = binding.sent.values().chain(&binding.waits);
            assert!(sent.clone().all(|id| self.open.contains_key(id)), "what is sent is open");
        }
    }

    /// Writes all that later outputs depend on; the generator moves times only.
    pub(crate) fn fingerprint(&self, into: &mut impl Hasher) {
        (&self.open, &self.servers, &self.children, self.commands, self.epoch).hash(into);
    }
}
