//! The half of a server: the troupes that this node is a replica of, and the calls that came for them.

mod end;
mod order;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::{BootId, Instant};

use crate::api::{Counts, Execution, Finish, Sequence, Serving, Ticket};
use crate::bindings::{Bindings, MEMBERS_MAX};
use crate::join::{Giving, Seeking, Standing};
use crate::record::{Choice, Past, Record, Stage};
use crate::service::Turn;
use crate::wire::{CallHead, Item, Key, Kind};
use crate::{Answer, Event, Refusal, TroupeId, TroupeName, Version};

pub(crate) use order::Ordered;

/// So much waits for the state of a new member.
pub(crate) const HELD_MAX: usize = 65_536;
/// What came before the state has.
#[derive(Clone, Debug)]
pub(crate) enum Early {
    Call { from: BootId, named: Version, head: CallHead, arguments: Bytes },
    Ordered { position: u64, call: Bytes },
}

/// What is kept of the calls of one troupe of clients.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Load {
    pub(crate) records: u32,
    /// Of these with a result, and not kept for new members alone.
    pub(crate) done: u32,
    pub(crate) bytes: usize,
    /// Of these what is kept for new members alone.
    pub(crate) spare: usize,
}

/// A troupe that this node is, or becomes, a replica of.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) name: TroupeName,
    pub(crate) serving: Serving,
    pub(crate) standing: Standing,
    pub(crate) seeking: Seeking,
    /// The membership in which the troupe began with its first state.
    pub(crate) born: Version,
    pub(crate) records: BTreeMap<Key, Record>,
    /// What begins next, in this order.
    pub(crate) ready: VecDeque<Key>,
    /// Executions that have begun and do not count yet.
    pub(crate) busy: u32,
    pub(crate) load: BTreeMap<TroupeName, Load>,
    pub(crate) early: VecDeque<Early>,
    pub(crate) order: Ordered,
    pub(crate) giving: Giving,
    /// What was executed, and whose result is kept no longer.
    pub(crate) past: Past,
    /// Troupe commit: replicas of a client that are of an older membership decide nothing any more.
    pub(crate) fences: BTreeMap<TroupeName, Version>,
}

/// An execution that has begun.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) troupe: TroupeName,
    pub(crate) key: Key,
    /// The number of the last call that it has made.
    pub(crate) nested: u64,
}

/// All that this node serves.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) members: BTreeMap<TroupeName, Member>,
    pub(crate) runs: BTreeMap<Ticket, Run>,
    last: u64,
    /// Troupes that this node is a replica of no more, since it was last asked.
    pub(crate) left: Vec<TroupeName>,
    /// Troupes whose state is wanted of the user, since it was last asked.
    pub(crate) offers: Vec<TroupeName>,
    /// When records are looked through next, if there are any.
    tick: Option<Instant>,
    pub(crate) counts: Counts,
}

impl Server {
    pub(crate) fn new(tickets: u64) -> Self {
        let (members, runs) = (BTreeMap::new(), BTreeMap::new());
        Self {
            members,
            runs,
            last: tickets,
            left: Vec::new(),
            offers: Vec::new(),
            tick: None,
            counts: Counts::default(),
        }
    }

    /// A replica of a client calls.
    pub(crate) fn on_call(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        server: TroupeId,
        head: CallHead,
        arguments: Bytes,
    ) {
        let named = server.version;
        let Some(member) = self.members.get_mut(&server.name) else {
            let now = turn.bindings.get(server.name).cloned();
            let item = Item::Stale { server: server.name, key: head.key(), named, now };
            return turn.lines.say(from, item, Bytes::new());
        };
        let is_mine = head.caller.version != Version::SOLO
            || head.caller.name == TroupeName::solo(from)
                && turn.bindings.get(head.caller.name).is_none();
        let depth = head.id.path.len();
        if !is_mine || depth == 0 || depth > crate::ids::DEPTH_MAX {
            self.counts.dropped += 1;
            return;
        }
        if member.standing != Standing::Full {
            if member.early.len() < HELD_MAX {
                member.early.push_back(Early::Call { from, named, head, arguments });
            } else {
                self.counts.dropped += 1;
            }
            return;
        }
        let own = turn.bindings.version(server.name);
        if named < own && !mainstay_base::fault!(turn.config, IgnoresVersion) {
            self.counts.stale += 1;
            let now = turn.bindings.get(server.name).cloned();
            let item = Item::Stale { server: server.name, key: head.key(), named, now };
            return turn.lines.say(from, item, Bytes::new());
        }
        self.take(turn, from, server, head, arguments);
    }

    /// Takes a call in that names the troupe as it is.
    fn take(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        TroupeId { name, version: named }: TroupeId,
        head: CallHead,
        arguments: Bytes,
    ) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let key = head.key();
        let why = member.refuses(turn, from, &head, &arguments);
        if let Some(why) = why {
            self.counts.refused += 1;
            return answer(turn, name, from, &key, &Answer::Refused(why));
        }
        if let Some(record) = member.records.get_mut(&key) {
            if mainstay_base::fault!(turn.config, ExecutesCopies) {
                let execution = record.execution(Ticket(0), name, &key, arguments.clone());
                turn.lines.tell(Event::Execute(execution));
            }
            record.acked.remove(&from);
            let hash = record.hear(from, &head, &arguments);
            record.named = record.named.max(named);
            if record.chosen.is_some_and(|chosen| chosen != hash) {
                self.counts.differing += 1;
                return answer(turn, name, from, &key, &Answer::Refused(Refusal::Differs));
            }
            match &record.stage {
                Stage::Done(result) => {
                    self.counts.retained += 1;
                    return answer(turn, name, from, &key, result);
                }
                Stage::Held(..) => return report(turn, name, from, &key, record),
                _ => {}
            }
        } else {
            let mut record = Record::new(&head, turn.now);
            record.hear(from, &head, &arguments);
            record.named = named;
            record.fence = record.fence.max(member.fence(key.caller));
            member.insert(key.clone(), record);
        }
        member.recount(&key);
        self.consider(turn, name, &key);
        self.advance(turn, name);
    }

    /// Whether enough copies of a call have come for it to begin.
    fn consider(&mut self, turn: &mut Turn<'_>, name: TroupeName, key: &Key) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let begin = member.serving.begin;
        let Some(record) = member.records.get_mut(key) else { return };
        if record.stage != Stage::Waits {
            return;
        }
        match record.choose(begin, turn.bindings) {
            Choice::Open => {}
            Choice::NoAgreement => {
                let refused = Answer::Refused(Refusal::NoAgreement);
                self.done(turn, name, key, refused);
            }
            Choice::Chosen(hash) => {
                record.chosen = Some(hash);
                let is_cast = member.serving.sequence == Sequence::Cast;
                if is_cast && !mainstay_base::fault!(turn.config, BeginsUnordered) {
                    member.cast(turn, key);
                } else {
                    record.stage = Stage::Ready;
                    member.ready.push_back(key.clone());
                }
            }
        }
    }

    /// Begins what may begin.
    pub(crate) fn advance(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let mut skipped = VecDeque::new();
        while member.busy < member.serving.at_once && member.may_begin() {
            let Some(key) = member.ready.pop_front() else { break };
            let is_full = member.is_full_of(turn, key.caller);
            // In an order of all, what stands in front stands in front of all.
            let is_cast = member.serving.sequence == Sequence::Cast;
            if is_full && !is_cast {
                skipped.push_back(key);
                continue;
            }
            let Some(record) = member.records.get_mut(&key) else { continue };
            self.last += 1;
            let ticket = Ticket(self.last);
            let arguments = record.chosen.and_then(|it| record.bodies.get(&it).cloned());
            let execution = record.execution(ticket, name, &key, arguments.unwrap_or_default());
            record.stage = Stage::Running(ticket);
            member.busy += 1;
            member.giving.allowed = member.giving.allowed.saturating_sub(1);
            member.order.begins(&key);
            self.runs.insert(ticket, Run { troupe: name, key, nested: 0 });
            self.counts.executed += 1;
            turn.lines.tell(Event::Execute(execution));
        }
        while let Some(key) = skipped.pop_back() {
            member.ready.push_front(key);
        }
        self.offer(turn, name);
    }

    /// An execution has a result.
    pub(crate) fn on_finished(&mut self, turn: &mut Turn<'_>, ticket: Ticket, finish: Finish) {
        let Some(Run { troupe, key, .. }) = self.runs.remove(&ticket) else { return };
        let Some(member) = self.members.get_mut(&troupe) else { return };
        let most = turn.config.body_bytes_max;
        let result = match finish {
            Finish::Value(body) | Finish::Error(body) if body.len() > most => {
                Answer::Refused(Refusal::ResultTooLarge)
            }
            Finish::Value(body) => Answer::Value(body),
            Finish::Error(body) => Answer::Error(body),
            Finish::Refused(why) => Answer::Refused(why),
        };
        let Some(record) = member.records.get_mut(&key) else { return };
        if member.serving.sequence == Sequence::Commit {
            record.stage = Stage::Held(ticket, result);
            for asker in record.askers(turn.bindings) {
                report(turn, troupe, asker, &key, record);
            }
            return;
        }
        member.busy -= 1;
        self.done(turn, troupe, &key, result);
        self.advance(turn, troupe);
    }

    /// A call is over here: those that asked are told, and the result is kept for the others.
    fn done(&mut self, turn: &mut Turn<'_>, name: TroupeName, key: &Key, result: Answer) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let Some(record) = member.records.get_mut(key) else { return };
        let mut askers = record.askers(turn.bindings);
        if mainstay_base::fault!(turn.config, AnswersOne) {
            askers.truncate(1);
        }
        for asker in askers {
            answer(turn, name, asker, key, &result);
        }
        record.stage = Stage::Done(result);
        record.bodies.clear();
        (record.done_at, record.probed_at) = (turn.now, turn.now);
        member.load.entry(key.caller).or_default().done += 1;
        member.recount(key);
        self.release(turn, name, key);
    }

    /// The number of the next call that an execution makes, and who makes it.
    pub(crate) fn nest(&mut self, ticket: Ticket) -> Option<(TroupeName, crate::CallId, bool)> {
        let run = self.runs.get_mut(&ticket)?;
        run.nested += 1;
        let member = self.members.get(&run.troupe)?;
        let is_tentative = member.serving.sequence == Sequence::Commit;
        Some((run.troupe, run.key.id.nested(run.nested), is_tentative))
    }

    /// Of a call that a replica of this troupe may have made from within an execution: whether it needs no answer any more.
    pub(crate) fn is_past(&self, key: &Key) -> bool {
        let Some(parent) = key.id.parent() else { return false };
        let Some(member) = self.members.get(&key.caller) else { return true };
        let found = member.records.iter().find(|(it, _)| it.id == parent).map(|(_, it)| it);
        match found.map(|record| &record.stage) {
            Some(Stage::Done(_)) => true,
            Some(Stage::Running(ticket)) => {
                self.runs.get(ticket).is_some_and(|run| run.nested >= key.id.number())
            }
            Some(_) => false,
            None => member.past.contains(&parent),
        }
    }

    /// Whether this node is a new member, without a state.
    pub(crate) fn is_joining(&self, name: TroupeName) -> bool {
        self.members.get(&name).is_some_and(|it| it.standing != Standing::Full)
    }

    /// When the troupe began, if this node is a replica of it, with its state.
    pub(crate) fn born(&self, name: TroupeName) -> Option<Version> {
        self.members.get(&name).filter(|it| it.standing == Standing::Full).map(|it| it.born)
    }

    /// What this node is a replica of, or becomes one.
    pub(crate) fn names(&self) -> Vec<TroupeName> {
        self.members.keys().copied().collect()
    }

    /// Whether all that may be executed has been, and the results have been fetched. What waits for more replicas of its client may wait for ever, and what is kept
    /// for new members they have from others. These have their states as well.
    pub(crate) fn is_idle(&self, me: BootId, bindings: &Bindings) -> bool {
        let mut records = self.members.values().flat_map(|it| it.records.values());
        records.all(|it| it.stage == Stage::Waits || it.is_spare)
            && self.members.values().all(|it| it.is_handed_on(me, bindings))
    }

    /// How much is executed, and kept.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.runs.len(), self.members.values().map(|it| it.records.len()).sum())
    }

    /// Panics if something is not as it should be.
    pub(crate) fn check(&self) {
        for member in self.members.values() {
            let is = |stage: fn(&Stage) -> bool| {
                member.records.values().filter(|it| stage(&it.stage)).count()
            };
            let busy = is(|it| matches!(it, Stage::Running(_) | Stage::Held(..)));
            assert_eq!(busy, member.busy as usize, "what has begun is counted");
            assert!(member.busy <= member.serving.at_once, "executions are bounded");
            let ready: BTreeSet<&Key> = member.ready.iter().collect();
            assert_eq!(ready.len(), member.ready.len(), "nothing is to begin twice");
            assert_eq!(is(|it| *it == Stage::Ready), ready.len(), "what is ready begins");
            let bytes: usize = member.records.values().map(|it| it.counted).sum();
            assert_eq!(
                bytes,
                member.load.values().map(|it| it.bytes).sum::<usize>(),
                "bytes are counted"
            );
            let spare = member.records.values().filter(|it| it.is_spare).map(|it| it.counted);
            assert_eq!(
                spare.sum::<usize>(),
                member.load.values().map(|it| it.spare).sum::<usize>(),
                "what holds nothing up is counted"
            );
            let done = member.records.values().filter(|it| matches!(it.stage, Stage::Done(_)));
            assert_eq!(
                done.filter(|it| !it.is_spare).count(),
                member.load.values().map(|it| it.done as usize).sum::<usize>(),
                "what is done is counted"
            );
            let records: u32 = member.load.values().map(|it| it.records).sum();
            assert_eq!(records as usize, member.records.len(), "records are counted");
            assert!(member.early.len() <= HELD_MAX, "what waits is bounded");
            assert!(member.past.len() <= Past::MAX, "what is forgotten is bounded");
        }
    }
}

impl Member {
    pub(crate) fn new(name: TroupeName, serving: Serving) -> Self {
        Self {
            name,
            serving,
            standing: Standing::Joining,
            seeking: Seeking::default(),
            born: Version::SOLO,
            records: BTreeMap::new(),
            ready: VecDeque::new(),
            busy: 0,
            load: BTreeMap::new(),
            early: VecDeque::new(),
            order: Ordered::new(serving.from),
            giving: Giving::default(),
            past: Past::default(),
            fences: BTreeMap::new(),
        }
    }

    /// Why a call is not taken.
    fn refuses(
        &self,
        turn: &mut Turn<'_>,
        from: BootId,
        head: &CallHead,
        arguments: &Bytes,
    ) -> Option<Refusal> {
        let config = turn.config;
        if head.caller.version != Version::SOLO {
            let binding = turn.bindings.get(head.caller.name);
            let is_out = binding
                .is_some_and(|it| it.version >= head.caller.version && !it.members.contains(&from));
            if is_out {
                return Some(Refusal::NotMember);
            }
            if !turn.bindings.watch(turn.lines, head.caller.name) {
                return Some(Refusal::Busy);
            }
        }
        if arguments.len().saturating_add(head.context.len()) > config.body_bytes_max {
            return Some(Refusal::TooLarge);
        }
        let key = head.key();
        if self.records.contains_key(&key) {
            return None;
        }
        if self.past.contains(&key.id) || self.order.has(&key.id) {
            return Some(Refusal::Forgotten);
        }
        // Each replica of the client has no more than a window open.
        let open = config.window.saturating_mul(MEMBERS_MAX as u32);
        let most = config.retained_max.saturating_add(open);
        let is_full = match self.load.get(&head.caller.name) {
            Some(load) => load.records >= most || load.bytes / 2 > config.retained_bytes_max,
            None => self.load.len() >= config.troupes_max,
        };
        is_full.then_some(Refusal::Busy)
    }

    fn fence(&self, caller: TroupeName) -> Version {
        self.fences.get(&caller).copied().unwrap_or_default()
    }

    /// Another call of a client.
    fn insert(&mut self, key: Key, record: Record) {
        self.load.entry(key.caller).or_default().records += 1;
        self.records.insert(key, record);
    }

    /// A call has more bytes than before, or less.
    fn recount(&mut self, key: &Key) {
        let Some(record) = self.records.get_mut(key) else { return };
        let load = self.load.entry(key.caller).or_default();
        let bytes = record.bytes();
        load.bytes = load.bytes + bytes - record.counted;
        if record.is_spare {
            load.spare = load.spare + bytes - record.counted;
        }
        record.counted = bytes;
    }

    /// So much is kept of one caller that nothing more begins for it.
    fn is_full_of(&self, turn: &Turn<'_>, caller: TroupeName) -> bool {
        let config = turn.config;
        self.load.get(&caller).is_some_and(|load| {
            load.done >= config.retained_max || load.bytes - load.spare > config.retained_bytes_max
        })
    }
}

impl Record {
    fn execution(
        &self,
        ticket: Ticket,
        troupe: TroupeName,
        key: &Key,
        arguments: Bytes,
    ) -> Execution {
        Execution {
            ticket,
            troupe,
            caller: self.caller,
            id: key.id.clone(),
            procedure: self.procedure,
            version: self.version,
            arguments,
            context: self.context.clone(),
        }
    }
}

/// Tells a replica of the client how its call came out.
fn answer(turn: &mut Turn<'_>, server: TroupeName, to: BootId, key: &Key, answer: &Answer) {
    let (kind, body) = answer.parts();
    debug_assert!(body.is_empty() || !matches!(kind, Kind::Refused(_)));
    let item = Item::Answer { server, key: key.clone(), kind, len: body.len() as u32 };
    turn.lines.say(to, item, body);
}

/// Tells a replica of the client that its call was executed and does not count yet, or was not executed.
fn report(turn: &mut Turn<'_>, server: TroupeName, to: BootId, key: &Key, record: &Record) {
    let held = match &record.stage {
        Stage::Held(ticket, _) => Some(ticket.0),
        _ => None,
    };
    let item = Item::Ready { server, key: key.clone(), held, fence: record.fence };
    turn.lines.say(to, item, Bytes::new());
}
