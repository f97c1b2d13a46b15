//! The half of a client: calls on their way to all replicas of a server, and what their answers come to.

mod commit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay_base::{BootId, Instant, Rng};

use crate::api::Request;
use crate::bindings::Bindings;
use crate::collate::{Collator, Verdict, collate};
use crate::luggage::Carried;
use crate::service::Turn;
use crate::wire::{CallHead, Item, Key, Kind};
use crate::{
    Answer, CallId, Config, Event, Failure, Outcome, Reason, Refusal, TroupeId, TroupeName, Version,
};

use commit::Committing;

/// Who makes a call, and as what.
pub(crate) struct Maker {
    pub(crate) caller: TroupeName,
    pub(crate) id: CallId,
}

/// What one replica of the server has of a call.
#[derive(Clone, Debug)]
struct Slot {
    /// The membership that it was sent for.
    version: Version,
    is_answered: bool,
    /// Troupe commit: what it said last.
    report: Option<commit::Report>,
    /// The last execution there that was decided on; those after it have greater numbers.
    decided: u64,
    /// And how.
    counts: bool,
}

/// A call that some replica of the server has not answered.
#[derive(Clone, Debug)]
struct Call {
    /// Who is to be told. `None`: an older replica has made it.
    token: Option<u64>,
    server: TroupeName,
    key: Key,
    head: CallHead,
    arguments: Bytes,
    collator: Collator,
    slots: BTreeMap<BootId, Slot>,
    /// In the order in which they came.
    answers: Vec<(BootId, Answer)>,
    deadline: Instant,
    /// The caller has been told.
    is_over: bool,
    is_sent: bool,
    commit: Option<Committing>,
}

/// The calls to one troupe.
#[derive(Clone, Default, Debug)]
struct Target {
    /// Sent, and not answered by all.
    open: BTreeSet<u64>,
    waits: VecDeque<u64>,
}

/// All calls of this node.
#[derive(Clone)]
pub(crate) struct Calls {
    me: BootId,
    calls: BTreeMap<u64, Call>,
    by_key: BTreeMap<Key, u64>,
    targets: BTreeMap<TroupeName, Target>,
    /// What was open when the state of a troupe of this node was asked for last. A call that ends before that is given is among them: the state
    /// does not have its outcome, and a new member goes on with all that came after it.
    marked: BTreeMap<TroupeName, Vec<Carried>>,
    /// The greatest number of each thread.
    threads: BTreeMap<(TroupeName, u64), u64>,
    /// Deadlines, and the patience of those that wait for all to commit.
    timers: BTreeSet<(Instant, u64)>,
    last: u64,
    rng: Rng,
    /// Calls that were sent again since their troupe had changed (RPC-46).
    pub(crate) rebound: u64,
}

impl Calls {
    pub(crate) fn new(me: BootId, seed: u64) -> Self {
        Self {
            me,
            calls: BTreeMap::new(),
            by_key: BTreeMap::new(),
            targets: BTreeMap::new(),
            marked: BTreeMap::new(),
            threads: BTreeMap::new(),
            timers: BTreeSet::new(),
            last: 0,
            rng: Rng::new(seed).stream("calls"),
            rebound: 0,
        }
    }

    /// Somebody calls. It was checked who may.
    pub(crate) fn call(
        &mut self,
        turn: &mut Turn<'_>,
        request: Request,
        maker: Result<Maker, Reason>,
    ) {
        let token = request.token;
        let made = maker.and_then(|maker| self.admit(turn, request, maker));
        match made {
            // It is on its way already.
            Ok(None) => {}
            Ok(Some((number, server))) => {
                let target = self.targets.entry(server).or_default();
                target.waits.push_back(number);
                self.issue(turn, server);
            }
            Err(reason) => {
                let outcome = Outcome::Failed(Failure::not_at_all(reason));
                turn.lines.tell(Event::Over { token, outcome });
            }
        }
    }

    fn admit(
        &mut self,
        turn: &mut Turn<'_>,
        request: Request,
        maker: Maker,
    ) -> Result<Option<(u64, TroupeName)>, Reason> {
        let key = Key { caller: maker.caller, id: maker.id };
        let config = turn.config;
        if key.id.path.len() > crate::ids::DEPTH_MAX {
            return Err(Reason::TooDeep);
        }
        if request.arguments.len().saturating_add(request.context.len()) > config.body_bytes_max {
            return Err(Reason::TooLarge);
        }
        if let Some(number) = self.by_key.get(&key).copied() {
            return self.attach(turn, number, &request);
        }
        let thread = (key.caller, key.id.thread);
        let is_root = key.id.path.len() == 1;
        let is_full = self.calls.len() >= config.calls_max
            || is_root
                && !self.threads.contains_key(&thread)
                && self.threads.len() >= config.calls_max;
        if is_full || !turn.bindings.watch(turn.lines, request.server) {
            return Err(Reason::Full);
        }
        if is_root {
            let greatest = self.threads.entry(thread).or_default();
            if *greatest >= key.id.number() {
                return Err(Reason::Twice);
            }
            *greatest = key.id.number();
        }
        let deadline = turn.now + request.deadline.min(config.deadline_max);
        let caller = TroupeId { name: key.caller, version: turn.bindings.version(key.caller) };
        let head = CallHead {
            id: key.id.clone(),
            caller,
            procedure: request.procedure,
            version: request.version,
            context: request.context,
        };
        self.last += 1;
        let (number, server) = (self.last, request.server);
        self.timers.insert((deadline, number));
        self.by_key.insert(key.clone(), number);
        let call = Call {
            token: Some(request.token),
            server,
            key,
            head,
            arguments: request.arguments,
            collator: request.collator,
            slots: BTreeMap::new(),
            answers: Vec::new(),
            deadline,
            is_over: false,
            is_sent: false,
            commit: None,
        };
        self.calls.insert(number, call);
        Ok(Some((number, server)))
    }

    /// The user makes a call that an older replica has made, and this one has gone on with.
    fn attach(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        request: &Request,
    ) -> Result<Option<(u64, TroupeName)>, Reason> {
        let call = self.calls.get_mut(&number).filter(|it| it.token.is_none() && !it.is_over);
        let Some(call) = call.filter(|it| it.server == request.server) else {
            return Err(Reason::Twice);
        };
        (call.token, call.collator) = (Some(request.token), request.collator);
        self.timers.remove(&(call.deadline, number));
        call.deadline = turn.now + request.deadline.min(turn.config.deadline_max);
        self.timers.insert((call.deadline, number));
        if call.collator == Collator::Each {
            let (token, replicas) = (request.token, call.slots.len());
            for (from, answer) in call.answers.clone() {
                turn.lines.tell(Event::Answer { token, from, answer, replicas });
            }
        }
        self.decide(turn, number);
        Ok(None)
    }

    /// Sends what waits for a troupe, as far as its window goes.
    fn issue(&mut self, turn: &mut Turn<'_>, server: TroupeName) {
        loop {
            let is_bound = turn.bindings.get(server).is_some_and(|it| !it.members.is_empty());
            let Some(target) = self.targets.get_mut(&server).filter(|_| is_bound) else { return };
            if target.open.len() >= turn.config.window as usize {
                return;
            }
            let Some(number) = target.waits.pop_front() else { return };
            target.open.insert(number);
            self.spread(turn, number);
        }
    }

    /// Sends a call to all members that do not have it, or had it as another troupe.
    fn spread(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let Some(binding) = turn.bindings.get(call.server).cloned() else { return };
        call.slots.retain(|boot, slot| slot.is_answered || binding.members.contains(boot));
        let calls_one = mainstay_base::fault!(turn.config, CallsOne);
        let mut again = false;
        for member in binding.members.iter().take(if calls_one { 1 } else { usize::MAX }) {
            let slot = call.slots.get(member);
            let is_due = slot.is_none_or(|it| !it.is_answered && it.version < binding.version);
            if !is_due || slot.is_some() && mainstay_base::fault!(turn.config, NeverRebinds) {
                continue;
            }
            again |= call.is_sent;
            let (decided, counts) = slot.map_or((0, false), |it| (it.decided, it.counts));
            let (version, is_answered, report) = (binding.version, false, None);
            let slot = Slot { version, is_answered, report, decided, counts };
            call.slots.insert(*member, slot);
            let mut head = call.head.clone();
            head.caller.version = turn.bindings.version(head.caller.name);
            let server = TroupeId { name: call.server, version: binding.version };
            let len = call.arguments.len() as u32;
            let item = Item::Call { server, call: head, len };
            turn.lines.say(*member, item, call.arguments.clone());
        }
        call.is_sent = true;
        self.rebound += u64::from(again);
    }

    /// A troupe has changed: what is on its way to it, and what waits for it.
    pub(crate) fn on_binding(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let open = self.targets.get(&name).map(|it| it.open.clone()).unwrap_or_default();
        for number in &open {
            self.spread(turn, *number);
            if mainstay_base::fault!(turn.config, SendsNextFirst) {
                self.decide(turn, *number);
            }
        }
        // All are sent again before one that is over makes room for the next: servers hear them in their order.
        for number in open {
            self.decide(turn, number);
        }
        self.issue(turn, name);
        self.on_caller(turn, name);
    }

    /// A server has an answer.
    pub(crate) fn on_answer(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        server: TroupeName,
        key: Key,
        (kind, body): (Kind, Bytes),
    ) {
        let number = self.by_key.get(&key).copied();
        let call = number.and_then(|number| self.calls.get_mut(&number));
        let call = call.filter(|it| it.server == server);
        let Some(call) = call else {
            // It is over here; the server need not keep it.
            return turn.acknowledge(from, server, key);
        };
        let Some(slot) = call.slots.get_mut(&from).filter(|slot| !slot.is_answered) else { return };
        slot.is_answered = true;
        let answer = Answer::new(kind, body);
        call.answers.push((from, answer.clone()));
        if let Some(token) = call.token.filter(|_| call.collator == Collator::Each && !call.is_over)
        {
            let replicas = call.slots.len();
            turn.lines.tell(Event::Answer { token, from, answer, replicas });
        } else if call.is_over {
            // Nobody looks at it again: that it came is enough.
            call.answers.last_mut().into_iter().for_each(|it| {
                it.1 = Answer::Refused(Refusal::Forgotten);
            });
        }
        if let Some(number) = number {
            self.settle_commit(turn, number);
            self.decide(turn, number);
        }
    }

    /// Tells the caller what the answers come to, and closes the call when all have come.
    fn decide(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let binding = turn.bindings.get(call.server);
        let is_known = binding.is_some_and(|it| !it.members.is_empty());
        let is_settled =
            is_known && !call.slots.is_empty() && call.slots.values().all(|it| it.is_answered);
        if let Some(token) = call.token.filter(|_| !call.is_over) {
            let mut collator = call.collator;
            if mainstay_base::fault!(turn.config, TakesFirst) {
                collator = Collator::First;
            }
            let waits = mainstay_base::fault!(turn.config, WaitsForAll) && !is_settled;
            let verdict = collate(collator, &call.answers, call.slots.len()).filter(|_| !waits);
            if let Some(verdict) = verdict {
                let outcome = outcome(verdict);
                (call.is_over, call.answers) = (true, call.answers.iter().map(void).collect());
                turn.lines.tell(Event::Over { token, outcome });
            }
        }
        let stops = mainstay_base::fault!(turn.config, StopsAtOutcome) && call.is_over;
        if is_settled && call.is_over || stops {
            self.close(turn, number);
        }
    }

    /// The call is over for everybody.
    fn close(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(call) = self.calls.remove(&number) else { return };
        call.release(turn);
        self.by_key.remove(&call.key);
        self.timers.remove(&(call.deadline, number));
        if let Some(commit) = &call.commit {
            self.timers.remove(&(commit.until, number));
        }
        if let Some(target) = self.targets.get_mut(&call.server) {
            target.open.remove(&number);
            target.waits.retain(|it| *it != number);
            if target.open.is_empty() && target.waits.is_empty() {
                self.targets.remove(&call.server);
            }
        }
        self.issue(turn, call.server);
    }

    fn fail(&mut self, turn: &mut Turn<'_>, number: u64, reason: Reason) {
        let Some(call) = self.calls.get_mut(&number).filter(|call| !call.is_over) else { return };
        call.is_over = true;
        let failure = match call.is_sent {
            true => Failure::unknown(reason),
            false => Failure::not_at_all(reason),
        };
        if let Some(token) = call.token {
            turn.lines.tell(Event::Over { token, outcome: Outcome::Failed(failure) });
        }
    }

    /// The state of a troupe of this node is asked for: it has the outcomes that were told by now.
    pub(crate) fn mark(&mut self, caller: TroupeName) {
        let of = self.calls.values().filter(|it| it.key.caller == caller);
        let carry =
            |it: &Call| Carried::new(it.head.clone(), it.server, it.is_over, it.arguments.clone());
        self.marked.insert(caller, of.map(carry).collect());
    }

    /// What a new member with that state goes on with.
    pub(crate) fn carried(&mut self, config: &Config, caller: TroupeName) -> Vec<Carried> {
        let mut carried = self.marked.remove(&caller).unwrap_or_default();
        if mainstay_base::fault!(config, CarriesOpen) {
            carried.retain(|it| self.by_key.contains_key(&it.head.key()));
        }
        carried
    }

    /// Goes on with calls of an older replica. Those whose outcomes are not in its state the user makes again.
    pub(crate) fn adopt(&mut self, turn: &mut Turn<'_>, carried: Vec<Carried>) {
        for Carried { head, server, is_over, arguments, .. } in carried {
            let request = Request {
                token: 0,
                caller: None,
                thread: head.id.thread,
                number: 0,
                server,
                procedure: head.procedure,
                version: head.version,
                arguments,
                collator: Collator::First,
                deadline: turn.config.deadline_max,
                parent: None,
                context: head.context,
            };
            let maker = Maker { caller: head.caller.name, id: head.id };
            if let Ok(Some((number, server))) = self.admit(turn, request, maker) {
                if let Some(call) = self.calls.get_mut(&number) {
                    (call.token, call.is_over) = (None, is_over);
                }
                self.targets.entry(server).or_default().waits.push_back(number);
                self.issue(turn, server);
            }
        }
    }

    /// This node is no replica of the troupe any more: what it called as one is over.
    pub(crate) fn on_evicted(&mut self, turn: &mut Turn<'_>, caller: TroupeName) {
        let of = self.calls.iter().filter(|(_, call)| call.key.caller == caller);
        let numbers: Vec<u64> = of.map(|(number, _)| *number).collect();
        for number in numbers {
            self.fail(turn, number, Reason::NotMember);
            self.close(turn, number);
        }
        self.threads.retain(|(of, _), _| *of != caller);
        self.marked.remove(&caller);
    }

    /// Whether the call was made here and needs no answer any more. `None`: it was not made here.
    pub(crate) fn is_over(&self, key: &Key) -> Option<bool> {
        if self.by_key.contains_key(key) {
            return Some(false);
        }
        let greatest = self.threads.get(&(key.caller, key.id.thread))?;
        (key.id.path.len() == 1).then(|| *greatest >= key.id.number())
    }

    pub(crate) fn on_time(&mut self, turn: &mut Turn<'_>) {
        while let Some((at, number)) = self.timers.first().copied().filter(|it| it.0 <= turn.now) {
            self.timers.remove(&(at, number));
            let Some(call) = self.calls.get(&number) else { continue };
            if call.commit.as_ref().is_some_and(|it| it.until == at) {
                self.lose_patience(turn, number);
                continue;
            }
            let is_sent = call.is_sent;
            let reason = if is_sent { Reason::Deadline } else { Reason::NotBound };
            self.fail(turn, number, reason);
            if !is_sent {
                self.close(turn, number);
            }
        }
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Panics if something is not as it should be.
    pub(crate) fn check(&self, bindings: &Bindings, window: u32) {
        assert_eq!(self.calls.len(), self.by_key.len(), "each call has a name");
        for (name, target) in &self.targets {
            assert!(target.open.len() <= window as usize, "the window is kept");
            assert!(
                target.open.is_empty() || bindings.get(*name).is_some(),
                "what is sent went to somebody"
            );
            let all = target.open.iter().chain(&target.waits);
            assert!(all.clone().all(|it| self.calls.contains_key(it)), "what is counted is open");
        }
    }
}

impl Call {
    /// Servers need not keep the result any more. Not before the caller was told: a replica that begins with the state of this one asks again for what
    /// is not in that. And not before all servers have answered: one that has joined gets the result with the state of another one, or
    /// would execute the call on top of a state that has it.
    fn release(&self, turn: &mut Turn<'_>) {
        for (boot, _) in self.slots.iter().filter(|(_, slot)| slot.is_answered) {
            turn.acknowledge(*boot, self.server, self.key.clone());
        }
    }
}

/// An answer that nobody looks at again.
fn void((from, _): &(BootId, Answer)) -> (BootId, Answer) {
    (*from, Answer::Refused(Refusal::Forgotten))
}

fn outcome(verdict: Verdict) -> Outcome {
    let reason = match verdict {
        Verdict::Is(Answer::Value(value)) => return Outcome::Done(value),
        Verdict::Is(Answer::Error(error)) => return Outcome::Remote(error),
        Verdict::Complete => return Outcome::Complete,
        Verdict::Is(Answer::Refused(why)) | Verdict::Refused(why) => Reason::Refused(why),
        Verdict::Differ => Reason::Differ,
        Verdict::NoMajority => Reason::NoMajority,
    };
    let is_not_begun = matches!(
        reason,
        Reason::Refused(
            Refusal::Procedure
                | Refusal::Version
                | Refusal::Arguments
                | Refusal::TooLarge
                | Refusal::Busy
                | Refusal::NoAgreement
        )
    );
    Outcome::Failed(match is_not_begun {
        true => Failure::not_at_all(reason),
        false => Failure::unknown(reason),
    })
}
