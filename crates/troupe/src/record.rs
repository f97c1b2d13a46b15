//! What a replica of a server keeps of one logical call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher as _;

use bytes::Bytes;
use mainstay_base::{BootId, Fingerprinter, Instant};
use mainstay_rpc::ProcedureId;

use crate::api::{Begin, Ticket};
use crate::bindings::Bindings;
use crate::wire::CallHead;
use crate::{Answer, Binding, CallId, TroupeId, Version};

/// How far a call is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Not all copies that it begins with have come.
    Waits,
    /// The order is to say when it begins; cast again by this replica then.
    Unordered {
        cast_at: Instant,
    },
    /// It begins when it is its turn.
    Ready,
    Running(Ticket),
    /// Executed, and it counts when all servers are at this call.
    Held(Ticket, Answer),
    Done(Answer),
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Who makes it, in the newest membership that a copy named.
    pub(crate) caller: TroupeId,
    pub(crate) procedure: ProcedureId,
    pub(crate) version: u16,
    pub(crate) context: Bytes,
    /// A hash of what each replica of the client said.
    pub(crate) copies: BTreeMap<BootId, u128>,
    /// The arguments, each that differ once, until it begins.
    pub(crate) bodies: BTreeMap<u128, Bytes>,
    /// Those that it was executed with.
    pub(crate) chosen: Option<u128>,
    pub(crate) stage: Stage,
    /// Replicas of the client that have the result, or do not want it.
    pub(crate) acked: BTreeSet<BootId>,
    /// Replicas of the client that will not send it, or not before they have a state, and are not waited for.
    pub(crate) absent: BTreeSet<BootId>,
    /// When it was done, or came if it is not; and when it was asked for last.
    pub(crate) done_at: Instant,
    pub(crate) probed_at: Instant,
    /// Troupe commit: nobody of an older membership of the client decides any more.
    pub(crate) fence: Version,
    /// The newest membership of the server that a copy named.
    pub(crate) named: Version,
    /// As many bytes are counted for it.
    pub(crate) counted: usize,
    /// It is done, and kept for those only who are not waited for: it holds nothing up.
    pub(crate) is_spare: bool,
}

/// The last calls of some kind, so many of them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Past {
    ids: VecDeque<CallId>,
    known: BTreeSet<CallId>,
}

impl Past {
    /// So many are remembered.
    pub(crate) const MAX: usize = 4_096;

    /// Whether it is not one of them yet.
    pub(crate) fn add(&mut self, id: &CallId) -> bool {
        if !self.known.insert(id.clone()) {
            return false;
        }
        self.ids.push_back(id.clone());
        if self.ids.len() > Self::MAX
            && let Some(oldest) = self.ids.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    pub(crate) fn contains(&self, id: &CallId) -> bool {
        self.known.contains(id)
    }

    /// The oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &CallId> {
        self.ids.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

impl FromIterator<CallId> for Past {
    fn from_iter<T: IntoIterator<Item = CallId>>(ids: T) -> Self {
        let mut past = Self::default();
        ids.into_iter().for_each(|id| {
            past.add(&id);
        });
        past
    }
}

/// What a call begins with, or what it comes to without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// Not enough copies have come.
    Open,
    /// These arguments.
    Chosen(u128),
    /// The replicas of the client do not agree.
    NoAgreement,
}

impl Record {
    pub(crate) fn new(head: &CallHead, now: Instant) -> Self {
        Self {
            caller: head.caller,
            procedure: head.procedure,
            version: head.version,
            context: head.context.clone(),
            copies: BTreeMap::new(),
            bodies: BTreeMap::new(),
            chosen: None,
            stage: Stage::Waits,
            acked: BTreeSet::new(),
            absent: BTreeSet::new(),
            done_at: now,
            probed_at: now,
            fence: head.caller.version,
            named: Version::SOLO,
            counted: 0,
            is_spare: false,
        }
    }

    /// Another replica of the client says this.
    pub(crate) fn hear(&mut self, from: BootId, head: &CallHead, arguments: &Bytes) -> u128 {
        let hash = hash(head, arguments);
        if self.copies.len() < crate::bindings::MEMBERS_MAX || self.copies.contains_key(&from) {
            self.copies.insert(from, hash);
        }
        if self.chosen.is_none() {
            self.bodies.entry(hash).or_insert_with(|| arguments.clone());
        }
        if head.caller.version > self.caller.version {
            self.caller = head.caller;
        }
        self.fence = self.fence.max(head.caller.version);
        hash
    }

    /// Whether it may begin, and with which arguments.
    pub(crate) fn choose(&self, begin: Begin, bindings: &Bindings) -> Choice {
        let binding = self.binding(bindings);
        if begin != Begin::First && binding.is_none() && self.caller.version != Version::SOLO {
            return Choice::Open;
        }
        let counts = |boot: &BootId| binding.is_none_or(|it| it.members.contains(boot));
        let copies = || self.copies.iter().filter(|(boot, _)| counts(boot)).map(|(_, hash)| hash);
        let count = copies().count();
        let is_due =
            |boot: &&BootId| self.copies.contains_key(*boot) || !self.absent.contains(*boot);
        let replicas = binding.map_or(count, |it| it.members.iter().filter(is_due).count());
        // All that have sent it may be gone: what they said stands.
        let first = copies().next().or_else(|| self.copies.values().next()).copied();
        let Some(first) = first else { return Choice::Open };
        match begin {
            Begin::First => Choice::Chosen(first),
            Begin::All if count < replicas => Choice::Open,
            Begin::All if copies().any(|it| *it != first) => Choice::NoAgreement,
            Begin::All => Choice::Chosen(first),
            Begin::Majority => {
                let votes = |hash: &u128| copies().filter(|it| *it == hash).count();
                let best = copies().max_by_key(|it| votes(it)).copied().unwrap_or(first);
                match votes(&best) {
                    most if most * 2 > replicas => Choice::Chosen(best),
                    most if (most + replicas - count) * 2 <= replicas => Choice::NoAgreement,
                    _ => Choice::Open,
                }
            }
        }
    }

    /// Whether all replicas of the client have the result, or have left.
    pub(crate) fn is_fetched(&self, bindings: &Bindings) -> bool {
        if self.caller.version == Version::SOLO {
            // The order may have brought it before its client has.
            return !self.acked.is_empty()
                && self.copies.keys().all(|boot| self.acked.contains(boot));
        }
        let all = |it: &Binding| it.members.iter().all(|boot| self.acked.contains(boot));
        self.binding(bindings).is_some_and(all)
    }

    /// Whether all replicas of the client that do not have the result are new members without a state.
    pub(crate) fn waits_for_new(&self, bindings: &Bindings) -> bool {
        let is_out = |boot: &BootId| self.acked.contains(boot) || self.absent.contains(boot);
        self.binding(bindings).is_some_and(|it| it.members.iter().all(is_out))
    }

    /// The troupe of clients, if it is one and is known at least as it was when it called.
    fn binding<'a>(&self, bindings: &'a Bindings) -> Option<&'a Binding> {
        let is_known = self.caller.version != Version::SOLO && bindings.knows(self.caller);
        bindings.get(self.caller.name).filter(|_| is_known)
    }

    /// Executed, and not yet for good, while none that has sent it is a member of the client any more.
    pub(crate) fn is_left(&self, bindings: &Bindings) -> bool {
        let is_member = |it: &Binding| it.members.iter().any(|boot| self.copies.contains_key(boot));
        matches!(self.stage, Stage::Held(..))
            && self.binding(bindings).is_some_and(|it| !is_member(it))
    }

    /// Who is to get the answer: those that have asked, and are members still.
    pub(crate) fn askers(&self, bindings: &Bindings) -> Vec<BootId> {
        let binding = self.binding(bindings);
        let counts = |boot: &&BootId| binding.is_none_or(|it| it.members.contains(boot));
        self.copies.keys().filter(counts).copied().collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        let result = match &self.stage {
            Stage::Held(_, answer) | Stage::Done(answer) => answer.len(),
            _ => 0,
        };
        256 + result + self.context.len() + self.bodies.values().map(Bytes::len).sum::<usize>()
    }
}

/// Of all that has to be equal in the copies of a call.
pub(crate) fn hash(head: &CallHead, arguments: &Bytes) -> u128 {
    let mut hash = Fingerprinter::new();
    hash.write_u64(head.procedure.0);
    hash.write_u16(head.version);
    hash.write_u64(arguments.len() as u64);
    hash.write(arguments);
    hash.write(&head.context);
    hash.finish128()
}
