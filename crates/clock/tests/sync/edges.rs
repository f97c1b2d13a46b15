//! The edge cases of synchronised clocks, by name.

use std::sync::Arc;

use mainstay_agreement::sign::Keyring;
use mainstay_base::{Duration, Instant, Rng};
use mainstay_clock::fault::Fault as Broken;
use mainstay_clock::sync::{
    Algorithm, Begin, Config, ConfigError, Delay, Drift, Function, Kind, Loss, Message, Origin,
    Plan, Reading, Stamp, Way,
};
use mainstay_sim::{ClockFault, Fault, FaultEvent};

use crate::averaging::{FUNCTIONS, two_faced};
use crate::support::{self, Run, Scene, each};

fn midpoint(nodes: usize, faulty: usize) -> Config {
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ARRIVAL };
    Config { period: Duration::from_millis(500), ..Config::lan(kind, nodes, faulty) }
}

/// One algorithm for each of the classes that synchronise internally, for n = 4 and f = 1.
pub(crate) fn kinds() -> Vec<Kind> {
    let mut kinds: Vec<Kind> = FUNCTIONS
        .into_iter()
        .map(|function| Kind::Averaging { function, reading: Reading::ARRIVAL })
        .collect();
    kinds.push(Kind::Averaging { function: Function::Midpoint, reading: Reading::ROUND_TRIP });
    kinds.extend([false, true].map(Kind::agreement));
    kinds.push(Kind::Agreement { signed: false, stamp: Stamp::Kernel });
    kinds.extend([false, true].map(|signed| Kind::Srikanth { signed }));
    kinds.push(Kind::Halpern);
    kinds
}

fn any(rng: &mut Rng) -> Config {
    let kind = rng.pick(&kinds()).expect("some").clone();
    Config { period: Duration::from_millis(500), ..Config::lan(kind, 4, 1) }
}

/// The same with four nodes, or with seven of which one has two faces: one more may be faulty.
fn beset(seed: u64, rng: &mut Rng) -> Scene {
    let (nodes, faulty) = *rng.pick(&[(4, 1), (7, 2)]).expect("two");
    let scene = Scene::new(seed, Config { nodes, faulty, ..any(rng) });
    let reach = scene.plan.bounds().precision.as_nanos() as i64;
    scene.lie(faulty - 1, two_faced(seed, reach))
}

/// Checks CLK-8, CLK-9, and each other refusal: by name, with its reason.
#[test]
fn what_theory_forbids_is_refused_with_the_reason() {
    let refused = |config: Config| Plan::new(config).expect_err("it is refused");
    for kind in kinds() {
        let config = Config {
            precision: Some(Duration::from_micros(700)),
            ..Config::lan(kind.clone(), 4, 1)
        };
        // Three quarters of 950 us.
        let error = refused(config);
        let least = Duration::from_nanos(712_500);
        let wanted = Duration::from_micros(700);
        assert_eq!(error, ConfigError::BelowBound { wanted, least }, "{kind:?}");
        let config = Config {
            precision: Some(Duration::from_micros(713)),
            ..Config::lan(kind.clone(), 4, 1)
        };
        assert!(matches!(refused(config), ConfigError::OutOfReach { .. }), "{kind:?}");
        let config =
            Config { drift: Drift::per_billion(10_000_001), ..Config::lan(kind.clone(), 4, 1) };
        assert!(matches!(refused(config), ConfigError::Drift(_)), "{kind:?}");
        let mut config = Config::lan(kind.clone(), 4, 1);
        config.delay.max = Duration::from_micros(1);
        assert!(matches!(refused(config), ConfigError::Delay(_)), "{kind:?}");
        let config =
            Config { period: Duration::from_micros(1_500), ..Config::lan(kind.clone(), 4, 1) };
        assert!(matches!(refused(config), ConfigError::Period { .. }), "{kind:?}");
        assert!(matches!(
            refused(Config::lan(kind.clone(), 0, 0)),
            ConfigError::TooManyFaulty { .. } | ConfigError::Nodes(0)
        ));
        assert!(matches!(refused(Config::lan(kind, 65, 1)), ConfigError::Nodes(65)));
    }
    for kind in kinds() {
        let is_signed =
            matches!(kind, Kind::Agreement { signed: true, .. } | Kind::Srikanth { signed: true });
        let of = |nodes, faulty| Config::lan(kind.clone(), nodes, faulty);
        let (nodes, faulty, least) = match kind {
            Kind::Halpern => (3, 3, 4),
            _ if is_signed => (4, 2, 5),
            _ => (6, 2, 7),
        };
        let error = refused(of(nodes, faulty));
        assert!(
            matches!(error, ConfigError::TooManyFaulty { least: it, .. } if it == least),
            "{kind:?}"
        );
        assert!(error.to_string().contains("would"), "{error}");
    }
    let begin = |me, keys| Begin {
        plan: Arc::new(Plan::new(Config::lan(Kind::Halpern, 4, 1)).expect("allowed")),
        me,
        origin: Origin::Together(0),
        now: Instant::ZERO,
        seed: 1,
        keys,
    };
    assert_eq!(Algorithm::new(begin(4, None)).err(), Some(ConfigError::Place(4)));
    assert_eq!(Algorithm::new(begin(0, None)).err(), Some(ConfigError::Keys));
    assert_eq!(
        Algorithm::new(begin(0, Some(Keyring::ideal(1, 4, 1)))).err(),
        Some(ConfigError::KeysOf { place: 0, keys: 1 })
    );
    assert_eq!(
        Algorithm::new(begin(0, Some(Keyring::ideal(0, 3, 1)))).err(),
        Some(ConfigError::Keys)
    );
}

/// Checks CLK-14: a two-faced clock against three others does nothing; against two it keeps them apart for ever. With n = 3f a liar shows each
/// of two clocks that are apart what that clock says itself.
#[test]
fn a_two_faced_clock_with_n_3f_plus_1_and_with_n_3f() {
    let run = |nodes: usize| {
        let mut config = midpoint(nodes, 1);
        config.drift = Drift::per_billion(200_000);
        let bounds = *Plan::new(Config { nodes: 4, ..config.clone() }).expect("allowed").bounds();
        let mut scene = Scene::against_theory(1, config, bounds);
        scene.drifts = vec![200_000, -199_000, 0, 0];
        scene.drifts.truncate(nodes);
        scene.skews = vec![0; nodes];
        let mut rng = Rng::new(1);
        // To each what it would see of a clock like its own, and a little further out.
        let scene = scene.lie(1, move |_, to, message| match message {
            Message::Tick { round, value, pull, .. } => {
                let off = if to == 0 { 1 } else { -1 } * (2_500_000 + rng.below(1_000) as i64);
                vec![Message::Tick { round, value: value + off, sure: true, pull }]
            }
            other => vec![other],
        });
        scene.run().periods(100.0)
    };
    run(4).expect("four withstand it");
    let error = run(3).expect_err("CLK-14: three do not");
    assert!(error.starts_with("CLK-2"), "{error}");
}

/// Checks CLK-11 with exact reads: the skew of correct clocks does not grow in an exchange. CLK-12: without faults, all meet at once.
#[test]
fn exact_reads_do_not_part_clocks() {
    each(0..200, |seed| exact_reads(seed, None));
}

/// Clocks that are read exactly.
pub(crate) fn exact_reads(seed: u64, broken: Option<Broken>) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("exact");
    let function = *rng.pick(&FUNCTIONS).expect("four");
    let faulty = rng.below(2) as usize;
    let mut config = midpoint(4, faulty);
    config.kind = Kind::Averaging { function, reading: Reading::ARRIVAL };
    config.drift = Drift::per_billion(0);
    config.delay = Delay { min: Duration::from_micros(500), max: Duration::from_micros(500) };
    config.initial = Duration::from_millis(2);
    config.fault = broken;
    let mut scene = Scene::new(seed, config);
    let reach = scene.plan.bounds().agreed.as_nanos() as i64;
    scene = scene.lie(faulty, two_faced(seed, reach));
    let mut run = scene.run();
    run.judge = false;
    run.periods(0.4)?;
    let mut last = spread(&run);
    let meets = matches!(function, Function::Midpoint | Function::Average);
    for _ in 0..5 {
        run.periods(1.0)?;
        let skew = spread(&run);
        // The other two believe whatever is within the bound: from below it a liar may take them there, and no further.
        last = if meets { last } else { last.max(reach) };
        // Means and middles are rounded down.
        if skew > last + 2 {
            return Err(format!("CLK-11: a skew of {last} becomes {skew}"));
        }
        last = skew;
    }
    if faulty == 0 && meets && last > 2 {
        return Err(format!("CLK-12: a skew of {last} is left"));
    }
    Ok(())
}

/// Checks CLK-13 of a whole clock: one that is beyond the limit changes nothing, however far it is.
pub(crate) fn beyond_the_limit(broken: Option<Broken>) -> Result<(), String> {
    let correction = |far: i64| {
        let kind = Kind::Averaging { function: Function::Egocentric, reading: Reading::ARRIVAL };
        let config = Config { fault: broken, ..midpoint(4, 1) };
        let (mut algorithm, now) = alone(Config { kind, ..config });
        let round = now.as_nanos() as i64 / 500_000_000 + 1;
        let begins = Instant::from_nanos(round as u64 * 500_000_000);
        algorithm.on_deadline(begins);
        let at = begins + Duration::from_micros(500);
        for (from, off) in [(1, 3_000), (2, -1_000), (3, far)] {
            let value = round * 500_000_000 + off;
            let tick = Message::Tick { round: round as u64, value, sure: true, pull: None };
            algorithm.on_datagram(at, at, from, tick);
        }
        let end = algorithm.deadline().expect("it decides");
        let before = algorithm.clock().nanos(end);
        algorithm.on_deadline(end);
        algorithm.clock().nanos(end) - before
    };
    // The delay is taken for 525 us: this one says what the own clock says.
    let own = correction(-25_000);
    let (far, farther) = (correction(50_000_000), correction(3_600_000_000_000));
    if far != own || farther != own {
        return Err(format!(
            "CLK-13: {own} with one like the own, {far} and {farther} with one far off"
        ));
    }
    Ok(())
}

/// Checks CLK-13.
#[test]
fn a_clock_beyond_the_limit_changes_nothing() {
    beyond_the_limit(None).expect("CLK-13");
}

/// Checks CLK-8, CLK-9 for one plan each.
pub(crate) fn bounds_of_theory(broken: Option<Broken>) -> Result<(), String> {
    let config =
        Config { precision: Some(Duration::from_micros(700)), fault: broken, ..midpoint(4, 1) };
    let refused = Plan::new(config).err();
    if !matches!(refused, Some(ConfigError::BelowBound { .. })) {
        return Err(format!("CLK-8: {refused:?}"));
    }
    for kind in kinds() {
        let faulty = if kind == Kind::Halpern { 4 } else { 2 };
        let config = Config { kind, fault: broken, ..midpoint(4, faulty) };
        let refused = Plan::new(config).err();
        if !matches!(refused, Some(ConfigError::TooManyFaulty { .. })) {
            return Err(format!("CLK-9: {refused:?}"));
        }
    }
    Ok(())
}

/// Runs with a fault of the hardware of node 0 in the third period; the others go on, and it says that something is wrong.
fn broken_hardware(clock: ClockFault, periods: u32) {
    let expected = [Loss::WentBack, Loss::Outside, Loss::Overslept, Loss::Silence, Loss::Behind];
    each(0..60, |seed| {
        let mut rng = Rng::new(seed).stream("hardware");
        let mut scene = beset(seed, &mut rng);
        let length = scene.period() * periods;
        let at = Instant::ZERO + scene.period().mul_f64(2.3);
        scene.faults = vec![FaultEvent { at, fault: Fault::Clock { node: 0, clock, length } }];
        let mut run = scene.run();
        run.exempt.push(0);
        run.periods(9.4 + f64::from(periods))?;
        let kind = run.scene.plan.config().kind.clone();
        let losses = run.losses(0);
        if !losses.iter().any(|it| expected.contains(it)) {
            return Err(format!("{kind:?}: {losses:?} of a faulty clock"));
        }
        run.exempt.clear();
        if !run.is_synchronised(0) {
            return Err(format!("{kind:?}: it does not find back after {:?}", run.losses(0)));
        }
        run.periods(3.0)
    });
}

/// A clock that steps back declares itself faulty, whether it sees the step or what comes of it.
#[test]
fn a_clock_that_steps_back_declares_itself_faulty() {
    broken_hardware(ClockFault::Step(-50_000_000), 1);
}

/// One that steps forward is found out by the others, or by its deadlines.
#[test]
fn a_clock_that_steps_forward_declares_itself_faulty() {
    broken_hardware(ClockFault::Step(60_000_000), 1);
}

/// One that races at twice the rate, too.
#[test]
fn a_clock_that_races_declares_itself_faulty() {
    broken_hardware(ClockFault::Race(1_000_000_000), 6);
}

/// One that is stuck hears that the others go on.
#[test]
fn a_stuck_clock_declares_itself_faulty() {
    broken_hardware(ClockFault::Freeze, 4);
}

/// One message of each exchange is lost; then all messages of one round; then of so many rounds that the clocks say so.
#[test]
fn a_message_and_a_whole_round_are_lost() {
    each(0..100, |seed| {
        let mut rng = Rng::new(seed).stream("lost");
        let mut run = beset(seed, &mut rng).run();
        run.periods(2.0)?;
        // One way is dead: that is the one fault that there may be.
        run.world.inject(Fault::OneWayCut { from: 0, to: 1, length: run.scene.period() * 2 });
        run.periods(2.5)?;
        if run.correct().any(|node| !run.is_synchronised(node)) {
            return Err("one lost message was not withstood".to_owned());
        }
        // Nobody hears anybody for a round.
        let length = run.scene.period().mul_f64(0.9);
        let nodes = run.nodes();
        for (one, other) in (0..nodes).flat_map(|one| (0..one).map(move |it| (it, one))) {
            run.world.inject(Fault::Cut { one, other, length });
        }
        // What two clocks drift apart in a period.
        let drift = i128::from(run.scene.plan.config().drift.parts());
        let exceeds = (2 * drift * run.scene.period().as_nanos() as i128 / 1_000_000_000) as i64;
        run.judge = false;
        run.periods(1.5)?;
        if run.skew() > run.bounds().precision.as_nanos() as i64 + exceeds {
            return Err(format!("a lost round costs {}", run.skew()));
        }
        if run.correct().any(|node| !run.is_synchronised(node)) {
            return Err("one lost round was not withstood".to_owned());
        }
        run.periods(2.0)?;
        run.judge = true;
        run.periods(3.0)
    });
}

/// A fast way there and a slow one back: the error is half the difference, and within the bound.
#[test]
fn asymmetric_delay_costs_half_of_the_asymmetry() {
    for way in [Way::Arrival, Way::RoundTrip] {
        let mut config = midpoint(2, 0);
        config.kind = Kind::Averaging {
            function: Function::Midpoint,
            reading: Reading { way, stamp: Stamp::Turn },
        };
        config.drift = Drift::per_billion(0);
        config.delay = Delay { min: Duration::from_micros(100), max: Duration::from_micros(900) };
        config.initial = Duration::ZERO;
        let mut run = Scene::new(1, config).run();
        run.world.set_way(0, 1, Duration::from_micros(100), Duration::ZERO);
        run.world.set_way(1, 0, Duration::from_micros(900), Duration::ZERO);
        run.periods(3.5).expect("within the bound");
        // Each takes the other's clock to be half of 800 us off, in opposite directions; the middle of both moves half of that.
        let (skew, reading) = (run.skew(), run.bounds().reading.as_nanos() as i64);
        assert!((399_000..=401_000).contains(&skew), "{way:?}: {skew}");
        assert!((400_000..401_000).contains(&reading), "{reading}");
    }
}

fn alone(config: Config) -> (Algorithm, Instant) {
    let now = Instant::ZERO + Duration::from_millis(100_100);
    (support::alone(config, now), now)
}

/// Words of the last round, this one, the next one, one of the far future, and of nobody: only what belongs here counts, and nothing moves
/// the clock before the round is decided.
#[test]
fn words_of_other_rounds_and_of_strangers_are_counted() {
    let (mut algorithm, now) = alone(midpoint(4, 1));
    // Periods of 500 ms: round 201 is next.
    let tick = |round, value| Message::Tick { round, value, sure: true, pull: None };
    let value = |round: u64| round as i64 * 500_000_000;
    for (from, round) in [(1, 200), (1, 201), (2, 202), (3, u64::MAX), (4, 201), (0, 201), (1, 201)]
    {
        let value = if round < 1_000 { value(round) } else { i64::MAX };
        algorithm.on_datagram(now, now, from, tick(round, value));
    }
    algorithm.on_datagram(now, now, 2, Message::Echo { round: 201 });
    let rejected = algorithm.rejected();
    assert_eq!(
        (rejected.replayed, rejected.future, rejected.unknown, rejected.foreign),
        (2, 1, 2, 1)
    );
    assert_eq!((algorithm.version(), algorithm.clock().nanos(now)), (0, 100_100_000_000));
    assert!(algorithm.is_synchronised());
}

/// Round messages of an old period that are sent again, and forged signatures: refused, counted, and without effect (with duplicates
/// on the way as well).
#[test]
fn replays_and_forgeries_are_refused() {
    let (mut algorithm, now) = alone(Config {
        period: Duration::from_millis(500),
        ..Config::lan(Kind::Srikanth { signed: true }, 4, 1)
    });
    let text = |round: u64| [&b"mainstay clock st round "[..], &round.to_be_bytes()].concat();
    let signed =
        |who: usize, seed, round| (who as u16, Keyring::ideal(who, 4, seed).sign(&text(round)));
    let mut say = |from, round, chain| {
        algorithm.on_datagram(now, now, from, Message::Signed { round, chain });
        (algorithm.version(), algorithm.rejected())
    };
    let (version, rejected) = say(1, 201, vec![signed(1, 12, 201), signed(2, 12, 201)]);
    assert_eq!((version, rejected.unsigned), (0, 1));
    let old = vec![signed(1, 11, 200), signed(2, 11, 200)];
    let (version, rejected) = say(1, 201, old.clone());
    assert_eq!((version, rejected.unsigned), (0, 2));
    let (version, rejected) = say(1, 201, vec![signed(1, 11, 201), signed(1, 11, 201)]);
    assert_eq!((version, rejected.unsigned), (0, 3));
    let (version, _) = say(1, 201, vec![signed(1, 11, 201)]);
    assert_eq!(version, 0);
    let (version, _) = say(2, 201, vec![signed(2, 11, 201)]);
    assert_eq!(version, 201);
    let (version, rejected) = say(1, 200, old);
    assert_eq!((version, rejected.replayed), (201, 1));
    each(0..60, |seed| {
        let mut rng = Rng::new(seed).stream("duplicates");
        let mut scene = beset(seed, &mut rng);
        scene.duplication = 300;
        let mut run = scene.run();
        run.periods(5.0)
    });
}

/// A clock that knows no time joins in the middle of a round, with liars about; it is synchronised within the bound of periods (CLK-21).
#[test]
fn a_joiner_during_resynchronisation() {
    each(0..300, |seed| joins(seed, None));
}

/// One joins, at any moment of a round: the time at which all begin is a multiple of no period.
pub(crate) fn joins(seed: u64, broken: Option<Broken>) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("joiner");
    let function = *rng.pick(&FUNCTIONS).expect("four");
    let reading = *rng.pick(&[Reading::ARRIVAL, Reading::ROUND_TRIP]).expect("two");
    let mut config = midpoint(7, 2);
    config.period = Duration::from_micros(rng.between(450_000, 550_000));
    config.fault = broken;
    config.kind = Kind::Averaging { function, reading };
    config.delay.max = Duration::from_micros(500);
    let mut scene = Scene::new(seed, config);
    let reach = scene.plan.bounds().precision.as_nanos() as i64;
    // One liar, and the joiner, who is silent at first: two faults.
    scene = scene.lie(1, two_faced(seed, reach));
    scene.apart = vec![0];
    let mut run = scene.run();
    run.periods(f64::from(run.bounds().joining))?;
    if !run.is_synchronised(0) {
        return Err(format!(
            "CLK-21: {function:?} {reading:?} not after {} periods",
            run.bounds().joining
        ));
    }
    run.periods(3.0)
}

/// A partition during resynchronisation: sides drift apart by 2 rho at most; after it all are together again, and those who lost the others had
/// said so.
#[test]
fn a_partition_during_resynchronisation() {
    each(0..150, |seed| {
        let mut rng = Rng::new(seed).stream("partition");
        let config = any(&mut rng);
        let mut run = Scene::new(seed, config).run();
        run.periods(2.0 + rng.below(100) as f64 / 100.0)?;
        let before = spread(&run);
        let periods = rng.between(5, 12) as u32;
        let side = if rng.chance(1, 2) { vec![0] } else { vec![0, 1] };
        let is_split = side.len() == 2;
        let length = run.scene.period() * periods;
        run.world.inject(Fault::Partition { side, length });
        // Halpern's algorithm withstands any number of faults of those that reach each other: each side is one.
        let goes_on = matches!(
            run.scene.plan.config().kind,
            Kind::Halpern | Kind::Srikanth { .. } | Kind::Agreement { .. }
        );
        run.judge = false;
        run.periods(f64::from(periods))?;
        let drift = i64::from(run.scene.plan.config().drift.parts());
        let apart = length.as_nanos() as i64 / 1_000_000_000 * 2 * drift + drift;
        let grown = spread(&run) - before;
        let bound = run.bounds().precision.as_nanos() as i64;
        if !goes_on && grown > apart + bound {
            return Err(format!("the sides drift {grown} apart, at most {apart}"));
        }
        let lost = (0..4).filter(|node| !run.losses(*node).is_empty()).count();
        if !goes_on && lost != if is_split { 4 } else { 1 } {
            return Err(format!("{lost} clocks said that they are lost"));
        }
        run.periods(6.0)?;
        run.judge = true;
        if (0..4).any(|node| !run.is_synchronised(node)) {
            let all: Vec<_> = (0..4).map(|node| run.losses(node)).collect();
            return Err(format!("not together again: {:?} {all:?}", run.scene.plan.config().kind));
        }
        run.periods(3.0)
    });
}

/// The skew of all clocks, synchronised or not.
fn spread(run: &Run) -> i64 {
    let all: Vec<i64> = run.correct().map(|node| run.clock(node)).collect();
    all.iter().max().zip(all.iter().min()).map_or(0, |(max, min)| max - min)
}

/// Drift exactly rho on all, in opposite directions: the skew before a correction is what the last one left, and 2 rho P.
#[test]
fn opposite_drifts_add_two_rho_p() {
    for function in FUNCTIONS {
        let mut config = midpoint(4, 0);
        config.kind = Kind::Averaging { function, reading: Reading::ARRIVAL };
        config.drift = Drift::per_billion(200_000);
        let mut scene = Scene::new(1, config);
        scene.drifts = vec![200_000, -199_960, 200_000, -199_960];
        let mut run = scene.run();
        run.periods(2.1).expect("within the bound");
        for _ in 0..5 {
            let after = run.skew();
            run.periods(0.85).expect("within the bound");
            let before = run.skew();
            let grown = 2 * 200_000 * 500 / 1_000;
            assert!(before <= after + grown, "{function:?}: from {after} to {before}");
            run.periods(0.15).expect("within the bound");
        }
    }
}

/// A node that is paused or suspended for ten periods: nothing that waited for it moves its clock, it says that it is lost, and finds back.
#[test]
fn a_node_that_is_paused_for_ten_periods() {
    each(0..200, |seed| {
        let mut rng = Rng::new(seed).stream("pause");
        let scene = beset(seed, &mut rng);
        let is_suspended = rng.chance(1, 2);
        let mut run = scene.run();
        run.periods(2.0 + rng.below(100) as f64 / 100.0)?;
        let length = run.scene.period() * 10;
        run.exempt.push(0);
        run.world.inject(if is_suspended {
            Fault::Suspend { node: 0, length }
        } else {
            Fault::Pause { node: 0, length }
        });
        run.periods(10.0)?;
        // It may be wrong, and not know, until the others have spoken once.
        run.periods(1.2)?;
        if run.losses(0).is_empty() {
            return Err(format!("{:?}: it did not notice", run.scene.plan.config().kind));
        }
        run.periods(4.0)?;
        run.exempt.clear();
        if !run.is_synchronised(0) {
            let losses = run.losses(0);
            return Err(format!(
                "{:?}: it does not find back: {losses:?}",
                run.scene.plan.config().kind
            ));
        }
        run.periods(3.0)
    });
}

/// With real signatures: two of three who sign a round make the third accept it; one who signs for another does not.
#[cfg(feature = "signed")]
#[test]
fn rounds_are_signed_by_ed25519() {
    let secrets = [[1; 32], [2; 32], [3; 32]];
    let publics = secrets.map(Keyring::public);
    let keys = |me: usize| Keyring::ed25519(me, secrets[me], &publics).expect("they are theirs");
    let kind = Kind::Srikanth { signed: true };
    let begin = Begin {
        plan: Arc::new(Plan::new(Config::lan(kind, 3, 1)).expect("allowed")),
        me: 0,
        origin: Origin::Together(0),
        now: Instant::ZERO,
        seed: 1,
        keys: Some(keys(0)),
    };
    let mut algorithm = Algorithm::new(begin).expect("it is built");
    let text = [&b"mainstay clock st round "[..], &1u64.to_be_bytes()].concat();
    let now = Instant::ZERO + Duration::from_millis(995);
    let mut say = |chain| {
        algorithm.on_datagram(now, now, 1, Message::Signed { round: 1, chain });
        (algorithm.version(), algorithm.rejected().unsigned)
    };
    let signature = keys(1).sign(&text);
    assert_eq!(say(vec![(1, signature), (2, signature)]), (0, 1));
    assert_eq!(say(vec![(1, signature)]), (0, 1));
    assert_eq!(say(vec![(1, signature), (2, keys(2).sign(&text))]), (1, 1));
}
