//! Named steps with their times; the first failure ends the run.

use std::time::Instant;

/// Runs the step `name` and prints how it went.
///
/// # Errors
/// What the step says, with the name of the step before it.
pub(crate) fn step(
    name: &str,
    body: impl FnOnce() -> Result<Verdict, String>,
) -> Result<(), String> {
    println!("  ..            {name}");
    let start = Instant::now();
    let verdict = body();
    let seconds = start.elapsed().as_secs_f64();
    match verdict {
        Ok(Verdict::Passed) => println!("  ok   {seconds:7.1} s  {name}"),
        Ok(Verdict::Skipped(why)) => println!("  skip {seconds:7.1} s  {name}: {why}"),
        Err(failure) => {
            println!("  FAIL {seconds:7.1} s  {name}");
            return Err(format!("step \"{name}\": {failure}"));
        }
    }
    Ok(())
}

/// How a step that did not fail ended.
pub(crate) enum Verdict {
    /// It checked what it is there to check.
    Passed,
    /// It checked nothing, and says why.
    Skipped(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_step() {
        let failure = step("weighing", || Err("too light".to_owned()));
        assert_eq!(failure, Err("step \"weighing\": too light".to_owned()));
        assert_eq!(step("weighing", || Ok(Verdict::Passed)), Ok(()));
        assert_eq!(step("weighing", || Ok(Verdict::Skipped("no scales"))), Ok(()));
    }
}
