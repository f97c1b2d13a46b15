//! How a node becomes a replica of a troupe, and how it is none any more.
//!
//! It registers with the binding agent first: from then on the troupe has another id, calls that name the old one are refused wherever that
//! is known, and clients send them again, to the new member as well. Then it asks an older member for its state. That one knows the new id
//! before it gives it, lets executions end, and begins none meanwhile. So a call is either in the state, or is sent to the new member.
//! The results that others have not fetched yet travel along.
//!
//! The oldest member may be without a state, if the one that had it gave it to a younger member and failed. So it asks all others, and begins anew when all
//! have said that they have none. Who has said so takes the state of the oldest one only.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use mainstay_base::{BootId, Instant, codec};

use crate::api::{Sequence, Serving};
use crate::bindings::Bindings;
use crate::luggage::{Carried, Luggage};
use crate::server::{Early, Member, Server};
use crate::service::Turn;
use crate::wire::Item;
use crate::{Binding, Event, TroupeName, Version};

/// New members that wait for one state at most.
const WANTS_MAX: usize = 64;

/// How far a member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// The binding agent has not answered.
    Joining,
    /// This older member is to give its state.
    Fetching {
        from: BootId,
    },
    /// The oldest member, without a state: each younger one is to give its state, or to say that it has none.
    Asking,
    /// The user takes the state in.
    Restoring,
    Full,
}

/// A member without a state.
#[derive(Clone, Default, Debug)]
pub(crate) struct Seeking {
    /// This older member was told that there is no state here, and no other one is to give one.
    pledged: Option<BootId>,
    /// Of the oldest member: those that have not said yet whether they have one.
    unheard: BTreeSet<BootId>,
    /// And whether there was one.
    is_lost: bool,
}

/// A member with a state that new ones want.
#[derive(Clone, Default, Debug)]
pub(crate) struct Giving {
    /// They, and up to where in the order the state has to be.
    wants: Vec<(BootId, u64)>,
    /// The user was asked for the state.
    is_asked: bool,
    /// So often the user was asked for it, and has not given it yet.
    unanswered: u32,
    /// When calls begin all the same, since what runs does not end; and how often they have.
    thaws_at: Option<Instant>,
    thaws: u32,
    /// So many may.
    pub(crate) allowed: usize,
    /// Other members that have said that they have the state.
    full: BTreeSet<BootId>,
}

/// The time until calls begin all the same doubles so many times.
const THAWS_MAX: u32 = 6;

impl Server {
    /// This node is to be a replica. False: it is one already, or of too many troupes.
    pub(crate) fn join(&mut self, turn: &mut Turn<'_>, name: TroupeName, serving: Serving) -> bool {
        let is_new = !self.members.contains_key(&name);
        if !is_new
            || self.members.len() >= turn.config.troupes_max
            || !turn.bindings.watch(turn.lines, name)
        {
            return false;
        }
        self.members.insert(name, Member::new(name, serving));
        turn.bindings.ask(turn.lines, Item::Join { name });
        true
    }

    /// The binding agent is there, perhaps for the first time, perhaps without its memory.
    pub(crate) fn on_binder(&mut self, turn: &mut Turn<'_>) {
        let me = turn.lines.me();
        for (name, member) in &self.members {
            let known = turn.bindings.get(*name).filter(|it| it.members.contains(&me)).cloned();
            match known {
                Some(binding) => {
                    turn.bindings.ask(turn.lines, Item::Known { name: *name, binding })
                }
                None if member.standing == Standing::Joining => {
                    turn.bindings.ask(turn.lines, Item::Join { name: *name });
                }
                None => {}
            }
        }
    }

    /// This node is no replica any more, by its own will.
    pub(crate) fn leave(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        if self.members.contains_key(&name) {
            turn.bindings.ask(turn.lines, Item::Leave { name });
            self.forget(turn, name);
        }
    }

    /// Everything of the troupe at this node is void.
    fn forget(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        self.members.remove(&name);
        self.runs.retain(|_, run| run.troupe != name);
        self.left.push(name);
        turn.lines.tell(Event::Left { troupe: name });
    }

    /// A troupe of this node has changed.
    pub(crate) fn on_own_binding(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let me = turn.lines.me();
        let Some(member) = self.members.get_mut(&name) else { return };
        let Some(binding) = turn.bindings.get(name).cloned() else { return };
        if !binding.members.contains(&me) {
            // Before the binding agent has heard of it, that is how it should be.
            if member.standing != Standing::Joining {
                self.forget(turn, name);
            }
            return;
        }
        member.giving.wants.retain(|(boot, _)| binding.members.contains(boot));
        member.giving.full.retain(|boot| binding.members.contains(boot));
        member.giving.is_asked &= member.gives();
        let is_lost = match member.standing {
            Standing::Joining => false,
            // One that has left and joined again stands behind: it has no state, and waits for this one.
            Standing::Fetching { from } if binding.is_before(from, me) => return,
            Standing::Fetching { .. } => true,
            // Others may have come meanwhile, with the state of one that is gone.
            Standing::Asking => member.seeking.is_lost,
            Standing::Restoring => return,
            Standing::Full => {
                self.refuse_stale(turn, name);
                if let Some(member) = self.members.get_mut(&name) {
                    // It may be the oldest now.
                    member.cast_all(turn, false);
                }
                return self.advance(turn, name);
            }
        };
        self.fetch(turn, name, &binding, is_lost);
    }

    /// Asks an older member for its state. The oldest one asks all others: a younger one may have got the state of a member that is gone.
    fn fetch(&mut self, turn: &mut Turn<'_>, name: TroupeName, binding: &Binding, is_lost: bool) {
        let me = turn.lines.me();
        let Some(member) = self.members.get_mut(&name) else { return };
        if mainstay_base::fault!(turn.config, JoinsEmpty) {
            return self.begin_anew(turn, name, binding.version, is_lost);
        }
        let older = || binding.members.iter().take_while(|it| **it != me);
        let donor = older().find(|it| turn.lines.is_up(**it)).or_else(|| older().next());
        if let Some(from) = donor.copied() {
            member.standing = Standing::Fetching { from };
            return member.want(turn, from, binding);
        }
        let younger: BTreeSet<BootId> =
            binding.members.iter().filter(|it| **it != me).copied().collect();
        if younger.is_empty() || mainstay_base::fault!(turn.config, AsksOlder) {
            return self.begin_anew(turn, name, binding.version, is_lost);
        }
        (member.standing, member.seeking.is_lost) = (Standing::Asking, is_lost);
        for boot in &younger {
            member.want(turn, *boot, binding);
        }
        member.seeking.unheard = younger;
    }

    /// No member has a state: the troupe begins here.
    fn begin_anew(&mut self, turn: &mut Turn<'_>, name: TroupeName, born: Version, is_lost: bool) {
        let Some(member) = self.members.get_mut(&name) else { return };
        (member.standing, member.born) = (Standing::Full, born);
        turn.lines.tell(Event::Joined { troupe: name, is_first: true, is_lost });
        member.say_full(turn);
        self.go(turn, name);
    }

    /// A younger member has no state, and will take that of this one only.
    pub(crate) fn on_stateless(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        name: TroupeName,
        version: Version,
    ) {
        let current = turn.bindings.version(name);
        let Some(member) = self.members.get_mut(&name) else { return };
        // Of a membership that this node does not know yet, or knows no more: all are asked again in that.
        if member.standing != Standing::Asking || version != current {
            return;
        }
        member.seeking.unheard.remove(&from);
        if member.seeking.unheard.is_empty() {
            let is_lost = member.seeking.is_lost;
            self.begin_anew(turn, name, version, is_lost);
        }
    }

    /// Connections have changed. Where the one that is to give its state is not connected, and this node is not bound to it, another one may have a state as well.
    pub(crate) fn on_connections(&mut self, turn: &mut Turn<'_>) {
        let waits = |it: &Member| match it.standing {
            Standing::Fetching { from } => {
                !turn.lines.is_up(from) && it.seeking.pledged != Some(from)
            }
            _ => false,
        };
        let names: Vec<TroupeName> =
            self.members.iter().filter(|(_, it)| waits(it)).map(|(name, _)| *name).collect();
        for name in names {
            let Some(binding) = turn.bindings.get(name).cloned() else { continue };
            let me = turn.lines.me();
            let mut older = binding.members.iter().take_while(|it| **it != me);
            if older.any(|it| turn.lines.is_up(*it)) {
                self.fetch(turn, name, &binding, false);
            }
        }
    }

    /// A new member wants the state.
    pub(crate) fn on_want_state(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        name: TroupeName,
        binding: Binding,
        after: u64,
    ) {
        turn.bindings.learn(name, binding);
        let Some(member) = self.members.get_mut(&name) else { return };
        member.pledge(turn, from);
        // It may be a member that was taken out and has joined again: two bindings that came as one.
        if !mainstay_base::fault!(turn.config, RemembersFull) {
            member.giving.full.remove(&from);
        }
        if member.giving.wants.len() < WANTS_MAX
            && member.giving.wants.iter().all(|(boot, _)| *boot != from)
        {
            member.giving.wants.push((from, after));
        }
        // If it has news for this node, those are looked at first.
        self.advance(turn, name);
    }

    /// Asks the user for the state, if it may be given now.
    pub(crate) fn offer(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let is_quiet = member.busy == 0 || mainstay_base::fault!(turn.config, GivesBusy);
        // News of this troupe that were not looked at yet may make calls stale.
        let is_due = member.gives() && !turn.bindings.news.contains(&name);
        if is_quiet && !member.giving.is_asked && is_due {
            member.giving.is_asked = true;
            member.giving.unanswered = member.giving.unanswered.saturating_add(1);
            self.offers.push(name);
        }
    }

    /// Whether a state that the user gives now is the one that was asked for last. One that was asked for by members that have gone since is too old.
    pub(crate) fn is_given(&mut self, name: TroupeName) -> bool {
        let Some(member) = self.members.get_mut(&name).filter(|it| it.giving.unanswered > 0) else {
            return false;
        };
        member.giving.unanswered -= 1;
        member.giving.unanswered == 0 && std::mem::take(&mut member.giving.is_asked)
    }

    /// What runs may wait for a nested call that begins when all replicas of this troupe have made it ([`Begin`](crate::Begin)). If two of them are to give
    /// their states they wait for each other: after a time what is ready begins all the same.
    pub(crate) fn thaw(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let waits = member.gives() && !member.giving.is_asked && member.busy > 0;
        let giving = &mut member.giving;
        if !waits || mainstay_base::fault!(turn.config, StaysFrozen) {
            (giving.thaws_at, giving.thaws, giving.allowed) = (None, 0, 0);
            return;
        }
        let at = *giving.thaws_at.get_or_insert(turn.now + turn.config.probe);
        if at <= turn.now {
            // Each time later, so that executions that are long come to an end as well.
            giving.thaws = (giving.thaws + 1).min(THAWS_MAX);
            let wait = turn.config.probe.saturating_mul(1 << giving.thaws);
            giving.thaws_at = Some(turn.now + wait);
            giving.allowed = member.ready.len();
            self.advance(turn, name);
        }
    }

    /// The user gives the state. `None`: there is none to be had.
    pub(crate) fn on_given(
        &mut self,
        turn: &mut Turn<'_>,
        name: TroupeName,
        state: Option<Bytes>,
        carried: Vec<Carried>,
    ) {
        let most = turn.config.body_bytes_max;
        let Some(member) = self.members.get_mut(&name) else { return };
        // Others hear the order from a later place on: they wait until the state has come as far.
        let gives_all = mainstay_base::fault!(turn.config, GivesEarly);
        let (wants, later) = std::mem::take(&mut member.giving.wants)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, after)| gives_all || member.reaches(*after));
        member.giving.wants = later;
        if let Some(state) = state.filter(|it| it.len() <= most) {
            let (luggage, results) = member.pack(turn, carried);
            let mut body = BytesMut::with_capacity(luggage.len() + results.len() + state.len());
            body.extend_from_slice(&luggage);
            body.extend_from_slice(&results);
            body.extend_from_slice(&state);
            let body = body.freeze();
            for (boot, _) in wants {
                let (luggage, len) = (luggage.len() as u32, body.len() as u32);
                turn.lines.say(boot, Item::State { name, luggage, len }, body.clone());
            }
        } else {
            self.counts.refused += 1;
        }
        self.advance(turn, name);
    }

    /// The state of an older member has come.
    pub(crate) fn on_state(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        name: TroupeName,
        luggage: u32,
        mut body: Bytes,
    ) -> Vec<Carried> {
        let Some(member) = self.members.get_mut(&name) else { return Vec::new() };
        let is_asked = match member.standing {
            Standing::Fetching { from: donor } => donor == from,
            Standing::Asking => member.seeking.unheard.contains(&from),
            _ => false,
        };
        let read = |bytes: Bytes| codec::decode::<Luggage>(&bytes).ok();
        let head = (is_asked && luggage as usize <= body.len())
            .then(|| body.split_to(luggage as usize))
            .and_then(read);
        let Some(head) = head.filter(|head| head.fits(body.len())) else {
            self.counts.dropped += 1;
            return Vec::new();
        };
        let carried = member.unpack(turn, head, &mut body);
        member.standing = Standing::Restoring;
        turn.lines.tell(Event::Restore { troupe: name, state: body });
        carried
    }

    /// The user has taken the state in.
    pub(crate) fn on_restored(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let Some(member) = self.members.get_mut(&name) else { return };
        if member.standing == Standing::Restoring {
            member.standing = Standing::Full;
            turn.lines.tell(Event::Joined { troupe: name, is_first: false, is_lost: false });
            member.say_full(turn);
            self.go(turn, name);
        }
    }

    /// Another member has the state: this one may leave without handing its own over.
    pub(crate) fn on_full(
        &mut self,
        turn: &mut Turn<'_>,
        from: BootId,
        name: TroupeName,
        binding: Binding,
        asks: bool,
    ) {
        turn.bindings.learn(name, binding);
        let Some(member) = self.members.get_mut(&name) else { return };
        let Some(binding) = turn.bindings.get(name).filter(|it| it.members.contains(&from)) else {
            return;
        };
        member.giving.full.insert(from);
        if asks && member.standing == Standing::Full {
            let item = Item::Full { name, binding: binding.clone(), asks: false };
            turn.lines.say(from, item, Bytes::new());
        }
    }

    /// Takes in what came before.
    fn go(&mut self, turn: &mut Turn<'_>, name: TroupeName) {
        let early = self.members.get_mut(&name).map(|it| std::mem::take(&mut it.early));
        for it in early.unwrap_or_default() {
            match it {
                Early::Call { from, named, head, arguments } => {
                    let server = crate::TroupeId { name, version: named };
                    self.on_call(turn, from, server, head, arguments);
                }
                Early::Ordered { position, call } => self.on_ordered(turn, name, position, call),
            }
        }
        self.advance(turn, name);
    }
}

impl Member {
    /// Tells all other members that this one has the state, and asks them.
    fn say_full(&self, turn: &mut Turn<'_>) {
        let Some(binding) = turn.bindings.get(self.name).cloned() else { return };
        let me = turn.lines.me();
        for boot in binding.members.iter().filter(|it| **it != me) {
            let item = Item::Full { name: self.name, binding: binding.clone(), asks: true };
            turn.lines.say(*boot, item, Bytes::new());
        }
    }

    /// Whether nothing is lost when this member leaves: all others have the state, or an older one has it. That one waits for the
    /// rest if it leaves too.
    pub(crate) fn is_handed_on(&self, me: BootId, bindings: &Bindings) -> bool {
        let Some(binding) = bindings.get(self.name) else { return true };
        let has_it = |it: &BootId| self.giving.full.contains(it);
        let mut older = binding.members.iter().take_while(|it| **it != me);
        self.standing != Standing::Full
            || older.any(has_it)
            || binding.members.iter().all(|it| *it == me || has_it(it))
    }

    fn want(&self, turn: &mut Turn<'_>, from: BootId, binding: &Binding) {
        let (name, binding, after) = (self.name, binding.clone(), self.serving.from);
        turn.lines.say(from, Item::WantState { name, binding, after }, Bytes::new());
    }

    /// An older member asks this one, which may have no state. It says so, and from then on takes the state of no other member: the older one begins
    /// anew when all have said so, and nobody may have a state then.
    fn pledge(&mut self, turn: &mut Turn<'_>, from: BootId) {
        let me = turn.lines.me();
        let Some(binding) = turn.bindings.get(self.name).cloned() else { return };
        let is_older = binding.is_before(from, me);
        let is_member = binding.members.contains(&me);
        let has_state = matches!(self.standing, Standing::Restoring | Standing::Full);
        if has_state || !is_older || !is_member {
            return;
        }
        self.seeking.pledged = Some(from);
        let item = Item::Stateless { name: self.name, version: binding.version };
        turn.lines.say(from, item, Bytes::new());
        if self.standing != (Standing::Fetching { from }) {
            self.standing = Standing::Fetching { from };
            self.want(turn, from, &binding);
        }
    }

    /// Whether the state is as of this place of the order, or a later one: a new member hears what comes behind.
    fn reaches(&self, after: u64) -> bool {
        self.serving.sequence != Sequence::Cast || self.order.position() >= after
    }

    /// A new member wants the state as it is now.
    fn gives(&self) -> bool {
        self.standing == Standing::Full
            && self.giving.wants.iter().any(|(_, after)| self.reaches(*after))
    }

    /// Nothing begins until the state was given, but what has to for that.
    pub(crate) fn may_begin(&self) -> bool {
        !self.giving.is_asked && (!self.gives() || self.giving.allowed > 0)
    }
}
