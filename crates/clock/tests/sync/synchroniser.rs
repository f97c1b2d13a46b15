//! The synchroniser class: CLK-2, CLK-17 to CLK-21.

use mainstay_agreement::sign::Keyring;
use mainstay_base::{Duration, Rng};
use mainstay_clock::fault::Fault;
use mainstay_clock::sync::{Config, Delay, Drift, Kind, Message};

use crate::support::{Liar, Run, Scene, each};

pub(crate) fn config(rng: &mut Rng, kind: Kind, sizes: &[(usize, usize)]) -> Config {
    let (nodes, faulty) = *rng.pick(sizes).expect("there are some");
    let mut config = Config::lan(kind, nodes, faulty);
    config.drift = Drift::per_billion(rng.between(0, 200_000) as u32);
    config.delay = Delay {
        min: Duration::from_micros(rng.between(1, 500)),
        max: Duration::from_micros(rng.between(500, 3_000)),
    };
    config.period = Duration::from_millis(rng.between(100, 1_000));
    config.initial = Duration::from_micros(rng.between(0, 2_000));
    config
}

/// Signs a round as the liar.
pub(crate) fn signed(liar: &Liar, name: &str, round: u64) -> Message {
    let mut text = format!("mainstay clock {name} round ").into_bytes();
    text.extend(round.to_be_bytes());
    let keys: &Keyring = liar.keys.as_ref().expect("it has keys");
    Message::Signed { round, chain: vec![(liar.me as u16, keys.sign(&text))] }
}

/// What liars say of rounds: more than one, too early, to some, or nothing.
pub(crate) fn early(
    seed: u64,
    name: &'static str,
) -> impl FnMut(&Liar, usize, Message) -> Vec<Message> {
    let mut rng = Rng::new(seed).stream("liar");
    let style = rng.below(4);
    move |liar, to, message| {
        if style == 0 && to % 2 == 0 || rng.chance(1, 10) {
            return Vec::new();
        }
        let ahead = 1 + rng.below(3);
        let mut said = vec![message.clone()];
        match message {
            Message::Init { round } | Message::Echo { round } => {
                said.push(Message::Init { round: round + ahead });
                said.push(Message::Echo { round: round + ahead });
                if style == 2 {
                    said.push(Message::Echo { round: u64::MAX });
                }
            }
            Message::Signed { round, .. } => {
                said.push(signed(liar, name, round + ahead));
                let forged = Keyring::ideal(to, liar.nodes, 99).sign(b"anything");
                said.push(Message::Signed {
                    round: round + 1,
                    chain: vec![(0, forged), (1, forged)],
                });
            }
            _ => {}
        }
        said
    }
}

const OM: [(usize, usize); 3] = [(4, 1), (7, 2), (10, 3)];
const SM: [(usize, usize); 5] = [(3, 1), (4, 1), (5, 2), (7, 3), (10, 4)];

/// A run of Srikanth and Toueg's algorithm, with all that is promised of it.
pub(crate) fn srikanth(seed: u64, config: Config) -> Result<Run, String> {
    let (faulty, hops) =
        (config.faulty, if config.kind == (Kind::Srikanth { signed: true }) { 1 } else { 2 });
    let longest = config.delay.max * hops;
    let mut rng = Rng::new(seed).stream("racing");
    let mut scene = Scene::new(seed, config).lie(faulty, early(seed, "st"));
    for liar in scene.liars.clone() {
        // Racing, or slow, or as the others.
        scene.drifts[liar] = *rng.pick(&[0, 300_000_000, -100_000_000]).expect("three");
    }
    let period = scene.period().as_nanos() as i64;
    let mut run = scene.run();
    // Of a broken one, what else is promised is to notice it.
    run.judge = run.scene.plan.config().fault.is_none();
    run.periods(1.0)?;
    let (from, then) =
        (run.world.now(), (0..run.nodes()).map(|it| run.clock(it)).collect::<Vec<_>>());
    run.periods(9.0)?;
    for (version, began) in run.versions() {
        let begins = version as i64 * period;
        let first = began.iter().map(|it| it.1).min().expect("one at least");
        let last = began.iter().map(|it| it.1).max().expect("one at least");
        if !run.correct().any(|node| run.before(node, first) >= begins - 1) {
            return Err(format!("CLK-17: round {version} before any correct clock reached it"));
        }
        let is_whole = began.len() == run.correct().count();
        if last - first > longest || (!is_whole && run.world.now() - first > longest) {
            let count = began.len();
            return Err(format!(
                "CLK-18: {count} accept round {version} within {:?}",
                last - first
            ));
        }
        if let Some(back) = began.iter().find(|it| it.2.by < 0) {
            return Err(format!("CLK-1: a clock went back: {back:?}"));
        }
    }
    if run.correct().any(|node| run.corrections(node).count() < 8) {
        return Err("CLK-18: a correct clock missed rounds".to_owned());
    }
    let (slowest, fastest) = run.rates(from, &then);
    // A clock that was just corrected is up to a correction ahead of one that was not yet.
    let rounding = run.bounds().precision.as_nanos() as i64 / 9 * 1_000 / (period / 1_000_000);
    let most = run.bounds().rate.expect("it has one") as i64 + rounding;
    if fastest > most || slowest < -most {
        return Err(format!("CLK-19: rates {slowest} to {fastest}, at most {most}"));
    }
    run.keep_together()?;
    Ok(run)
}

/// Checks CLK-2, CLK-17, CLK-18, CLK-19, with echoes.
#[test]
fn srikanth_and_toueg_with_echoes() {
    each(0..500, |seed| {
        let mut rng = Rng::new(seed).stream("st");
        srikanth(seed, config(&mut rng, Kind::Srikanth { signed: false }, &OM)).map(drop)
    });
}

/// Checks CLK-2, CLK-17, CLK-18, CLK-19, with signatures.
#[test]
fn srikanth_and_toueg_with_signatures() {
    each(0..500, |seed| {
        let mut rng = Rng::new(seed).stream("st signed");
        srikanth(seed, config(&mut rng, Kind::Srikanth { signed: true }, &SM)).map(drop)
    });
}

/// A run of the algorithm of Halpern and others, with all that is promised of it; and the fastest rate in it.
pub(crate) fn halpern(seed: u64, config: Config) -> Result<(Run, i64), String> {
    let (faulty, delay) = (config.faulty, config.delay.max);
    let mut scene = Scene::new(seed, config).lie(faulty, early(seed, "hssd"));
    let period = scene.period().as_nanos() as i64;
    let mut rng = Rng::new(seed).stream("racing");
    for liar in scene.liars.clone() {
        // As early as may just be believed, or earlier.
        let early = scene.plan.bounds().agreed.as_nanos() as i64;
        let part = *rng.pick(&[50, 90, 200]).expect("three");
        scene.drifts[liar] =
            (i128::from(early * part / 100) * 1_000_000_000 / i128::from(period)) as i64;
    }
    let mut run = scene.run();
    // Of a broken one, what else is promised is to notice it.
    run.judge = run.scene.plan.config().fault.is_none();
    run.periods(1.0)?;
    let (from, then) =
        (run.world.now(), (0..run.nodes()).map(|it| run.clock(it)).collect::<Vec<_>>());
    run.periods(9.0)?;
    let (slowest, fastest) = run.rates(from, &then);
    let rounding = run.bounds().precision.as_nanos() as i64 / 9 * 1_000 / (period / 1_000_000);
    let most = run.bounds().rate.expect("it has one") as i64 + rounding;
    if fastest > most || slowest < -most {
        return Err(format!("CLK-19: rates {slowest} to {fastest}, at most {most}"));
    }
    for (version, began) in run.versions() {
        let first = began.iter().map(|it| it.1).min().expect("one at least");
        let last = began.iter().map(|it| it.1).max().expect("one at least");
        let is_whole = began.len() == run.correct().count();
        if last - first > delay || (!is_whole && run.world.now() - first > delay) {
            return Err(format!("CLK-20: version {version} begins within {:?}", last - first));
        }
        if let Some(back) = began.iter().find(|it| it.2.by < 0) {
            return Err(format!("CLK-1: a clock went back: {back:?}"));
        }
    }
    run.keep_together()?;
    Ok((run, fastest))
}

/// Checks CLK-2, CLK-20, and CLK-19 as far as it goes: the rate exceeds that of the hardware, within the bound.
#[test]
fn halpern_and_others() {
    let fastest = std::sync::Mutex::new((0, 0));
    each(0..500, |seed| {
        let mut rng = Rng::new(seed).stream("hssd");
        let sizes = [(2, 0), (3, 1), (4, 2), (7, 5), (10, 8)];
        let config = config(&mut rng, Kind::Halpern, &sizes);
        let drift = i64::from(config.drift.parts());
        let (_, rate) = halpern(seed, config)?;
        if let Ok(mut fastest) = fastest.lock() {
            *fastest = (*fastest).max((rate - drift, seed));
        }
        Ok(())
    });
    let (beyond, seed) = *fastest.lock().expect("no run panicked");
    assert!(beyond > 1_000_000, "at most {beyond} beyond the hardware, seed {seed}");
}

/// One that knows no time joins.
pub(crate) fn joins(seed: u64, broken: Option<Fault>) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("joiner");
    let kinds = [Kind::Srikanth { signed: false }, Kind::Srikanth { signed: true }, Kind::Halpern];
    let kind = rng.pick(&kinds).expect("three").clone();
    let mut config = config(&mut rng, kind, &[(5, 1), (8, 2)]);
    config.fault = broken;
    let mut scene = Scene::new(seed, config);
    scene.apart = vec![0];
    let mut run = scene.run();
    run.periods(1.5)?;
    run.periods(1.6)?;
    if !run.is_synchronised(0) {
        return Err(format!("CLK-21: not after three rounds: {:?}", run.losses(0)));
    }
    run.periods(3.0)
}

/// Checks CLK-21: one that knows no time is synchronised within three periods, in each algorithm of the class.
#[test]
fn a_joiner_is_synchronised_after_two_rounds() {
    each(0..150, |seed| joins(seed, None));
}

/// All begin again at once, as after a failure of the power: nobody is there to learn from, their clocks are together, and they find each other.
#[test]
fn all_begin_again() {
    each(0..90, |seed| {
        let mut rng = Rng::new(seed).stream("again");
        let kinds =
            [Kind::Srikanth { signed: false }, Kind::Srikanth { signed: true }, Kind::Halpern];
        let kind = rng.pick(&kinds).expect("three").clone();
        let name = if kind == Kind::Halpern { "hssd" } else { "st" };
        let mut scene =
            Scene::new(seed, config(&mut rng, kind, &[(4, 1), (7, 2)])).lie(1, early(seed, name));
        scene.apart = (0..scene.plan.config().nodes).collect();
        let mut run = scene.run();
        run.periods(7.5)?;
        let lost: Vec<usize> = run.correct().filter(|node| !run.is_synchronised(*node)).collect();
        if !lost.is_empty() {
            return Err(format!(
                "{:?}: {lost:?} do not find the others",
                run.scene.plan.config().kind
            ));
        }
        run.periods(3.0)
    });
}
