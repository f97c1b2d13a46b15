//! Broken variants: each planted defect is noticed by a check that whole clocks pass.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mainstay_base::{Duration, Instant, Rng};
use mainstay_clock::fault::Fault;
use mainstay_clock::sync::{Config, Drift, Function, Kind, Message, Reading};
use mainstay_sim::{ClockFault, FaultEvent};

use crate::averaging::{self, two_faced};
use crate::support::{Scene, feasible};
use crate::{agreement, edges, external, interval, probabilistic, synchroniser};

/// Runs until a check speaks that is wanted; what it says, or `None` if it never does. A panic is what the whole one never does.
fn noticed(
    seeds: u64,
    wanted: impl Fn(&str) -> bool,
    run: impl Fn(u64) -> Result<(), String>,
) -> Option<String> {
    (0..seeds).find_map(|seed| match catch_unwind(AssertUnwindSafe(|| run(seed))) {
        Ok(Ok(())) => None,
        Ok(Err(what)) => wanted(&what).then_some(what),
        Err(_) => wanted("a panic").then(|| "a panic".to_owned()),
    })
}

/// The broken variant is noticed by the check of the one property that it breaks; the whole one by none.
fn shows(fault: Fault, property: &str, run: impl Fn(u64, Option<Fault>) -> Result<(), String>) {
    let whole = noticed(20, |_| true, |seed| run(seed, None));
    assert_eq!(whole, None, "{fault:?}: the whole one fails");
    let is_property = |what: &str| what.starts_with(&format!("{property}:"));
    let what = noticed(300, is_property, |seed| run(seed, Some(fault)));
    if what.is_none() {
        let other = noticed(300, |_| true, |seed| run(seed, Some(fault)));
        panic!("{fault:?}: {property} does not notice it, but: {other:?}");
    }
}

fn averaged(
    function: Function,
    reading: Reading,
    seed: u64,
    fault: Option<Fault>,
) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("faults");
    let mut config = averaging::config(&mut rng, function, reading);
    config.fault = fault;
    let faulty = config.faulty;
    let scene = Scene::new(seed, config);
    let reach = scene.plan.bounds().precision.as_nanos() as i64;
    let mut run = scene.lie(faulty, two_faced(seed, reach)).run();
    run.periods(8.0)?;
    run.keep_together()
}

#[test]
fn the_mean_in_place_of_the_midpoint_is_noticed() {
    shows(Fault::MeanForMidpoint, "CLK-2", |seed, fault| {
        averaged(Function::Midpoint, Reading::ARRIVAL, seed, fault)
    });
}

#[test]
fn dropping_too_few_is_noticed() {
    for (function, reading) in [
        (Function::Average, Reading::ARRIVAL),
        (Function::Midpoint, Reading::ARRIVAL),
        (Function::Midpoint, Reading::ROUND_TRIP),
        (Function::Fast, Reading::ARRIVAL),
        (Function::Fast, Reading::ROUND_TRIP),
    ] {
        shows(Fault::DropsTooFew, "CLK-2", |seed, fault| averaged(function, reading, seed, fault));
    }
    shows(Fault::DropsTooFew, "CLK-11", edges::exact_reads);
}

#[test]
fn a_mean_without_an_egocentric_limit_is_noticed() {
    shows(Fault::NoEgocentricLimit, "CLK-2", |seed, fault| {
        averaged(Function::Egocentric, Reading::ARRIVAL, seed, fault)
    });
    shows(Fault::NoEgocentricLimit, "CLK-13", |_, fault| edges::beyond_the_limit(fault));
}

#[test]
fn half_a_correction_is_noticed() {
    shows(Fault::HalfWay, "CLK-12", edges::exact_reads);
}

#[test]
fn plans_against_theory_are_noticed() {
    shows(Fault::ClaimsTooMuch, "CLK-8", |_, fault| edges::bounds_of_theory(fault));
    shows(Fault::AnyNumberFaulty, "CLK-9", |_, fault| edges::bounds_of_theory(fault));
}

#[test]
fn a_joiner_that_never_counts_itself_in_is_noticed() {
    shows(Fault::JoinsTooLate, "CLK-21", edges::joins);
    shows(Fault::JoinsTooLate, "CLK-21", synchroniser::joins);
}

#[test]
fn a_client_that_gives_up_early_is_noticed() {
    let run = |_, fault| probabilistic::statistics(fault);
    assert_eq!(run(0, None), Ok(()));
    let error = run(0, Some(Fault::GivesUpEarly)).expect_err("it is noticed");
    assert!(error.starts_with("CLK-23:"), "{error}");
}

fn srikanth(signed: bool, seed: u64, fault: Option<Fault>) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("faults");
    let sizes = if signed { [(3, 1), (5, 2)] } else { [(4, 1), (7, 2)] };
    let mut config = synchroniser::config(&mut rng, Kind::Srikanth { signed }, &sizes);
    config.fault = fault;
    synchroniser::srikanth(seed, config).map(drop)
}

fn halpern(seed: u64, fault: Option<Fault>) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("faults");
    let mut config = synchroniser::config(&mut rng, Kind::Halpern, &[(4, 2), (7, 5)]);
    config.fault = fault;
    synchroniser::halpern(seed, config).map(drop)
}

fn agreed(signed: bool, seed: u64, fault: Option<Fault>) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("faults");
    let sizes = if signed { [(3, 1), (5, 2)] } else { [(4, 1), (7, 2)] };
    let kind = Kind::agreement(signed);
    let mut config = synchroniser::config(&mut rng, kind, &sizes);
    config.drift = Drift::per_billion(10_000);
    config.fault = fault;
    agreement::swarm_one(seed, config).map(drop)
}

#[test]
fn a_round_that_is_accepted_too_early_is_noticed() {
    for signed in [false, true] {
        shows(Fault::AcceptsTooEarly, "CLK-17", |seed, fault| srikanth(signed, seed, fault));
    }
}

#[test]
fn a_round_that_is_not_passed_on_is_noticed() {
    for signed in [false, true] {
        shows(Fault::NoRelay, "CLK-18", |seed, fault| srikanth(signed, seed, fault));
    }
    shows(Fault::NoRelay, "CLK-20", halpern);
}

#[test]
fn a_clock_that_is_set_back_is_noticed() {
    shows(Fault::AlphaTooSmall, "CLK-1", |seed, fault| srikanth(true, seed, fault));
}

#[test]
fn signatures_that_are_not_looked_at_are_noticed() {
    shows(Fault::NoSignatureCheck, "CLK-17", |seed, fault| srikanth(true, seed, fault));
    shows(Fault::NoSignatureCheck, "CLK-16", |seed, fault| agreed(true, seed, fault));
    shows(Fault::NoSignatureCheck, "CLK-20", halpern);
}

#[test]
fn a_synchroniser_that_is_far_too_early_is_noticed() {
    shows(Fault::NoTimelinessCheck, "CLK-19", halpern);
}

#[test]
fn vectors_that_are_not_agreed_are_noticed() {
    for signed in [false, true] {
        shows(Fault::NoRelayOfVectors, "CLK-15", |seed, fault| agreed(signed, seed, fault));
    }
}

#[test]
fn a_master_that_does_not_look_again_is_noticed() {
    shows(Fault::NoMasterRecheck, "CLK-25", |seed, fault| {
        let mut rng = Rng::new(seed).stream("faults");
        let mut config = probabilistic::config(&mut rng);
        config.fault = fault;
        probabilistic::sleeping_master(seed, config)
    });
}

#[test]
fn a_slow_read_that_is_taken_is_noticed() {
    shows(Fault::AcceptsSlowReads, "CLK-22", |seed, fault| {
        let mut rng = Rng::new(seed).stream("faults");
        let mut config = probabilistic::config(&mut rng);
        config.fault = fault;
        probabilistic::swarm_one(seed, config).map(drop)
    });
}

#[test]
fn an_impossible_read_that_is_taken_is_noticed() {
    shows(Fault::AcceptsImpossibleReads, "CLK-26", |_, fault| {
        let mut config = probabilistic::config(&mut Rng::new(1));
        config.fault = fault;
        let (mut algorithm, now) = probabilistic::follower(config);
        let nonce = probabilistic::question(&mut algorithm, now).ok_or("it does not ask")?;
        let soon = now + Duration::from_micros(150);
        let reply = Message::Reply { nonce, value: 7, error: 0, term: 1, held: 0 };
        algorithm.on_datagram(soon, soon, 1, reply);
        if algorithm.version() > 0 { Err("CLK-26: it is taken".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn a_clock_that_never_says_that_it_is_lost_is_noticed() {
    shows(Fault::NeverLost, "CLK-24", |seed, fault| {
        let mut rng = Rng::new(seed).stream("faults");
        let mut config = probabilistic::config(&mut rng);
        config.fault = fault;
        probabilistic::cut_off(seed, config)
    });
}

#[test]
fn an_interval_of_one_answer_is_noticed() {
    shows(Fault::NewestInterval, "CLK-27", |seed, fault| {
        let mut rng = Rng::new(seed).stream("faults");
        let mut config = interval::config(&mut rng);
        config.fault = fault;
        interval::swarm_one(seed, config).map(drop)
    });
}

#[test]
fn an_error_that_stands_still_is_noticed() {
    shows(Fault::ErrorStandsStill, "CLK-4", external::followers);
    shows(Fault::ErrorStandsStill, "CLK-27", |seed, fault| {
        let mut rng = Rng::new(seed).stream("faults");
        let mut config = interval::config(&mut rng);
        config.drift = Drift::per_billion(200_000);
        config.fault = fault;
        interval::swarm_one(seed, config).map(drop)
    });
    shows(Fault::ErrorStandsStill, "CLK-28", |seed, fault| {
        let mut config = interval::config(&mut Rng::new(seed).stream("faults"));
        config.drift = Drift::per_billion(200_000);
        config.fault = fault;
        interval::swarm_one(seed, config).map(drop)
    });
}

#[test]
fn a_pull_without_a_limit_is_noticed() {
    shows(Fault::UnlimitedPull, "CLK-2", |seed, fault| {
        let mut rng = Rng::new(seed).stream("faults");
        let mut config = external::hardware(&mut rng);
        config.fault = fault;
        external::pulled_by_a_liar(seed, config)
    });
}

#[test]
fn a_step_back_that_is_not_noticed_is_noticed() {
    shows(Fault::IgnoresStepBack, "CLK-41", |seed, fault| {
        let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ARRIVAL };
        let mut config = Config::lan(kind, 4, 1);
        config.fault = fault;
        let mut scene = Scene::new(seed, feasible(config).config().clone());
        let at = Instant::ZERO + scene.period() * 2;
        let clock = ClockFault::Step(-2_000_000_000);
        let length = Duration::from_millis(1);
        scene.faults =
            vec![FaultEvent { at, fault: mainstay_sim::Fault::Clock { node: 0, clock, length } }];
        let mut run = scene.run();
        run.exempt.push(0);
        run.periods(3.2)?;
        let has_said = run.losses(0).contains(&mainstay_clock::sync::Loss::WentBack);
        if has_said { Ok(()) } else { Err("CLK-41: no word of a step back".to_owned()) }
    });
}
