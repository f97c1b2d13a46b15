//! The agreement class: CLK-2, CLK-15, CLK-16, and a start from clocks that are hours apart.

use std::collections::BTreeMap;

use mainstay_agreement::chain;
use mainstay_base::{Duration, Instant, Rng};
use mainstay_clock::sync::{Config, Delay, Drift, Kind, Message, Output};

use crate::support::{Liar, Run, Scene, alone, each};
use crate::synchroniser;

/// The clock of a liar, signed anew.
pub(crate) fn vouched(liar: &Liar, round: u64, value: i64) -> Message {
    let of = liar.me as u16;
    let mut text = b"mainstay clock csm".to_vec();
    text.extend(round.to_be_bytes());
    text.extend(of.to_be_bytes());
    text.extend(value.to_be_bytes());
    let keys = liar.keys.as_ref().expect("it has keys");
    Message::Vouched { round, of, value, chain: chain::extend(keys, &text, Vec::new()) }
}

/// What liars say of clocks: of their own to each another one, of others what they like.
pub(crate) fn lies(seed: u64, reach: i64) -> impl FnMut(&Liar, usize, Message) -> Vec<Message> {
    let mut rng = Rng::new(seed).stream("liar");
    let style = rng.below(3);
    move |liar, to, message| {
        if rng.chance(1, 15) {
            return Vec::new();
        }
        let side = if to % 2 == 0 { 1 } else { -1 };
        let mut off = |value: i64| match style {
            0 => value + side * reach,
            1 => value + rng.below(20 * reach as u64 + 1) as i64 - 10 * reach,
            _ => value.wrapping_add(side.wrapping_mul(i64::MAX / 3)),
        };
        match message {
            Message::Tick { round, value, sure, pull } => {
                vec![Message::Tick { round, value: off(value), sure, pull }]
            }
            Message::Relay { round, hop, values } => {
                let values = values.iter().map(|it| it.map(&mut off)).collect();
                vec![Message::Relay { round, hop, values }]
            }
            Message::Vouched { round, of, value, .. } if usize::from(of) == liar.me => {
                // Its own clock: signed anew, another value for each half; or for one alone.
                if style == 2 && to != 0 {
                    return Vec::new();
                }
                vec![vouched(liar, round, off(value))]
            }
            Message::Vouched { round, of, value, chain } => {
                // Another one's: altered, which shows.
                vec![Message::Vouched { round, of, value: off(value), chain: chain.clone() }]
            }
            other => vec![other],
        }
    }
}

/// Checks what a run of COM or CSM promises.
pub(crate) fn promises(run: &Run) -> Result<(), String> {
    let agreed = run.bounds().agreed.as_nanos() as i64;
    let beyond = run.bounds().precision.as_nanos() as i64 - agreed;
    for (version, began) in run.versions() {
        let Some((_, first, correction)) = began.iter().min_by_key(|it| it.1) else { continue };
        let clocks: Vec<i64> = run.correct().map(|node| run.before(node, *first)).collect();
        let (low, high) = (clocks.iter().min(), clocks.iter().max());
        let (Some(low), Some(high)) = (low, high) else { continue };
        if correction.to < low - beyond || correction.to > high + beyond {
            let to = correction.to;
            return Err(format!("CLK-16: version {version} is {to}, not within {low} to {high}"));
        }
        let last = began.iter().map(|it| it.1).max().expect("one at least");
        let after = began.iter().map(|(node, at, it)| {
            // Each clock at the moment when the last one was corrected.
            let drift = i128::from(run.scene.drifts[*node]);
            let since = i128::from((last - *at).as_nanos() as i64);
            it.to + (since + since * drift / 1_000_000_000) as i64
        });
        let after: Vec<i64> = after.collect();
        let skew = after.iter().max().zip(after.iter().min()).map_or(0, |(max, min)| max - min);
        if skew > agreed {
            return Err(format!(
                "CLK-15: version {version} has a skew of {skew}, at most {agreed}"
            ));
        }
    }
    Ok(())
}

/// All correct processes that have decided a run have the same vector, entry by entry, up to the errors of reading: with signatures the entry of a
/// liar may have come over another number of hops.
fn vectors(run: &Run) -> Result<(), String> {
    let config = run.scene.plan.config();
    let (faulty, bounds) = (config.faulty as i64, run.bounds());
    let drift =
        bounds.round.as_nanos() as i64 * 4 * i64::from(config.drift.parts()) / 1_000_000_000;
    let hops = if config.kind == Kind::agreement(true) {
        (faulty + 1) * config.delay.max.as_nanos() as i64
    } else {
        0
    };
    // Since the run a period may have passed, in which clocks drift.
    let since =
        config.period.as_nanos() as i64 * 2 * i64::from(config.drift.parts()) / 1_000_000_000;
    let most = 2 * (faulty + 1) * (bounds.reading.as_nanos() as i64 + drift) + hops + since;
    let mut first: BTreeMap<u64, (usize, Vec<Option<i64>>)> = BTreeMap::new();
    for node in run.correct() {
        let Some((round, vector)) = run.service(node).algorithm().vector() else { continue };
        let own = run.clock(node);
        let vector: Vec<_> = vector.iter().map(|it| it.map(|it| it.saturating_add(own))).collect();
        let Some((other, seen)) = first.get(&round) else {
            first.insert(round, (node, vector));
            continue;
        };
        for (of, pair) in seen.iter().zip(&vector).enumerate() {
            let is_same = match pair {
                (Some(one), Some(other)) => one.abs_diff(*other) <= most.unsigned_abs(),
                (one, other) => one == other,
            };
            if !is_same {
                return Err(format!(
                    "CLK-15: {of} of run {round} is {pair:?} at {other} and {node}, at most {most}"
                ));
            }
        }
    }
    Ok(())
}

pub(crate) fn swarm_one(seed: u64, config: Config) -> Result<Run, String> {
    let faulty = config.faulty;
    let scene = Scene::new(seed, config);
    let reach = scene.plan.bounds().precision.as_nanos() as i64;
    let mut run = scene.lie(faulty, lies(seed, reach)).run();
    for _ in 0..11 {
        run.periods(0.5)?;
        vectors(&run)?;
    }
    promises(&run)?;
    run.keep_together()?;
    if run.correct().any(|node| run.corrections(node).count() < 4) {
        return Err("a correct clock missed runs".to_owned());
    }
    Ok(run)
}

/// Checks CLK-2, CLK-15 with oral messages.
#[test]
fn com() {
    each(0..150, |seed| {
        let mut rng = Rng::new(seed).stream("com");
        let sizes = [(4, 1), (5, 1), (7, 2)];
        swarm_one(seed, synchroniser::config(&mut rng, Kind::agreement(false), &sizes)).map(drop)
    });
    each(0..3, |seed| {
        let mut rng = Rng::new(seed).stream("com");
        swarm_one(seed, synchroniser::config(&mut rng, Kind::agreement(false), &[(10, 3)]))
            .map(drop)
    });
}

/// Checks CLK-2, CLK-15, CLK-16 with signatures, also where liars are just fewer than half.
#[test]
fn csm() {
    each(0..300, |seed| {
        let mut rng = Rng::new(seed).stream("csm");
        let sizes = [(3, 1), (4, 1), (5, 2), (7, 3)];
        swarm_one(seed, synchroniser::config(&mut rng, Kind::agreement(true), &sizes)).map(drop)
    });
}

/// Checks CLK-15 with a liar's clock that comes to one process alone, so late that this one can pass it on to nobody any more: it does not count
/// there. Else that one has another vector than the other one, and each keeps to its own clock.
#[test]
fn a_signed_clock_that_comes_late_counts_nowhere() {
    let mut config = Config::lan(Kind::agreement(true), 3, 1);
    config.delay = Delay { min: Duration::from_micros(100), max: Duration::from_millis(1) };
    config.drift = Drift::per_billion(200_000);
    let mut scene = Scene::new(1, config);
    scene.drifts = vec![199_000, -199_000, 0];
    let round = scene.plan.bounds().round;
    let mut run = scene
        .lie(1, |liar, _, message| match message {
            Message::Vouched { round, of, value, .. } if usize::from(of) == liar.me => {
                vec![vouched(liar, round, value + 1_000_000_000)]
            }
            other => vec![other],
        })
        .run();
    run.world.set_way(2, 0, round - Duration::from_micros(600), Duration::ZERO);
    run.world.set_way(2, 1, round * 2, Duration::ZERO);
    run.periods(20.0).unwrap();
    assert!(run.status(0).rejected.untimely >= 18, "{:?}", run.status(0).rejected);
    // Neither clock is kept from the other one: they are as near as a reading is exact, and drift no further apart.
    let bounds = run.bounds();
    let apart = (bounds.reading * 4 + Duration::from_micros(800)).as_nanos() as i64;
    assert!(run.skew() <= apart, "{} ns", run.skew());
}

/// What others pass on of the own clock is nothing new; what is made up in the own name is counted, whatever it says.
#[test]
fn a_word_that_is_forged_in_the_own_name_is_counted() {
    let config = Config::lan(Kind::agreement(true), 3, 1);
    let now = Instant::ZERO + Duration::from_millis(500);
    let mut algorithm = alone(config, now);
    let begins = algorithm.deadline().expect("a run begins");
    algorithm.on_deadline(begins);
    let outputs: Vec<Output> = std::iter::from_fn(|| algorithm.poll()).collect();
    let said = outputs.into_iter().find_map(|output| match output {
        Output::Send { message: Message::Vouched { round, of: 0, value, chain }, .. } => {
            Some((round, value, chain))
        }
        _ => None,
    });
    let (round, value, chain) = said.expect("it says its clock");
    let mut come = |round, value| {
        let message = Message::Vouched { round, of: 0, value, chain: chain.clone() };
        algorithm.on_datagram(begins, begins, 1, message);
        algorithm.rejected()
    };
    assert_eq!(come(round, value), Default::default());
    assert_eq!(come(round, value + 1).unsigned, 1);
    assert_eq!(come(round + 1, value).unsigned, 2);
}

/// No clock knows the time at the start, and they are hours apart.
#[test]
fn a_cold_start_needs_no_initial_synchronisation() {
    each(0..60, |seed| {
        let mut rng = Rng::new(seed).stream("cold");
        let kind = Kind::agreement(rng.chance(1, 2));
        let mut scene = Scene::new(seed, synchroniser::config(&mut rng, kind, &[(4, 1), (7, 2)]));
        scene.apart = (0..scene.plan.config().nodes).collect();
        for skew in &mut scene.skews {
            *skew += rng.below(20_000_000_000_000) as i64;
        }
        let mut run = scene.run();
        run.periods(5.0)?;
        if run.correct().any(|node| !run.is_synchronised(node)) {
            return Err("not synchronised after five periods".to_owned());
        }
        run.periods(3.0)
    });
}

/// Checks CLK-21 for the class: one that joins is synchronised after two runs.
#[test]
fn a_joiner_is_synchronised_after_two_runs() {
    each(0..60, |seed| {
        let mut rng = Rng::new(seed).stream("joiner");
        let kind = Kind::agreement(rng.chance(1, 2));
        let mut scene = Scene::new(seed, synchroniser::config(&mut rng, kind, &[(5, 1), (8, 2)]));
        scene.apart = vec![1];
        let mut run = scene.run();
        run.periods(3.1)?;
        if !run.is_synchronised(1) {
            return Err(format!("not after three periods, {:?}", run.status(1)));
        }
        run.periods(3.0)
    });
}
