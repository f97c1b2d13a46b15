//! Troupe commit, the half of the client.
//!
//! Each replica of the server executes one call at a time, tells the replicas of the client that it is ready, and waits. When all replicas of the server
//! are ready for the same call it counts; so their orders are equal. Two clients whose calls were begun in different orders wait for each other;
//! one of them loses patience, has its call undone, and the servers go on to the other one.
//!
//! Of a client troupe the oldest replica decides. If it is gone the next one may find that it has decided, and told some servers: it *asks* all of
//! them first. A server that is asked hears nobody of an older membership any more, so what they say then holds until the one who asked decides.

use mainstay_base::{BootId, Instant};

use super::{Call, Calls};
use crate::service::Turn;
use crate::wire::{Item, Key};
use crate::{Answer, TroupeName, Version};

/// The jitter of patience grows with attempts up to so many times.
const PATIENCE_MAX: u32 = 5;

/// What a server said of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Report {
    held: Option<u64>,
    fence: Version,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Committing {
    /// How often it was undone.
    attempt: u32,
    /// When patience ends.
    pub(super) until: Instant,
    /// Patience has ended: what is said now decides.
    asks: bool,
    is_committed: bool,
}

impl Calls {
    /// Whether this replica decides for the client.
    fn decides(&self, turn: &Turn<'_>, caller: TroupeName) -> bool {
        match turn.bindings.get(caller) {
            Some(binding) => binding.members.first() == Some(&self.me),
            None => true,
        }
    }

    /// A server has executed a call, or says that it has not.
    pub(crate) fn on_ready(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        server: TroupeName,
        key: &Key,
        held: Option<u64>,
        fence: Version,
    ) {
        let Some(number) = self.by_key.get(key).copied() else { return };
        let decides = self.decides(turn, key.caller);
        let Some(call) = self.calls.get_mut(&number).filter(|it| it.server == server) else {
            return;
        };
        let Some(slot) = call.slots.get_mut(&from).filter(|slot| !slot.is_answered) else { return };
        let by = turn.bindings.version(key.caller);
        match held {
            Some(held) if held == slot.decided && decides && fence <= by => {
                // The word did not count, since it was of an older membership.
                let (key, commit) = (key.clone(), slot.counts);
                let item = Item::Decide { server, key, by, held, commit };
                return turn.lines.say(from, item, bytes::Bytes::new());
            }
            // It was decided on meanwhile.
            Some(held) if held <= slot.decided => return,
            _ => {}
        }
        slot.report = Some(Report { held, fence });
        if call.commit.is_none() {
            let draw = self.rng.below(1 << 16);
            let until = turn.now + patience(turn, 0, draw);
            call.commit = Some(Committing { attempt: 0, until, asks: false, is_committed: false });
            self.timers.insert((until, number));
        }
        if !decides {
            return;
        }
        if mainstay_base::fault!(turn.config, CommitsAlone) {
            let Some(held) = held else { return };
            let item = Item::Decide { server, key: key.clone(), by, held, commit: true };
            return turn.lines.say(from, item, bytes::Bytes::new());
        }
        if fence != by {
            // It may have heard somebody else.
            let item = Item::Ask { server, key: key.clone(), by };
            return turn.lines.say(from, item, bytes::Bytes::new());
        }
        self.settle_commit(turn, number);
    }

    /// Decides, if what the servers said is enough.
    pub(super) fn settle_commit(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(call) = self.calls.get(&number) else { return };
        if call.commit.is_none() || !self.decides(turn, call.key.caller) {
            return;
        }
        let by = turn.bindings.version(call.key.caller);
        let Some(call) = self.calls.get_mut(&number) else { return };
        let Some(commit) = &mut call.commit else { return };
        let is_done = call.answers.iter().any(|(_, it)| !matches!(it, Answer::Refused(_)))
            || call.is_over && !call.answers.is_empty();
        let open = || call.slots.values().filter(|slot| !slot.is_answered);
        let reports = || open().map(|slot| slot.report.filter(|it| it.fence == by));
        let is_ready = reports().all(|it| it.is_some_and(|it| it.held.is_some()));
        if is_done || commit.is_committed || is_ready {
            commit.is_committed = true;
            return conclude(turn, call, by, true);
        }
        let asks = commit.asks && reports().all(|it| it.is_some());
        if asks {
            commit.asks = false;
            commit.attempt += 1;
            let draw = self.rng.below(1 << 16);
            let until = turn.now + patience(turn, commit.attempt, draw);
            self.timers.remove(&(commit.until, number));
            commit.until = until;
            self.timers.insert((until, number));
            conclude(turn, call, by, false);
        }
    }

    /// Not all servers have come to the call in time: they are asked, and then it is undone where it was executed.
    pub(super) fn lose_patience(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(caller) = self.calls.get(&number).map(|call| call.key.caller) else { return };
        let decides = self.decides(turn, caller);
        let draw = self.rng.below(1 << 16);
        let Some(call) = self.calls.get_mut(&number) else { return };
        let Some(commit) = &mut call.commit else { return };
        let until = turn.now + patience(turn, commit.attempt, draw);
        commit.until = until;
        if decides && !commit.is_committed {
            commit.asks = true;
            ask(turn, call);
        }
        self.timers.insert((until, number));
    }

    /// A troupe of clients has changed: another replica may have to decide.
    pub(super) fn on_caller(&mut self, turn: &mut Turn<'_>, caller: TroupeName) {
        if !self.decides(turn, caller) {
            return;
        }
        for call in self.calls.values_mut() {
            let waits = call.commit.as_ref().is_some_and(|it| !it.is_committed);
            if call.key.caller == caller && waits {
                ask(turn, call);
            }
        }
    }
}

fn patience(turn: &Turn<'_>, attempt: u32, draw: u64) -> mainstay_base::Duration {
    let within = turn.config.commit_within;
    let most = f64::from(1u32 << attempt.min(PATIENCE_MAX));
    within + within.mul_f64(draw as f64 / f64::from(1u32 << 16) * most)
}

/// Asks all servers how it is with a call.
fn ask(turn: &mut Turn<'_>, call: &mut Call) {
    let by = turn.bindings.version(call.key.caller);
    for (boot, slot) in call.slots.iter_mut().filter(|(_, slot)| !slot.is_answered) {
        slot.report = None;
        if turn.lines.is_behind(*boot) {
            continue;
        }
        let item = Item::Ask { server: call.server, key: call.key.clone(), by };
        turn.lines.say(*boot, item, bytes::Bytes::new());
    }
}

/// Tells those that are ready what is decided.
fn conclude(turn: &mut Turn<'_>, call: &mut Call, by: Version, commit: bool) {
    for (boot, slot) in call.slots.iter_mut().filter(|(_, slot)| !slot.is_answered) {
        let held = slot.report.filter(|it| it.fence == by).and_then(|it| it.held);
        let Some(held) = held else { continue };
        (slot.report, slot.decided, slot.counts) = (None, held, commit);
        let (server, key) = (call.server, call.key.clone());
        let item = Item::Decide { server, key, by, held, commit };
        turn.lines.say(*boot, item, bytes::Bytes::new());
    }
}
