//! The model: three sites, FIFO channels in place of the link, silence and faults as free steps.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash as _;
use std::rc::Rc;

use mainstay_base::{BootId, Fingerprinter, GroupId};
use mainstay_sim::Model;

use super::site::{Act, Effect, Fact, SITES, Setup, Sites, Stand, is_settled};

/// The word that the channel is open; all other numbers in a channel are packets.
const UP: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Deliver {
        from: usize,
        to: usize,
    },
    Write(usize),
    Timeout(usize),
    /// Site, group.
    Cast(usize, usize),
    Crash(usize),
    Restart(usize),
    /// `by` hears no more of `whom`: the link says so when the connection has ended, and nothing comes behind that.
    Suspect {
        by: usize,
        whom: usize,
    },
    /// What one had on the way is lost who is dead.
    Lose {
        from: usize,
        to: usize,
    },
}

/// What is known of all by all that was seen anywhere. The order in which it was seen leaves no trace.
#[derive(Clone, Default, Hash)]
struct Known(BTreeMap<Option<GroupId>, BTreeSet<Fact>>);

#[derive(Clone)]
pub struct Scope {
    sites: Rc<RefCell<Sites>>,
    at: [u32; SITES],
    /// From, to: between the last boots of the two.
    channels: [[Vec<u32>; SITES]; SITES],
    /// Of sites 0 and 1, 0 and 2, 1 and 2: a channel is open between them.
    open: [bool; SITES],
    known: Rc<Known>,
    /// Who is still to cast, and to which group.
    casts: Vec<(usize, usize)>,
    crashes: u32,
    restarts: u32,
    /// Of steps that commute only one order is explored.
    reduced: bool,
    violation: Option<String>,
}

impl Scope {
    /// Three sites in a view that have their groups and nothing to do.
    pub fn new(setup: Setup) -> Self {
        let (sites, at) = Sites::new(setup);
        let mut scope = Self {
            sites: Rc::new(RefCell::new(sites)),
            at,
            channels: Default::default(),
            open: [false; SITES],
            reduced: true,
            known: Rc::default(),
            casts: Vec::new(),
            crashes: 0,
            restarts: 0,
            violation: None,
        };
        (0..SITES).for_each(|index| scope.start(index, true));
        scope.connect();
        scope.settle();
        let sites = scope.sites.borrow();
        for (group, of) in &sites.setup.groups {
            let position = |index: &usize| sites.site(scope.at[*index]).position(*group);
            assert!(of.iter().all(|index| position(index) == Some(0)));
        }
        drop(sites);
        scope
    }

    /// What may happen beside: casts (by a site, to a group), crashes, restarts of who has crashed.
    pub fn with(mut self, casts: &[(usize, usize)], crashes: u32, restarts: u32) -> Self {
        (self.casts, self.crashes, self.restarts) = (casts.to_vec(), crashes, restarts);
        self
    }

    /// Every order of all steps.
    pub fn unreduced(mut self) -> Self {
        self.reduced = false;
        self
    }

    /// How many places of single sites and packets were met, in all states explored from this one.
    pub fn size(&self) -> (usize, usize) {
        self.sites.borrow().size()
    }

    fn stand(&self, index: usize) -> Stand {
        *self.sites.borrow().stand(self.at[index])
    }

    fn stands(&self) -> [Stand; SITES] {
        std::array::from_fn(|index| self.stand(index))
    }

    fn start(&mut self, index: usize, bootstrap: bool) {
        self.act(index, Act::Start { bootstrap });
        self.connect();
    }

    /// Channels open between all who can take it in.
    fn connect(&mut self) {
        let ready = self.stands().map(|stand| stand.live && !stand.writing);
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let open = &mut self.open[a + b - 1];
            if ready[a] && ready[b] && !*open {
                *open = true;
                self.channels[a][b].push(UP);
                self.channels[b][a].push(UP);
            }
        }
    }

    fn act(&mut self, index: usize, act: Act) {
        let (at, effects) = self.sites.borrow_mut().act(self.at[index], act);
        self.at[index] = at;
        let mut facts = Vec::new();
        for effect in effects.iter() {
            match effect {
                Effect::Send(to, packet) => {
                    if let Some(to) = self.living(*to) {
                        self.channels[index][to].push(*packet);
                    }
                }
                Effect::Isolate(boot) => {
                    if let Some(dead) = self.current(*boot) {
                        self.channels[dead][index].clear();
                    }
                }
                Effect::Saw(group, fact) => facts.push((*group, *fact)),
                Effect::Wrong(what) => self.violation = Some(what.clone()),
            }
        }
        self.learn(index, facts);
    }

    fn current(&self, boot: BootId) -> Option<usize> {
        let sites = self.sites.borrow();
        (0..SITES).find(|index| sites.stand(self.at[*index]).boot == boot)
    }

    fn living(&self, boot: BootId) -> Option<usize> {
        self.current(boot).filter(|index| self.stand(*index).live)
    }

    /// Nothing reaches who is dead.
    fn cut_off(&mut self, index: usize) {
        for other in (0..SITES).filter(|other| *other != index) {
            self.channels[other][index].clear();
            self.open[index + other - 1] = false;
        }
    }

    fn learn(&mut self, index: usize, facts: Vec<(Option<GroupId>, Fact)>) {
        let is_known = |(group, fact): &(Option<GroupId>, Fact)| {
            self.known.0.get(group).is_some_and(|known| known.contains(fact))
        };
        if facts.iter().all(is_known) {
            return;
        }
        let known = Rc::make_mut(&mut self.known);
        for (group, fact) in facts {
            known.0.entry(group).or_default().insert(fact);
        }
        if let Some(what) = known.0.values().find_map(disagreement) {
            self.violation.get_or_insert_with(|| format!("at {index}: {what}"));
        }
    }

    fn available(&self) -> Vec<Step> {
        let stands = self.stands();
        let mut steps: [Vec<Step>; SITES] = Default::default();
        for (at, steps) in steps.iter_mut().enumerate() {
            self.steps_at(&stands, at, steps);
        }
        if self.reduced
            && let Some(alone) = (0..SITES).find(|at| self.is_alone(&stands, *at))
        {
            return std::mem::take(&mut steps[alone]);
        }
        let mut steps = steps.concat();
        let busy = |step: &Step| matches!(step, Step::Deliver { .. } | Step::Write(_));
        if !steps.iter().any(busy) {
            let due = stands.iter().enumerate().filter(|(_, stand)| stand.due);
            steps.extend(due.map(|(index, _)| Step::Timeout(index)));
        }
        steps
    }

    /// What can happen at a site. While it forces a write it takes in nothing.
    fn steps_at(&self, stands: &[Stand; SITES], at: usize, steps: &mut Vec<Step>) {
        let stand = &stands[at];
        if !stand.live {
            // What the boot before had on the way is delivered or lost by then.
            let gone = self.channels[at].iter().all(Vec::is_empty);
            if gone && self.restarts > 0 {
                steps.push(Step::Restart(at));
            }
            return;
        }
        if self.crashes > 0 {
            steps.push(Step::Crash(at));
        }
        if stand.writing {
            steps.push(Step::Write(at));
            return;
        }
        for from in (0..SITES).filter(|from| *from != at) {
            let dead = !stands[from].live;
            if !self.channels[from][at].is_empty() {
                steps.push(Step::Deliver { from, to: at });
                if dead {
                    steps.push(Step::Lose { from, to: at });
                }
            } else if dead && stand.trusts[from] {
                steps.push(Step::Suspect { by: at, whom: from });
            }
        }
        let casts = self.casts.iter().filter(|(who, _)| *who == at);
        steps.extend(casts.map(|(who, group)| Step::Cast(*who, *group)));
    }

    /// Whether nothing that others do before this site takes a step can change which steps it can take, or what they do:
    /// then only its steps are explored here, and those of others after them. (What sites see is compared whatever the
    /// order, so that no check depends on which of two independent steps comes first.)
    fn is_alone(&self, stands: &[Stand; SITES], at: usize) -> bool {
        // While a write goes on nothing else happens here but a crash, whatever others do.
        if stands[at].writing {
            return true;
        }
        // Others can crash: then what they have on the way may be lost, and they may be suspected, before this site acts.
        if self.crashes > 0 || !stands[at].live {
            return false;
        }
        // Who has something on the way can only add to it, behind; and starts anew only when it has arrived or is lost.
        let waits = |from: &usize| !self.channels[*from][at].is_empty();
        let is_gone = |from: &usize| !stands[*from].live && self.restarts == 0;
        let mut others = (0..SITES).filter(|from| *from != at);
        others.clone().any(|from| waits(&from)) && others.all(|from| waits(&from) || is_gone(&from))
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Deliver { from, to } => {
                if self.channels[from][to].is_empty() {
                    return;
                }
                let boot = self.stand(from).boot;
                let act = match self.channels[from][to].remove(0) {
                    UP => Act::Up(boot),
                    packet => Act::Packet(boot, packet),
                };
                self.act(to, act);
            }
            Step::Write(index) => self.act(index, Act::Write),
            Step::Timeout(index) => self.act(index, Act::Timeout),
            Step::Cast(index, group) => {
                self.casts.retain(|it| *it != (index, group));
                self.act(index, Act::Cast(group));
            }
            Step::Crash(index) => {
                self.crashes -= 1;
                self.cut_off(index);
                self.act(index, Act::Crash);
            }
            Step::Restart(index) => {
                self.restarts -= 1;
                self.start(index, false);
            }
            Step::Suspect { by, whom } => {
                let boot = self.stand(whom).boot;
                self.act(by, Act::Suspect(boot));
            }
            Step::Lose { from, to } => self.channels[from][to].clear(),
        }
        self.connect();
        for index in 0..SITES {
            if self.restarts == 0 && !self.stand(index).live {
                self.act(index, Act::Bury);
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let steps = self.available();
            let wanted = |step: &&Step| {
                matches!(step, Step::Deliver { .. } | Step::Write(_) | Step::Timeout(_))
            };
            let Some(step) = steps.iter().find(wanted) else { return };
            self.take(*step);
        }
        panic!("it never comes to rest");
    }
}

/// Checks MB-1, MB-40, MC-10, MC-17, MC-21 in all that was seen of one group, or of the views of the sites.
fn disagreement(facts: &BTreeSet<Fact>) -> Option<String> {
    let start = |of: u64| {
        facts.iter().find_map(|fact| match fact {
            Fact::Cut { view, start } if *view == of => Some(*start),
            _ => None,
        })
    };
    // Between the two views it was said openly that what is at the position may be lost.
    let excused = |before: u64, after: u64, position: u64| {
        facts.iter().any(|fact| {
            matches!(fact, Fact::MaybeLost { view } if before < *view && *view <= after
                && start(*view).is_none_or(|start| start < position))
        })
    };
    let disagree = |a: &Fact, b: &Fact| match (*a, *b) {
        (Fact::Installed { number, nonce }, Fact::Installed { number: of, nonce: other }) => {
            number == of && nonce != other
        }
        (Fact::Cut { view, start }, Fact::Cut { view: of, start: other }) => {
            view == of && start != other
        }
        (
            Fact::Delivered { position, view, message },
            Fact::Delivered { position: at, view: of, message: other },
        ) => {
            (position == at) != (message == other)
                && !excused(view.min(of), view.max(of), position.max(at))
        }
        (Fact::Acknowledged { view, position }, Fact::Cut { view: of, start }) => {
            of > view && start < position && !excused(view, of, position)
        }
        _ => false,
    };
    let mut pairs = facts.iter().flat_map(|a| facts.iter().map(move |b| (a, b)));
    pairs.find(|(a, b)| disagree(a, b)).map(|(a, b)| format!("{a:?} and {b:?}"))
}

impl Model for Scope {
    type Step = Step;

    fn steps(&self, into: &mut Vec<Step>) {
        into.extend(self.available());
    }

    fn apply(&mut self, step: &Step) -> Result<(), String> {
        self.take(*step);
        self.violation.take().map_or(Ok(()), Err)
    }

    fn fingerprint(&self) -> u128 {
        let mut hash = Fingerprinter::new();
        self.at.hash(&mut hash);
        (&self.channels, self.open).hash(&mut hash);
        self.known.hash(&mut hash);
        (&self.casts, self.crashes, self.restarts).hash(&mut hash);
        hash.finish128()
    }

    /// Nothing is left to happen: a quorum that lives is in one view and has delivered the same.
    fn check_end(&self) -> Result<(), String> {
        let sites = self.sites.borrow();
        let living = self.at.iter().map(|at| sites.site(*at));
        let living: Vec<_> = living.filter_map(|site| Some((site, site.core.as_ref()?))).collect();
        let settled = living.iter().all(|(_, core)| is_settled(core, living.len()));
        let equal = sites.setup.groups.iter().all(|(group, _)| {
            let at: BTreeSet<_> =
                living.iter().filter_map(|(site, _)| site.position(*group)).collect();
            at.len() <= 1
        });
        if living.len() >= 2 && !(settled && equal) {
            return Err("a living quorum has not come to one view and one position".to_owned());
        }
        Ok(())
    }
}
