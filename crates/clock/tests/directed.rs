//! One rule a test, and the edge cases by name.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::num::NonZeroU64;

use mainstay_base::{BootNonce, Duration, Incarnation, Member, View, ViewId};
use mainstay_clock::graph::{
    Config, Graph, Id, Links, MaskInError, MaskOutError, ReceiveError, Received, SendError,
};
use mainstay_clock::hybrid::{Moment, ObserveError, StampError};
use mainstay_clock::multipart::{IssueError, Timestamp};
use mainstay_clock::reserve::Reserve;
use mainstay_clock::timers::{Timers, TooMany};
use mainstay_clock::vector::{Counting, ReceiveError as Refused, Turn};
use mainstay_clock::{
    COUNT_MAX, MEMBERS_MAX, Members, MembersError, Rank, Time, hybrid, multipart, scalar, vector,
};
use support::rules::{self, sites, table};

const BOUND: Duration = Duration::from_millis(10);

fn ms(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn hybrid_clock() -> hybrid::Clock {
    hybrid::Clock::new(sites(1)[0], BOUND, Moment::ZERO)
}

fn graphs(count: usize, config: Config) -> Vec<Graph<u32>> {
    let members = table(count);
    sites(count).into_iter().map(|site| Graph::new(config, &members, site).unwrap()).collect()
}

/// Sends a message at one and hands it to all others.
fn say(graphs: &mut [Graph<u32>], at: usize) -> Id {
    let links = graphs[at].send(0).unwrap();
    for (_, graph) in graphs.iter_mut().enumerate().filter(|(to, _)| *to != at) {
        graph.receive(links.clone(), 0).unwrap();
    }
    links.id()
}

/// Checks HA-21 and CLK-37: no number comes twice whenever the process crashes.
#[test]
fn no_restart_uses_a_number_twice() {
    let mut used = 0;
    for seed in mainstay_sim::seeds(0..200) {
        let recover = |stored| Reserve::recover(NonZeroU64::new(8).unwrap(), stored);
        used += rules::restarts(seed, recover).unwrap_or_else(|violation| panic!("{violation}"));
    }
    assert!(used > 10_000, "{used}");
}

/// Checks CLK-37: a process that forgot its count under its old incarnation is noticed.
#[test]
fn a_restart_under_the_old_incarnation_is_noticed() {
    let members = table(2);
    let clock =
        |at: usize| vector::Clock::new(members.clone(), sites(2)[at], Counting::Events).unwrap();
    let (mut a, mut b) = (clock(0), clock(1));
    b.receive(&a.send()).unwrap();
    let answer = b.send();
    a = clock(0);
    assert_eq!(a.receive(&answer), Err(Refused::Unheard { ours: 0, theirs: 1 }));
}

/// Checks CLK-40: once, not early, in order, also when a correction jumps over it or takes the clock back.
#[test]
fn a_timer_fires_once_whatever_the_clock_does() {
    for seed in mainstay_sim::seeds(0..50) {
        let fired = rules::timers(seed, Timers::new(1_000)).unwrap();
        assert!(fired > 400, "{fired}");
    }
}

/// Edge case 11: a timer that is set while the clock is slewed has the reading, not the wait.
#[test]
fn a_timer_set_during_a_slew_keeps_its_reading() {
    let mut timers = Timers::new(2);
    timers.set(ms(100), 'a').unwrap();
    // The clock runs at half its rate for a while: 60 ms later it says 90.
    assert_eq!(timers.fire(ms(90)), None);
    let gone = timers.set(ms(95), 'b').unwrap();
    assert_eq!(timers.set(ms(99), 'c'), Err(TooMany(2)));
    assert_eq!((timers.cancel(gone), timers.cancel(gone)), (Some('b'), None));
    assert_eq!((timers.earliest(), timers.len()), (Some(ms(100)), 1));
    assert_eq!(timers.fire(ms(101)), Some((ms(100), 'a')));
    assert!(timers.is_empty());
}

/// Edge case 2: a clock that stands still. The order goes on, until it is further behind the others than the bound.
#[test]
fn a_stuck_clock_keeps_the_order_and_is_noticed() {
    let mut clock = hybrid_clock();
    let stamps: Vec<_> = (0..100).map(|_| clock.stamp(ms(50)).unwrap()).collect();
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(stamps[99].moment, Moment { time: ms(50), count: 99 });
    clock.observe(ms(50), Moment { time: ms(60), count: 0 }).unwrap();
    let ahead = clock.observe(ms(50), Moment { time: ms(61), count: 0 }).unwrap_err();
    let by = Duration::from_millis(11);
    assert_eq!(ahead, ObserveError::Ahead { by, bound: BOUND });
}

/// Edge case 2: a clock at twice the rate pulls nobody further than the bound.
#[test]
fn a_racing_clock_pulls_nobody_along() {
    let (mut racing, mut right) = (hybrid_clock(), hybrid_clock());
    let mut refused = 0;
    for now in 1..100 {
        let sent = racing.stamp(ms(2 * now)).unwrap();
        match right.observe(ms(now), sent.moment) {
            Ok(stamp) => assert!(stamp.moment.time <= ms(now + 10)),
            Err(error) => {
                assert!(matches!(error, ObserveError::Ahead { .. }));
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 89);
}

/// Edge case 2: a clock that steps back further than the bound: the process says that it is faulty.
#[test]
fn a_clock_that_steps_back_is_noticed_by_its_process() {
    let mut clock = hybrid_clock();
    let before = clock.stamp(ms(100)).unwrap();
    assert!(clock.stamp(ms(95)).unwrap() > before);
    let by = Duration::from_millis(20);
    assert_eq!(clock.stamp(ms(80)), Err(StampError::Behind { by, bound: BOUND }));
    let seen = clock.observe(ms(80), Moment { time: ms(70), count: 0 });
    assert!(matches!(seen, Err(ObserveError::Stamp(StampError::Behind { .. }))));
    assert!(clock.stamp(ms(101)).unwrap() > before);
}

/// Edge case 12: after a pause what waits is received at once, and each receipt has a stamp of its own.
#[test]
fn a_process_that_paused_takes_up_the_order() {
    let (mut paused, mut other) = (hybrid_clock(), hybrid_clock());
    let first = paused.stamp(ms(10)).unwrap();
    let waiting: Vec<_> = (11..500).map(|now| other.stamp(ms(now)).unwrap()).collect();
    let mut last = first;
    for sent in waiting {
        let received = paused.observe(ms(500), sent.moment).unwrap();
        assert!(received > last && received.moment > sent.moment);
        last = received;
    }
    assert_eq!(last.moment.time, ms(500));
}

/// The count of a hybrid stamp carries over, and the last moment there is has none behind it.
#[test]
fn a_full_count_carries_into_the_time() {
    let mut clock = hybrid_clock();
    let full = Moment { time: ms(5), count: u32::MAX };
    let next = clock.observe(ms(5), full).unwrap().moment;
    assert_eq!(next, Moment { time: Time::from_nanos(5_000_001), count: 0 });
    let end = Moment { time: Time::from_nanos(u64::MAX), count: u32::MAX };
    let mut clock = hybrid::Clock::new(sites(1)[0], Duration::MAX, Moment::ZERO);
    assert!(clock.observe(ms(5), end).is_err());
    assert_eq!(clock.last(), Moment::ZERO);
}

/// Checks CLK-37 for hybrid stamps: what was kept is the floor of the next life.
#[test]
fn a_hybrid_clock_starts_above_its_floor() {
    let floor = Moment { time: ms(100), count: 3 };
    let mut clock = hybrid::Clock::new(sites(1)[0], BOUND, floor);
    assert_eq!(clock.stamp(ms(95)).unwrap().moment, Moment { time: ms(100), count: 4 });
}

#[test]
fn counters_that_nobody_reaches_are_refused() {
    let mut clock = scalar::Clock::new(sites(1)[0]);
    assert_eq!(clock.observe(COUNT_MAX + 1), Err(scalar::TooLarge(COUNT_MAX + 1)));
    assert_eq!(clock.counter(), 0);
    clock.observe(COUNT_MAX).unwrap();
    assert_eq!(clock.tick().counter, COUNT_MAX + 2);
}

/// Two nodes, the same twice, none, too many, and another incarnation.
#[test]
fn members_are_listed_once() {
    let view = ViewId { number: 1, nonce: 0 };
    let mut again = sites(2);
    again.push(again[0]);
    again[2].incarnation = Incarnation(2);
    assert_eq!(Members::new(view, again.clone()), Err(MembersError::Twice(Rank(2))));
    assert_eq!(Members::new(view, []), Err(MembersError::Count(0)));
    let many = sites(MEMBERS_MAX + 1);
    assert_eq!(Members::new(view, many), Err(MembersError::Count(MEMBERS_MAX + 1)));
    let two = table(2);
    assert!(two.rank(again[2]).is_err() && two.rank(sites(2)[1]) == Ok(Rank(1)));
    let members = sites(3).into_iter().rev();
    let members = members.map(|site| Member { site, nonce: BootNonce(1) }).collect();
    let agreed = View {
        id: view,
        members,
        roster: sites(3).iter().map(|it| it.node).collect(),
        departures: Default::default(),
    };
    assert_eq!(Members::of(&agreed).unwrap().rank(sites(3)[2]), Ok(Rank(0)));
}

/// Entries follow the site at a view change, and a late message of the old view is told from those of the new one.
#[test]
fn a_view_change_drops_those_who_left() {
    let clock = |at: usize| vector::Clock::new(table(3), sites(3)[at], Counting::Sends).unwrap();
    let (mut a, mut b, mut c) = (clock(0), clock(1), clock(2));
    c.receive(&a.send()).unwrap();
    c.receive(&b.send()).unwrap();
    let late = b.send();
    let view = ViewId { number: 2, nonce: 7 };
    let next = Members::new(view, [sites(3)[2], sites(3)[1]]).unwrap();
    c.install(next.clone()).unwrap();
    assert_eq!(c.now().counts(), [0, 1]);
    assert!(matches!(c.receive(&late), Err(Refused::OtherView(_))));
    b.install(next.clone()).unwrap();
    assert_eq!(c.turn(sites(3)[1], &b.send()), Ok(Turn::Early(Rank(1))));
    assert!(a.install(next).is_err() && a.now().counts() == [1, 0, 0]);
}

/// Causal order by message counts: next, early, old.
#[test]
fn a_message_has_its_turn() {
    let clock = |at: usize| vector::Clock::new(table(3), sites(3)[at], Counting::Sends).unwrap();
    let (mut a, mut b, mut c) = (clock(0), clock(1), clock(2));
    let (first, second) = (a.send(), a.send());
    assert_eq!(c.turn(sites(3)[0], &second), Ok(Turn::Early(Rank(0))));
    b.receive(&first).unwrap();
    let answer = b.send();
    assert_eq!(c.turn(sites(3)[1], &answer), Ok(Turn::Early(Rank(0))));
    c.receive(&first).unwrap();
    assert_eq!(c.turn(sites(3)[1], &answer), Ok(Turn::Next));
    assert_eq!(c.turn(sites(3)[0], &second), Ok(Turn::Next));
    assert_eq!(c.turn(sites(3)[0], &first), Ok(Turn::Old));
}

/// Replicas and what all of them have, over many runs.
#[test]
fn timestamps_of_updates_grow_and_gossip_brings_them_everywhere() {
    for seed in mainstay_sim::seeds(0..100) {
        rules::replicas(seed, |it| it, |it| it).unwrap();
    }
}

/// An update cannot follow what its replica never had, and waits for its number to be stored.
#[test]
fn a_replica_refuses_what_it_cannot_number() {
    let zero = Timestamp::zero(2).unwrap();
    let numbers = || Reserve::recover(NonZeroU64::new(2).unwrap(), None);
    let mut one = multipart::Clock::recover(Rank(0), zero.clone(), numbers()).unwrap();
    assert_eq!(one.issue(&zero), Err(IssueError::NotStored));
    let limit = one.to_store().unwrap();
    one.stored(limit);
    let issued = one.issue(&zero).unwrap();
    let mut forgetful = multipart::Clock::recover(Rank(0), zero.clone(), numbers()).unwrap();
    let expected = IssueError::Unheard { ours: 0, theirs: 1 };
    assert_eq!(forgetful.issue(&issued), Err(expected));
    assert!(multipart::Clock::recover(Rank(2), zero, numbers()).is_err());
}

/// Checks MC-43: with all but one the message is not stable, with that one it is; a silent one keeps it so.
#[test]
fn a_message_is_stable_when_all_others_have_sent_after_it() {
    let mut graphs = graphs(3, Config::default());
    let first = say(&mut graphs, 0);
    say(&mut graphs, 1);
    assert!(graphs.iter().all(|graph| !graph.is_stable(first)));
    say(&mut graphs, 0);
    assert!(!graphs[0].is_stable(first));
    say(&mut graphs, 2);
    assert!(graphs.iter().all(|graph| graph.is_stable(first)));
}

/// Checks MC-45: messages of one depth are one wave, by sender, and it is complete with the first stable one.
#[test]
fn waves_come_in_order_of_depth() {
    let mut graphs = graphs(3, Config::default().with_waves());
    let sent: Vec<Links> = graphs.iter_mut().map(|graph| graph.send(0).unwrap()).collect();
    for (at, graph) in graphs.iter_mut().enumerate() {
        let others = sent.iter().filter(|links| links.sender.index() != at).rev();
        let received = others.map(|links| graph.receive(links.clone(), 0).unwrap());
        assert!(received.eq([Received::Attached(1); 2]));
        assert_eq!(graph.poll_wave(), None);
    }
    say(&mut graphs, 0);
    say(&mut graphs, 1);
    for graph in &mut graphs {
        let wave = graph.poll_wave().unwrap();
        let ids: Vec<_> = sent.iter().map(Links::id).collect();
        assert_eq!((wave.depth, wave.messages), (1, ids));
        assert_eq!(graph.poll_wave(), None);
    }
}

/// A process that has nothing to say acknowledges, once, and then the conversation is silent.
#[test]
fn nulls_end() {
    let mut graphs = graphs(3, Config::default());
    let first = say(&mut graphs, 0);
    let mut nulls = 0;
    for round in 0..10 {
        for at in 0..3 {
            let Some(links) = graphs[at].acknowledge(0) else { continue };
            assert!(links.null && round == 0);
            nulls += 1;
            for (_, graph) in graphs.iter_mut().enumerate().filter(|(to, _)| *to != at) {
                graph.receive(links.clone(), 0).unwrap();
            }
        }
    }
    assert_eq!(nulls, 2);
    assert!(graphs.iter().all(|graph| graph.is_stable(first)));
}

/// Everybody has filled a window before anything of the others came: acknowledgements still go.
#[test]
fn full_windows_do_not_lock_each_other() {
    let mut graphs = graphs(3, Config::default().window(4));
    let mut sent = Vec::new();
    for graph in &mut graphs {
        sent.extend((0..4).map(|_| graph.send(0).unwrap()));
        assert_eq!(graph.send(0), Err(SendError::Full(4)));
    }
    for _ in 0..3 {
        for graph in &mut graphs {
            for links in &sent {
                graph.receive(links.clone(), 0).unwrap();
            }
            while graph.poll_attached().is_some() {}
        }
        sent.extend(graphs.iter_mut().filter_map(|graph| graph.acknowledge(0)));
    }
    assert!(graphs.iter_mut().all(|graph| graph.send(0).is_ok()));
}

/// Checks MC-43 with a mask: what waited for the one who failed is stable, up to its last message it counts, and no further.
#[test]
fn masking_out_lets_the_others_go_on() {
    rules::mask(|graph| graph).unwrap();
    let mut graphs = graphs(3, Config::default());
    let last = graphs[2].send(0).unwrap();
    let first = say(&mut graphs[..2], 0);
    graphs[0].receive(last.clone(), 0).unwrap();
    say(&mut graphs[..2], 1);
    assert!(!graphs[0].is_stable(first));
    let newest: Vec<_> = graphs[..2].iter_mut().map(|graph| graph.wedge(Rank(2))).collect();
    assert_eq!(newest, [Some(1), Some(0)]);
    let late = graphs[1].receive(last.clone(), 0).unwrap();
    assert_eq!(late, Received::Held, "a wedged graph takes nothing more");
    let refused = MaskOutError::Attached { rank: Rank(2), last: 0, newest: 1 };
    assert_eq!(graphs[0].mask_out(Rank(2), 0), Err(refused));
    for graph in &mut graphs[..2] {
        graph.mask_out(Rank(2), 1).unwrap();
        assert_eq!(graph.mask_out(Rank(2), 1), Err(MaskOutError::Already(Rank(2))));
        assert!(graph.is_stable(first) && graph.awaited().next().is_none());
    }
    assert_eq!(graphs[1].newest(Rank(2)), 1, "what was held is attached");
    graphs[2].mask_out(Rank(2), 1).unwrap();
    assert_eq!(graphs[2].send(0), Err(SendError::MaskedOut));
}

/// A participant that comes back sends as another incarnation; a message of its former life is refused for good.
#[test]
fn masking_in_takes_another_incarnation_only() {
    let mut graphs = graphs(3, Config::default());
    say(&mut graphs, 2);
    let former = graphs[2].send(0).unwrap();
    let (first, second) = (Incarnation(1), Incarnation(2));
    for graph in &mut graphs[..2] {
        assert_eq!(graph.mask_in(Rank(2), second), Err(MaskInError::NotMasked(Rank(2))));
        graph.mask_out(Rank(2), 1).unwrap();
        let same = MaskInError::Incarnation { ours: first, theirs: first };
        assert_eq!(graph.mask_in(Rank(2), first), Err(same));
        graph.mask_in(Rank(2), second).unwrap();
    }
    graphs[2] = graphs[0].taken_over(Rank(2));
    let back = graphs[2].send(0).unwrap();
    assert_eq!((back.number, back.incarnation), (2, second));
    let refused = graphs[0].receive(former, 0).unwrap_err();
    assert_eq!(refused, ReceiveError::Incarnation { rank: Rank(2), ours: second, theirs: first });
    assert_eq!(graphs[0].receive(back.clone(), 0), Ok(Received::Attached(1)));
    assert_eq!(graphs[0].message(back.id()).unwrap().0, back);
}

/// A participant that took over a graph before all had masked it in is refused: it would come into waves that are gone.
#[test]
fn coming_back_with_an_old_graph_is_refused() {
    let mut graphs = graphs(3, Config::default());
    say(&mut graphs, 2);
    for graph in &mut graphs[..2] {
        graph.mask_out(Rank(2), 1).unwrap();
    }
    graphs[1].mask_in(Rank(2), Incarnation(2)).unwrap();
    graphs[2] = graphs[1].taken_over(Rank(2));
    for at in [0, 1, 0, 1] {
        say(&mut graphs[..2], at);
    }
    graphs[0].mask_in(Rank(2), Incarnation(2)).unwrap();
    let back = graphs[2].send(0).unwrap();
    assert_eq!(graphs[0].receive(back, 0), Err(ReceiveError::Behind(Rank(2))));
}

/// Checks that memory is that of the unstable part: a long conversation, and one with a silent participant.
#[test]
fn memory_is_that_of_the_unstable_part() {
    let mut graphs = graphs(5, Config::default().window(64));
    for round in 0..5_000 {
        say(&mut graphs, round % 5);
        for graph in &mut graphs {
            while graph.poll_attached().is_some() {}
        }
    }
    let stats = graphs[0].stats();
    assert!(stats.attached <= stats.unstable + 5 && stats.unstable <= 8, "{stats:?}");
    // One falls silent: its own window ends each of the others.
    let mut sent = 0;
    while graphs[..4].iter().any(|graph| graph.stats().attached < 4 * 64) {
        let Ok(links) = graphs[sent % 4].send(0) else { break };
        for (_, graph) in graphs.iter_mut().enumerate().filter(|(to, _)| *to != sent % 4) {
            graph.receive(links.clone(), 0).unwrap();
        }
        sent += 1;
        graphs.iter_mut().for_each(|graph| while graph.poll_attached().is_some() {});
    }
    assert!(sent <= 4 * 64 && graphs[0].stats().attached <= 4 * 64 + 5, "{sent}");
    let last = graphs[0].newest(Rank(4));
    graphs[..4].iter_mut().for_each(|graph| graph.mask_out(Rank(4), last).unwrap());
    assert!(graphs[..4].iter().all(|graph| graph.stats().unstable < 8));
}
