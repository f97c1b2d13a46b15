//! Calls under faults, over seeds: no caller is told a lie.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use mainstay_base::Duration;
use mainstay_rpc::{Carrier, Config, Outcome};
use mainstay_sim::{Atlas, Options, Wire, schedule};
use support::{Play, setup};

fn run(seed: u64, config: impl Fn(u64) -> Config + 'static) -> Result<Play, String> {
    let mut options = Options::from_seed(seed, Wire::Channel, Atlas { down: 2, lost: 0 });
    options.span = Duration::from_millis(1_200);
    options.length = options.length / 2;
    let lost = [0, 50, 200][seed as usize % 3];
    if lost > 0 {
        (options.duplication, options.reordering) = (100, 200);
    }
    let schedule = schedule(seed, 3, &options);
    let mut play = Play::new(seed, 3, setup(config, lost), options, schedule);
    play.work(Duration::from_millis(1_500))?;
    play.finish()?;
    Ok(play)
}

fn config(seed: u64, life: u64) -> Config {
    let mut config = Config::new(life);
    if seed % 2 == 1 {
        config.carrier = Carrier::Datagrams;
        config.retry = Duration::from_millis(20);
    }
    config.stored = seed / 2 % 2 == 1;
    config.window = [4_096, 4, 16][seed as usize % 3];
    config.executions_max = [1_024, 2][seed as usize / 4 % 2];
    config
}

#[test]
fn no_caller_is_told_a_lie() {
    let (mut done, mut failed) = (0, 0);
    for seed in 0..1_000 {
        match run(seed, move |life| config(seed, life)) {
            Ok(play) => {
                done += play.done();
                failed += play.count(|it| matches!(it, Outcome::Failed(_)));
            }
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    println!("{done} calls done, {failed} failed");
    assert!(done > 100_000 && failed > 10_000);
}
