#![allow(missing_docs, reason = "a test file")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use mainstay_base::{Duration, Machine as _, Reason, Rng};
use mainstay_membership::{Config, Evidence, Input, Role};
use support::{NEVER, Step, World};

fn frozen() -> Config {
    Config::default().with_timeout(NEVER).unwrap().with_formation_wait(Duration::ZERO)
}

/// Checks MB-1, MB-14.
#[test]
fn three_fresh_nodes_form_one_view() {
    let world = World::formed(3, frozen());
    assert_eq!(world.violation, None);
    assert_eq!(world.members(0), world.members(2));
    assert_eq!(world.members(1).len(), 3);
}

/// Checks MB-5: a crashed member is removed by the others.
#[test]
fn a_crashed_member_is_removed() {
    for dead in 0..3 {
        let mut world = World::formed(3, frozen());
        let number = world.view(0).id.number.max(world.view(1).id.number);
        world.crash(dead, 0);
        for by in (0..3).filter(|by| *by != dead) {
            world.apply(Step::Suspect { by, whom: dead });
        }
        world.settle();
        let other = (dead + 1) % 3;
        assert_eq!(world.view(other).id.number, number + 1);
        assert!(!world.members(other).contains(&dead));
        assert_eq!(world.violation, None);
    }
}

/// Delivers between others than the manager until nothing is left there.
fn without(world: &mut World, manager: usize) {
    let apart = |step: &Step| matches!(*step, Step::Deliver { from, to } if from != manager && to != manager);
    while let Some(step) = world.steps().into_iter().find(apart) {
        world.apply(step);
    }
}

/// Checks MB-35, MB-36: a restarted node that reaches all takes the place of its former boot in one extension of length
/// one, as the youngest and with the next incarnation.
#[test]
fn a_restart_is_one_view_with_a_younger_incarnation() {
    let mut world = World::formed(3, frozen());
    let oldest = world.members(0)[0];
    let number = world.view(0).id.number;
    world.crash(oldest, 0);
    world.start(oldest);
    let manager = world.members((oldest + 1) % 3)[1];
    without(&mut world, manager);
    world.settle();
    assert_eq!(world.view(oldest).id.number, number + 1);
    assert_eq!(*world.members(oldest).last().unwrap(), oldest);
    assert_eq!(world.view(oldest).members.last().unwrap().site.incarnation.0, 2);
    assert_eq!(world.violation, None);
}

/// Checks that a restarted node stays although one member meets it only after the view that admits it, and still knows its
/// former boot: of the two boots the one that was dropped is the elder.
#[test]
fn who_meets_a_restarted_node_late_does_not_accuse_it() {
    let mut world = World::formed(3, frozen());
    world.crash(2, 0);
    (0..2).for_each(|by| world.apply(Step::Suspect { by, whom: 2 }));
    world.settle();
    world.start(2);
    let boot = world.sites[2].boot;
    for _ in 0..1_000 {
        let early = |step: &Step| match *step {
            Step::Deliver { from, to } => (from, to) != (2, 1),
            step => matches!(step, Step::Write(_)),
        };
        let Some(step) = world.steps().into_iter().find(early) else { break };
        world.apply(step);
    }
    assert!(world.sites[1].machine.as_ref().unwrap().view().member(boot).is_some());
    world.settle();
    assert_eq!((world.sites[2].boot, world.role(2)), (boot, Some(Role::Member)));
    assert_eq!(world.members(1).len(), 3);
    assert_eq!(world.violation, None);
}

/// Checks spec 03 §3.10, connectivity that is not transitive: who does not reach a member is not admitted, and is as soon
/// as it does.
#[test]
fn who_does_not_reach_all_members_waits() {
    let mut world = World::formed(3, frozen());
    let unheard = |world: &World, site: usize| -> Vec<_> {
        world.sites[site].machine.as_ref().unwrap().unheard().collect()
    };
    let (apart, joiner) = (world.members(0)[1], world.members(0)[2]);
    assert_eq!(world.come_back_apart(), 2);
    assert_eq!(unheard(&world, joiner), [world.sites[apart].boot]);
    assert!(unheard(&world, apart).is_empty(), "a member waits for nobody");
    world.settle();
    assert!(unheard(&world, joiner).is_empty());
    assert_eq!(world.members(0).len(), 3);
    // Where no member works nobody is missed: two of three are back, and have not formed a view yet.
    (0..3).for_each(|site| world.crash(site, 0));
    world.start(0);
    world.start(1);
    for (from, to) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
        world.deliver(from, to);
        assert!((0..2).all(|site| unheard(&world, site).is_empty()));
    }
    assert_eq!(world.violation, None);
}

/// Checks that who suspects a member says so once, and what for.
#[test]
fn a_suspicion_has_its_evidence() {
    let by = |accuse: &dyn Fn(&mut World, usize)| {
        let mut world = World::formed(3, frozen());
        let members = world.members(0);
        let (manager, other) = (members[0], members[1]);
        let boot = world.sites[other].boot;
        accuse(&mut world, other);
        let said = &world.sites[manager].suspicions;
        assert!(said.iter().all(|(of, _)| *of == boot) && said.len() == 1, "{said:?}");
        said[0].1
    };
    let refused = |world: &mut World, dead: usize| {
        world.crash(dead, 0);
        for _ in 0..2 {
            world.apply(Step::Suspect { by: world.members((dead + 1) % 3)[0], whom: dead });
        }
    };
    assert_eq!(by(&refused), Evidence::Refused);
    let restarted = |world: &mut World, dead: usize| {
        world.crash(dead, 0);
        world.start(dead);
        world.settle();
    };
    assert_eq!(by(&restarted), Evidence::Restarted);
    let slow = |world: &mut World, slow: usize| {
        let (manager, boot) = (world.members(0)[0], world.sites[slow].boot);
        world.input(manager, Input::Suspect { boot });
    };
    assert_eq!(by(&slow), Evidence::Slow);
}

/// Checks MB-37: all crash, all restart in any order; the sequence of views goes on.
#[test]
fn total_failure_and_restart_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut world = World::formed(3, frozen());
        let number = world.view(0).id.number;
        (0..3).for_each(|site| world.crash(site, 0));
        for site in order {
            world.start(site);
            world.settle();
        }
        assert!(world.view(0).id.number > number);
        assert_eq!(world.members(0).len(), 3);
        assert_eq!(world.violation, None);
    }
}

/// Checks MB-10, MB-11, MB-63: one of three alone installs nothing and says that it is in a minority.
#[test]
fn a_minority_stands_still() {
    let mut world = World::formed(3, frozen());
    let number = world.view(0).id.number;
    world.crash(1, 0);
    world.crash(2, 0);
    for whom in [1, 2] {
        world.apply(Step::Suspect { by: 0, whom });
    }
    world.settle();
    assert_eq!(world.view(0).id.number, number);
    assert!(world.sites[0].minority);
}

/// Who is no member and waits for votes says since when, and whose are missing; a node without a past is heard and has no
/// vote until a view admits it.
#[test]
fn an_outsider_says_whose_votes_it_waits_for() {
    let mut world = World::formed(3, frozen());
    (0..3).for_each(|site| world.crash(site, 0));
    let roster = support::nodes(3);
    world.sites[1].disk = mainstay_membership::Durable::empty(roster.clone());
    let missing = |world: &World, site: usize| -> Vec<_> {
        let machine = world.sites[site].machine.as_ref().unwrap();
        let mut missing: Vec<_> = machine.votes_missing().collect();
        missing.sort();
        let is_short = machine.votes_missing_since().is_some();
        assert_eq!(is_short, missing.len() > 1);
        missing
    };
    let expected = |votes: &[(usize, bool)]| -> Vec<_> {
        let mut votes: Vec<_> = votes.iter().map(|(site, heard)| (roster[*site], *heard)).collect();
        votes.sort();
        votes
    };
    world.start(0);
    assert_eq!(missing(&world, 0), expected(&[(1, false), (2, false)]));
    world.start(1);
    world.settle();
    assert_eq!(missing(&world, 0), expected(&[(1, true), (2, false)]));
    assert_eq!(missing(&world, 1), expected(&[(1, true), (2, false)]));
    assert!(!world.sites[0].minority, "only a member has groups that pause");
    world.start(2);
    world.settle();
    assert!((0..3).all(|site| missing(&world, site).is_empty()));
}

/// Checks MB-34: two members that accuse each other; no two views under one number, and two members remain.
#[test]
fn mutual_accusation_removes_one() {
    let mut world = World::formed(3, frozen());
    world.accusations = 2;
    world.apply(Step::Suspect { by: 0, whom: 1 });
    world.apply(Step::Suspect { by: 1, whom: 0 });
    world.settle();
    assert_eq!(world.violation, None);
    let alive = (0..3).find(|site| world.role(*site) == Some(Role::Member)).unwrap();
    assert_eq!(world.members(alive).len(), 2, "{}", world.summary());
}

/// A node that lost its disk does not vote: with one of the two others down there is no quorum.
#[test]
fn a_node_that_lost_its_disk_is_no_voter_until_a_view_admits_it() {
    let mut world = World::formed(3, frozen());
    (0..3).for_each(|site| world.crash(site, 0));
    let roster = support::nodes(3);
    world.sites[1].disk = mainstay_membership::Durable::empty(roster);
    world.start(0);
    world.start(1);
    world.settle();
    assert_eq!(world.role(0), Some(Role::Outside));
    assert_eq!(world.role(1), Some(Role::Outside));
    world.start(2);
    world.settle();
    assert_eq!(world.members(1).len(), 3);
    assert!(world.sites[1].machine.as_ref().unwrap().is_voter());
    assert_eq!(world.violation, None);
}

/// Checks MB-24: who was left out of a view stays out however often it is heard again; only a new boot of its node returns.
#[test]
fn a_suspicion_that_became_a_view_is_not_taken_back() {
    let mut world = World::formed(3, frozen());
    let number = world.view(0).id.number;
    let (manager, out) = (world.members(0)[0], world.members(0)[2]);
    let boot = world.sites[out].boot;
    world.input(manager, Input::Suspect { boot });
    world.settle();
    assert_eq!(world.view(manager).id.number, number + 1, "{}", world.summary());
    assert!(world.role(out).is_none_or(|role| role == Role::Killed), "{}", world.summary());
    for input in [Input::Heard { boot }, Input::Up { boot }, Input::Heard { boot }] {
        world.input(manager, input);
        world.settle();
    }
    assert_eq!(world.view(manager).id.number, number + 1);
    assert!(world.view(manager).member(boot).is_none());
    world.start(out);
    world.settle();
    assert!(world.members(manager).contains(&out));
    assert_eq!(world.violation, None);
}

/// Checks MB-22: with the objection phase on, the word of one member removes nobody, the word of all does.
#[test]
fn objection_keeps_who_is_heard_by_another() {
    let mut world = World::formed(3, frozen().with_objection(true));
    let number = world.view(0).id.number;
    let (manager, other, whom) = (world.members(0)[0], world.members(0)[1], world.members(0)[2]);
    world.accusations = 2;
    world.apply(Step::Suspect { by: manager, whom });
    world.settle();
    assert_eq!(world.view(manager).id.number, number);
    world.apply(Step::Suspect { by: other, whom });
    world.settle();
    assert_eq!(world.view(manager).id.number, number + 1);
    assert_eq!(world.violation, None);
}

/// Checks MB-20, MB-21: silence of the timeout leads to a view without the silent one; heartbeats prevent it.
#[test]
fn silence_becomes_a_view() {
    let timeout = Duration::from_millis(250);
    let config = frozen().with_timeout(timeout).unwrap();
    let mut world = World::formed(3, frozen());
    world.config = config.clone();
    (0..3).for_each(|site| world.crash(site, 0));
    (0..3).for_each(|site| world.start(site));
    while (0..3).any(|site| world.role(site) != Some(Role::Member)) {
        let step = world.steps().into_iter().find(|step| !matches!(step, Step::Timeout(_)));
        world.apply(step.unwrap());
    }
    let start = world.sites[0].now;
    let (a, b) = (world.sites[1].boot, world.sites[2].boot);
    for beat in 1..=10 {
        world.sites[0].now = start + Duration::from_millis(50 * beat);
        world.input(0, Input::Heard { boot: a });
        if beat <= 4 {
            world.input(0, Input::Heard { boot: b });
        }
        let now = world.sites[0].now;
        let machine = world.sites[0].machine.as_mut().unwrap();
        if machine.poll_timeout().is_some_and(|at| at <= now) {
            machine.handle_timeout(now);
        }
    }
    // What it says of itself belongs to the turn.
    world.input(0, Input::Heard { boot: a });
    let suspected: Vec<_> = world.sites[0].machine.as_ref().unwrap().suspected().collect();
    assert_eq!((suspected, &*world.sites[0].suspicions), (vec![b], &[(b, Evidence::Silence)][..]));
}

/// Checks MB-12, MB-30..MB-33 over random schedules with crashes at any step, restarts and wrong suspicions.
#[test]
fn random_schedules_keep_one_sequence() {
    let mut longest = 0;
    for seed in 0..3_000u64 {
        let mut rng = Rng::new(seed);
        let count = 3 + 2 * (seed as usize % 2);
        let mut world = World::new(count, frozen());
        (0..count).for_each(|site| world.start(site));
        world.crashes = 4;
        world.restarts = 8;
        world.accusations = 3;
        for _ in 0..600 {
            let steps = world.steps();
            if steps.is_empty() {
                break;
            }
            // Crashes and suspicions are many among the steps: most of the time something useful goes on.
            let useful: Vec<_> = steps
                .iter()
                .filter(|step| {
                    matches!(
                        step,
                        Step::Deliver { .. } | Step::Write(_) | Step::Timeout(_) | Step::Restart(_)
                    )
                })
                .copied()
                .collect();
            let from = if useful.is_empty() || rng.below(20) == 0 { &steps } else { &useful };
            world.apply(from[rng.below(from.len() as u64) as usize]);
            assert_eq!(world.violation, None, "seed {seed}");
        }
        heal(&mut world, &mut rng, seed);
        longest = longest.max(world.agreed.len());
    }
    assert!(longest > 5, "the longest sequence has {longest} views");
}

/// Everybody comes back and is heard; in the end all are members of one view.
fn heal(world: &mut World, rng: &mut Rng, seed: u64) {
    world.crashes = 0;
    world.accusations = 0;
    world.restarts = 1_000;
    for _ in 0..20_000 {
        let steps = world.steps();
        if steps.is_empty() {
            break;
        }
        world.apply(steps[rng.below(steps.len() as u64) as usize]);
        assert_eq!(world.violation, None, "seed {seed}");
    }
    for site in 0..world.sites.len() {
        assert_eq!(world.role(site), Some(Role::Member), "seed {seed}: {}", world.summary());
        assert_eq!(
            world.members(site).len(),
            world.sites.len(),
            "seed {seed}: {}",
            world.summary()
        );
        assert_eq!(world.view(site), world.view(0), "seed {seed}");
    }
}

/// A deadline that has passed is not asked for again while nothing else happens: a host would spin, and where time stands
/// until all is quiet it would stand for ever. Also while an installation is being forced.
#[test]
fn no_deadline_comes_again_at_once() {
    let mut world = World::new(3, frozen());
    (0..3).for_each(|site| world.start(site));
    let mut writes = 0;
    loop {
        for site in 0..3 {
            let mut later = world.clone();
            // What is decided in a turn may itself begin an attempt or a pause: but not without end.
            (0..3).for_each(|_| later.timeout(site));
            let site = &later.sites[site];
            let next = site.machine.as_ref().unwrap().poll_timeout();
            assert!(next.is_none_or(|next| next > site.now), "again at once: {}", later.summary());
        }
        let steps = world.steps();
        let is_write = |step: &&Step| matches!(step, Step::Write(_));
        let deliver = steps.iter().find(|step| matches!(step, Step::Deliver { .. }));
        let Some(step) = deliver.or_else(|| steps.iter().find(is_write)).copied() else { break };
        writes += usize::from(is_write(&&step));
        world.apply(step);
    }
    assert!(writes > 3 && world.members(0).len() == 3);
}

/// Checks that all who go on have one reason for who left, whatever it is that each of them has seen.
#[test]
fn a_view_says_why_a_member_left() {
    let why_of = |rank: usize, leave: &dyn Fn(&mut World, usize)| {
        let mut world = World::formed(3, frozen());
        let members = world.members(0);
        let (gone, site) = (members[rank], world.view(0).members[rank].site);
        leave(&mut world, gone);
        world.settle();
        assert_eq!(world.violation, None);
        let stay = [members[0], members[3 - rank]];
        let reasons = stay.map(|index| world.view(index).departures.why(site));
        assert_eq!(reasons[0], reasons[1]);
        reasons[0]
    };
    let why = |leave: &dyn Fn(&mut World, usize)| why_of(1, leave);
    let crash = |world: &mut World, whom: usize| {
        let manager = world.members(whom)[0];
        world.crash(whom, 0);
        world.apply(Step::Suspect { by: manager, whom });
    };
    assert_eq!(why(&crash), Some(Reason::Refused));
    let restart = |world: &mut World, whom: usize| {
        world.crash(whom, 0);
        world.start(whom);
    };
    assert_eq!(why(&restart), Some(Reason::Restarted));
    let slow = |world: &mut World, whom: usize| {
        let (manager, boot) = (world.members(whom)[0], world.sites[whom].boot);
        world.input(manager, Input::Suspect { boot });
    };
    assert_eq!(why(&slow), Some(Reason::Slow));
    let slow_for_another = |world: &mut World, whom: usize| {
        let (other, boot) = (world.members(whom)[2], world.sites[whom].boot);
        world.input(other, Input::Suspect { boot });
    };
    assert_eq!(why(&slow_for_another), Some(Reason::Slow));
    let accuser = |world: &mut World, whom: usize| {
        let manager = world.members(whom)[0];
        world.input(whom, Input::Suspect { boot: world.sites[manager].boot });
    };
    assert_eq!(why_of(2, &accuser), Some(Reason::Accuser));
    let closed = |world: &mut World, whom: usize| world.input(whom, Input::Leave);
    assert_eq!(why(&closed), Some(Reason::Closed));
}

/// Checks that the manager goes as any other does: the next one need not miss it.
#[test]
fn a_manager_that_leaves_is_followed_at_once() {
    let mut world = World::formed(3, frozen());
    let members = world.members(0);
    let site = world.view(0).members[0].site;
    world.input(members[0], Input::Leave);
    world.settle();
    assert_eq!(world.members(members[1])[..2], members[1..]);
    assert_eq!(world.view(members[2]).departures.why(site), Some(Reason::Closed));
    assert_eq!(world.violation, None);
}

/// A member that is heard as ever leaves nothing to be done, and the end of the turn does nothing. One that was silent is
/// suspected no more, and the others have to be told.
#[test]
fn only_who_was_silent_makes_a_difference_when_it_is_heard() {
    let world = World::formed(3, frozen());
    let mut machine = world.sites[0].machine.clone().unwrap();
    let (now, other) = (world.sites[0].now, world.sites[1].boot);
    assert!(!machine.hear(now, other));
    machine.end_turn(now);
    assert_eq!(machine.poll_output(), None);
    let late = now + NEVER;
    machine.handle_timeout(late);
    machine.end_turn(late);
    assert_eq!(machine.suspected().count(), 2);
    while machine.poll_output().is_some() {}
    assert!(machine.hear(late, other));
    assert!(!machine.hear(late, other));
    machine.end_turn(late);
    assert_eq!(machine.suspected().count(), 1);
    assert!(machine.poll_output().is_some());
}
