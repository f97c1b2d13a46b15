//! What holds of the server's half at all times, and what it is in.

use std::hash::{Hash, Hasher};

use super::Server;
use crate::wire::ProcedureId;

impl Server {
    /// Panics if something is not as it should be.
    pub(crate) fn check(&self) {
        for client in self.clients.values() {
            // What a restarted server read may be over already: the client says so when it speaks.
            let known = client.calls.values().filter(|it| it.call.procedure != ProcedureId(0));
            let bytes: usize = client.calls.values().map(|it| it.bytes()).sum();
            assert_eq!(bytes, client.bytes, "the bytes of a client are counted");
            assert!(
                client.calls.keys().all(|seq| !client.is_over(*seq)),
                "what is over is dropped"
            );
            assert!(known.count() <= 2 * self.config.window as usize, "the window is kept");
            let names = client.calls.values().filter(|it| it.is_over() && it.call.name.is_some());
            assert_eq!(names.count(), 0, "the name of what is over is not kept");
            assert!(client.leaving <= 4 * self.config.window as usize, "lanes are bounded");
            assert!(client.over.len() <= 2 * self.config.window as usize + 1, "gaps are bounded");
        }
        assert!(self.hosts.iter().all(|it| self.clients.contains_key(it)), "hosts are clients");
        self.names.check(self.config.orphans);
        assert!(self.runs.len() <= self.config.executions_max, "executions are bounded");
    }

    /// Writes all that later outputs depend on.
    pub(crate) fn fingerprint(&self, into: &mut impl Hasher) {
        (self.memory, &self.served, &self.clients, &self.runs, &self.ready).hash(into);
        (&self.loose, &self.writing, &self.names, &self.stored, self.tickets, self.drain)
            .hash(into);
        self.hosts.hash(into);
    }
}
