//! What is refused, by name: numbers that no clock has, and such as would overflow what is computed with them.

use mainstay_base::{Duration, Rng};
use mainstay_clock::sync::global::Promise;
use mainstay_clock::sync::{
    Config, ConfigError, Delay, Drift, Function, Kind, Plan, Reading, Stamp,
};

const DAYS: Duration = Duration::from_secs(30 * 24 * 3600);

fn averaging() -> Kind {
    Kind::Averaging { function: Function::Midpoint, reading: Reading::ARRIVAL }
}

fn hardware(master: usize, pull_max: Duration, error: Duration) -> Kind {
    Kind::Hardware { master: Some(master), pull_max, error }
}

fn probabilistic(error_max: Duration, attempts: u32, wait: Duration, patience: Duration) -> Kind {
    Kind::Probabilistic { error_max, attempts, wait, patience, stamp: Stamp::Turn }
}

fn refused(config: Config) -> ConfigError {
    Plan::new(config.clone()).expect_err(&format!("{config:?} is refused"))
}

/// Each refusal, with its reason.
#[test]
fn each_refusal_has_its_reason() {
    let milli = Duration::from_millis;
    let lan = |kind: Kind| Config::lan(kind, 4, 1);
    let error = refused(lan(hardware(4, milli(1), milli(1))));
    assert_eq!(error, ConfigError::Master(4));
    let error = refused(lan(hardware(0, Duration::from_nanos(1), milli(1))));
    assert!(matches!(error, ConfigError::Pull { .. }), "{error}");
    let error = refused(lan(probabilistic(milli(1), 0, milli(10), milli(100))));
    assert_eq!(error, ConfigError::NoAttempt);
    let error = refused(lan(probabilistic(Duration::from_nanos(1), 3, milli(10), milli(100))));
    assert!(matches!(error, ConfigError::BelowBound { .. }), "{error}");
    let error = refused(lan(probabilistic(milli(1), 3, milli(1), milli(100))));
    assert!(matches!(error, ConfigError::Period { period, .. } if period == milli(1)), "{error}");
    let mut config = lan(Kind::interval(milli(1)));
    config.period = milli(1);
    assert!(matches!(refused(config), ConfigError::Period { .. }));
    let kind = Kind::Averaging { function: Function::Egocentric, reading: Reading::ARRIVAL };
    let mut config = Config::lan(kind, 64, 21);
    (config.drift, config.period) = (Drift::MAX, DAYS);
    config.delay = Delay { min: Duration::ZERO, max: DAYS };
    assert_eq!(refused(config), ConfigError::Diverges);
    // A master that cannot have a majority answer before it speaks again.
    for patience in [Duration::ZERO, milli(7)] {
        let error = refused(lan(probabilistic(milli(1), 3, milli(10), patience)));
        assert!(matches!(error, ConfigError::Period { period, .. } if period == patience));
    }
    // A correction that cannot be walked off.
    let mut config = Config::lan(Kind::External { error: DAYS }, 1, 0);
    config.period = Duration::from_nanos(1);
    let plan = Plan::new(config).expect("theory allows it");
    assert!(matches!(Promise::of(&plan), Err(ConfigError::Period { .. })));
}

/// Each algorithm has a name, and numbers with which it runs; a name that is none is refused with those that are.
#[test]
fn every_algorithm_is_chosen_by_its_name() {
    for name in Kind::NAMES {
        let kind = Kind::named(name, None).expect(name);
        assert_eq!(kind.name(), *name);
        let plan = Plan::new(Config::lan(kind.clone(), 4, 1)).expect(name);
        Promise::of(&plan).expect(name);
        // By its own way, and by those in which it can.
        let way = kind.reading().map(|reading| reading.way);
        for reading in Reading::NAMES {
            let reading = Reading::named(reading).expect("it is named");
            let named = Kind::named(name, Some(reading));
            let is_taken = match kind {
                Kind::Averaging { .. } => true,
                Kind::Hardware { .. } => reading == Reading::STAMPED,
                Kind::Agreement { signed: true, .. } => reading == Reading::ARRIVAL,
                _ => way == Some(reading.way),
            };
            if is_taken {
                assert_eq!(named.expect(name).reading(), Some(reading));
                continue;
            }
            assert!(
                matches!(&named, Err(ConfigError::Reading { reading: refused, takes, .. })
                    if *refused == reading && !takes.contains(&reading)),
                "{name}: {named:?}"
            );
        }
    }
    let error = Kind::named("halpern", Some(Reading::ARRIVAL)).expect_err("it reads none");
    let why = "halpern does not read clocks by arrival, but by nothing: it goes by rounds";
    assert!(error.to_string().starts_with(why), "{error}");
    let error = Kind::named("marzullo", Some(Reading::STAMPED)).expect_err("it is not asked for");
    let why = "does not read clocks by stamped, but by round-trip or stamped-round-trip: of a word";
    assert!(error.to_string().contains(why), "{error}");
    // The same where it is not chosen by name.
    let kind = Kind::Agreement { signed: true, stamp: Stamp::Kernel };
    assert!(matches!(refused(Config::lan(kind, 4, 1)), ConfigError::Reading { .. }));
    let error = Kind::named("ntp", None).expect_err("there is none").to_string();
    assert!(Kind::NAMES.iter().all(|name| error.contains(name)), "{error}");
    let error = Reading::named("sight").expect_err("there is none").to_string();
    assert!(error.contains("\"sight\"; there are arrival, round-trip"), "{error}");
}

/// Spans and counts that would overflow.
#[test]
fn what_would_overflow_is_refused() {
    let (milli, max) = (Duration::from_millis, Duration::MAX);
    for kind in [
        hardware(0, max, milli(1)),
        hardware(0, milli(1), max),
        probabilistic(max, 3, milli(10), milli(100)),
        probabilistic(milli(1), 3, max, milli(100)),
        probabilistic(milli(1), 3, milli(10), max),
        Kind::interval(max),
        Kind::External { error: max },
    ] {
        assert_eq!(refused(Config::lan(kind, 4, 1)), ConfigError::TooLong(max));
    }
    let kind = probabilistic(milli(1), u32::MAX, Duration::from_secs(3), milli(100));
    assert_eq!(refused(Config::lan(kind, 4, 1)), ConfigError::TooOften(u32::MAX));
    let mut config = Config::lan(averaging(), 4, 1);
    config.misses_max = u32::MAX;
    assert_eq!(refused(config), ConfigError::TooOften(u32::MAX));
    for faulty in [usize::MAX, usize::MAX / 3 + 1] {
        let error = refused(Config::lan(averaging(), 4, faulty));
        assert!(matches!(error, ConfigError::TooManyFaulty { .. }), "{error}");
    }
    // 11,880 values in a relay; 22 clocks would need a tree of 220 GB.
    for (nodes, faulty) in [(13, 4), (16, 5), (22, 7), (64, 21)] {
        let error = refused(Config::lan(Kind::agreement(false), nodes, faulty));
        assert_eq!(error, ConfigError::TooLarge { nodes, faulty });
    }
    let largest = Config::lan(Kind::agreement(false), 10, 3);
    Plan::new(largest).expect("504 values fit");
}

/// Whatever is configured, it is a plan or refused: never a panic.
#[test]
fn no_configuration_panics() {
    let mut rng = Rng::new(1);
    let (mut plans, mut refusals) = (0, 0);
    for _ in 0..40_000 {
        let spans = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_micros(900),
            Duration::from_millis(20),
            Duration::from_secs(1),
            DAYS,
            DAYS + Duration::from_nanos(1),
            Duration::MAX,
        ];
        let mut span = || *rng.pick(&spans[..]).expect("some");
        let all = [span(), span(), span(), span(), span(), span(), span()];
        let counts = [0, 1, 3, 1_000, 1_001, u32::MAX];
        let mut count = || *rng.pick(&counts[..]).expect("some");
        let (attempts, misses_max, parts) = (count(), count(), count());
        let functions =
            [Function::Egocentric, Function::Fast, Function::Midpoint, Function::Average];
        let readings = [Reading::ARRIVAL, Reading::ROUND_TRIP, Reading::STAMPED];
        let kind = match rng.below(8) {
            0 => Kind::Averaging {
                function: *rng.pick(&functions).expect("some"),
                reading: *rng.pick(&readings).expect("some"),
            },
            1 => hardware(rng.below(5) as usize, all[0], all[1]),
            2 => Kind::Agreement {
                signed: rng.chance(1, 2),
                stamp: *rng.pick(&[Stamp::Turn, Stamp::Kernel]).expect("two"),
            },
            3 => Kind::Srikanth { signed: rng.chance(1, 2) },
            4 => Kind::Halpern,
            5 => probabilistic(all[0], attempts, all[1], all[2]),
            6 => Kind::interval(all[0]),
            _ => Kind::External { error: all[0] },
        };
        let sizes = [(0, 0), (1, 0), (4, 1), (7, 2), (13, 4), (64, 21), (65, 1), (4, usize::MAX)];
        let (nodes, faulty) = *rng.pick(&sizes).expect("some");
        let mut config = Config::lan(kind, nodes, faulty);
        if rng.chance(3, 4) {
            config.delay = Delay { min: all[3].min(all[4]), max: all[4] };
        }
        if rng.chance(1, 2) {
            config.drift = Drift::per_billion(parts.saturating_mul(1_000));
        }
        if rng.chance(1, 2) {
            (config.period, config.queue, config.initial) = (all[5], all[6], all[3]);
        }
        config.misses_max = misses_max;
        config.precision = rng.chance(1, 4).then_some(all[2]);
        match Plan::new(config) {
            Ok(plan) => {
                plans += 1;
                assert!(plan.bounds().round <= plan.config().period, "{plan:?}");
                let _ = Promise::of(&plan);
            }
            Err(error) => {
                refusals += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(plans > 500 && refusals > 500, "{plans} plans, {refusals} refusals");
}
