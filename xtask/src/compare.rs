//! Runs our benchmarks and those of the peers in turn, and puts the figures side by side.

mod guarantees;
mod install;
mod lines;
mod options;
mod process;
mod programs;
mod record;
mod side;
mod table;

use std::process::ExitCode;

use options::Options;
use programs::{Machine, Ours, Peer, Peers};
use side::{Comparison, Side};

/// How it is called.
pub(crate) const USAGE: &str = options::USAGE;

/// Does what the words say. Exit status 1: one of ours failed, or there was no beginning; 2: the words are wrong.
pub(crate) fn run(words: &[&str]) -> ExitCode {
    let done = Options::parse(words).map_err(Failure::Usage).and_then(|options| {
        if options.install {
            install::run().map_err(Failure::Failed)
        } else {
            compare(&options, words)
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(why)) => {
            eprintln!("compare: {why}");
            ExitCode::FAILURE
        }
        Err(Failure::Usage(why)) => {
            eprintln!("compare: {why}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Why it did not succeed.
enum Failure {
    /// The words are wrong.
    Usage(String),
    /// One of ours failed, or there was no beginning.
    Failed(String),
}

fn compare(options: &Options, words: &[&str]) -> Result<(), Failure> {
    let names = programs::names(&options.peers).map_err(Failure::Usage)?;
    let ours = Ours::build().map_err(Failure::Failed)?;
    let peers = Peers::build(&names, &options.dir).map_err(Failure::Failed)?;
    let cases = cases(&ours, &peers, &options.prefixes).map_err(Failure::Usage)?;
    if cases.is_empty() {
        println!("no peer has any of these cases");
        return Ok(());
    }
    let mut compared = Vec::new();
    for case in &cases {
        for peer in peers.there.iter().filter(|peer| peer.has(case)) {
            compared.extend(pairs(options, &ours, peer, case));
        }
    }
    let machine = Machine::measure(&options.dir);
    let text = record::section(words, options, &machine, &peers.skipped, &compared);
    println!("{text}");
    record::append(&text).map_err(Failure::Failed)?;
    let failed = |it: &Comparison| it.ours.as_ref().is_some_and(|ours| !ours.failures.is_empty());
    let failed: Vec<&str> =
        compared.iter().filter(|it| failed(it)).map(|it| it.case.as_str()).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::Failed(format!("ours failed in {}", failed.join(", "))))
    }
}

/// The cases that are wanted and that a peer has, in the order of ours and then of the peers.
///
/// # Errors
/// A prefix that no case begins with.
fn cases(ours: &Ours, peers: &Peers, prefixes: &[String]) -> Result<Vec<String>, String> {
    let mut known: Vec<&str> = ours.cases.iter().map(|(_, case)| case.as_str()).collect();
    for case in peers.there.iter().flat_map(|peer| &peer.cases) {
        if !known.contains(&case.as_str()) {
            known.push(case);
        }
    }
    if let Some(bad) = prefixes.iter().find(|it| !known.iter().any(|case| case.starts_with(*it))) {
        let known = known.join("\n  ");
        return Err(format!("no case begins with {bad:?}; the cases are\n  {known}"));
    }
    let is_wanted = |case: &&str| {
        prefixes.is_empty() || prefixes.iter().any(|it| case.starts_with(it.as_str()))
    };
    let has_peer = |case: &&str| peers.there.iter().any(|peer| peer.has(case));
    Ok(known.into_iter().filter(is_wanted).filter(has_peer).map(str::to_owned).collect())
}

/// Ours and the peer's in turn; the peer's alone if there is none of ours. One for each system that the program measures.
fn pairs(options: &Options, ours: &Ours, peer: &Peer, case: &str) -> Vec<Comparison> {
    let bench = ours.bench_of(case);
    let guarantee = guarantees::of_ours(case).unwrap_or("not stated");
    let mut own = bench.map(|_| Side::new("ours", guarantee));
    let mut theirs: Vec<Side> = Vec::new();
    for pair in 1..=options.pairs {
        if let (Some(bench), Some(own)) = (bench, &mut own) {
            eprintln!("compare: {case}: {pair} of {}: ours", options.pairs);
            own.add(ours.measure(bench, case, &options.dir));
        }
        eprintln!("compare: {case}: {pair} of {}: {}", options.pairs, peer.name);
        side::add_peers(&mut theirs, &peer.name, case, peer.measure(case, &options.dir));
    }
    let compare = |peer| Comparison { case: case.to_owned(), ours: own.clone(), peer };
    theirs.into_iter().map(compare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there() -> (Ours, Peers) {
        let owned = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let benches = [("stable", "stable/a"), ("stable", "stable/a/b"), ("idle", "idle/c")];
        let ours =
            Ours::of(benches.map(|(bench, case)| (bench.to_owned(), case.to_owned())).into());
        let peer = Peer::of("peer-x", owned(&["rpc/d", "stable/a"]));
        (ours, Peers { there: vec![peer], skipped: Vec::new() })
    }

    /// Checks that cases without a peer are left out, and that a peer's case without ours stays.
    #[test]
    fn the_cases_are_those_that_a_peer_has() {
        let (ours, peers) = there();
        assert_eq!(cases(&ours, &peers, &[]), Ok(vec!["stable/a".into(), "rpc/d".into()]));
        assert_eq!(cases(&ours, &peers, &["rpc".into()]), Ok(vec!["rpc/d".into()]));
        assert_eq!(cases(&ours, &peers, &["idle".into()]), Ok(Vec::new()));
    }

    /// Checks that a name that no case begins with is refused, and that the cases are told.
    #[test]
    fn a_bad_name_is_refused_with_the_names_there_are() {
        let (ours, peers) = there();
        let refused = cases(&ours, &peers, &["stable".into(), "nothing".into()]).unwrap_err();
        assert!(refused.contains("\"nothing\"") && refused.contains("rpc/d"), "{refused}");
    }
}
