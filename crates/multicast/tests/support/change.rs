//! The oracle of views: who is in, and one cut for all; crashes at any point of it.

use mainstay_base::codec;
use mainstay_base::{BootId, Member, View, ViewId};
use mainstay_multicast::{Cut, FlushState, Verdict};

use super::World;

impl World {
    /// Something happens to the nodes, and a view change follows.
    pub fn shake(&mut self) {
        for index in 0..self.slots.len() {
            let is_up = self.slots[index].group.is_some();
            if self.options.lacks && !is_up && self.rng.chance(1, 2) {
                match self.bare.contains_key(&index) {
                    true => self.crash_bare(index),
                    false => self.restart_bare(index),
                }
            }
            if self.bare.contains_key(&index) {
                continue;
            }
            match (is_up, self.rng.below(10)) {
                (true, 0) => {
                    let killed = self.rng.chance(1, 3);
                    self.crash(index, killed);
                }
                (false, 0..=5) => {
                    self.restart(index);
                    self.slots[index].outside = self.rng.chance(1, 4);
                }
                (true, 1..=4) => self.slots[index].outside = false,
                _ => {}
            }
        }
        self.change_view(&mut |world| world.rng.chance(1, 30));
        // Otherwise the next change finds the crash.
        if self.rng.chance(1, 2) && !self.members().is_empty() {
            self.change_view(&mut |_| false);
        }
    }

    fn some_steps(&mut self) {
        for _ in 0..self.rng.below(6) {
            if self.busy {
                self.step();
            }
        }
    }

    /// Goes on to the next view: of all that are up. `crashes` is asked at every point whether somebody falls.
    pub fn change_view(&mut self, crashes: &mut dyn FnMut(&mut Self) -> bool) {
        let mut views: Vec<View> = Vec::new();
        loop {
            if !self.extend(&mut views) {
                return;
            }
            let last = views.last().unwrap().clone();
            let members = self.live();
            let mut states: Vec<(BootId, FlushState)> = Vec::new();
            for index in members.clone() {
                if crashes(self) {
                    self.crash_one();
                }
                if self.slots[index].group.is_none() {
                    continue;
                }
                self.group(index).wedge();
                let state = self.group(index).flush();
                states.push((
                    self.slots[index].boot().unwrap(),
                    codec::decode(&codec::encode(&state)).unwrap(),
                ));
                self.some_steps();
            }
            if self.live() != members {
                continue;
            }
            let mut agreed = self.agreed.clone();
            if self.options.quorum_of_view {
                agreed.members.retain(|node| last.members.iter().any(|it| it.site.node == *node));
            }
            let cut = Cut::compute(&states, &agreed, &last);
            let cut: Cut = codec::decode::<Cut>(&codec::encode(&cut)).unwrap();
            assert!(cut.is_well_formed(), "{cut:?}");
            let is_enough = 2 * cut.carriers.len() > cut.settings.nodes.len();
            let is_accepted = states.iter().any(|(_, state)| state.accept_loss);
            let goes_on = cut.verdict == Verdict::Install;
            assert!(!goes_on || is_enough || is_accepted, "a minority goes on: {cut:?}");
            self.outcome.renumbered += u64::from(cut.kept < cut.end);
            if self.hold_all(&cut, &views, &members, crashes) {
                self.note_cut(&cut);
                self.install_all(&cut, &views, &members, crashes);
                return;
            }
        }
    }

    /// Adds a view if the last one is not right; false if nobody is up.
    fn extend(&mut self, views: &mut Vec<View>) -> bool {
        let base = views.last().unwrap_or(&self.view).clone();
        let inside = self.live().into_iter().filter(|index| !self.slots[*index].outside);
        let mut boots: Vec<BootId> =
            inside.map(|index| self.slots[index].boot().unwrap()).collect();
        if boots.is_empty() {
            return false;
        }
        boots.extend(self.bare.values());
        let mut members: Vec<Member> =
            base.members.iter().filter(|member| boots.contains(&member.boot())).copied().collect();
        for boot in boots {
            if !members.iter().any(|member| member.boot() == boot) {
                members.push(self.next_member(boot));
            }
        }
        if views.is_empty() || members != base.members {
            let id = ViewId { number: base.id.number + 1, nonce: self.rng.next_u64() };
            views.push(View { id, members, ..base });
        }
        true
    }

    fn crash_one(&mut self) {
        let live = self.live();
        if live.len() > 1 {
            let index = *self.rng.pick(&live).unwrap();
            self.crash(index, false);
        }
    }

    fn hold_all(
        &mut self,
        cut: &Cut,
        views: &[View],
        members: &[usize],
        crashes: &mut dyn FnMut(&mut Self) -> bool,
    ) -> bool {
        let goal = views.last().map(|view| view.id);
        for &index in members {
            if self.slots[index].group.is_none() {
                return false;
            }
            self.slots[index].holding = None;
            let now = self.now;
            self.group(index).hold(now, cut, views);
            self.drain(index);
            self.some_steps();
            if crashes(self) {
                self.crash_one();
            }
        }
        for round in 0..2_000 {
            if self.live() != members {
                return false;
            }
            if members.iter().all(|index| self.slots[*index].holding == goal) {
                return true;
            }
            if round == 5 && crashes(self) {
                self.crash_one();
            }
            if round < 30 {
                self.step();
            } else {
                self.round();
            }
        }
        panic!("seed {}: nobody gets to hold {cut:?}", self.options.seed);
    }

    fn install_all(
        &mut self,
        cut: &Cut,
        views: &[View],
        members: &[usize],
        crashes: &mut dyn FnMut(&mut Self) -> bool,
    ) {
        self.view = views.last().unwrap().clone();
        if let Some(agreed) = cut.agreed(&self.view) {
            self.agreed = agreed;
        }
        let mut order = members.to_vec();
        self.rng.shuffle(&mut order);
        for index in order {
            if crashes(self) {
                self.crash_one();
            }
            if self.slots[index].group.is_none() {
                continue;
            }
            while self.slots[index].is_writing() {
                self.write(index);
            }
            self.slots[index].log_installed(views.last().unwrap().id);
            views.iter().for_each(|view| self.note_installed(index, view));
            let now = self.now;
            self.group(index).install(now, cut, views);
            let has_past = self.group(index).status().whole;
            self.outcome.voters += u64::from(has_past && self.slots[index].outside);
            self.outcome.views += 1;
            self.drain(index);
            self.some_steps();
        }
    }

    fn note_installed(&mut self, index: usize, view: &View) {
        let boot = self.slots[index].boot().unwrap();
        if view.has(boot) {
            let members = view.members.iter().map(|member| member.site).collect();
            let roster = view.roster.iter().copied().collect();
            let what = mainstay_base::trace::What::Membership(
                mainstay_base::trace::MembershipWord::Installed { view: view.id, members, roster },
            );
            self.note(boot, what);
        }
    }
}
