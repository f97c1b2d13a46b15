//! Clocks that look for the time, and what would mislead them: words that waited while the process was paused, rounds of which they hear a part,
//! rounds that a liar has recorded, and times that are decades away.

use std::sync::Arc;

use mainstay_agreement::chain;
use mainstay_agreement::sign::Keyring;
use mainstay_base::{Duration, Instant, Rng};
use mainstay_clock::fault::Fault as Broken;
use mainstay_clock::sync::{
    Algorithm, Begin, Config, Event, Function, Kind, Loss, Message, Origin, Output, Plan, Reading,
    Stamp,
};
use mainstay_sim::Fault;

use crate::edges::kinds;
use crate::support::{Run, Scene, each};

const MILLI: i64 = 1_000_000;
const PERIOD: Duration = Duration::from_millis(500);

/// Whether the clock of node 0 is to be judged: it has found the time since the fault, or never lost it and a round is over.
fn counts(run: &Run, from: Instant, until: Instant) -> bool {
    let since = run.told.iter().filter(|it| it.node == 0 && it.at >= from);
    let mut last =
        since.filter(|it| matches!(it.event, Event::Synchronised | Event::Unsynchronised(_)));
    match last.next_back().map(|it| it.event) {
        Some(event) => event == Event::Synchronised,
        None => run.world.now() > until + run.scene.period().mul_f64(1.2),
    }
}

/// Checks CLK-2 for a node that is paused for two fifths of a period, which is no fault that it is told of: as soon as it says that it is synchronised,
/// it is.
#[test]
fn what_waited_during_a_pause_does_not_make_a_clock_wrong() {
    each(0..400, |seed| {
        let mut rng = Rng::new(seed).stream("pause");
        let kind = rng.pick(&kinds()).expect("some").clone();
        let what = format!("{kind:?}");
        let config = Config { period: PERIOD, ..Config::lan(kind, 4, 1) };
        let mut run = Scene::new(seed, config).run();
        run.periods(1.55 + rng.below(50) as f64 / 100.0)?;
        let length = run.scene.period().mul_f64(0.4);
        let (from, until) = (run.world.now(), run.world.now() + length);
        run.exempt.push(0);
        run.world.inject(Fault::Pause { node: 0, length });
        for _ in 0..160 {
            run.periods(0.02).map_err(|it| format!("{what}: {it}"))?;
            run.exempt = if counts(&run, from, until) { Vec::new() } else { vec![0] };
        }
        if !run.is_synchronised(0) {
            return Err(format!("{what}: it does not find back: {:?}", run.losses(0)));
        }
        Ok(())
    });
}

fn begin(config: Config, me: usize, origin: Origin, now: Instant) -> Algorithm {
    let keys = Some(Keyring::ideal(me, config.nodes, 11));
    let plan = Arc::new(Plan::new(config).expect("theory allows it"));
    Algorithm::new(Begin { plan, me, origin, now, seed: 1, keys }).expect("it is built")
}

fn outputs(algorithm: &mut Algorithm) -> Vec<Output> {
    std::iter::from_fn(|| algorithm.poll()).collect()
}

/// Fails if the clock says that it is right, and is not.
fn judge(algorithm: &Algorithm, now: Instant, truth: i64, bound: i64) -> Result<(), String> {
    let off = algorithm.clock().nanos(now) - truth;
    if algorithm.is_synchronised() && off.abs() > bound {
        return Err(format!("CLK-2, CLK-4: synchronised, and {off} off at {now:?}"));
    }
    Ok(())
}

/// Checks CLK-4, CLK-27: Unix time on a local clock that begins at zero, and times at the end of what can be said.
#[test]
fn a_time_that_is_decades_away_is_not_believed_half_way() {
    let error = Duration::from_millis(1);
    for truth in [1_795_000_000_000_000_000i64, 1 << 62, -(1 << 62)] {
        let now = Instant::ZERO + Duration::from_secs(1);
        for kind in [Kind::External { error }, Kind::interval(error)] {
            let mut clock = begin(Config::lan(kind.clone(), 1, 0), 0, Origin::Apart(0), now);
            for step in 0..24 {
                let at = now + Duration::from_millis(250 * step);
                let value = truth + 250 * step as i64 * MILLI;
                // Intervals are collected once a period.
                clock.on_deadline(at);
                clock.on_reference(at, at, value);
                let bound = clock.error(at).unwrap_or(i64::MAX);
                judge(&clock, at, value, bound).expect("CLK-4");
            }
            assert!(clock.is_synchronised(), "{kind:?}: it gets there");
        }
    }
    let truth = 1_795_000_000_000_000_000i64;
    let now = Instant::ZERO + Duration::from_secs(1);
    let probabilistic = Kind::Probabilistic {
        error_max: error,
        attempts: 3,
        wait: Duration::from_millis(10),
        patience: Duration::from_millis(100),
        stamp: Stamp::Turn,
    };
    for (kind, truth) in [(probabilistic, truth), (Kind::interval(error), truth)]
        .into_iter()
        .flat_map(|(kind, truth)| [(kind.clone(), truth), (kind, (1 << 62) - 10_000 * MILLI)])
    {
        let mut clock = begin(Config::lan(kind.clone(), 4, 1), 0, Origin::Apart(0), now);
        let mut at = now;
        for _ in 0..400 {
            at = at + Duration::from_millis(5);
            let value = truth + (at - now).as_nanos() as i64;
            if matches!(kind, Kind::Probabilistic { .. }) {
                clock.on_datagram(at, at, 1, Message::Master { term: 1, beat: 1 });
            }
            clock.on_deadline(at);
            let asked = outputs(&mut clock).into_iter().find_map(|it| match it {
                Output::Send { message: Message::Request { nonce }, .. } => Some(nonce),
                _ => None,
            });
            if let Some(nonce) = asked {
                let then = at + Duration::from_micros(400);
                let reply = |from: usize| Message::Reply {
                    nonce,
                    value: value + 200_000,
                    error: 1_000,
                    term: u64::from(from == 1),
                    held: 0,
                };
                (1..4).for_each(|from| clock.on_datagram(then, then, from, reply(from)));
                let bound = clock.error(then).unwrap_or(10 * MILLI).max(10 * MILLI);
                judge(&clock, then, value + 400_000, bound)
                    .unwrap_or_else(|what| panic!("{kind:?}: {what}"));
            }
        }
    }
}

/// A joiner hears parts of rounds, and a liar. How often it has learnt the time.
pub(crate) fn joins(broken: Option<Broken>) -> Result<u32, String> {
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ARRIVAL };
    let config = Config { period: PERIOD, fault: broken, ..Config::lan(kind, 7, 2) };
    let period = PERIOD.as_nanos() as i64;
    let mut learnt = 0;
    // When it begins, and when the liar speaks.
    for (start, lie) in (0..120).flat_map(|start| (0..12).map(move |lie| (start, lie))) {
        let offset = 3_600_000 * MILLI;
        let early = Duration::from_micros(100 * start);
        let now = Instant::ZERO + (PERIOD * 40 + Duration::from_millis(4) - early);
        let mut clock = begin(config.clone(), 6, Origin::Apart(0), now);
        let bound = clock.plan().bounds().precision.as_nanos() as i64;
        // Rounds 7200 of the others come over 3 ms, from 40 periods on.
        let mut words: Vec<(Instant, usize, u64, i64)> = Vec::new();
        for round in 0..4u64 {
            let begins = Instant::ZERO + PERIOD * (40 + round as u32);
            let number = (begins.as_nanos() as i64 + offset) / period;
            for from in 1..6 {
                let at = begins + Duration::from_micros(600 * from as u64);
                words.push((at, from, number as u64, number * period));
            }
            let at = begins + Duration::from_micros(500 * lie + 50);
            words.push((at, 0, number as u64, number * period + offset));
        }
        words.sort();
        for (at, from, round, value) in words.into_iter().filter(|it| it.0 >= now) {
            while let Some(due) = clock.deadline().filter(|due| *due <= at) {
                clock.on_deadline(due);
            }
            clock.on_datagram(at, at, from, Message::Tick { round, value, sure: true, pull: None });
            for output in outputs(&mut clock) {
                let Output::Correct(it) = output else { continue };
                let off = it.to - it.at.as_nanos() as i64 - offset;
                if off.abs() >= bound {
                    return Err(format!("CLK-11: start {start}, lie {lie}: {off} off"));
                }
                learnt += 1;
            }
        }
    }
    Ok(learnt)
}

/// Checks CLK-11 for a clock that learns the time: whatever part of a round it hears, a liar does not take it out of the range of the correct ones.
#[test]
fn a_liar_does_not_choose_the_time_of_a_joiner() {
    let learnt = joins(None).expect("it learns the time");
    assert!(learnt > 1_000, "{learnt} times it has learnt the time");
}

/// What a correct clock says in a round, as somebody may have recorded it.
fn recorded(kind: &Kind, nodes: usize, round: u64, who: &[usize], period: i64) -> Vec<Message> {
    let keys = |who: usize| Keyring::ideal(who, nodes, 11);
    let of_round = |name: &str| {
        let mut text = format!("mainstay clock {name} round ").into_bytes();
        text.extend(round.to_be_bytes());
        let chain = who.iter().map(|who| (*who as u16, keys(*who).sign(&text))).collect();
        vec![Message::Signed { round, chain }]
    };
    match kind {
        Kind::Halpern => of_round("hssd"),
        Kind::Srikanth { .. } => of_round("st"),
        _ => {
            let value = round as i64 * period;
            let word = |who: &usize| {
                let mut text = b"mainstay clock csm".to_vec();
                text.extend(round.to_be_bytes());
                text.extend((*who as u16).to_be_bytes());
                text.extend(value.to_be_bytes());
                let chain = chain::extend(&keys(*who), &text, Vec::new());
                Message::Vouched { round, of: *who as u16, value, chain }
            };
            who.iter().map(word).collect()
        }
    }
}

/// A joiner hears rounds of an hour ago from a liar, between those of the others.
pub(crate) fn replays(kind: &Kind, broken: Option<Broken>) -> Result<(), String> {
    let period = PERIOD.as_nanos() as i64;
    // When it begins, and by how much less than a period the recorded rounds are apart.
    for (start, less) in (0..24).flat_map(|start| (0..40).map(move |less| (start, less))) {
        let config = Config { period: PERIOD, fault: broken, ..Config::lan(kind.clone(), 5, 2) };
        let epoch = PERIOD * 8_000;
        let now = Instant::ZERO + epoch + Duration::from_micros(250 * start);
        let mut clock = begin(config, 4, Origin::Apart(7), now);
        let bound = clock.plan().bounds().precision.as_nanos() as i64;
        let mut words: Vec<(Instant, usize, Message)> = Vec::new();
        for round in 1..6u64 {
            let at = Instant::ZERO + epoch + PERIOD * round as u32 + Duration::from_micros(500);
            for word in recorded(kind, 5, 8_000 + round, &[0, 1, 2], period) {
                // The first of a new round only show that there is one; the others pass them on.
                words.push((at, 0, word.clone()));
                words.push((at + Duration::from_micros(50), 1, word));
            }
        }
        let apart = PERIOD - Duration::from_micros(500 * less);
        for (step, round) in (800..806u64).enumerate() {
            let at = now + Duration::from_micros(1_500) + apart * step as u32;
            for word in recorded(kind, 5, round, &[0, 1, 2, 3], period) {
                words.push((at, 3, word));
            }
        }
        words.sort_by_key(|it| it.0);
        let mut found = false;
        for (at, from, word) in words.into_iter().filter(|it| it.0 >= now) {
            while let Some(due) = clock.deadline().filter(|due| *due <= at) {
                clock.on_deadline(due);
                judge(&clock, due, due.as_nanos() as i64, bound)
                    .map_err(|what| format!("{kind:?}, {start}, {less}: {what}"))?;
            }
            clock.on_datagram(at, at, from, word);
            judge(&clock, at, at.as_nanos() as i64, bound)
                .map_err(|what| format!("{kind:?}, {start}, {less}: {what}"))?;
            let _ = outputs(&mut clock);
            found |= clock.is_synchronised();
        }
        if !found {
            return Err(format!("CLK-21: {kind:?}, {start}, {less}: it does not find the others"));
        }
    }
    Ok(())
}

/// Checks CLK-2, CLK-21: a joiner does not say that it is synchronised with rounds that a liar has recorded.
#[test]
fn rounds_that_a_liar_has_recorded_are_not_believed() {
    for kind in [Kind::agreement(true), Kind::Srikanth { signed: true }, Kind::Halpern] {
        replays(&kind, None).expect("CLK-2");
        let error = replays(&kind, Some(Broken::BelievesAtOnce)).expect_err("it is noticed");
        assert!(error.contains("CLK-2,"), "{error}");
    }
    let error = joins(Some(Broken::LearnsFromAny)).expect_err("it is noticed");
    assert!(error.contains("CLK-11:"), "{error}");
}

/// One clock that is wrong does not keep the others from finding each other, where none knows the time.
#[test]
fn a_liar_does_not_keep_a_cold_start_apart() {
    each(0..40, |seed| {
        let reading = if seed % 2 == 0 { Reading::ARRIVAL } else { Reading::ROUND_TRIP };
        let kind = Kind::Averaging { function: Function::Midpoint, reading };
        let config = Config { period: PERIOD, ..Config::lan(kind, 4, 1) };
        let mut scene = Scene::new(seed, config).lie(1, |_, _, message| match message {
            Message::Tick { round, value, pull, .. } => {
                vec![Message::Tick { round, value: value + 1_000_000 * MILLI, sure: false, pull }]
            }
            Message::Reply { nonce, value, error, term, held } => {
                let value = value + 1_000_000 * MILLI;
                vec![Message::Reply { nonce, value, error, term, held }]
            }
            other => vec![other],
        });
        scene.apart = vec![0, 1, 2, 3];
        let mut run = scene.run();
        run.periods(f64::from(run.bounds().joining) + 4.0)?;
        let lost: Vec<usize> = run.correct().filter(|node| !run.is_synchronised(*node)).collect();
        if !lost.is_empty() {
            return Err(format!("{reading:?}: {lost:?} are not synchronised"));
        }
        run.periods(3.0)
    });
}

/// A node that is cut off from all but a liar says that it is alone, whatever the liar sends.
#[test]
fn a_liar_alone_does_not_make_up_for_all_others() {
    let period = PERIOD.as_nanos() as i64;
    let config = Config { period: PERIOD, ..Config::lan(Kind::Halpern, 5, 1) };
    let now = Instant::ZERO + PERIOD * 100 + Duration::from_millis(1);
    let mut clock = begin(config, 0, Origin::Together(0), now);
    assert!(clock.is_synchronised());
    let mut lost = Vec::new();
    for step in 0..40u32 {
        let at = now + PERIOD.mul_f64(0.25) * step;
        clock.on_deadline(at);
        let current = 100 + u64::from(step) / 4;
        for round in [3, current] {
            for mut word in recorded(&Kind::Halpern, 5, round, &[4], period) {
                clock.on_datagram(at, at, 4, word.clone());
                if let Message::Signed { chain, .. } = &mut word {
                    let forged = Keyring::ideal(4, 5, 99).sign(b"anything");
                    chain.insert(0, (0, forged));
                }
                clock.on_datagram(at, at, 4, word);
            }
        }
        lost.extend(outputs(&mut clock).into_iter().filter_map(|it| match it {
            Output::Lost(why) => Some(why),
            _ => None,
        }));
    }
    assert_eq!(lost, [Loss::Silence]);
}
