//! Probabilistic reading and the election of a master: CLK-2, CLK-22 to CLK-26.

use mainstay_base::{Duration, Instant, Rng};
use mainstay_clock::sync::{
    Algorithm, Config, Delay, Drift, Event, Kind, Loss, Message, NODES_MAX, Output, Stamp,
};
use mainstay_sim::{Disk, Fault, Moment};

use crate::support::{Run, Scene, alone, alone_at, each};

pub(crate) const ERROR_MAX: Duration = Duration::from_micros(400);

pub(crate) fn config(rng: &mut Rng) -> Config {
    let nodes = *rng.pick(&[3, 4, 5, 7, 10]).expect("five");
    let kind = Kind::Probabilistic {
        error_max: ERROR_MAX,
        attempts: rng.between(8, 12) as u32,
        wait: Duration::from_millis(20),
        patience: Duration::from_millis(100),
        stamp: Stamp::Turn,
    };
    let mut config = Config::lan(kind, nodes, (nodes - 1) / 2);
    config.drift = Drift::per_billion(rng.between(0, 200_000) as u32);
    config.delay = Delay { min: Duration::from_micros(100), max: Duration::from_micros(1_000) };
    config.period = Duration::from_millis(rng.between(200, 500));
    config.initial = Duration::from_micros(200);
    config
}

/// Checks CLK-22: each clock that says how far it is from the master's is right.
pub(crate) fn errors_hold(run: &Run) -> Result<(), String> {
    let masters: Vec<usize> = run.correct().filter(|node| error(run, *node) == Some(0)).collect();
    let [master] = masters[..] else {
        let two = masters.len() > 1;
        return if two { Err(format!("CLK-25: masters {masters:?} at once")) } else { Ok(()) };
    };
    for node in run.correct().filter(|node| *node != master) {
        // Who has not heard of this master yet does not speak of it.
        let follows = run.told.iter().rev().find_map(|it| match it.event {
            Event::MasterChanged(followed) if it.node == node => Some(followed),
            _ => None,
        });
        let is_of_this = follows.flatten() == Some(run.roster[master]);
        let Some(error) = error(run, node).filter(|_| is_of_this && run.is_synchronised(node))
        else {
            continue;
        };
        let off = (run.clock(node) - run.clock(master)).abs();
        if off > error {
            return Err(format!("CLK-22: {node} is {off} off, and says {error}"));
        }
    }
    Ok(())
}

fn error(run: &Run, node: usize) -> Option<i64> {
    run.world.node(node)?;
    run.service(node).algorithm().error(run.world.local(node))
}

pub(crate) fn walk(run: &mut Run, periods: u32) -> Result<(), String> {
    for _ in 0..periods * 10 {
        run.periods(0.1)?;
        errors_hold(run)?;
    }
    Ok(())
}

pub(crate) fn swarm_one(seed: u64, config: Config) -> Result<Run, String> {
    let mut rng = Rng::new(seed).stream("network");
    let mut scene = Scene::new(seed, config);
    (scene.tail, scene.loss) = (rng.below(150), rng.below(100));
    let mut run = scene.run();
    walk(&mut run, 10)?;
    Ok(run)
}

/// Checks CLK-2, CLK-22, with delays that have no bound and messages that are lost.
#[test]
fn what_a_clock_says_of_its_error_is_so() {
    each(0..400, |seed| {
        let mut rng = Rng::new(seed).stream("cristian");
        let run = swarm_one(seed, config(&mut rng))?;
        let read = run.correct().filter(|node| run.corrections(*node).count() >= 3).count();
        if read + 1 < run.nodes() {
            return Err(format!("{read} of {} read the master", run.nodes()));
        }
        Ok(())
    });
}

/// How often reading fails, where each attempt fails with probability p.
pub(crate) fn statistics(broken: Option<mainstay_clock::fault::Fault>) -> Result<(), String> {
    let counts = std::sync::Mutex::new((0u64, 0u64));
    each(0..40, |seed| {
        let mut rng = Rng::new(seed).stream("statistics");
        let mut config = config(&mut rng);
        let attempts = 3;
        // Each way takes 100 to 1,000 us, evenly: a trip of up to 1 ms has a probability of (8/9)^2/2 = 0.395.
        config.kind = Kind::Probabilistic {
            error_max: ERROR_MAX,
            attempts,
            wait: Duration::from_millis(5),
            patience: Duration::from_millis(40),
            stamp: Stamp::Turn,
        };
        config.drift = Drift::per_billion(0);
        config.fault = broken;
        let scene = Scene::new(seed, config);
        let mut run = scene.run();
        let nodes = run.nodes();
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            run.world.set_way(from, to, Duration::from_micros(100), Duration::from_micros(900));
        }
        run.periods(40.0)?;
        let failed = (0..run.nodes())
            .map(|node| run.losses(node).iter().filter(|it| **it == Loss::Unread).count());
        let read = (0..run.nodes()).map(|node| run.corrections(node).count());
        let mut counts = counts.lock().map_err(|it| it.to_string())?;
        counts.0 += failed.sum::<usize>() as u64;
        counts.1 += read.sum::<usize>() as u64;
        Ok(())
    });
    let (failed, read) = *counts.lock().expect("no run panicked");
    // A clock that is lost goes on trying: losses are counted, and each ends in a read. p^k = 0.605^3 = 0.22.
    let rate = failed as f64 / read as f64;
    if read > 1_000 && (0.15..0.29).contains(&rate) {
        return Ok(());
    }
    Err(format!("CLK-23: {failed} failures, {read} reads: {rate}"))
}

/// Checks CLK-23: with k attempts of which each fails with probability p, reading fails with p^k.
#[test]
fn reading_fails_as_rarely_as_computed() {
    statistics(None).expect("CLK-23");
}

/// Checks CLK-24: a master that cannot be reached makes a clock say that it is lost, after k attempts.
#[test]
fn a_clock_that_cannot_read_says_so() {
    each(0..100, |seed| {
        let mut rng = Rng::new(seed).stream("cut");
        cut_off(seed, config(&mut rng))
    });
}

/// One node is cut off for a while.
pub(crate) fn cut_off(seed: u64, config: Config) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("victim");
    let mut run = Scene::new(seed, config).run();
    run.periods(4.0)?;
    let victim = rng.below(run.nodes() as u64) as usize;
    let length = Duration::from_secs(3);
    run.world.inject(Fault::Partition { side: vec![victim], length });
    let limit = run.scene.period() + run.bounds().round + Duration::from_millis(900);
    run.run(limit)?;
    let is_alone = run.nodes() > 2;
    if is_alone && run.is_synchronised(victim) && error(&run, victim) != Some(0) {
        return Err(format!("CLK-24: {victim} goes on, {:?}", run.losses(victim)));
    }
    run.run(length)?;
    for _ in 0..6 {
        run.periods(1.0)?;
        if run.is_synchronised(victim) {
            return Ok(());
        }
    }
    Err("it does not find back".to_owned())
}

/// The master, if all that run agree.
pub(crate) fn master(run: &Run) -> Option<usize> {
    run.correct().find(|node| error(run, *node) == Some(0))
}

/// Checks CLK-25, and the case of a master that crashes between its reply and the rapport: a new one is chosen, and the skew is back
/// within the bound.
#[test]
fn another_master_takes_over() {
    each(0..150, |seed| {
        let mut rng = Rng::new(seed).stream("crash");
        let mut run = Scene::new(seed, config(&mut rng)).run();
        walk(&mut run, 4)?;
        let old = master(&run).ok_or("no master after four periods")?;
        let length = Duration::from_secs(60);
        if rng.chance(1, 2) {
            let point =
                run.world.points(old).iter().next().map(|(action, count)| (*action, *count));
            let (action, count) = point.ok_or("it did nothing")?;
            let point = mainstay_sim::Point { action, number: count + rng.between(1, 20) };
            let moment = Moment::At(point);
            run.world.inject(Fault::Crash { node: old, length, disk: Disk::Kept, moment });
        } else {
            let moment = Moment::Now;
            run.world.inject(Fault::Crash { node: old, length, disk: Disk::Kept, moment });
        }
        run.exempt.push(old);
        walk(&mut run, 5)?;
        let new = master(&run).ok_or("no master again")?;
        if new == old {
            return Err("the dead one is master".to_owned());
        }
        // One period in a hundred brings no good read.
        let all = |run: &Run| run.correct().all(|node| run.is_synchronised(node));
        for _ in 0..4 {
            if !all(&run) {
                walk(&mut run, 1)?;
            }
        }
        if !all(&run) {
            return Err("not all are synchronised again".to_owned());
        }
        let agreed = run.bounds().agreed.as_nanos() as i64;
        if run.skew() > agreed {
            return Err(format!("CLK-25: a skew of {}, at most {agreed}", run.skew()));
        }
        Ok(())
    });
}

/// Checks CLK-2, CLK-25 with a master that sleeps, and wakes up in the belief that it is master: it looks again before it answers.
pub(crate) fn sleeping_master(seed: u64, config: Config) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("sleep");
    let mut run = Scene::new(seed, config).run();
    run.periods(3.0)?;
    let old = master(&run).ok_or("no master after three periods")?;
    let nodes = run.nodes();
    // One is on its side; between the two and the rest nothing passes.
    let friend = (old + 1 + rng.below(nodes as u64 - 1) as usize) % nodes;
    let length = Duration::from_secs(4);
    let side = if nodes > 3 { vec![old, friend] } else { vec![old] };
    run.world.inject(Fault::Partition { side, length });
    run.run(Duration::from_millis(1_500))?;
    if nodes > 3 && run.is_synchronised(friend) {
        return Err(format!("CLK-25: {friend} follows a master that is none"));
    }
    run.run(Duration::from_millis(3_500))?;
    walk(&mut run, 4)
}

/// The same, in many runs.
#[test]
fn a_master_that_has_lost_its_majority_does_not_answer() {
    each(0..100, |seed| {
        let mut rng = Rng::new(seed).stream("recheck");
        sleeping_master(seed, config(&mut rng))
    });
}

/// A master that is paused for long, while another one is elected; all it did not know comes back at once.
#[test]
fn a_paused_master_finds_another_one() {
    each(0..100, |seed| {
        let mut rng = Rng::new(seed).stream("paused");
        let mut run = Scene::new(seed, config(&mut rng)).run();
        run.periods(3.0)?;
        let old = master(&run).ok_or("no master after three periods")?;
        let length = run.scene.period() * 10;
        let fault = if rng.chance(1, 2) {
            Fault::Pause { node: old, length }
        } else {
            Fault::Suspend { node: old, length }
        };
        run.exempt.push(old);
        run.world.inject(fault);
        run.periods(12.0)?;
        // A suspended clock does not know how long it stood still, until it reads the new master.
        run.periods(3.0)?;
        run.exempt.clear();
        // One period in a hundred brings no good read.
        for _ in 0..4 {
            walk(&mut run, 1)?;
            if run.is_synchronised(old) {
                return Ok(());
            }
        }
        Err(format!("it does not find back: {:?}", run.losses(old)))
    });
}

/// An algorithm alone, that follows node 1 as its master.
pub(crate) fn follower(config: Config) -> (Algorithm, Instant) {
    let now = Instant::from_nanos(1_000_000_000_000);
    let mut algorithm = alone(config, now);
    algorithm.on_datagram(now, now, 1, Message::Master { term: 1, beat: 1 });
    (algorithm, now)
}

/// What it asks next.
pub(crate) fn question(algorithm: &mut Algorithm, now: Instant) -> Option<u64> {
    algorithm.on_deadline(now);
    let mut nonce = None;
    while let Some(output) = algorithm.poll() {
        if let Output::Send { message: Message::Request { nonce: asked }, .. } = output {
            nonce = Some(asked);
        }
    }
    nonce
}

/// Checks CLK-26: an answer that comes sooner than two messages can is refused, as are those to no question, of another master, and late ones.
#[test]
fn impossible_answers_are_refused() {
    let mut rng = Rng::new(1);
    let (mut algorithm, now) = follower(config(&mut rng));
    let nonce = question(&mut algorithm, now).expect("it asks the new master at once");
    let soon = now + Duration::from_micros(150);
    let value = algorithm.clock().nanos(soon) + 77;
    let reply = |nonce, term| Message::Reply { nonce, value, error: 0, term, held: 0 };
    algorithm.on_datagram(soon, soon, 1, reply(nonce ^ 1, 1));
    algorithm.on_datagram(soon, soon, 2, reply(nonce, 1));
    algorithm.on_datagram(soon, soon, 1, reply(nonce, 0));
    algorithm.on_datagram(soon, soon, 9, reply(nonce, 1));
    let rejected = algorithm.rejected();
    assert_eq!((rejected.untimely, rejected.usurped, rejected.unknown), (1, 2, 1));
    algorithm.on_datagram(soon, soon, 1, reply(nonce, 1));
    assert_eq!((algorithm.rejected().untimely, algorithm.version()), (2, 0));
    // A second answer to the same question is a replay, though it comes when it should.
    let later = now + Duration::from_micros(300);
    algorithm.on_datagram(later, later, 1, reply(nonce, 1));
    assert_eq!((algorithm.rejected().replayed, algorithm.version()), (1, 0));
}

/// Checks CLK-22: what a clock says of its distance from the master is of the master that it follows now, also before it has read that one.
#[test]
fn an_error_is_of_the_master_that_is_followed() {
    let (mut algorithm, now) = follower(config(&mut Rng::new(1)));
    let nonce = question(&mut algorithm, now).expect("it asks the new master at once");
    let then = now + Duration::from_micros(300);
    let value = algorithm.clock().nanos(then);
    let reply = Message::Reply { nonce, value, error: 0, term: 1, held: 0 };
    algorithm.on_datagram(then, then, 1, reply);
    let agreed = algorithm.plan().bounds().agreed.as_nanos() as i64;
    let error = algorithm.error(then).expect("it has read the master");
    assert!(error < agreed / 2, "{error} of {agreed}");
    algorithm.on_datagram(then, then, 2, Message::Master { term: 2, beat: 1 });
    let error = algorithm.error(then).unwrap_or(i64::MAX);
    assert!(error >= agreed / 2, "CLK-22: {error} from a master that it has not read");
    // That one is gone: another one may have been elected.
    let Kind::Probabilistic { patience, .. } = algorithm.plan().config().kind else {
        unreachable!("it is configured so");
    };
    let alone = then + patience * 2;
    while let Some(due) = algorithm.deadline().filter(|due| *due <= alone) {
        algorithm.on_deadline(due);
    }
    let later = algorithm.error(alone).unwrap_or(i64::MAX);
    assert!(later >= error, "CLK-22: {later} of the next master, {error} of the last one");
}

/// Checks CLK-24: a clock that hears of one master after the other and reads none of them well is lost all the same.
#[test]
fn new_masters_do_not_keep_an_old_read_alive() {
    let (mut algorithm, mut now) = follower(config(&mut Rng::new(1)));
    let step = Duration::from_millis(20);
    for beat in 0..250u64 {
        now = now + step;
        algorithm.on_deadline(now);
        // Sooner than all attempts are over.
        let term = 2 + beat / 4;
        let master = 1 + term as usize % 2;
        algorithm.on_datagram(now, now, master, Message::Master { term, beat });
    }
    assert!(!algorithm.is_synchronised(), "CLK-24: no read in five seconds");
}

/// Checks CLK-24: whoever has voted for a clock follows it as soon as it says that it is the master, and not only when the own wait for the one before is over.
#[test]
fn a_voter_follows_the_master_that_it_has_elected() {
    let (mut algorithm, now) = follower(config(&mut Rng::new(1)));
    let Kind::Probabilistic { patience, .. } = algorithm.plan().config().kind else {
        unreachable!("it is configured so");
    };
    while algorithm.poll().is_some() {}
    let mut told = |at: Instant, message: Message| {
        algorithm.on_datagram(at, at, 2, message);
        let outputs = std::iter::from_fn(|| algorithm.poll());
        let sent = outputs.filter_map(|output| match output {
            Output::Send { message: Message::Request { .. }, .. } => None,
            Output::Send { message, .. } => Some(message),
            _ => None,
        });
        sent.collect::<Vec<_>>()
    };
    let soon = now + patience / 2;
    assert_eq!(told(soon, Message::Candidate { term: 2 }), [], "the master has a lease");
    let late = now + patience;
    assert_eq!(told(late, Message::Candidate { term: 2 }), [Message::Vote { term: 2 }]);
    let follows = Message::Follow { term: 2, beat: 1 };
    assert_eq!(told(late, Message::Master { term: 2, beat: 1 }), [follows]);
}

/// Checks CLK-24: in the largest group the last place stands for master before a clock that knows no time does, which is after three times the patience, and
/// within the four that the bound has for an election.
#[test]
fn a_clock_at_a_high_place_stands_in_time() {
    let mut config = config(&mut Rng::new(1));
    (config.nodes, config.faulty) = (NODES_MAX, (NODES_MAX - 1) / 2);
    let Kind::Probabilistic { patience, .. } = config.kind else {
        unreachable!("it is configured so");
    };
    let begun = Instant::from_nanos(1_000_000_000_000);
    for me in [0, 1, 15, 16, 24, NODES_MAX - 1] {
        let mut algorithm = alone_at(config.clone(), begun, me);
        let mut now = begun;
        let is_candidate =
            |output| matches!(output, Output::Send { message: Message::Candidate { .. }, .. });
        while !std::iter::from_fn(|| algorithm.poll()).any(is_candidate) {
            now = algorithm.deadline().expect("it waits for a master");
            algorithm.on_deadline(now);
        }
        let took = now.saturating_since(begun);
        assert!(took >= patience && took < patience * 3, "{took:?} at place {me}");
    }
}
