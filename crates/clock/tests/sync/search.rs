//! A search for bad schedules: how much of each bound does the worst one use that random restarts find?
//!
//! `MAINSTAY_CLOCK_SEARCH` is the number of restarts for each algorithm; 40 where it is not set.

mod following;

use std::sync::Mutex;

use mainstay_base::{Duration, Rng};
use mainstay_clock::sync::{Config, Delay, Drift, Function, Kind, Message, Reading};

use crate::support::{Liar, Scene, each};
use crate::{agreement, averaging, synchroniser};

/// The part of a bound that a seed uses, in 1,000.
type Schedule = dyn Fn(u64) -> Result<i64, String> + Sync;

/// The worst skew that was found, as a part of the bound in 1,000, and the seed.
fn search(restarts: u64, used: impl Fn(u64) -> Result<i64, String> + Sync) -> (i64, u64) {
    let worst = Mutex::new((0, 0));
    each(0..restarts, |seed| {
        let used = used(seed)?;
        if let Ok(mut worst) = worst.lock() {
            *worst = (*worst).max((used, seed));
        }
        Ok(())
    });
    worst.into_inner().expect("no run panicked")
}

/// One half of the clocks is fast and hears everything soon, which takes it ahead; the other one is slow and hears everything late. The liar
/// pulls the same way. Some of that is left out at random.
fn adverse(seed: u64, kind: &Kind) -> Result<i64, String> {
    let mut rng = Rng::new(seed).stream("search");
    let mut config = Config::lan(kind.clone(), 4, 1);
    config.drift = Drift::per_billion(100_000);
    config.delay = Delay { min: Duration::from_micros(10), max: Duration::from_micros(1_000) };
    config.period = Duration::from_millis(300);
    config.initial = Duration::ZERO;
    let mut scene = Scene::new(seed, config);
    let is_fast = |node: usize| node < 2;
    for node in 0..4 {
        scene.drifts[node] = if is_fast(node) != rng.chance(1, 10) { 100_000 } else { -99_989 };
    }
    let bound = scene.plan.bounds().precision.as_nanos() as i64;
    let reach = bound * rng.between(20, 100) as i64 / 100;
    let seed = rng.next_u64();
    scene = match kind {
        Kind::Averaging { .. } | Kind::Hardware { .. } => scene.lie(1, pulling(reach)),
        Kind::Agreement { signed: true, .. } => scene.lie(1, ahead(reach)),
        Kind::Agreement { .. } => scene.lie(1, agreement::lies(seed, reach)),
        Kind::Halpern => scene.lie(1, synchroniser::early(seed, "hssd")),
        _ => scene.lie(1, synchroniser::early(seed, "st")),
    };
    if *kind == Kind::Halpern {
        // As early as is believed.
        let early = scene.plan.bounds().agreed.as_nanos() as i64;
        scene.drifts[3] = early * rng.between(50, 100) as i64 / 100 * 10 / 3;
    }
    let mut run = scene.run();
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
        let soon = match kind {
            // The liar hears all at once, and the first clock all from the liar: with one signature more, sooner than without it.
            Kind::Agreement { signed: true, .. } => to == 3 || (from, to) == (3, 0),
            _ => is_fast(to),
        };
        let soon = soon != rng.chance(1, 8);
        let delay = Duration::from_micros(if soon { 10 } else { 1_000 });
        run.world.set_way(from, to, delay, Duration::ZERO);
    }
    run.periods(12.0)?;
    Ok(run.worst * 1_000 / bound)
}

/// To the fast half the liar is ahead, to the slow one behind.
fn pulling(reach: i64) -> impl FnMut(&Liar, usize, Message) -> Vec<Message> {
    move |_, to, message| match message {
        Message::Tick { round, value, sure, pull } => {
            let off = if to < 2 { reach } else { -reach };
            vec![Message::Tick { round, value: value + off, sure, pull }]
        }
        other => vec![other],
    }
}

/// The liar passes on what the others sign, as it should, and says that its own clock is far ahead: so what it has passed on is the median.
fn ahead(reach: i64) -> impl FnMut(&Liar, usize, Message) -> Vec<Message> {
    move |liar, _, message| match message {
        Message::Vouched { round, of, value, .. } if usize::from(of) == liar.me => {
            vec![agreement::vouched(liar, round, value + reach)]
        }
        other => vec![other],
    }
}

/// No schedule that is found exceeds a bound, and each bound is used to the part that is named here: none is far too wide.
#[test]
fn no_bound_is_exceeded_and_none_is_far_too_wide() {
    let restarts = std::env::var("MAINSTAY_CLOCK_SEARCH").ok().and_then(|it| it.parse().ok());
    let reading = Reading::ARRIVAL;
    let restarts = restarts.unwrap_or(40);
    let averaging = averaging::FUNCTIONS.map(|function| Kind::Averaging { function, reading });
    // In 1,000, with 40 restarts of these seeds.
    let least = |kind: &Kind| match kind {
        Kind::Averaging { function: Function::Fast, .. } | Kind::Srikanth { .. } => 600,
        _ => 500,
    };
    let others = [
        Kind::agreement(false),
        Kind::agreement(true),
        Kind::Srikanth { signed: false },
        Kind::Srikanth { signed: true },
        Kind::Halpern,
    ];
    for kind in averaging.into_iter().chain(others) {
        let (used, seed) = search(restarts, |seed| adverse(seed, &kind));
        println!("{kind:?}: {}.{} % of the bound, seed {seed}", used / 10, used % 10);
        assert!(used >= least(&kind), "{kind:?}: {used} of 1,000");
    }
    let precision = |seed| Ok(following::hardware(seed)?[0]);
    let accuracy = |seed| Ok(following::hardware(seed)?[1]);
    let following: [(&str, &Schedule); 5] = [
        ("cristian", &following::cristian),
        ("hardware", &precision),
        ("hardware, of its distance from the reference", &accuracy),
        ("external", &following::external),
        ("marzullo, of the error that is said", &following::interval),
    ];
    for (name, one) in following {
        let (used, seed) = search(restarts, one);
        println!("{name}: {}.{} % of the bound, seed {seed}", used / 10, used % 10);
        assert!(used >= 500, "{name}: {used} of 1,000");
    }
}
