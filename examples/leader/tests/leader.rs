//! The example to its verdict: some seeds with faults, one without, one outside the model, and each planted fault.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use clap::Parser;
use mainstay_harness::{Example, HarnessError, Options, Outcome, judge};
use mainstay_leader::Leader;
use mainstay_sim::live::Beyond;

fn judged(arguments: &str) -> Outcome {
    try_judged(arguments).unwrap()
}

fn try_judged(arguments: &str) -> Result<Outcome, HarnessError> {
    let arguments = ["leader"].into_iter().chain(arguments.split_whitespace());
    judge::<Leader>(&Options::try_parse_from(arguments).unwrap())
}

fn count(outcome: &Outcome, name: &str) -> u64 {
    outcome.counts.iter().find(|count| count.0 == name).map_or(0, |count| count.1)
}

/// Checks SYS-1, LD-1 to LD-4 under faults, and that the store had something to refuse.
#[test]
fn seeds_with_faults_pass() {
    let outcome = judged("--campaign 12");
    assert!(outcome.table.passes(), "{}", outcome.table);
    assert!(count(&outcome, "requests fenced off") > 0 && count(&outcome, "jobs done") > 0);
    assert!(count(&outcome, "times that somebody led") > outcome.runs, "leaders change");
}

/// Checks SYS-2.
#[test]
fn without_faults_the_results_are_those_of_the_model() {
    let outcome = judged("--no-faults --campaign 3");
    assert!(outcome.table.passes(), "{}", outcome.table);
    assert!(outcome.table.to_string().contains("SYS-2  pass"));
}

/// Checks SYS-5.
#[test]
fn without_a_majority_it_stands_still() {
    let outcome = judged("--outside majority-lost --campaign 3");
    assert!(outcome.table.passes(), "{}", outcome.table);
}

/// Checks that a script from a file replaces what is drawn.
#[test]
fn a_script_is_played() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "900ms pause n0 2s # whoever leads is first\n").unwrap();
    let outcome = judged(&format!("--faults {}", file.path().display()));
    assert!(outcome.table.passes(), "{}", outcome.table);
    assert!(outcome.log.contains("# 900000us pause n0 2000000us\n"), "{}", outcome.log);
    assert!(count(&outcome, "requests fenced off") > 0, "{}", outcome.log);
}

/// Checks OV-1: a script outside the failure model is refused, with the fault and the reason.
#[test]
fn a_script_outside_the_model_is_refused() {
    let refused = |script: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script).unwrap();
        match try_judged(&format!("--faults {}", file.path().display())) {
            Err(HarnessError::Beyond { fault, why }) => (fault, why),
            other => panic!("{other:?}"),
        }
    };
    let (fault, why) = refused("1s crash n0 2s\n1200ms crash n1 2s\n");
    assert!(fault.starts_with("1200.000ms crash of 1") && why == Beyond::TooManyDown(1), "{fault}");
    assert_eq!(refused("1s pause n3 1s").1, Beyond::Nobody);
}

/// Checks that the script in a log gives the same run again.
#[test]
fn the_script_of_a_log_gives_the_same_log() {
    let drawn = judged("--seed 3");
    let comments = drawn.log.lines().skip(1).filter_map(|line| line.strip_prefix("# "));
    let script = comments.fold(String::new(), |script, line| script + line + "\n");
    assert!(script.lines().count() > 1, "{}", drawn.log);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let again = judged(&format!("--seed 3 --faults {}", file.path().display()));
    assert_eq!(again.log, drawn.log);
}

/// Checks that each criterion notices the fault that is planted for it.
#[test]
fn each_planted_fault_is_noticed() {
    for broken in Leader::BROKEN {
        // The first seeds are enough.
        let arguments = broken.arguments.replace("40", "4").replace("20", "4");
        let outcome = judged(&format!("--broken {} {arguments}", broken.name));
        let row = format!("{:<6} FAIL", broken.breaks);
        assert!(outcome.table.to_string().contains(&row), "{}\n{}", broken.name, outcome.table);
    }
}

/// Checks that the same actor passes in processes of the operating system, with SIGSTOP, SIGCONT and SIGKILL.
#[test]
fn real_processes_pass() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay-leader"));
    let output = program.args(["--real", "--log"]).arg(log.path()).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}\n{}", std::fs::read_to_string(log.path()).unwrap());
    assert!(table.ends_with("verdict: PASS\n"), "{table}");
}

/// Where nobody can read what is printed the words are lost: the log is written, and the verdict is in the status.
#[test]
fn it_runs_without_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let status = |arguments: &str| {
        let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay-leader"));
        program.args(arguments.split_whitespace()).arg("--log").arg(&log);
        program.stdout(full()).stderr(full()).status().unwrap().code()
    };
    assert_eq!(status("--campaign 1"), Some(0));
    assert!(std::fs::metadata(&log).unwrap().len() > 0);
    assert_eq!(status("--campaign 1 --broken nobody"), Some(2));
}
