//! How long results are kept, and what becomes of calls when troupes change.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_base::{BootId, Instant};

use super::Server;
use crate::record::{Record, Stage};
use crate::service::Turn;
use crate::wire::{Item, Key};
use crate::{Answer, Config, Refusal, TroupeName, Version};

/// So many results are asked for in one message.
const PROBES_MAX: usize = 64;

impl Server {
    /// A replica of a client has its answers.
    pub(crate) fn on_ack(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        name: TroupeName,
        by: Version,
        keys: &[Key],
    ) {
        for key in keys {
            let Some(member) = self.members.get_mut(&name) else { return };
            let Some(record) = member.records.get_mut(key) else { continue };
            record.caller.version = record.caller.version.max(by);
            if record.acked.len() < crate::bindings::MEMBERS_MAX {
                record.acked.insert(from);
            }
            self.release(turn, name, key);
        }
        self.advance(turn, name);
    }

    /// Drops a result that nobody needs any more.
    pub(super) fn release(&mut self, turn: &mut Turn<'_>, name: TroupeName, key: &Key) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let Some(record) = member.records.get_mut(key) else { return };
        if !matches!(record.stage, Stage::Done(_))
            || mainstay_base::fault!(turn.config, KeepsResults)
        {
            return;
        }
        let forgets = mainstay_base::fault!(turn.config, ForgetsResults);
        if record.is_fetched(turn.bindings) || forgets && !record.acked.is_empty() {
            member.drop_record(key);
        } else if !record.is_spare && record.waits_for_new(turn.bindings) {
            // A new member may wait for the state of one whose execution waits for the next call of this client.
            record.is_spare = true;
            let load = member.load.entry(key.caller).or_default();
            (load.done, load.spare) = (load.done - 1, load.spare + record.counted);
        }
    }

    /// A boot is gone for good, and with it a client that was not replicated.
    pub(crate) fn on_solo_gone(&mut self, turn: &mut Turn<'_>, boot: BootId) {
        let solo = TroupeName::solo(boot);
        let names: Vec<TroupeName> = self.members.keys().copied().collect();
        for name in names {
            let Some(member) = self.members.get_mut(&name) else { continue };
            let keys: Vec<Key> =
                member.records.keys().filter(|key| key.caller == solo).cloned().collect();
            for key in keys {
                let Some(record) =
                    self.members.get_mut(&name).and_then(|it| it.records.get_mut(&key))
                else {
                    continue;
                };
                record.acked.insert(boot);
                record.absent.insert(boot);
                self.abandon(turn, name, &key);
                self.release(turn, name, &key);
            }
            self.advance(turn, name);
        }
    }

    /// Undoes what no replica of its client is left to say that it counts.
    fn abandon(&mut self, turn: &mut Turn<'_>, name: TroupeName, key: &Key) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let Some(record) = member.records.get(key) else { return };
        let Stage::Held(ticket, _) = record.stage else { return };
        let binding = turn.bindings.get(key.caller);
        let is_out = |boot: &BootId| record.absent.contains(boot);
        let is_over = match binding {
            Some(binding) => record.is_left(turn.bindings) && binding.members.iter().all(is_out),
            None => record.copies.keys().all(is_out),
        };
        if is_over {
            member.busy -= 1;
            turn.lines.tell(crate::Event::Decided { ticket, counts: false });
            member.drop_record(key);
            self.counts.undone += 1;
        }
    }

    /// A troupe has changed: one that calls, or one of this node.
    pub(crate) fn on_binding(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        self.on_own_binding(turn, name);
        let served: Vec<TroupeName> = self.members.keys().copied().collect();
        for server in served {
            let Some(member) = self.members.get(&server) else { continue };
            if !member.load.contains_key(&name) {
                continue;
            }
            let of = member.records.keys().filter(|key| key.caller == name);
            let keys: Vec<Key> = of.cloned().collect();
            for key in keys {
                self.abandon(turn, server, &key);
                self.consider(turn, server, &key);
                self.release(turn, server, &key);
            }
            self.advance(turn, server);
        }
    }

    /// What has not begun names a troupe as it was: it is refused, so that new members get it as well.
    pub(crate) fn refuse_stale(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let Some(member) = self.members.get_mut(&name) else { return };
        if mainstay_base::fault!(turn.config, IgnoresVersion) {
            return;
        }
        let now = turn.bindings.get(name).cloned();
        let is_early =
            |stage: &Stage| matches!(stage, Stage::Waits | Stage::Ready | Stage::Unordered { .. });
        let keeps = |key: &Key| member.order.has(&key.id);
        let version = turn.bindings.version(name);
        let is_old = |it: &Record| is_early(&it.stage) && it.named < version;
        let stale = member.records.iter().filter(|(key, it)| is_old(it) && !keeps(key));
        let stale: Vec<Key> = stale.map(|(key, _)| key.clone()).collect();
        for key in &stale {
            let Some(record) = member.records.get(key) else { continue };
            let named = record.named;
            for asker in record.askers(turn.bindings) {
                let item = Item::Stale { server: name, key: key.clone(), named, now: now.clone() };
                turn.lines.say(asker, item, Bytes::new());
            }
            member.drop_record(key);
            member.order.forget(key);
            self.counts.stale += 1;
        }
        member.ready.retain(|key| member.records.contains_key(key));
    }

    /// What is due: results that nobody has fetched are asked for, and at last dropped; casts are made again.
    pub(crate) fn on_time(&mut self, turn: &mut Turn<'_>) {
        if self.tick.take_if(|at| *at <= turn.now).is_none() {
            return;
        }
        let names: Vec<TroupeName> = self.members.keys().copied().collect();
        for name in names {
            self.probe(turn, name);
            self.cast_again(turn, name);
            self.thaw(turn, name);
        }
    }

    /// When records are looked through. All at once, and not often: a set of timers would cost each call more than that.
    pub(crate) fn timeout(&mut self, now: Instant, config: &Config) -> Option<Instant> {
        let is_idle = self.members.values().all(|it| it.records.is_empty());
        let often = config.probe.min(config.cast_again).min(config.retain) / 2;
        match is_idle {
            true => self.tick = None,
            false => drop(self.tick.get_or_insert(now + often)),
        }
        self.tick
    }

    fn probe(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let (now, config) = (turn.now, turn.config);
        let Some(member) = self.members.get_mut(&name) else { return };
        let mut asked: BTreeMap<(BootId, bool), Vec<Key>> = BTreeMap::new();
        let (mut old, mut late) = (Vec::new(), Vec::new());
        for (key, record) in &mut member.records {
            let is_done = matches!(record.stage, Stage::Done(_));
            if record.stage == Stage::Waits && record.done_at + config.retain <= now {
                // Who has sent it may be gone, and the others may never send it.
                late.push(key.clone());
            } else if is_done && record.done_at + config.retain <= now {
                old.push(key.clone());
            } else if (is_done || record.stage == Stage::Waits || record.is_left(turn.bindings))
                && record.probed_at + config.probe <= now
            {
                record.probed_at = now;
                let binding = turn.bindings.get(key.caller).map(|it| it.members.clone());
                let whom = binding.unwrap_or_else(|| record.copies.keys().copied().collect());
                let has = |it: &BootId| match is_done {
                    true => record.acked.contains(it),
                    false => record.copies.contains_key(it),
                };
                for boot in whom.into_iter().filter(|it| !has(it)) {
                    let keys = asked.entry((boot, is_done)).or_default();
                    if keys.len() < PROBES_MAX {
                        keys.push(key.clone());
                    }
                }
            }
        }
        for ((boot, is_done), keys) in asked {
            // Who is not connected is asked when it is.
            if turn.lines.is_up(boot) && !turn.lines.is_behind(boot) {
                let item = match is_done {
                    true => Item::Wanted { server: name, keys },
                    false => Item::Awaited { server: name, keys },
                };
                turn.lines.say(boot, item, Bytes::new());
            }
        }
        for key in &old {
            member.drop_record(key);
            self.counts.forgotten += 1;
        }
        for key in &late {
            self.done(turn, name, key, Answer::Refused(Refusal::NoAgreement));
        }
        if !old.is_empty() {
            self.advance(turn, name);
        }
    }

    /// A replica of a client does not send these calls, or not before it has a state: they begin without it, and their results hold nothing up.
    pub(crate) fn on_absent(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        name: TroupeName,
        keys: &[Key],
    ) {
        for key in keys {
            let Some(member) = self.members.get_mut(&name) else { return };
            let Some(record) = member.records.get_mut(key) else { continue };
            if record.absent.len() < crate::bindings::MEMBERS_MAX {
                record.absent.insert(from);
            }
            self.abandon(turn, name, key);
            self.consider(turn, name, key);
            self.release(turn, name, key);
        }
        self.advance(turn, name);
    }
}

impl super::Member {
    pub(crate) fn drop_record(&mut self, key: &Key) {
        let Some(record) = self.records.remove(key) else { return };
        let Some(load) = self.load.get_mut(&key.caller) else { return };
        load.records -= 1;
        load.bytes -= record.counted;
        if record.is_spare {
            load.spare -= record.counted;
        }
        if matches!(record.stage, Stage::Done(_)) {
            load.done -= u32::from(!record.is_spare);
            // A copy that was on its way for long, or waits where a new member gets its state, finds that it was executed.
            self.past.add(&key.id);
        }
        if load.records == 0 {
            self.load.remove(&key.caller);
        }
    }
}
