//! What was made for a client lives as long as the client does (RPC-71): servers for each client, for instance.

use mainstay_base::NodeId;

use super::Server;
use crate::Event;
use crate::lines::Lines;

impl Server {
    /// Something was made for a client.
    pub(crate) fn host(&mut self, lines: &mut Lines, client: NodeId, life: u64) {
        let lives = life != 0 && self.clients.get(&client).is_some_and(|it| it.life == life);
        if lives {
            self.hosts.insert(client);
        } else {
            lines.tell(Event::Forsaken { client, life });
        }
    }

    /// It is gone by itself.
    pub(crate) fn unhost(&mut self, client: NodeId, life: u64) {
        if self.clients.get(&client).is_some_and(|it| it.life == life) {
            self.hosts.remove(&client);
        }
    }

    /// The client is dead, or is taken for it.
    pub(super) fn forsake(&mut self, lines: &mut Lines, client: NodeId) {
        if !self.hosts.remove(&client) || mainstay_base::fault!(self.config, SparesHosted) {
            return;
        }
        let life = self.clients.get(&client).map_or(0, |it| it.life);
        lines.tell(Event::Forsaken { client, life });
    }

    /// Of whom the terminator asks whether they live.
    pub(crate) fn depends_on(&self) -> std::collections::BTreeSet<NodeId> {
        &self.works_for() | &self.hosts
    }

    /// Whether it depends on anybody.
    pub(crate) fn depends(&self) -> bool {
        self.works() || !self.hosts.is_empty()
    }
}
