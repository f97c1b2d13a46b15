//! What one member alone has is not acknowledged, and a minority that carries a group does not go on.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use mainstay_base::{Level, Member, Order, View, ViewId};
use mainstay_multicast::{Agreed, Cut, Durability, Event, FlushState, Message, Settings, Verdict};
use support::{Options, World, node};

const ALL: [(Durability, Level); 7] = [
    (Durability::Memory, Level::Delivered),
    (Durability::Memory, Level::Majority),
    (Durability::Memory, Level::Safe),
    (Durability::Disk, Level::Delivered),
    (Durability::Disk, Level::Majority),
    (Durability::Disk, Level::Safe),
    (Durability::Disk, Level::Disk),
];

/// Three nodes in no view yet.
fn new_world(durability: Durability, deliver_at: Level) -> World {
    let options = Options { nodes: 3, stateful: true, ..Options::new(1, durability, deliver_at) };
    World::new(Options { steps: 0, ..options })
}

/// Three nodes in a first view, nothing on its way.
fn world(durability: Durability, deliver_at: Level) -> World {
    let mut world = new_world(durability, deliver_at);
    view_change(&mut world);
    world.settle();
    world
}

fn view_change(world: &mut World) {
    world.busy = false;
    world.change_view(&mut |_| false);
}

/// Everything but states moves for a while: joiners stay without the past.
fn run_without_transfer(world: &mut World) {
    for _ in 0..30 {
        for frames in world.channels.values_mut() {
            frames.retain(|(meta, payload)| {
                let message = Message::decode(meta, payload.clone()).unwrap();
                !matches!(message, Message::Transfer { .. })
            });
        }
        world.channels.retain(|_, frames| !frames.is_empty());
        world.round();
    }
}

/// Something more is cast: with it whoever has become whole is a member to the checkers. Then the run ends.
fn finish(world: &mut World) {
    world.settle();
    world.cast(1, Order::Total, Level::Delivered);
    world.settle();
    world.finish().unwrap();
}

/// Node 2 was told that something is at more members than itself.
fn is_told(world: &World) -> bool {
    let is_level =
        |event: &Event| matches!(event, Event::Reached { level, .. } if *level > Level::Delivered);
    world.slots[2].events.iter().any(is_level)
}

/// Of three nodes the first lacks the group, the second fails, and the third casts: its message waits until another one has what it has.
#[test]
fn a_minority_that_carries_a_group_stands_still() {
    for (durability, level) in ALL {
        let mut world = world(durability, level);
        world.crash(0, false);
        world.restart_bare(0);
        view_change(&mut world);
        world.settle();
        world.crash(1, false);
        view_change(&mut world);
        assert!(world.group(2).status().blocked, "{durability:?} {level:?}");
        world.cast(2, Order::Total, Level::Safe);
        world.settle();
        assert!(!is_told(&world), "{durability:?} {level:?}: it is alone");
        world.restart_empty(1);
        view_change(&mut world);
        assert!(!world.group(2).status().blocked, "{durability:?} {level:?}");
        run_without_transfer(&mut world);
        assert!(!world.group(1).status().whole);
        assert!(!is_told(&world), "{durability:?} {level:?}: the other one has no past");
        view_change(&mut world);
        world.settle();
        assert!(is_told(&world), "{durability:?} {level:?}");
        world.crash_bare(0);
        finish(&mut world);
    }
}

/// Checks MC-21: a view change is no receipt. What the cut takes from one member is acknowledged when a joiner has the past too.
#[test]
fn what_one_contributor_has_is_not_acknowledged_by_a_view_change() {
    for (durability, level) in ALL {
        let mut world = world(durability, level);
        world.crash(0, false);
        view_change(&mut world);
        world.settle();
        world.cast(2, Order::Total, Level::Safe);
        world.end_turn(2);
        world.crash(1, false);
        world.restart_empty(1);
        view_change(&mut world);
        world.cast(2, Order::Total, Level::Safe);
        run_without_transfer(&mut world);
        let status = world.group(2).status();
        assert!(!is_told(&world), "{durability:?} {level:?}: {status:?}");
        assert_eq!((status.majority, status.safe, status.disk), (0, 0, 0));
        view_change(&mut world);
        world.settle();
        assert!(is_told(&world), "{durability:?} {level:?}");
        finish(&mut world);
    }
}

/// Checks MC-21: an operator lets a minority go on. It says of nothing that others have it.
#[test]
fn a_minority_that_an_operator_lets_go_on_acknowledges_nothing() {
    for (durability, level) in ALL {
        let mut world = world(durability, level);
        for index in [0, 1] {
            world.crash(index, false);
            view_change(&mut world);
            world.settle();
        }
        assert!(world.group(2).status().blocked, "{durability:?} {level:?}");
        world.group(2).accept_loss();
        world.restart_bare(0);
        view_change(&mut world);
        assert!(!world.group(2).status().blocked, "{durability:?} {level:?}");
        // It had been in every majority.
        assert_eq!(world.outcome.lost, 0);
        world.cast(2, Order::Total, Level::Safe);
        world.settle();
        assert!(!is_told(&world), "{durability:?} {level:?}: it is alone");
        let delivered = world.group(2).status().delivered;
        assert_eq!(delivered, u64::from(level == Level::Delivered));
        // The word is used up.
        world.crash_bare(0);
        view_change(&mut world);
        assert!(world.group(2).status().blocked, "{durability:?} {level:?}");
        world.restart_empty(1);
        view_change(&mut world);
        run_without_transfer(&mut world);
        assert!(!is_told(&world), "{durability:?} {level:?}: the other one has no past");
        view_change(&mut world);
        world.settle();
        assert!(is_told(&world), "{durability:?} {level:?}");
        finish(&mut world);
    }
}

fn settings_of(world: &mut World) -> Settings {
    world.group(0).wedge();
    world.group(0).flush().settings
}

/// What the nodes of a world know when they are wedged, with these settings.
fn states(
    world: &mut World,
    settings: &[(usize, &Settings)],
) -> Vec<(mainstay_base::BootId, FlushState)> {
    let state = |(index, settings): &(usize, &Settings)| {
        world.group(*index).wedge();
        let settings = Settings::clone(settings);
        let state = FlushState { settings, ..world.group(*index).flush() };
        (world.slots[*index].boot().unwrap(), state)
    };
    settings.iter().map(state).collect()
}

/// A view of these nodes.
fn view_of(world: &World, number: u64, nodes: &[usize]) -> View {
    let members = world.view.members.iter();
    let is_in = |member: &&Member| nodes.iter().any(|index| member.site.node == node(*index));
    let members = members.filter(is_in).copied().collect();
    View { id: ViewId { number, nonce: 7 }, members, ..world.view.clone() }
}

/// An operator's word that no view has counted is void where the others go on with other settings: nothing waits for it any more.
#[test]
fn who_is_refused_waits_for_no_word() {
    let mut world = world(Durability::Memory, Level::Majority);
    let mine = settings_of(&mut world);
    let others = Settings { stateful: !mine.stateful, ..mine.clone() };
    // As if the group had had no view yet.
    let first = Agreed { settings: None, ..world.agreed.clone() };
    let now = world.now;
    let alone = view_of(&world, 8, &[0]);
    let cut = Cut::compute(&states(&mut world, &[(0, &mine)]), &first, &alone);
    assert_eq!(cut.verdict, Verdict::Blocked);
    world.group(0).install(now, &cut, &[alone]);
    world.group(0).accept_loss();
    assert!(world.group(0).is_loss_accepted());
    let all = view_of(&world, 9, &[0, 1, 2]);
    let states = states(&mut world, &[(0, &mine), (1, &others), (2, &others)]);
    let cut = Cut::compute(&states, &first, &all);
    assert_eq!(cut.settings, others);
    world.group(0).install(now, &cut, &[all]);
    let status = world.group(0).status();
    assert!(status.refused && !status.blocked && !world.group(0).is_loss_accepted());
}

/// All nodes are there only if those are that the group had before. A group of fewer nodes waits for an operator where their past is
/// gone.
#[test]
fn nodes_that_are_configured_no_more_are_missed() {
    let mut world = world(Durability::Memory, Level::Majority);
    let three = settings_of(&mut world);
    let two = Settings { nodes: (0..2).map(node).collect(), ..three.clone() };
    let (view, agreed) = (view_of(&world, 9, &[0, 1]), world.agreed.clone());
    let mut states = states(&mut world, &[(0, &two), (1, &two)]);
    assert_eq!(Cut::compute(&states, &agreed, &view).verdict, Verdict::Install);
    states.iter_mut().for_each(|(_, state)| state.standing = None);
    assert_eq!(Cut::compute(&states, &agreed, &view).verdict, Verdict::Blocked);
    states[1].1.accept_loss = true;
    let cut = Cut::compute(&states, &agreed, &view);
    assert!(cut.verdict == Verdict::Install && cut.loss);
}

/// Before the first view of a group its nodes are those of the settings that most have, whoever speaks first.
#[test]
fn a_first_view_asks_for_the_nodes_that_most_have() {
    let mut world = new_world(Durability::Memory, Level::Majority);
    let right = settings_of(&mut world);
    let wrong = Settings { nodes: (0..9).map(node).collect(), ..right.clone() };
    let settings = [(0, &wrong), (1, &right), (2, &right)];
    let states = states(&mut world, &settings);
    let members = states.iter().enumerate().map(|(index, (boot, _))| Member {
        site: mainstay_base::SiteId {
            node: node(index),
            incarnation: mainstay_base::Incarnation(1),
        },
        nonce: boot.nonce,
    });
    let members = members.collect();
    let view = View { id: ViewId { number: 1, nonce: 7 }, members, ..world.view.clone() };
    let cut = Cut::compute(&states, &Agreed::first(&wrong.nodes), &view);
    assert_eq!((cut.verdict, &cut.settings), (Verdict::Install, &right));
}
