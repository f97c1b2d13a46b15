//! The averaging class: CLK-2, CLK-11 to CLK-14, and the edge cases of clocks, rounds and joiners.

use mainstay_base::{Duration, Rng};
use mainstay_clock::sync::{Config, Delay, Drift, Function, Kind, Message, Reading, Stamp};

use crate::support::{Scene, each};

pub(crate) const FUNCTIONS: [Function; 4] =
    [Function::Egocentric, Function::Fast, Function::Midpoint, Function::Average];

/// n and the most that may be faulty.
pub(crate) const SIZES: [(usize, usize); 3] = [(4, 1), (7, 2), (10, 3)];

pub(crate) fn config(rng: &mut Rng, function: Function, reading: Reading) -> Config {
    let (nodes, faulty) = *rng.pick(&SIZES).expect("there are some");
    let mut config = Config::lan(Kind::Averaging { function, reading }, nodes, faulty);
    config.drift = Drift::per_billion(rng.between(0, 200_000) as u32);
    config.delay = Delay {
        min: Duration::from_micros(rng.between(1, 500)),
        max: Duration::from_micros(rng.between(500, 3_000)),
    };
    config.period = Duration::from_millis(rng.between(100, 1_000));
    config.initial = Duration::from_micros(rng.between(0, 2_000));
    config
}

/// What a two-faced clock says: to each reader another time, to each the worst it can think of, or nothing.
pub(crate) fn two_faced(
    seed: u64,
    reach: i64,
) -> impl FnMut(&crate::support::Liar, usize, Message) -> Vec<Message> {
    let mut rng = Rng::new(seed).stream("liar");
    let style = rng.below(4);
    move |liar, to, message| {
        let side = if to < liar.nodes / 2 { 1 } else { -1 };
        let off = match style {
            0 => side * reach,
            1 => side * reach * 1_000,
            2 => rng.below(2 * reach as u64 + 1) as i64 - reach,
            _ => side * (reach / 2 + rng.below(reach as u64) as i64),
        };
        if rng.chance(1, 20) {
            return Vec::new();
        }
        match message {
            Message::Tick { round, value, sure, pull } => {
                vec![Message::Tick { round, value: value + off, sure, pull }]
            }
            Message::Reply { nonce, value, error, term, held } => {
                vec![Message::Reply { nonce, value: value + off, error, term, held }]
            }
            other => vec![other],
        }
    }
}

fn swarm(function: Function, reading: Reading, seeds: u64) {
    each(0..seeds, |seed| {
        let mut rng = Rng::new(seed).stream("averaging");
        let config = config(&mut rng, function, reading);
        let faulty = config.faulty;
        let mut scene = Scene::new(seed, config);
        let reach = scene.plan.bounds().precision.as_nanos() as i64;
        scene = scene.lie(faulty, two_faced(seed, reach));
        let mut run = scene.run();
        run.periods(8.5)?;
        let corrected = run.correct().all(|node| run.corrections(node).count() >= 7);
        if !corrected {
            let all: Vec<_> = run
                .correct()
                .map(|it| {
                    (it, run.corrections(it).count(), run.losses(it), run.status(it).rejected)
                })
                .collect();
            return Err(format!("{:?} {all:?}", run.scene.plan));
        }
        run.keep_together()
    });
}

/// Checks CLK-2, CLK-11: f two-faced clocks do not take correct ones beyond the bound, with any function and any way of reading.
#[test]
fn two_faced_clocks_do_not_part_correct_ones() {
    for function in FUNCTIONS {
        swarm(function, Reading::ARRIVAL, 150);
        swarm(function, Reading::ROUND_TRIP, 100);
        let stamped = Reading { way: Reading::ROUND_TRIP.way, stamp: Stamp::Kernel };
        swarm(function, stamped, 50);
    }
}
