//! What the oracle says at the end of a run.

use std::collections::BTreeSet;

use mainstay_base::Duration;
use mainstay_troupe::{Outcome, Sequence};

use super::{Play, Replica, tag, value, word};

impl Play {
    /// A server has lost its state.
    pub fn shake(&mut self, server: usize) {
        for (client, number) in &self.issued {
            if self.parts[*client].calls == Some(self.parts[server].name) {
                let generation = self.generations.get(client).map_or(0, |it| it - 1);
                self.shaken.insert(*client, tag(*client, generation, *number));
            }
        }
    }

    /// Whether what it called has lost its state since a client made this call.
    pub fn is_shaken(&self, tag: u64) -> bool {
        self.shaken.get(&((tag >> 48) as usize - 1)).is_some_and(|last| tag <= *last)
    }

    /// Whether calls wait for more than one replica of their client.
    fn waits(&self) -> bool {
        self.parts.iter().any(|part| part.serving.begin != mainstay_troupe::Begin::First)
    }

    fn is_idle(&self) -> bool {
        let open = |node: usize| self.status(node).map_or(0, |it| it.open);
        let is_behind = |it: &&Replica| {
            let most = self.issued.get(&it.part).copied().unwrap_or(0);
            self.parts[it.part].calls.is_some() && it.done < most
        };
        self.all_full()
            && self.replicas.iter().find(is_behind).is_none()
            && (0..self.nodes).all(|node| open(node) == 0)
            && self.work.is_empty()
    }

    /// All faults are healed: all replicas come in, and all calls come to an end everywhere.
    pub fn finish(&mut self) -> Result<(), String> {
        self.world.heal();
        self.is_open = false;
        if let Err(what) =
            self.until("RPC-41: all calls are over", Duration::from_secs(40), Self::is_idle)
        {
            let told = |node: usize| match self.status(node) {
                Some(it) => format!(
                    "\n{node}: {} open, {} run, {} kept, {:?}",
                    it.open, it.executing, it.kept, it.served
                ),
                None => format!("\n{node}: down"),
            };
            let states: String = (0..self.nodes).map(told).collect();
            let replicas: Vec<_> = self
                .replicas
                .iter()
                .map(|it| (self.parts[it.part].name, it.node, it.is_full, it.done, it.log.len()))
                .collect();
            return Err(format!("{what}\n{replicas:?}{states}"));
        }
        self.check()?;
        let kept =
            |it: &Self| (0..it.nodes).all(|node| it.status(node).is_some_and(|it| it.kept == 0));
        // What waits for replicas of a client that has failed is refused after the time that results are kept, and that is kept as long again.
        let limit = if self.waits() && !self.lost.is_empty() { 45 } else { 25 };
        self.until("RPC-44: all results are dropped", Duration::from_secs(limit), kept)
    }

    /// Checks RPC-40, RPC-41, RPC-45 and RPC-47: all replicas of a troupe have executed all its calls, once, the calls of each client in its order.
    pub fn check(&self) -> Result<(), String> {
        for (at, part) in self.parts.iter().enumerate().filter(|(at, _)| !self.lost.contains(at)) {
            let logs: Vec<&Replica> =
                self.replicas.iter().filter(|it| it.part == at && it.is_full).collect();
            for replica in &logs {
                // Of a client all of whose replicas have failed some servers may have a call and others not, unless it was in a total order.
                let counts = |tag: &&u64| {
                    let client = (**tag >> 48) as usize - 1;
                    part.serving.sequence == Sequence::Cast || !self.lost.contains(&client)
                };
                let one: BTreeSet<u64> = replica.log.iter().filter(counts).copied().collect();
                let other: BTreeSet<u64> = logs[0].log.iter().filter(counts).copied().collect();
                if one != other {
                    let differ: Vec<_> = one.symmetric_difference(&other).collect();
                    return Err(format!(
                        "RPC-40: {} at nodes {} and {} differ in {differ:x?}",
                        part.name, logs[0].node, replica.node
                    ));
                }
                let kept = |of: &Replica| of.log.iter().filter(counts).copied().collect::<Vec<_>>();
                let is_ordered = part.serving.sequence != Sequence::Independent;
                if is_ordered && kept(replica) != kept(logs[0]) {
                    return Err(format!("RPC-43: {} executes in two orders", part.name));
                }
            }
            let one = logs.first().map(|it| it.log.clone()).unwrap_or_default();
            for (client, issued) in &self.issued {
                let server = self.parts[*client].calls;
                if server != Some(part.name) || self.lost.contains(client) {
                    continue;
                }
                let of: Vec<u64> = one
                    .iter()
                    .copied()
                    .filter(|it| it >> 48 == *client as u64 + 1 && it & 1 << 39 == 0)
                    .collect();
                let all: Vec<u64> = (1..=*issued).map(|number| tag(*client, 0, number)).collect();
                if of != all {
                    let at = of.iter().zip(&all).position(|(one, other)| one != other);
                    return Err(format!(
                        "RPC-41: {} has executed {} of {} calls of {}, or not in its order: at {at:?}",
                        part.name,
                        of.len(),
                        all.len(),
                        self.parts[*client].name
                    ));
                }
            }
        }
        let waits = self.waits();
        for (tag, outcome) in &self.outcomes {
            let is_right = match outcome {
                Outcome::Done(it) if self.liar.is_none() && !self.is_random => {
                    let part = &self.parts[(tag >> 48) as usize - 1];
                    let server = self.parts.iter().find(|it| Some(it.name) == part.calls);
                    let is_nested =
                        server.is_some_and(|it| it.nests.is_some()) && tag.is_multiple_of(3);
                    let under = if is_nested { value(*tag | 1 << 39, 0) } else { 0 };
                    word(it) == value(*tag, under)
                }
                Outcome::Done(_) | Outcome::Complete => true,
                // An execution that waits for replicas of a client that has failed holds others up.
                _ => self.liar.is_some() || self.is_random || waits && !self.lost.is_empty(),
            };
            if !is_right && !self.is_shaken(*tag) {
                return Err(format!("RPC-41: call {tag:x} has the outcome {outcome:?}"));
            }
        }
        Ok(())
    }
}
