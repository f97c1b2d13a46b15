//! One rule a test.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use bytes::Bytes;
use mainstay_base::{
    BootId, BootNonce, Duration, Incarnation, Level, Member, Order, Position, SiteId, View, ViewId,
};
use mainstay_multicast::{
    Agreed, CastError, Cut, Durability, Event, FIFO, FlushState, Message, Run, Settings, Standing,
    Verdict,
};
use support::{Options, World, group_id, node};

/// Nodes in a first view, nothing on its way.
fn world(nodes: usize, durability: Durability, deliver_at: Level) -> World {
    let options = Options { nodes, stateful: true, ..Options::new(1, durability, deliver_at) };
    let mut world = World::new(Options { steps: 0, ..options });
    view_change(&mut world);
    world.settle();
    world
}

fn view_change(world: &mut World) {
    world.busy = false;
    world.change_view(&mut |_| false);
}

fn sequencer(world: &mut World) -> usize {
    let site = world.group(0).status().sequencer.unwrap();
    (0..world.slots.len()).find(|index| node(*index) == site.node).unwrap()
}

fn boot(world: &World, index: usize) -> BootId {
    world.slots[index].boot().unwrap()
}

fn carry_all(world: &mut World, from: usize, to: usize) {
    let (from, to) = (boot(world, from), boot(world, to));
    while world.channels.contains_key(&(from, to)) {
        world.carry(from, to);
    }
}

fn has(world: &World, index: usize, is_it: impl Fn(&Event) -> bool) -> bool {
    world.slots[index].events.iter().any(is_it)
}

fn places(world: &World, index: usize) -> Vec<(u64, SiteId, u64)> {
    let batches = world.slots[index].events.iter().filter_map(|event| match event {
        Event::Deliver(batch) => Some(batch),
        _ => None,
    });
    let placed = batches.flatten().filter_map(|it| Some((it.position?.0, it.message)));
    placed.map(|(position, message)| (position, message.sender, message.sequence)).collect()
}

/// Checks MC-52 and MC-53: the funnel fails before it numbers, after it told nobody, and after it told one; the survivors
/// agree, and who was told a number keeps it.
#[test]
fn survivors_agree_wherever_the_sequencer_fails() {
    for told in 0..3 {
        let mut world = world(3, Durability::Memory, Level::Majority);
        let funnel = sequencer(&mut world);
        let (one, other) = ((funnel + 1) % 3, (funnel + 2) % 3);
        for index in [other, one] {
            world.cast(index, Order::Total, Level::Delivered);
            world.end_turn(index);
        }
        carry_all(&mut world, one, other);
        carry_all(&mut world, other, one);
        carry_all(&mut world, other, funnel);
        if told > 0 {
            world.end_turn(funnel);
            carry_all(&mut world, one, funnel);
            world.end_turn(funnel);
        }
        if told > 1 {
            carry_all(&mut world, funnel, one);
        }
        let known = world.group(one).status().known;
        world.crash(funnel, false);
        let lost = boot(&world, one);
        world.channels.retain(|(from, _), _| *from == lost);
        view_change(&mut world);
        world.settle();
        assert_eq!(places(&world, one), places(&world, other));
        assert_eq!(places(&world, one).len(), 2);
        if told > 1 {
            // It had numbered the one from `other` first.
            let first = places(&world, one)[0].1.node;
            assert_eq!((known, first), (2, node(other)));
        }
        world.finish().unwrap();
    }
}

/// Checks MC-52: the cut ends where the sender and the sequencer took a message with them, and what is behind the hole
/// is numbered anew by rank.
#[test]
fn a_cut_ends_at_a_hole_and_numbers_the_rest() {
    let site = |index| SiteId { node: node(index), incarnation: Incarnation(1) };
    let member = |index| Member { site: site(index), nonce: BootNonce(index as u128) };
    let view = |number| ViewId { number, nonce: 1 };
    let run = |rank, first, count| Run { rank, first, count };
    let settings = Settings {
        nodes: (0..5).map(node).collect(),
        durability: Durability::Memory,
        deliver_at: Level::Majority,
        stateful: true,
        application: 0,
    };
    let state = |runs: Vec<Run>, total: Vec<u64>| FlushState {
        group: group_id(),
        settings: settings.clone(),
        accept_loss: false,
        own: None,
        learning: None,
        standing: Some(Standing {
            as_of: view(4),
            live: true,
            senders: (0..5).map(site).collect(),
            trimmed: 10,
            ordered: vec![4, 4, 2, 0, 0],
            runs,
            total,
            fifo: vec![0; 5],
        }),
    };
    // Position 13 is message 1 of rank 4, which nobody has.
    let all = vec![run(1, 5, 2), run(4, 1, 1), run(0, 5, 1)];
    let states = [
        (member(0).boot(), state(all, vec![5, 6, 2, 1, 0])),
        (member(1).boot(), state(vec![run(1, 5, 2)], vec![4, 7, 2, 0, 0])),
        (member(2).boot(), state(vec![], vec![4, 4, 4, 0, 0])),
    ];
    let last = View {
        id: view(5),
        members: vec![member(0), member(1), member(2)],
        ..View::empty((0..5).map(node))
    };
    let agreed = Agreed {
        as_of: view(4),
        members: (0..5).map(node).collect(),
        settings: Some(settings.clone()),
    };
    let cut = Cut::compute(&states, &agreed, &last);
    assert!(cut.is_well_formed());
    assert_eq!((cut.verdict, cut.loss), (Verdict::Install, false));
    assert_eq!((cut.start, cut.kept, cut.end), (10, 12, 17));
    let tail = [run(0, 5, 1), run(1, 7, 1), run(2, 3, 2), run(3, 1, 1)];
    assert_eq!(cut.runs, [&[run(1, 5, 2)][..], &tail].concat());
    let members = (0..3).map(node).collect();
    assert_eq!(cut.agreed(&last), Some(Agreed { as_of: last.id, members, ..agreed.clone() }));

    // Of two of five nobody knows what the others had.
    let cut = Cut::compute(&states[..2], &agreed, &last);
    assert_eq!((cut.verdict, cut.agreed(&last)), (Verdict::Blocked, None));
    let mut accepted = states[..2].to_vec();
    accepted[1].1.accept_loss = true;
    let cut = Cut::compute(&accepted, &agreed, &last);
    assert!(cut.is_well_formed() && cut.loss);
    assert_eq!((cut.verdict, cut.kept, cut.end), (Verdict::Install, 12, 12));

    // Of three members of the latest view one was in every majority. It goes on as soon as most of the nodes carry the group.
    let three = Agreed { members: (0..3).map(node).collect(), ..agreed.clone() };
    let mut one = states.to_vec();
    one[1..].iter_mut().for_each(|(_, state)| state.standing = None);
    assert_eq!(Cut::compute(&one[..1], &three, &last).verdict, Verdict::Blocked);
    assert_eq!(Cut::compute(&one[..2], &three, &last).verdict, Verdict::Blocked);
    let cut = Cut::compute(&one, &three, &last);
    assert_eq!((cut.verdict, cut.loss, cut.holders.len()), (Verdict::Install, false, 1));
    // An operator may let it go on alone: nothing is lost.
    one[0].1.accept_loss = true;
    let cut = Cut::compute(&one[..1], &three, &last);
    assert_eq!((cut.verdict, cut.loss, cut.holders.len()), (Verdict::Install, false, 1));
    // Whoever is still learning the past of a view was in no majority of it.
    let mut learner = states[1].clone();
    (learner.1.standing, learner.1.learning) = (None, Some(view(4)));
    let some = [states[0].clone(), learner, states[2].clone()];
    assert_eq!(Cut::compute(&some, &agreed, &last).verdict, Verdict::Install);
    assert_eq!(Cut::compute(&some[..2], &agreed, &last).verdict, Verdict::Blocked);
    // States of a former view are no past of the latest.
    let later = Agreed { as_of: view(6), ..three };
    assert_eq!(Cut::compute(&states, &later, &last).verdict, Verdict::Blocked);

    // A log that ends before the latest view has nothing that was acknowledged there, if that has to be forced first.
    let mut logs = states.to_vec();
    let old = logs[1].1.standing.as_mut().unwrap();
    (old.as_of, old.live) = (view(3), false);
    assert_eq!(Cut::compute(&logs, &agreed, &last).verdict, Verdict::Blocked);
    logs.iter_mut().for_each(|(_, state)| {
        let settings = &mut state.settings;
        (settings.durability, settings.deliver_at) = (Durability::Disk, Level::Disk);
    });
    let cut = Cut::compute(&logs, &agreed, &last);
    assert_eq!(
        cut.verdict,
        Verdict::Blocked,
        "it was not forced first with the settings of before"
    );
    let agreed = Agreed { settings: Some(logs[0].1.settings.clone()), ..agreed };
    let cut = Cut::compute(&logs, &agreed, &last);
    assert_eq!((cut.verdict, cut.loss, cut.holders.len()), (Verdict::Install, false, 2));
    logs[1].1.standing = None;
    assert_eq!(Cut::compute(&logs, &agreed, &last).verdict, Verdict::Blocked, "its disk is lost");
    logs[1].1.learning = Some(view(3));
    assert_eq!(Cut::compute(&logs, &agreed, &last).verdict, Verdict::Install);

    // What contradicts itself counts for nothing.
    let mut broken = states.to_vec();
    broken[1].1.standing.as_mut().unwrap().runs[0].first = 9;
    assert_eq!(Cut::compute(&broken, &agreed, &last).verdict, Verdict::Blocked);
}

/// A group keeps the settings that it had in its latest view as long as a member has them, and takes those of most nodes otherwise.
/// Who has others is no member.
#[test]
fn the_settings_of_a_group_stand() {
    let world = world(3, Durability::Memory, Level::Majority);
    let (last, agreed) = (world.view.clone(), world.agreed.clone());
    let state = |settings: &Settings| FlushState {
        group: group_id(),
        settings: settings.clone(),
        accept_loss: false,
        own: None,
        learning: None,
        standing: Some(Standing {
            as_of: agreed.as_of,
            live: true,
            senders: last.members.iter().map(|member| member.site).collect(),
            trimmed: 0,
            ordered: vec![0; 3],
            runs: Vec::new(),
            total: vec![0; 3],
            fifo: vec![0; 3],
        }),
    };
    let right = agreed.settings.clone().unwrap();
    let wrong = Settings { stateful: !right.stateful, ..right.clone() };
    let cut = |agreed: &Agreed, settings: [&Settings; 3]| {
        let states = (0..3).map(|index| (boot(&world, index), state(settings[index])));
        Cut::compute(&states.collect::<Vec<_>>(), agreed, &last)
    };
    let boots = |some: &[usize]| some.iter().map(|index| boot(&world, *index)).collect();

    // One of the three still has what the group had.
    for index in 0..3 {
        let mut settings = [&wrong; 3];
        settings[index] = &right;
        let cut = cut(&agreed, settings);
        assert_eq!((&cut.settings, &cut.carriers), (&right, &boots(&[index])));
        assert!(cut.is_well_formed() && cut.refused.len() == 2);
    }
    // None of them has it any more.
    let all = cut(&agreed, [&wrong; 3]);
    assert_eq!((all.settings, all.carriers), (wrong.clone(), boots(&[0, 1, 2])));

    // Before the first view most of them count, not the oldest.
    let first = Agreed { settings: None, ..agreed.clone() };
    let oldest = cut(&first, [&wrong, &right, &right]);
    assert_eq!((oldest.settings, oldest.carriers), (right.clone(), boots(&[1, 2])));
    assert_eq!(oldest.refused, boots(&[0]));
    // Of two that as many have, it is what the oldest has.
    let other = Settings { deliver_at: Level::Safe, ..right.clone() };
    assert_eq!(cut(&first, [&wrong, &right, &other]).settings, wrong);

    // Who lacks the group is a member of no view of it.
    let two: Vec<_> = (1..3).map(|index| (boot(&world, index), state(&right))).collect();
    let cut = Cut::compute(&two, &agreed, &last);
    assert_eq!(cut.verdict, Verdict::Install);
    assert_eq!(cut.absent(&last).collect::<Vec<_>>(), [(node(0), false)]);

    // A group that has had no view begins when a majority of its nodes have it.
    let first = Agreed { as_of: ViewId::NONE, ..first };
    let mut two = two;
    two.iter_mut().for_each(|(_, state)| state.standing = None);
    let cut = Cut::compute(&two, &first, &last);
    assert_eq!((cut.verdict, cut.loss, cut.carriers.len()), (Verdict::Install, false, 2));
    assert_eq!(Cut::compute(&two[..1], &first, &last).verdict, Verdict::Blocked);
    // One that somebody has a past of is not new.
    assert_eq!(Cut::compute(&two, &agreed, &last).verdict, Verdict::Blocked);
    two[0].1.standing = state(&right).standing;
    assert_eq!(Cut::compute(&two, &first, &last).verdict, Verdict::Blocked);
}

/// Checks MC-21: a minority with state stands still, refuses reads and keeps casts; an operator may go on with it.
#[test]
fn a_blocked_group_waits_for_an_operator() {
    let mut world = world(3, Durability::Memory, Level::Majority);
    world.cast(0, Order::Total, Level::Majority);
    world.settle();
    world.crash(1, false);
    world.crash(2, false);
    view_change(&mut world);
    assert!(has(&world, 0, |event| matches!(event, Event::Blocked { .. })));
    world.cast(0, Order::Total, Level::Majority);
    let now = world.now;
    let token = world.slots[0].ask(0, 0);
    world.group(0).read(now, token);
    world.drain(0);
    assert!(has(&world, 0, |event| matches!(event, Event::ReadFailed { .. })));
    world.group(0).accept_loss();
    world.restart(1);
    view_change(&mut world);
    world.settle();
    assert!(has(&world, 0, |event| *event == Event::MaybeLost { from: Position(2) }));
    assert_eq!(places(&world, 0).len(), 2);
    assert_eq!(world.slots[1].state(), world.slots[0].state());
    world.finish().unwrap();
}

/// Checks MC-21: only when all nodes of a `Memory` group are back without state it begins anew, and says so.
#[test]
fn all_back_empty_begin_anew() {
    let mut world = world(3, Durability::Memory, Level::Majority);
    world.cast(0, Order::Total, Level::Majority);
    world.settle();
    (0..3).for_each(|index| world.crash(index, false));
    world.restart(0);
    world.restart(1);
    view_change(&mut world);
    assert!(has(&world, 0, |event| matches!(event, Event::Blocked { .. })));
    world.restart(2);
    view_change(&mut world);
    world.settle();
    for index in 0..3 {
        assert!(has(&world, index, |event| *event == Event::MaybeLost { from: Position(1) }));
    }
    world.cast(1, Order::Total, Level::Majority);
    world.settle();
    assert_eq!(places(&world, 2).first().map(|place| place.0), Some(1));
    world.finish().unwrap();
}

/// Checks MC-21: a majority of the logs of a `Disk` group is enough, and restores all that was acknowledged.
#[test]
fn restarted_members_contribute_their_logs() {
    let mut world = world(3, Durability::Disk, Level::Disk);
    for step in 0..40 {
        world.cast(step % 3, Order::Total, Level::Disk);
        world.settle();
        if step == 20
            && let Some(position) = world.slots[0].checkpoint()
        {
            let now = world.now;
            world.group(0).checkpointed(now, position);
            world.drain(0);
        }
    }
    let state = world.slots[2].state();
    (0..3).for_each(|index| world.crash(index, false));
    world.restart(0);
    world.restart(1);
    view_change(&mut world);
    world.settle();
    for index in 0..2 {
        assert_eq!(world.slots[index].state(), state);
        assert!(has(&world, index, |event| matches!(event, Event::Restored { .. })));
        assert!(!has(&world, index, |event| matches!(event, Event::MaybeLost { .. })));
    }
    let from = |event: &Event| matches!(event, Event::Restored { from_checkpoint: true, checkpoint, entries } if checkpoint.0 + entries.len() as u64 == 40);
    assert!(has(&world, 0, from));
    world.finish().unwrap();
}

/// Checks view-synchrony §6: a checkpoint that is noted while the word that the member is whole is on its way to the
/// disk does not make the log forget that word.
#[test]
fn a_checkpoint_keeps_the_word_that_a_member_is_whole() {
    let mut world = world(3, Durability::Disk, Level::Disk);
    world.cast(0, Order::Total, Level::Disk);
    world.settle();
    world.crash(2, false);
    world.restart_empty(2);
    view_change(&mut world);
    let last = |event: &Event| matches!(event, Event::RestoreChunk { last: true, .. });
    while !has(&world, 2, last) {
        let busy: Vec<_> = world.channels.keys().copied().collect();
        busy.into_iter().for_each(|(from, to)| world.carry(from, to));
        (0..3).for_each(|index| world.end_turn(index));
    }
    assert!(world.slots[2].is_writing() && !world.group(2).status().whole);
    let (now, position) = (world.now, Position(1));
    world.group(2).checkpointed(now, position);
    world.drain(2);
    while world.slots[2].is_writing() {
        world.write(2);
    }
    assert!(world.group(2).status().whole);
    world.crash(2, false);
    world.restart(2);
    assert!(world.group(2).flush().standing.is_some());
}

/// Checks MC-21: what a joiner knew of the order of its own messages is void when the group goes on without those who
/// ordered them. They get other positions, and are told of at these only.
#[test]
fn what_was_ordered_by_the_lost_is_not_told_of() {
    let mut world = world(3, Durability::Disk, Level::Disk);
    world.cast(0, Order::Total, Level::Disk);
    world.settle();
    world.crash(2, false);
    view_change(&mut world);
    (0..5).for_each(|_| world.cast(1, Order::Total, Level::Disk));
    world.settle();
    world.crash(0, false);
    world.restart_empty(0);
    view_change(&mut world);
    // It has no part of the past yet, and casts; the other one orders it, between messages of its own.
    for known in 7..=12 {
        world.cast(known % 2, Order::Total, Level::Disk);
        while world.group(0).status().known < known as u64 {
            let busy: Vec<_> = world.channels.keys().copied().collect();
            busy.into_iter().for_each(|(from, to)| world.carry(from, to));
            (0..2).for_each(|index| world.end_turn(index));
        }
    }
    assert!(!world.group(0).status().whole);
    world.crash(1, false);
    world.restart_empty(1);
    world.restart(2);
    view_change(&mut world);
    world.settle();
    assert!(has(&world, 0, |event| *event == Event::MaybeLost { from: Position(2) }));
    for _ in 0..10 {
        world.cast(1, Order::Total, Level::Disk);
        world.settle();
    }
    let site = world.group(0).status().members.into_iter().find(|site| site.node == node(0));
    let places = places(&world, 0);
    let told = world.slots[0].events.iter().filter_map(|event| match event {
        Event::Reached { upto, position, .. } => Some((position.0, site.unwrap(), *upto)),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert!(!told.is_empty());
    assert!(told.iter().all(|place| places.contains(place)), "{told:?} of {places:?}");
}

/// Checks MC-3: when the sponsor fails in the middle of a transfer another one begins it anew.
#[test]
fn another_sponsor_begins_anew() {
    let mut world = world(5, Durability::Memory, Level::Majority);
    world.cast(0, Order::Total, Level::Majority);
    world.settle();
    world.crash(4, false);
    view_change(&mut world);
    world.restart(4);
    view_change(&mut world);
    let wants = |event: &Event| matches!(event, Event::SnapshotWanted { .. });
    let sponsor = (0..4).find(|index| has(&world, *index, wants)).unwrap();
    let (from, to) = (boot(&world, sponsor), boot(&world, 4));
    while !has(&world, 4, |event| matches!(event, Event::RestoreChunk { .. })) {
        assert!(world.channels.contains_key(&(from, to)));
        world.carry(from, to);
        world.end_turn(4);
    }
    assert!(!world.group(4).status().whole);
    world.crash(sponsor, false);
    view_change(&mut world);
    world.settle();
    assert!(world.group(4).status().whole);
    let again = |event: &&Event| matches!(event, Event::RestoreChunk { offset: 0, .. });
    assert_eq!(world.slots[4].events.iter().filter(again).count(), 2);
    world.finish().unwrap();
}

/// Checks MC-21 for reads: without a majority that is neither paused nor wedged nobody gets an answer.
#[test]
fn a_paused_majority_answers_no_read() {
    let mut world = world(3, Durability::Memory, Level::Majority);
    let now = world.now;
    world.group(1).pause(now);
    world.group(2).wedge();
    let token = world.slots[0].ask(0, 0);
    world.group(0).read(now, token);
    for _ in 0..5 {
        (0..3).for_each(|index| world.end_turn(index));
        for (from, to) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            carry_all(&mut world, from, to);
        }
    }
    assert!(!has(&world, 0, |event| matches!(event, Event::ReadReady { .. })));
    world.group(1).resume(now);
    world.end_turn(1);
    carry_all(&mut world, 1, 0);
    world.end_turn(0);
    assert!(has(&world, 0, |event| *event == Event::ReadReady { token, position: Position(0) }));
}

/// Checks MC-20 and the budget: a full group gives the message back, names who is slow, and takes it once all have it.
#[test]
fn a_full_group_gives_back_and_names_the_slow() {
    let small = |it: mainstay_multicast::Builder| {
        it.payload_max(100).unstable_bytes(1_000).reports(500, Duration::from_millis(10))
    };
    let options = Options { nodes: 3, ..Options::new(1, Durability::Memory, Level::Majority) };
    let mut world = World::new(Options { configure: small, ..options });
    view_change(&mut world);
    world.settle();
    let payload = Bytes::from_static(&[7; 100]);
    let mut now = world.now;
    let too_large = world.group(0).cast(now, Order::Total, vec![0; 101].into(), Level::Delivered);
    assert_eq!(too_large, Err(CastError::TooLarge(101)));
    let disk = world.group(0).cast(now, Order::Total, payload.clone(), Level::Disk);
    assert_eq!(disk, Err(CastError::Level(Level::Disk)));
    let cast = |world: &mut World| {
        let now = world.now;
        world.group(0).cast(now, Order::Total, payload.clone(), Level::Delivered)
    };
    for _ in 0..6 {
        cast(&mut world).unwrap();
    }
    assert_eq!(cast(&mut world), Err(CastError::Full { payload: payload.clone() }));
    world.end_turn(0);
    // Member 2 takes nothing in; 1 does.
    for _ in 0..3 {
        for (from, to) in [(0, 1), (1, 0)] {
            carry_all(&mut world, from, to);
            world.end_turn(to);
        }
    }
    assert!(cast(&mut world).is_err());
    assert!(world.group(0).poll_timeout().is_some());
    now = now + Duration::from_secs(3);
    world.now = now;
    world.group(0).handle_timeout(now);
    world.end_turn(0);
    let slow = world.group(0).status().slow;
    assert!(slow.iter().any(|site| site.node == node(2)), "{slow:?}");
    world.settle();
    assert!(has(&world, 0, |event| matches!(event, Event::SlowOver { .. })));
    assert_eq!(world.group(0).status().unstable_bytes, 0);
    cast(&mut world).unwrap();
}

/// Checks MC-7: messages in FIFO order are delivered in send order and at once, with numbers of their own lane.
#[test]
fn messages_in_fifo_order_wait_for_nobody() {
    let mut world = world(3, Durability::Memory, Level::Safe);
    let now = world.now;
    let some = Bytes::from_static(b"x");
    let refused = world.group(0).cast(now, Order::Fifo, some.clone(), Level::Majority);
    assert_eq!(refused, Err(CastError::Level(Level::Majority)));
    for sequence in 1..=3 {
        let id = world.group(0).cast(now, Order::Fifo, some.clone(), Level::Delivered).unwrap();
        assert_eq!(id.sequence, sequence | FIFO);
    }
    world.end_turn(0);
    carry_all(&mut world, 0, 1);
    world.end_turn(1);
    let batches = world.slots[1].events.iter().filter_map(|event| match event {
        Event::Deliver(batch) => Some(batch.iter().map(|it| it.message.sequence & !FIFO)),
        _ => None,
    });
    assert_eq!(batches.flatten().collect::<Vec<_>>(), [1, 2, 3]);
}

/// Checks MC-2, MC-16 and MC-50: what contradicts the protocol, or comes from elsewhere, is dropped and counted; frames
/// of a view to come are kept for it.
#[test]
fn contradictions_are_dropped_and_counted() {
    let mut world = world(3, Durability::Memory, Level::Majority);
    let view = world.group(0).status().view;
    let funnel = sequencer(&mut world);
    let (me, other) = ((funnel + 1) % 3, (funnel + 2) % 3);
    let (order, prompt, payload) = (Order::Total, false, Bytes::from_static(b"x"));
    let data = |view, first| {
        let (lens, payload) = (vec![1], payload.clone());
        Message::Data { view, order, first, lens, prompt, payload }
    };
    let report =
        |received, forced, fifo| Message::Report { view, received, forced, whole: true, fifo };
    let numbers = |first, runs| Message::Order { view, first, runs };
    let garbage = [
        (other, data(view, 2)),
        (other, numbers(1, vec![(0, 1)])),
        (funnel, numbers(2, vec![(0, 1)])),
        (funnel, numbers(1, vec![(9, 1)])),
        (funnel, numbers(1, vec![(0, 0)])),
        (other, report(1, 2, None)),
        (other, report(1, 1, Some(vec![0]))),
        (other, Message::Answer { view, number: 7, known: 1 }),
        (other, Message::TransferAck { view, position: Position(0), offset: 1 }),
    ];
    let now = world.now;
    let count = garbage.len() as u64;
    for (from, message) in garbage {
        let from = boot(&world, from);
        world.group(me).receive(now, from, message);
    }
    assert_eq!(world.group(me).stats().dropped_garbage, count);
    let stranger = BootId { node: node(9), nonce: BootNonce(99) };
    world.group(me).receive(now, stranger, data(view, 1));
    assert_eq!(world.group(me).stats().dropped_stranger, 1);
    let (older, newer) =
        (ViewId { number: 0, ..view }, ViewId { number: view.number + 1, nonce: 5 });
    let from = boot(&world, other);
    world.group(me).receive(now, from, data(older, 1));
    world.group(me).receive(now, from, data(newer, 1));
    assert_eq!(world.group(me).stats().dropped_stale, 1);
    assert_eq!(world.group(me).stats().kept_aside, 1);
    // That view never comes: another one has its number.
    view_change(&mut world);
    world.settle();
    assert_eq!(world.group(me).stats().dropped_stale, 2);
    assert_eq!(world.group(me).status().known, 0);
}
