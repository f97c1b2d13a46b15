//! Clocks that follow a reference: CLK-4. And hardware that stamps, with an external master.

use mainstay_base::{Duration, Instant, Rng};
use mainstay_clock::fault::Fault;
use mainstay_clock::sync::{
    Config, Delay, Drift, Function, Kind, Loss, Message, Plan, Reading, Stamp,
};

use crate::averaging::two_faced;
use crate::support::{Run, Scene, alone, each};
use crate::{agreement, probabilistic};

/// How far the reference of the hardware's master may be off.
const HARDWARE_ERROR: Duration = Duration::from_micros(10);
const ERROR: Duration = Duration::from_micros(300);

/// Clocks that follow references, which are silent now and then.
pub(crate) fn followers(seed: u64, broken: Option<Fault>) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("external");
    let mut config = Config::lan(Kind::External { error: ERROR }, 3, 0);
    config.drift = Drift::per_billion(rng.between(0, 300_000) as u32);
    config.period = Duration::from_millis(rng.between(100, 2_000));
    config.fault = broken;
    let mut scene = Scene::new(seed, config);
    scene.apart = vec![0, 1, 2];
    let mut run = scene.run();
    for period in 0..12 {
        for node in 0..3 {
            let off = rng.below(2 * ERROR.as_nanos() as u64 + 1) as i64 - ERROR.as_nanos() as i64;
            // Now and then a reference is silent, and in the end all are.
            if period == 0 || (period < 8 && rng.chance(3, 4)) {
                run.refer(node, run.truth() + off);
            }
        }
        for _ in 0..5 {
            run.periods(0.2)?;
            check_accuracy(&run)?;
        }
    }
    if (0..3)
        .any(|node| run.is_synchronised(node) || run.losses(node).last() != Some(&Loss::Silence))
    {
        return Err("a silent reference was not missed".to_owned());
    }
    Ok(())
}

/// Checks CLK-4: each clock is within the bound of the reference, any two within twice that, while references are read and while they are not.
#[test]
fn clocks_that_follow_references_are_within_the_bound() {
    each(0..200, |seed| followers(seed, None));
}

fn check_accuracy(run: &Run) -> Result<(), String> {
    let bound = run.bounds().accuracy.expect("it has one").as_nanos() as i64;
    for node in run.correct() {
        let off = (run.clock(node) - run.truth()).abs();
        let Some(error) = run.service(node).algorithm().error(run.world.local(node)) else {
            continue;
        };
        if off > error || (run.is_synchronised(node) && off > bound) {
            return Err(format!("CLK-4: {node} is {off} off, says {error}, at most {bound}"));
        }
    }
    Ok(())
}

pub(crate) fn hardware(rng: &mut Rng) -> Config {
    let (nodes, faulty) = *rng.pick(&[(4, 1), (7, 2), (10, 3)]).expect("three");
    let kind = Kind::Hardware {
        master: Some(0),
        pull_max: Duration::from_micros(200),
        error: HARDWARE_ERROR,
    };
    let mut config = Config::lan(kind, nodes, faulty);
    config.drift = Drift::per_billion(rng.between(0, 50_000) as u32);
    // The unit stamps at the port: what is uncertain is the wire.
    config.delay = Delay { min: Duration::from_micros(20), max: Duration::from_micros(25) };
    config.period = Duration::from_millis(rng.between(100, 500));
    config.queue = Duration::from_micros(500);
    config.initial = Duration::from_micros(5);
    config
}

/// A run in which the master has a reference for some periods, then loses it: precision holds all the time, accuracy as stated.
pub(crate) fn pulled(seed: u64, config: Config) -> Result<Run, String> {
    let faulty = config.faulty;
    let mut scene = Scene::new(seed, config);
    let reach = scene.plan.bounds().precision.as_nanos() as i64;
    scene = scene.lie(faulty, two_faced(seed, reach));
    // The process takes datagrams in long after they came; the stamps do not mind.
    scene.turn_delay = scene.plan.config().queue;
    let mut run = scene.run();
    // The reference is as wrong as it says that it may be, in one direction or the other for long, or now this way and now that.
    let mut rng = Rng::new(seed).stream("reference");
    let (most, steady) = (HARDWARE_ERROR.as_nanos() as i64, rng.below(3) as i64 - 1);
    for step in 0..300 {
        if step < 200 && step % 5 == 0 {
            let drawn = rng.below(2 * most as u64 + 1) as i64 - most;
            let off = if steady == 0 { drawn } else { steady * most };
            run.refer(0, run.truth() + off);
        }
        run.periods(0.1)?;
        if step > 100 {
            check_followed(&run)?;
        }
    }
    Ok(run)
}

/// The reference comes back fifty pulls off, or is there for the first time: until all are there, none says that it is.
pub(crate) fn pulled_from_afar(seed: u64, config: Config) -> Result<(), String> {
    let Kind::Hardware { pull_max, .. } = config.kind else { return Err("no pull".to_owned()) };
    let accuracy = long(Plan::new(config.clone()).expect("allowed").bounds().accuracy);
    let away = 50 * long(Some(pull_max)) * (seed.is_multiple_of(2) as i64 * 2 - 1);
    let mut run = Scene::new(seed, config).run();
    for step in 0..350 {
        if step % 5 == 0 {
            run.refer(0, run.truth() + away);
        }
        run.periods(0.2)?;
        for node in run.correct() {
            let off = (run.clock(node) - run.truth() - away).abs();
            let said = run.service(node).algorithm().error(run.world.local(node));
            if let Some(said) = said.filter(|said| off > *said) {
                return Err(format!("CLK-4: {node} is {off} off, and says {said}"));
            }
            if step == 349 && said.is_none_or(|said| said > 2 * accuracy) {
                return Err(format!("{node} never came: {off} off, and says {said:?}"));
            }
        }
    }
    Ok(())
}

fn long(span: Option<Duration>) -> i64 {
    span.map_or(0, |span| span.as_nanos() as i64)
}

/// Checks CLK-4: a clock that is on its way to the reference says how far it has to go.
#[test]
fn a_clock_that_is_pulled_says_how_far_the_reference_is() {
    each(0..40, |seed| {
        let mut rng = Rng::new(seed).stream("hardware");
        pulled_from_afar(seed, hardware(&mut rng))
    });
    let mut rng = Rng::new(1).stream("hardware");
    let broken = Config { fault: Some(Fault::ArrivesAtOnce), ..hardware(&mut rng) };
    let found = pulled_from_afar(1, broken).expect_err("it is noticed");
    assert!(found.starts_with("CLK-4: "), "{found}");
}

/// A master that lies of its reference, to each another way: it pulls no further than it may.
pub(crate) fn pulled_by_a_liar(seed: u64, mut config: Config) -> Result<(), String> {
    if let Kind::Hardware { master, .. } = &mut config.kind {
        *master = Some(config.nodes - 1);
    }
    let master = config.nodes - 1;
    let mut scene = Scene::new(seed, config).lie(1, |_, to, message| match message {
        Message::Tick { round, value, sure, .. } => {
            let pull = Some(if to % 2 == 0 { i64::MAX / 2 } else { -1_000_000_000 });
            vec![Message::Tick { round, value, sure, pull }]
        }
        other => vec![other],
    });
    scene.turn_delay = scene.plan.config().queue;
    let mut run = scene.run();
    for _ in 0..8 {
        run.refer(master, run.truth());
        run.periods(1.0)?;
    }
    Ok(())
}

/// Checks CLK-2 with an external master that has two faces.
#[test]
fn a_master_that_lies_pulls_no_further_than_it_may() {
    each(0..100, |seed| {
        let mut rng = Rng::new(seed).stream("lying master");
        pulled_by_a_liar(seed, hardware(&mut rng))
    });
}

fn check_followed(run: &Run) -> Result<(), String> {
    let bound = run.bounds().accuracy.expect("it has one").as_nanos() as i64;
    for node in run.correct() {
        let off = (run.clock(node) - run.truth()).abs();
        let said = run.service(node).algorithm().error(run.world.local(node));
        let Some(said) = said else { return Err(format!("{node} has heard of no reference")) };
        if off > said {
            return Err(format!("CLK-4: {node} is {off} off, and says {said}, bound {bound}"));
        }
    }
    Ok(())
}

/// Checks CLK-2 and CLK-4 with stamps at the port and an external master; when it is lost, precision holds, and the accuracy
/// bound grows and holds.
#[test]
fn hardware_follows_an_external_master_and_outlives_it() {
    each(0..200, |seed| {
        let mut rng = Rng::new(seed).stream("hardware");
        let run = pulled(seed, hardware(&mut rng))?;
        let rate = run.corrections(1).map(|it| it.1.rate).last().unwrap_or(0);
        let drifts = run.scene.drifts.iter().any(|it| it.abs() > 1_000);
        if drifts && run.corrections(1).all(|it| it.1.rate == 0) {
            return Err(format!("no rate was corrected, {rate}"));
        }
        Ok(())
    });
}

/// What stamps gain: with long queues at the receiver, the bound is that of the wire, and the clocks keep to it.
#[test]
fn stamps_take_the_queue_of_the_receiver_out_of_the_bound() {
    each(0..100, |seed| {
        let mut rng = Rng::new(seed).stream("stamps");
        let queue = Duration::from_millis(2);
        let way = *rng.pick(&[Reading::ARRIVAL.way, Reading::ROUND_TRIP.way]).expect("two");
        let kind = |stamp| Kind::Averaging {
            function: Function::Midpoint,
            reading: Reading { way, stamp },
        };
        let mut config = Config::lan(kind(Stamp::Kernel), 4, 1);
        config.delay = Delay { min: Duration::from_micros(50), max: Duration::from_micros(100) };
        config.queue = queue;
        config.initial = Duration::from_micros(10);
        config.drift = Drift::per_billion(rng.between(0, 10_000) as u32);
        let mut scene = Scene::new(seed, config.clone());
        let reach = scene.plan.bounds().precision.as_nanos() as i64;
        scene = scene.lie(1, two_faced(seed, reach));
        let mut unstamped = config;
        unstamped.kind = kind(Stamp::Turn);
        unstamped.delay.max += queue;
        let without = Plan::new(unstamped).expect("theory allows it").bounds().precision;
        if scene.plan.bounds().precision * 5 > without {
            return Err(format!("{:?} against {without:?}", scene.plan.bounds().precision));
        }
        scene.turn_delay = queue;
        let mut run = scene.run();
        run.periods(6.0)
    });
}

/// A wire of 50 to 100 us, and datagrams that wait for up to 2 ms.
fn queued(kind: Kind, rng: &mut Rng) -> Config {
    let mut config = Config::lan(kind, 4, 1);
    config.delay = Delay { min: Duration::from_micros(50), max: Duration::from_micros(100) };
    config.queue = Duration::from_millis(2);
    config.initial = Duration::from_micros(10);
    config.drift = Drift::per_billion(rng.between(0, 10_000) as u32);
    config
}

/// The same configuration, to be run without stamps: the queue is a part of the delay.
fn unstamped(mut config: Config) -> Config {
    match &mut config.kind {
        Kind::Agreement { stamp, .. }
        | Kind::Probabilistic { stamp, .. }
        | Kind::Interval { stamp, .. } => *stamp = Stamp::Turn,
        _ => {}
    }
    config.delay.max += std::mem::take(&mut config.queue);
    config
}

/// What each clock has read last is within the limit, in nanoseconds.
fn reads_within(run: &Run, limit: u64) -> Result<(), String> {
    for node in run.correct() {
        for source in run.service(node).algorithm().sources() {
            if source.error > limit {
                return Err(format!("{node} reads {source:?}"));
            }
        }
    }
    Ok(())
}

/// COM: the bound is that of the wire, and is kept with a liar.
#[test]
fn agreement_gains_by_stamps() {
    each(0..60, |seed| {
        let mut rng = Rng::new(seed).stream("stamps");
        let kind = Kind::Agreement { signed: false, stamp: Stamp::Kernel };
        let config = queued(kind, &mut rng);
        let without = Plan::new(unstamped(config.clone())).expect("theory allows it");
        let mut scene = Scene::new(seed, config);
        let precision = scene.plan.bounds().precision;
        if precision * 5 > without.bounds().precision {
            return Err(format!("{precision:?} against {without:?}"));
        }
        scene = scene.lie(1, agreement::lies(seed, precision.as_nanos() as i64));
        scene.turn_delay = scene.plan.config().queue;
        let mut run = scene.run();
        run.periods(6.0)?;
        run.keep_together()?;
        let few = run.correct().any(|node| run.corrections(node).count() < 4);
        if few { Err("a correct clock missed runs".to_owned()) } else { Ok(()) }
    });
}

/// Reads a master through a queue of 2 ms, or not: each first answer is good enough.
fn master_through_a_queue(seed: u64, config: Config) -> Result<(), String> {
    let mut scene = Scene::new(seed, config);
    scene.turn_delay = Duration::from_millis(2);
    let mut run = scene.run();
    probabilistic::walk(&mut run, 8)?;
    reads_within(&run, 300_000)?;
    let read = run.correct().filter(|node| run.corrections(*node).count() >= 5).count();
    let untimely = run.correct().any(|node| run.status(node).rejected.untimely > 0);
    match read + 1 == run.nodes() && !untimely {
        true => run.keep_together(),
        false => Err(format!("{read} of {} read the master", run.nodes())),
    }
}

/// Cristian: the wait of a question and of its answer is no part of a reading's error.
#[test]
fn reading_a_master_gains_by_stamps() {
    let config = |seed| {
        let kind = Kind::Probabilistic {
            error_max: Duration::from_micros(400),
            attempts: 10,
            wait: Duration::from_millis(10),
            patience: Duration::from_millis(100),
            stamp: Stamp::Kernel,
        };
        let config = queued(kind, &mut Rng::new(seed).stream("stamps"));
        Config { period: Duration::from_millis(300), ..config }
    };
    each(0..60, |seed| master_through_a_queue(seed, config(seed)));
    let without = |seed| master_through_a_queue(seed, unstamped(config(seed)));
    assert!((0..5).all(|seed| without(seed).is_err()), "the queue is no part of the reading");
}

/// A clock that knows nothing reads three that have references, through a queue of 2 ms; how far it says that it may be wrong in the end.
fn intervals_through_a_queue(seed: u64, config: Config) -> Result<i64, String> {
    let mut scene = Scene::new(seed, config);
    scene.turn_delay = Duration::from_millis(2);
    scene.apart = vec![3];
    let mut run = scene.run();
    for _ in 0..8 {
        for node in 0..3 {
            run.refer(node, run.truth());
        }
        run.periods(0.5)?;
        check_accuracy_said(&run)?;
    }
    let said = run.service(3).algorithm().error(run.world.local(3));
    said.ok_or_else(|| "it has learnt nothing".to_owned())
}

fn check_accuracy_said(run: &Run) -> Result<(), String> {
    for node in run.correct().filter(|node| run.is_synchronised(*node)) {
        let off = (run.clock(node) - run.truth()).abs();
        let said = run.service(node).algorithm().error(run.world.local(node)).unwrap_or(0);
        if off > said {
            return Err(format!("CLK-27: {node} is {off} off, and says {said}"));
        }
    }
    Ok(())
}

/// Marzullo: the intervals of others are as narrow as the wire allows, and hold the true time.
#[test]
fn intervals_gain_by_stamps() {
    let config = |seed| {
        let kind = Kind::Interval { error: Duration::from_micros(300), stamp: Stamp::Kernel };
        queued(kind, &mut Rng::new(seed).stream("stamps"))
    };
    each(0..60, |seed| match intervals_through_a_queue(seed, config(seed))? {
        0..600_000 => Ok(()),
        said => Err(format!("it says {said}")),
    });
    let without = (0..20).map(|seed| intervals_through_a_queue(seed, unstamped(config(seed))));
    let wide = without.filter(|said| said.as_ref().is_ok_and(|said| *said > 600_000)).count();
    assert!(wide > 10, "{wide} of 20");
}

/// The master of a round pulls once: what comes a second time, or of a clock that is not sure, does not count.
#[test]
fn a_master_pulls_once_a_round() {
    let pulls = |pulls: &[(bool, i64)]| {
        let mut config = hardware(&mut Rng::new(3));
        if let Kind::Hardware { master, .. } = &mut config.kind {
            *master = Some(1);
        }
        (config.nodes, config.faulty) = (4, 1);
        let period = config.period.as_nanos() as u64;
        let now = Instant::from_nanos(period * 100 - 1_000_000);
        let mut algorithm = alone(config, now);
        let begins = Instant::from_nanos(period * 100);
        algorithm.on_deadline(begins);
        let at = begins + Duration::from_micros(20);
        let mut say = |from, sure, pull| {
            let value = period as i64 * 100;
            algorithm.on_datagram(at, at, from, Message::Tick { round: 100, value, sure, pull });
        };
        pulls.iter().for_each(|(sure, pull)| say(1, *sure, Some(*pull)));
        (2..4).for_each(|from| say(from, true, None));
        let end = algorithm.deadline().expect("it decides");
        let before = algorithm.clock().nanos(end);
        algorithm.on_deadline(end);
        algorithm.clock().nanos(end) - before
    };
    let first = pulls(&[(true, 100_000)]);
    assert!(first > 50_000, "{first}");
    assert_eq!(pulls(&[(true, 100_000), (true, -100_000)]), first);
    assert_eq!(pulls(&[(false, -100_000), (true, 100_000)]), first);
}
