//! Bad schedules of clocks that follow something: a master, a reference, the true time. Each returns the part of its bound that was used, in 1,000.

use mainstay_base::{Duration, Rng};
use mainstay_clock::sync::{Config, Delay, Drift, Kind, Message, Stamp};
use mainstay_sim::{Disk, Fault, Moment};

use crate::probabilistic::master;
use crate::support::{EPOCH, Liar, Run, Scene};

/// Parts of a billion.
const DRIFT: i64 = 100_000;
const FAST: i64 = DRIFT;
/// 1/(1 + ρ), rounded up.
const SLOW: i64 = -99_989;

fn micros(micros: i64) -> Duration {
    Duration::from_micros(micros.unsigned_abs())
}

fn nanos(span: Duration) -> i64 {
    span.as_nanos() as i64
}

/// The way from one node to another always takes so long.
fn way(run: &mut Run, from: usize, to: usize, takes: Duration) {
    run.world.set_way(from, to, takes, Duration::ZERO);
}

/// Readings are as wrong as they may be: one clock is ahead of the master, all others are behind it. Nobody reads the master well any more, which then crashes.
/// The next master is one of those that are behind, the ones that are left read it as behind again, and the clock that was ahead is fast and reads it not
/// at all until it is lost.
pub(crate) fn cristian(seed: u64) -> Result<i64, String> {
    let mut rng = Rng::new(seed).stream("search");
    let (min, error) = (10, 400);
    let kind = Kind::Probabilistic {
        error_max: micros(error),
        attempts: 5,
        wait: Duration::from_millis(10),
        patience: Duration::from_millis(50),
        stamp: Stamp::Turn,
    };
    let mut config = Config::lan(kind, 4, 1);
    config.drift = Drift::per_billion(DRIFT as u32);
    config.delay = Delay { min: micros(min), max: Duration::from_micros(2_000) };
    config.period = Duration::from_millis(300);
    config.initial = Duration::ZERO;
    let mut scene = Scene::new(seed, config);
    let ahead = rng.between(1, 3) as usize;
    for node in 0..4 {
        scene.drifts[node] = if (node == ahead) != rng.chance(1, 10) { FAST } else { SLOW };
    }
    let bound = nanos(scene.plan.bounds().precision);
    let mut run = scene.run();
    // Almost the longest round trip that is good enough, all of it in one direction.
    let slow = micros(min + 2 * error * rng.between(90, 99) as i64 / 100);
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
        let is_slow = if to == ahead { false } else { from == ahead || from < to };
        way(&mut run, from, to, if is_slow { slow } else { micros(min) });
    }
    run.periods(rng.between(30, 60) as f64 / 10.0)?;
    let Some(old) = master(&run).filter(|it| *it != ahead) else { return Ok(0) };
    for node in (0..4).filter(|node| *node != old && *node != ahead) {
        // What the master says is late, so that it is ahead of what is read.
        way(&mut run, node, old, micros(min));
        way(&mut run, old, node, slow);
    }
    run.periods(rng.between(10, 21) as f64 / 10.0)?;
    // Until the others read a master again: no answer is good enough.
    let late = Duration::from_micros(1_900);
    let deaf = run.scene.period().mul_f64(rng.between(0, 10) as f64 / 10.0);
    for node in (0..4).filter(|node| *node != old && *node != ahead) {
        way(&mut run, old, node, late);
        way(&mut run, node, old, late);
    }
    run.run(deaf)?;
    let length = Duration::from_secs(60);
    run.world.inject(Fault::Crash { node: old, length, disk: Disk::Kept, moment: Moment::Now });
    run.exempt.push(old);
    for other in (0..4).filter(|other| *other != ahead) {
        way(&mut run, ahead, other, late);
        way(&mut run, other, ahead, late);
    }
    // Who is elected is not known before.
    let tail = run.scene.period() * 3;
    let begun = run.world.now();
    while run.world.now() - begun < tail {
        run.run(Duration::from_millis(2))?;
        if let Some(new) = master(&run) {
            for node in (0..4).filter(|node| *node != new && *node != ahead) {
                way(&mut run, node, new, micros(min));
                way(&mut run, new, node, slow);
            }
        }
    }
    Ok(run.worst * 1_000 / bound)
}

/// As with averaging one half is fast and hears all soon. The liar is the master: it pulls the two halves apart, or all others away from itself. Then it repents,
/// and has a reference, which is as wrong as it may be. The parts of the precision that are used, and of the distance from the reference that each clock says.
pub(crate) fn hardware(seed: u64) -> Result<[i64; 2], String> {
    let mut rng = Rng::new(seed).stream("search");
    let (master, error, pull_max) = (3, 1_000_000, 2_200_000);
    let kind = Kind::Hardware {
        master: Some(master),
        pull_max: Duration::from_nanos(pull_max as u64),
        error: Duration::from_nanos(error as u64),
    };
    let mut config = Config::lan(kind, 4, 1);
    config.drift = Drift::per_billion(DRIFT as u32);
    config.delay = Delay { min: micros(10), max: Duration::from_micros(1_000) };
    config.period = Duration::from_millis(300);
    config.initial = Duration::ZERO;
    let mut scene = Scene::new(seed, config);
    let (parts, side) = (rng.chance(1, 2), if rng.chance(1, 2) { 1 } else { -1 });
    // Those that it pulls ahead are fast, and hear all soon.
    let pulled = move |node: usize| match node {
        3 => -side,
        2 if parts => -side,
        _ => side,
    };
    for node in 0..4 {
        let is_fast = (pulled(node) > 0) != rng.chance(1, 10);
        scene.drifts[node] = if is_fast { FAST } else { SLOW };
    }
    let precision = nanos(scene.plan.bounds().precision);
    let reach = precision * rng.between(20, 100) as i64 / 100;
    let lies = rng.between(12, 24);
    let period = nanos(scene.period());
    let repents = (nanos(EPOCH) / period).unsigned_abs() + 1 + lies;
    scene = scene.lie(1, move |_: &Liar, to, message| match message {
        Message::Tick { round, value, sure, .. } if round < repents => {
            let (value, pull) = (value + pulled(to) * reach, Some(pulled(to) * 1_000_000_000));
            vec![Message::Tick { round, value, sure, pull }]
        }
        other => vec![other],
    });
    let mut run = scene.run();
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
        let soon = (pulled(to) > 0) != rng.chance(1, 8);
        way(&mut run, from, to, if soon { micros(10) } else { micros(1_000) });
    }
    for _ in 0..lies * 2 {
        let away = run.truth() + pulled(master) * 1_000_000_000;
        run.refer(master, away);
        run.periods(0.5)?;
    }
    // The true time is where the pull just gets.
    let from = run.clock(master) - run.truth();
    let apart = from + pull_max * (rng.below(201) as i64 - 100) / 100;
    let off = if rng.chance(1, 2) { error } else { -error };
    let mut used = 0;
    for _ in 0..75 {
        run.refer(master, run.truth() + apart + off);
        run.periods(0.02)?;
        // What the master says of itself, which has lied, is no part of the bound.
        for node in (0..4).filter(|node| *node != master) {
            let local = run.world.local(node);
            let Some(said) = run.service(node).algorithm().error(local) else { continue };
            let away = (run.clock(node) - run.truth() - apart).abs();
            if away > said {
                return Err(format!("CLK-4: {node} is {away} off, and says {said}"));
            }
            used = used.max(away * 1_000 / said);
        }
    }
    Ok([run.worst * 1_000 / precision, used])
}

/// The references of one half are ahead and its clocks are fast, those of the other one are behind and its clocks are slow; then all are silent.
pub(crate) fn external(seed: u64) -> Result<i64, String> {
    let mut rng = Rng::new(seed).stream("search");
    let error = rng.between(10, 1_000_000) as i64;
    let kind = Kind::External { error: Duration::from_nanos(error.unsigned_abs()) };
    let mut config = Config::lan(kind, 4, 0);
    config.drift = Drift::per_billion(DRIFT as u32);
    let mut scene = Scene::new(seed, config);
    scene.apart = (0..4).collect();
    let side = |node: usize| if node < 2 { 1 } else { -1 };
    for node in 0..4 {
        let is_fast = (side(node) > 0) != rng.chance(1, 10);
        scene.drifts[node] = if is_fast { FAST } else { SLOW };
    }
    let bound = nanos(scene.plan.bounds().precision);
    let mut run = scene.run();
    for _ in 0..rng.between(1, 4) {
        let off = error * rng.between(80, 100) as i64 / 100;
        (0..4).for_each(|node| run.refer(node, run.truth() + side(node) * off));
        run.periods(0.7)?;
    }
    run.periods(4.0)?;
    Ok(run.worst * 1_000 / bound)
}

/// All clocks are as far off as they say, on one side, and what they say is heard in the way that takes them further. The liar says that its own
/// interval is far narrower, and still reaches up to there. One clock is told the true time, as wrong as it may be; the part of the error that is used is that of
/// the others once they have read it.
pub(crate) fn interval(seed: u64) -> Result<i64, String> {
    let mut rng = Rng::new(seed).stream("search");
    let error = rng.between(2_000_000, 20_000_000) as i64;
    let kind = Kind::interval(Duration::from_nanos(error.unsigned_abs()));
    let mut config = Config::lan(kind, 4, 1);
    config.drift = Drift::per_billion(DRIFT as u32);
    config.delay = Delay { min: micros(10), max: Duration::from_micros(1_000) };
    config.period = Duration::from_millis(300);
    let mut scene = Scene::new(seed, config);
    let side = if rng.chance(1, 2) { 1 } else { -1 };
    for node in 0..4 {
        let with = rng.chance(9, 10);
        scene.drifts[node] = if (side > 0) == with { FAST } else { SLOW };
        scene.skews[node] = side * (error - rng.below(200_000) as i64);
    }
    let narrow = error * rng.between(0, 100) as i64 / 100;
    scene = scene.lie(1, move |_: &Liar, _, message| match message {
        Message::Reply { nonce, value, error, term, held } => {
            let less = error.saturating_sub(narrow.unsigned_abs());
            let value = value + side * (error - less) as i64;
            vec![Message::Reply { nonce, value, error: less, term, held }]
        }
        other => vec![other],
    });
    let mut run = scene.run();
    // A slow question and a fast answer: what is read is ahead.
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
        let is_slow = (from < to) == (side > 0);
        way(&mut run, from, to, if is_slow { micros(1_000) } else { micros(10) });
    }
    let mut used = 0;
    for _ in 0..60 {
        run.periods(0.1)?;
        for node in run.correct() {
            let said = run.service(node).algorithm().error(run.world.local(node)).unwrap_or(0);
            let off = (run.clock(node) - run.truth()).abs();
            if off > said {
                return Err(format!("CLK-27: {node} is {off} off, and says {said}"));
            }
            let has_read = run.corrections(node).count() > 0;
            if has_read {
                used = used.max(off * 1_000 / said);
            }
        }
    }
    Ok(used)
}
