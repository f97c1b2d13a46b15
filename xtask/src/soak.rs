//! The campaigns of the tests, longer: each test that runs seeds or schedules runs many times as many.

use std::time::Instant;

use crate::cargo;

pub(crate) const USAGE: &str = "\
usage: cargo xtask soak [--times N] [CAMPAIGN..]

Runs the campaigns of the tests, N times as long as a test runs them (10), and then three nodes under full load for
a minute times N. Prints what a test runs and what was run here. A campaign that fails is told at the end; its output
has the seed. Without names: all of them.";

/// Tests that run seeds.
struct Campaign {
    name: &'static str,
    package: &'static str,
    /// Which tests.
    arguments: &'static [&'static str],
    /// How many runs a test makes, and of what.
    runs: &'static [(u64, &'static str)],
    /// A variable of the environment that has the number of runs, where a test asks for it by a name of its own.
    variable: Option<(&'static str, u64)>,
    /// The sources of the tests, in which the numbers stand.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares the numbers"))]
    sources: &'static [&'static str],
}

const CAMPAIGNS: &[Campaign] = &[
    Campaign {
        name: "rpc",
        package: "mainstay-rpc",
        arguments: &["--all-features", "--test=swarm", "--test=orphans", "--test=adoption"],
        runs: &[(3_000, "schedules"), (500, "schedules of orphans"), (200, "adoptions")],
        variable: None,
        sources: &[
            "crates/rpc/tests/swarm.rs",
            "crates/rpc/tests/orphans.rs",
            "crates/rpc/tests/adoption.rs",
        ],
    },
    Campaign {
        name: "troupe",
        package: "mainstay-troupe",
        arguments: &["--all-features", "--test=swarm"],
        runs: &[(300, "schedules")],
        variable: None,
        sources: &["crates/troupe/tests/swarm.rs"],
    },
    Campaign {
        name: "clock",
        package: "mainstay-clock",
        arguments: &[
            "--all-features",
            "--test=sync",
            "--test=global",
            "--test=families",
            "--test=reference",
            "--test=stamps",
            "--test=graph",
            "--test=directed",
            "--test=wire",
        ],
        runs: &[
            (40, "restarts of the search for each algorithm"),
            (60, "or more runs of most swarms of algorithms"),
            (60, "runs of adjusted clocks"),
            (8, "runs of adjusted clocks of each class"),
            (180, "runs of families of clocks"),
            (40, "or more runs of clocks that follow others"),
            (400, "runs of stamps"),
            (80, "conversations of a graph"),
            (50, "or more runs of timers, restarts, copies"),
            (256, "cases of each law of stamps"),
        ],
        variable: None,
        sources: &[
            "crates/clock/tests/sync/search.rs",
            "crates/clock/tests/sync/agreement.rs",
            "crates/clock/tests/global.rs",
            "crates/clock/tests/families.rs",
            "crates/clock/tests/reference.rs",
            "crates/clock/tests/stamps.rs",
            "crates/clock/tests/graph.rs",
            "crates/clock/tests/directed.rs",
            "crates/clock/tests/wire.rs",
        ],
    },
    Campaign {
        name: "multicast",
        package: "mainstay-multicast",
        arguments: &["--all-features", "--test=swarm"],
        runs: &[(500, "schedules of each kind of group")],
        variable: Some(("SEEDS", 500)),
        sources: &["crates/multicast/tests/swarm.rs"],
    },
    Campaign {
        name: "site",
        package: "mainstay-site",
        arguments: &["--all-features", "--test=swarm"],
        runs: &[(400, "schedules of groups on disk"), (200, "in memory"), (50, "of two groups")],
        variable: None,
        sources: &["crates/site/tests/swarm.rs"],
    },
    Campaign {
        name: "nodes",
        package: "mainstay-tests",
        arguments: &["--test=whole_nodes"],
        runs: &[(60, "or fewer schedules of each kind of cluster")],
        variable: None,
        sources: &["tests/whole_nodes/main.rs"],
    },
];

/// The load of real nodes; as a test it is not run.
const LOAD: &str = "load";
const LOAD_SECONDS: u64 = 60;

/// Runs what the words ask for.
///
/// # Errors
/// What is not understood, and which campaigns failed.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let (times, names) = match words {
        ["--times", times, names @ ..] => match times.parse() {
            Ok(times) if times > 0 => (times, names),
            _ => return Err(USAGE.to_owned()),
        },
        names => (10, names),
    };
    let is_known =
        |name: &&str| *name == LOAD || CAMPAIGNS.iter().any(|campaign| campaign.name == *name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        return Err(format!("{unknown}: no campaign\n{USAGE}"));
    }
    let is_wanted = |name: &str| names.is_empty() || names.contains(&name);
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for campaign in CAMPAIGNS.iter().filter(|campaign| is_wanted(campaign.name)) {
        let begun = Instant::now();
        if let Err(what) = campaign.run(times) {
            failed.push(format!("{}: {what}", campaign.name));
        }
        let seconds = begun.elapsed().as_secs();
        lines.extend(campaign.counts(times).map(|line| format!("{line}, {seconds} s")));
    }
    if is_wanted(LOAD) {
        let seconds = LOAD_SECONDS.saturating_mul(times);
        if let Err(what) = load(seconds) {
            failed.push(format!("{LOAD}: {what}"));
        }
        lines.push(format!("{LOAD:<10} a test: none; here: {seconds} s of full load"));
    }
    lines.iter().for_each(|line| println!("{line}"));
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

impl Campaign {
    fn run(&self, times: u64) -> Result<(), String> {
        let counts = times.to_string();
        let own = self.variable.map(|(name, usual)| (name, (usual * times).to_string()));
        let mut variables = vec![("MAINSTAY_TIMES", counts.as_str())];
        variables.extend(own.as_ref().map(|(name, count)| (*name, count.as_str())));
        let test = ["test", "--locked", "--package", self.package];
        let shown = ["--", "--nocapture"];
        cargo::run_in(&variables, &[&test, self.arguments, &shown].concat())
    }

    fn counts(&self, times: u64) -> impl Iterator<Item = String> {
        self.runs.iter().map(move |(usual, what)| {
            format!(
                "{:<10} a test: {usual} {what}; here: {}",
                self.name,
                usual.saturating_mul(times)
            )
        })
    }
}

fn load(seconds: u64) -> Result<(), String> {
    let seconds = seconds.to_string();
    let bench = ["run", "--release", "--locked", "--package", "mainstay-bench", "--"];
    cargo::run(&[&bench[..], &["soak", "--seconds", &seconds]].concat())
}

#[cfg(test)]
mod tests {
    use super::{CAMPAIGNS, run};
    use crate::house;

    /// The numbers that are printed are those of the tests.
    #[test]
    fn each_number_stands_in_a_source() {
        for campaign in CAMPAIGNS {
            let read = |source: &&str| {
                let text = std::fs::read_to_string(house::root().join(source));
                text.unwrap_or_else(|error| panic!("{source}: {error}")).replace('_', "")
            };
            let text: String = campaign.sources.iter().map(read).collect();
            for (usual, what) in campaign.runs {
                let has = |number: u64| {
                    let before = ["0..", "(", ", "].into_iter();
                    let mut all = before.flat_map(|it| [(it, ")"), (it, ",")]);
                    all.any(|(before, behind)| text.contains(&format!("{before}{number}{behind}")))
                };
                // Orphans are counted over the five policies.
                assert!(has(*usual) || has(usual / 5), "{}: {usual} {what}", campaign.name);
            }
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(run(&["nothing"]).is_err_and(|what| what.contains("no campaign")));
        assert!(run(&["--times", "0"]).is_err());
    }
}
