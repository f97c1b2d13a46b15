#![allow(missing_docs, reason = "a test file")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::collections::BTreeSet;

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{Duration, Level, Order, ViewId};
use mainstay_check::{Violation, check_all, check_survivors};
use mainstay_membership::Fault as Broken;
use mainstay_multicast::Durability;
use mainstay_sim::{Atlas, Disk as Left, Fault, FaultEvent, Options, Seen, Wire, World, schedule};
use support::users::{Users, all_are_one, standing};
use support::{Setup, Site};

/// The faults of a seed, after the cluster is made; a restored backup is beyond the model.
fn faults(seed: u64, nodes: usize, options: &Options) -> Vec<FaultEvent> {
    let mut faults = schedule(seed, nodes, options);
    for event in &mut faults {
        event.at = event.at + Duration::from_millis(300);
        if let Fault::Crash { disk, .. } = &mut event.fault
            && *disk == Left::Old
        {
            *disk = Left::Empty;
        }
    }
    faults
}

fn world(seed: u64, nodes: usize, setup: &Setup, lost: usize) -> World<Site> {
    let down = (nodes - 1) / 2;
    let mut options = Options::from_seed(seed, Wire::Channel, Atlas { down, lost });
    options.dials = true;
    let faults = faults(seed, nodes, &options);
    World::with_schedule(seed, nodes, setup.clone(), options, faults)
}

/// So long no view may follow once all are one: two timeouts of the detector, and some.
const PEACE: Duration = Duration::from_millis(700);

fn view(world: &World<Site>) -> Option<ViewId> {
    world.node(0).map(|site| site.stack.core().membership().view().id)
}

/// One run; an error is what went wrong in it.
fn run(
    seed: u64,
    nodes: usize,
    setup: &Setup,
    lost: usize,
    seen: &mut Seen,
) -> Result<u128, String> {
    let mut world = world(seed, nodes, setup, lost);
    // At this level the state of a member that fails is its own.
    let tentative = setup.deliver_at == Level::Delivered;
    let mut users = Users { lost: tentative, ..Users::default() };
    let mut one = None;
    let verdict = (|| -> Result<(), mainstay_sim::Stuck> {
        for _ in 0..30 {
            world.run(Duration::from_millis(100))?;
            users.watch(&mut world);
        }
        world.heal();
        for _ in 0..20 {
            world.run(Duration::from_millis(100))?;
            users.watch(&mut world);
        }
        world.run_until(|world| all_are_one(world, nodes), Duration::from_secs(20))?;
        one = view(&world);
        world.run(PEACE)
    })();
    users.watch(&mut world);
    if let Err(stuck) = verdict {
        return Err(format!("seed {seed}: {stuck}\n{}", standing(&world)));
    }
    if view(&world) != one {
        return Err(format!("seed {seed}: restless: from {one:?}\n{}", standing(&world)));
    }
    if let Some(violation) = world.violation() {
        return Err(format!("seed {seed}: {violation}"));
    }
    let violations = judge(&world, setup, &users);
    if !violations.is_empty() {
        return Err(format!("seed {seed}: {violations:#?}\n{}", around(&world, &violations)));
    }
    for node in 0..nodes {
        let Some(flood) = world.node(node).and_then(Site::flood) else { continue };
        let marks = [
            (flood.got > 100 && flood.views > 0, "a flood"),
            (flood.refused > 0, "a flood is held up"),
            (flood.past > 0, "records of a former boot"),
        ];
        marks.into_iter().filter(|(is, _)| *is).for_each(|(_, what)| seen.mark(what));
    }
    if users.answered > 0 {
        seen.mark("a read was answered");
    }
    seen.add(world.seen());
    Ok(world.hash())
}

/// The trace of each order by itself: messages in FIFO order and those in total order are two streams of one sender, and
/// only the latter are delivered uniformly.
fn judge(world: &World<Site>, setup: &Setup, users: &Users) -> Vec<Violation> {
    let delivered = |event: &Event| match &event.what {
        What::Group(GroupWord::Delivered { group, message, .. }) => Some((*group, *message)),
        _ => None,
    };
    let delivered: BTreeSet<_> = world.trace().iter().filter_map(delivered).collect();
    let of = |wanted: Order| -> Vec<Event> {
        let is_part = |event: &&Event| match &event.what {
            // Whoever delivered it has failed; others have it in their state, from a log.
            What::Group(GroupWord::Cast { group, message, .. })
                if users.replayed.contains(&(*group, *message))
                    && !delivered.contains(&(*group, *message)) =>
            {
                false
            }
            What::Group(GroupWord::Cast { order, .. })
            | What::Group(GroupWord::Delivered { order, .. }) => *order == wanted,
            _ => true,
        };
        world.trace().iter().filter(is_part).cloned().collect()
    };
    let uniform = setup.deliver_at > Level::Delivered;
    let total = of(Order::Total);
    let mut found = if uniform { check_all(&total) } else { check_survivors(&total) };
    found.extend(check_survivors(&of(Order::Fifo)));
    // What all copies were lost of, nobody delivers.
    found.retain(|violation| !(users.lost && violation.id == "MC-6"));
    found
}

/// The events near those that contradict, and all views of groups.
fn around(world: &World<Site>, violations: &[Violation]) -> String {
    let near = |event: &Event| {
        let events = violations.iter().flat_map(|violation| &violation.events);
        let mut named = events.filter(|(boot, _)| *boot == event.boot);
        let view = matches!(
            event.what,
            What::Group(GroupWord::Installed { .. })
                | What::Membership(MembershipWord::Installed { .. })
                | What::Process(ProcessWord::Crashed)
                | What::Membership(MembershipWord::Killed)
                | What::Group(GroupWord::Restored { .. })
                | What::Group(GroupWord::MaybeLost { .. })
        );
        view || named.any(|(_, number)| number.abs_diff(event.number) < 6)
    };
    let text = standing(world);
    world.trace().iter().filter(|event| near(event)).fold(text, |text, event| {
        text + &format!("{:?} {:?}#{} {:?}\n", event.at, event.boot, event.number, event.what)
    })
}

fn swarm(setup: &Setup, nodes: usize, lost: usize, count: u64) -> Seen {
    let mut seen = Seen::default();
    for seed in mainstay_sim::seeds(0..count) {
        if let Err(what) = run(seed, nodes, setup, lost, &mut seen) {
            panic!("{what}");
        }
    }
    println!("{seen:?}");
    seen
}

/// Checks MB-1, MB-2, MB-3, MB-10, MB-14, MB-15, MB-30, MB-40, MC-2, MC-3, MC-6, MC-7, MC-10, MC-16, MC-17, MC-21 over whole sites
/// with crashes, lost disks, cuts, pauses and slow disks; and that all are left in peace once they are one (MB-21).
#[test]
fn a_disk_group_of_three() {
    let setup = Setup::one_group(Durability::Disk, Level::Disk);
    let seen = swarm(&setup, 3, 1, 400);
    if std::env::var("MAINSTAY_SEEDS").is_err() {
        seen.assert_all(&[
            "killed",
            "restored by transfer",
            "restored from its own log",
            "a read was answered",
        ]);
    }
}

/// The same where messages are delivered at a majority, before they are forced.
#[test]
fn a_disk_group_that_delivers_at_majority() {
    swarm(&Setup::one_group(Durability::Disk, Level::Majority), 3, 0, 150);
}

/// The same for a group in memory, which may stand still until all are back, and then say that messages may be lost.
#[test]
fn a_memory_group_of_three() {
    swarm(&Setup::one_group(Durability::Memory, Level::Majority), 3, 0, 200);
}

/// The same at level safe.
#[test]
fn a_memory_group_that_delivers_when_safe() {
    swarm(&Setup::one_group(Durability::Memory, Level::Safe), 3, 0, 100);
}

/// The same at level delivered, where only survivors agree.
#[test]
fn a_memory_group_that_delivers_at_once() {
    swarm(&Setup::one_group(Durability::Memory, Level::Delivered), 3, 0, 100);
}

/// Two groups with different members in a cluster of five.
#[test]
fn two_groups_in_a_cluster_of_five() {
    let groups = vec![("g", vec![0, 1, 2]), ("h", vec![1, 2, 3, 4])];
    let setup = Setup { groups, ..Setup::one_group(Durability::Disk, Level::Disk) };
    swarm(&setup, 5, 1, 50);
}

/// A mounted service that sends as much as it may beside a group: the group keeps all its promises, the streams of the service have
/// no hole, and what it wrote is there again. Flooding costs nobody its membership: all are left in peace meanwhile (MB-21).
#[test]
fn a_flood_beside_a_group() {
    let setup = Setup { flood: true, ..Setup::one_group(Durability::Disk, Level::Disk) };
    let seen = swarm(&setup, 3, 1, 40);
    if std::env::var("MAINSTAY_SEEDS").is_err() {
        seen.assert_all(&["killed", "a flood", "a flood is held up", "records of a former boot"]);
    }
}

/// Equal seeds give equal runs, others other ones.
#[test]
fn runs_are_reproducible() {
    let setup = Setup::one_group(Durability::Disk, Level::Disk);
    let hashes = |seed| run(seed, 3, &setup, 1, &mut Seen::default()).unwrap();
    assert_eq!([hashes(1), hashes(2)], [hashes(1), hashes(2)]);
    assert_ne!(hashes(1), hashes(2));
}

/// Checks that a member that says it holds a cut before it does is found (MB-40).
#[test]
fn an_acceptance_without_holding_is_found() {
    let setup = Setup {
        membership_fault: Some(Broken::AcceptsWithoutHolding),
        ..Setup::one_group(Durability::Memory, Level::Majority)
    };
    let found = (0..400).find(|seed| run(*seed, 5, &setup, 0, &mut Seen::default()).is_err());
    println!("{found:?}");
    assert!(found.is_some());
}
