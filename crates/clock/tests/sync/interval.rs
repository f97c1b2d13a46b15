//! Intersection of intervals: CLK-27, CLK-28.

use mainstay_base::{Duration, Rng};
use mainstay_clock::sync::{Config, Delay, Drift, Event, Kind, Message};

use crate::support::{Liar, Run, Scene, each};

pub(crate) fn config(rng: &mut Rng) -> Config {
    let (nodes, faulty) = *rng.pick(&[(3, 1), (4, 1), (5, 2), (7, 3), (10, 4)]).expect("five");
    let kind = Kind::interval(Duration::from_millis(rng.between(1, 20)));
    let mut config = Config::lan(kind, nodes, faulty);
    config.drift = Drift::per_billion(rng.between(0, 200_000) as u32);
    config.delay = Delay {
        min: Duration::from_micros(rng.between(1, 500)),
        max: Duration::from_micros(rng.between(500, 3_000)),
    };
    config.period = Duration::from_millis(rng.between(100, 1_000));
    // The error of the start holds for each; the first node has the truth within it, the others too.
    config.initial = Duration::from_millis(1);
    config
}

/// Wrong intervals: far off, or near and too narrow, to each another one.
fn wrong(seed: u64) -> impl FnMut(&Liar, usize, Message) -> Vec<Message> {
    let mut rng = Rng::new(seed).stream("liar");
    let style = rng.below(3);
    move |_, to, message| {
        let Message::Reply { nonce, value, error, term, held } = message else {
            return vec![message];
        };
        let side = if to % 2 == 0 { 1 } else { -1 };
        let (off, error) = match style {
            0 => (side * 1_000_000_000, 1_000),
            1 => (side * rng.below(30_000_000) as i64, error / 100),
            _ => (-side * (error as i64 * 2), error / 2),
        };
        vec![Message::Reply { nonce, value: value + off, error, term, held }]
    }
}

/// Checks CLK-27 of all correct clocks, and CLK-28 since the last look.
fn intervals_hold(run: &Run, last: &mut [Option<(i64, i64, usize)>]) -> Result<(), String> {
    let truth = run.truth();
    for node in run.correct() {
        let local = run.world.local(node);
        let error = run.service(node).algorithm().error(local).expect("it has one");
        let off = (run.clock(node) - truth).abs();
        if off > error {
            return Err(format!("CLK-27: {node} is {off} off, and says {error}"));
        }
        let (count, now) = (run.corrections(node).count(), local.as_nanos() as i64);
        if let Some((before, then, updates)) = last[node]
            && updates == count
        {
            let drift = i64::from(run.scene.plan.config().drift.parts());
            let grown = ((now - then) as i128 * i128::from(drift) / 1_000_000_000) as i64;
            if error < before + grown - 2 || error > before + grown + 2 {
                return Err(format!(
                    "CLK-28: {node} grows from {before} to {error}, not by {grown}"
                ));
            }
        }
        last[node] = Some((error, now, count));
    }
    Ok(())
}

pub(crate) fn swarm_one(seed: u64, config: Config) -> Result<Run, String> {
    let mut rng = Rng::new(seed).stream("network");
    let (faulty, period) = (config.faulty, config.period);
    let mut scene = Scene::new(seed, config).lie(faulty, wrong(seed));
    scene.loss = rng.below(100);
    let mut run = scene.run();
    let mut last = vec![None; run.nodes()];
    let source = rng.chance(1, 2);
    for step in 0..100 {
        run.run(period / 10)?;
        intervals_hold(&run, &mut last)?;
        if source && step % 25 == 0 {
            // A reference whose error is what the plan says.
            run.refer(0, run.truth());
        }
    }
    let narrower = |it: &crate::support::Told| matches!(it.event, Event::Resynced(_));
    if source && !run.told.iter().any(narrower) {
        return Err("no interval became narrower".to_owned());
    }
    Ok(run)
}

/// Checks CLK-27, CLK-28 with up to f wrong intervals and answers that are lost.
#[test]
fn the_true_time_is_in_each_interval() {
    each(0..400, |seed| {
        let mut rng = Rng::new(seed).stream("marzullo");
        swarm_one(seed, config(&mut rng)).map(drop)
    });
}

/// More wrong intervals than may be: nothing is common to enough of them, and the clock says so in at least one run.
#[test]
fn inconsistent_intervals_are_noticed() {
    let noticed = std::sync::atomic::AtomicU64::new(0);
    each(0..40, |seed| {
        let mut rng = Rng::new(seed).stream("inconsistent");
        let mut config = config(&mut rng);
        (config.nodes, config.faulty) = (5, 1);
        let mut run = Scene::new(seed, config).lie(3, wrong(seed)).run();
        run.judge = false;
        run.periods(4.0)?;
        let lost = run.correct().any(|it| !run.losses(it).is_empty());
        noticed.fetch_add(u64::from(lost), std::sync::atomic::Ordering::Relaxed);
        Ok(())
    });
    assert!(noticed.into_inner() > 0);
}
