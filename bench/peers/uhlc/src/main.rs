//! Measures uhlc: `peer-uhlc [CASE-PREFIX..] [--exact] [--list] [--seconds N]`.
//!
//! One thread takes stamps of one hybrid clock as fast as it can, in batches whose times are read, so that reading the
//! time weighs nothing.

use std::hint::black_box;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use peers_common::{Case, Measured, Program, Run};
use uhlc::HLC;

const GUARANTEE: &str = "larger than every stamp this clock has seen, in memory, one thread";
/// Stamps between two looks at the time.
const BATCH: u32 = 1_000;

fn main() -> ExitCode {
    let case = Case::new("clock", "clock/stamp", "uhlc", GUARANTEE, stamp);
    Program { name: "peer-uhlc", check: || Ok(()), cases: vec![case] }.main()
}

fn stamp(run: &Run) -> io::Result<Vec<Measured>> {
    let clock = HLC::default();
    let take = |from: Instant, window| {
        let mut count = 0_u64;
        while from.elapsed() < window {
            for _ in 0..BATCH {
                black_box(clock.new_timestamp());
            }
            count += u64::from(BATCH);
        }
        from.elapsed().as_secs_f64() / count as f64
    };
    take(Instant::now(), run.warm_up);
    let each = take(Instant::now(), run.window);
    Ok(vec![Measured { metric: "ns_per_stamp", value: each * 1e9, unit: "ns" }])
}
