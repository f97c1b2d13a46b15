//! Clocks of real processes are kept together, and one of them has a hardware clock that jumps by an hour, or runs twice as fast: the others keep
//! their promises.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::clock::library;
use super::cluster::{Home, ensure};
use super::tools::mainstay;
use crate::steps::Verdict;

/// As many as the plan of the program has.
const NODES: usize = 5;
/// One algorithm of each class, and which node is the faulty one.
const CLASSES: [(&str, usize); 5] = [
    ("midpoint", LAST),
    ("com", LAST),
    ("srikanth-toueg", LAST),
    // The last node is the master, and what a master says is followed.
    ("cristian", 0),
    ("marzullo", LAST),
];
const LAST: usize = NODES - 1;
/// Until the clock of the faulty one jumps, and then until the end: some periods of 0.8 s.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(6);
/// Words of two processes are compared if they are no further apart: 200 ppm of that is little.
const TOGETHER: i64 = 100_000_000;

/// All algorithms with the one fault, beside all with the other one.
pub(super) fn keep_promises() -> Result<Verdict, String> {
    let Some(library) = library() else {
        return Ok(Verdict::Skipped("libfaketime is not installed"));
    };
    let faults = [("jump", "+0", "+3600"), ("race", "+0 x2", "+0 x2")];
    let all = |(name, first, then): (&str, &str, &str)| {
        CLASSES.into_iter().try_for_each(|class| {
            let algorithm = class.0;
            let home = Home::new(&format!("faketime-{name}-{algorithm}"))?;
            one(home.path(), &library, class, (first, then))
                .map_err(|error| format!("{name}, {algorithm}: {error}"))
        })
    };
    // Most of the time they wait.
    thread::scope(|scope| {
        let all = &all;
        let runs = faults.map(|fault| scope.spawn(move || all(fault)));
        runs.into_iter().try_for_each(|run| run.join().map_err(|_| "a run panicked".to_owned())?)
    })?;
    Ok(Verdict::Passed)
}

fn one(
    home: &Path,
    library: &Path,
    (algorithm, faulty): (&str, usize),
    (first, then): (&str, &str),
) -> Result<(), String> {
    let setting = home.join("setting");
    let set = |text: &str| fs::write(&setting, text).map_err(|error| error.to_string());
    set(first)?;
    // Below the ports that the system gives to whoever dials; of two at a time each has a half of its own.
    let begin = if first == "+0" { 14_000 } else { 16_000 };
    let ports = begin..begin + 2_000_u16;
    let free = ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let held: Vec<_> = free.take(NODES).collect();
    let address = |it: &TcpListener| it.local_addr().map_err(|error| error.to_string());
    let places = held.iter().map(address).collect::<Result<Vec<_>, _>>()?;
    drop(held);
    let output = |node: usize| home.join(format!("n{node}.out"));
    let start = |node: usize| {
        let out = File::create(output(node)).map_err(|error| error.to_string())?;
        let mut command = Command::new(mainstay()?);
        command.args(["clock-node", "--algorithm", algorithm, "--drift", "0"]);
        command.args(["--cluster", "00000000-0000-0000-0000-000000000001"]);
        command.args(["--name", &format!("n{node}")]);
        for (at, place) in places.iter().enumerate() {
            command.args(["--node", &format!("n{at}={place}")]);
        }
        if node == faulty {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &setting);
            command.env("FAKETIME_NO_CACHE", "1");
        }
        let started = command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::inherit()).spawn();
        started.map(Running).map_err(|error| error.to_string())
    };
    let mut nodes = (0..NODES).map(start).collect::<Result<Vec<_>, String>>()?;
    thread::sleep(BEFORE);
    set(then)?;
    thread::sleep(AFTER);
    for node in &mut nodes {
        let ended = node.0.try_wait().map_err(|error| error.to_string())?;
        ensure(ended.is_none(), || format!("a process has ended: {ended:?}"))?;
    }
    drop(nodes);
    let said = (0..NODES).map(|node| {
        let text = fs::read_to_string(output(node)).map_err(|error| error.to_string())?;
        Ok((node, text))
    });
    judge(&said.collect::<Result<_, String>>()?, faulty, algorithm == "cristian")
}

/// A process that ends when nobody holds its input any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // One with such a clock need not end by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process said of its clock, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Word {
    real: i64,
    /// What the clock is ahead of that.
    ahead: i64,
    version: u64,
    synchronised: bool,
    bound: i64,
}

/// How far two clocks may be apart, if that is promised.
fn promise(line: &str) -> Option<i64> {
    line.strip_prefix("promise ")?.parse().ok()
}

fn word(line: &str) -> Option<Word> {
    let mut words = line.strip_prefix("at ")?.split(' ').map(str::parse::<i64>);
    let mut next = || words.next()?.ok();
    let (real, clock, version, synchronised, bound) = (next()?, next()?, next()?, next()?, next()?);
    let (version, synchronised) = (version as u64, synchronised == 1);
    Some(Word { real, ahead: clock - real, version, synchronised, bound })
}

/// No clock has gone back, those of the others are as near as is promised, and that of the faulty one has not been. Where nothing is promised each clock says
/// by itself how far it may be wrong, and two may be as far apart as both say.
fn judge(said: &BTreeMap<usize, String>, faulty: usize, has_master: bool) -> Result<(), String> {
    let mut all = Vec::new();
    let promises = said.values().map(|text| text.lines().find_map(promise));
    let promises: BTreeSet<Option<i64>> = promises.collect();
    ensure(promises.len() == 1, || format!("they promise {promises:?}"))?;
    let promised = promises.into_iter().next().flatten();
    for (node, text) in said {
        // How far the faulty one is from the true time is not promised.
        let is_one = |line: &&str| {
            line.starts_with("violation")
                && !(*node == faulty && line.starts_with("violation CLK-4"))
        };
        let violation = text.lines().find(is_one);
        ensure(violation.is_none(), || format!("n{node}: {violation:?}"))?;
        let words: Vec<Word> = text.lines().filter_map(word).collect();
        if *node != faulty {
            let versions: BTreeSet<u64> = words.iter().map(|word| word.version).collect();
            let synchronised = words.last().is_some_and(|word| word.synchronised);
            // With a master, and where each clock says its own error, there may be few versions.
            let few = has_master || promised.is_none();
            ensure((versions.len() > 4 || few) && synchronised, || {
                format!("n{node} has had {versions:?}, synchronised: {synchronised}")
            })?;
        }
        all.extend(words.into_iter().map(|word| (word.real, *node, word)));
    }
    all.sort_by_key(|(real, node, _)| (*real, *node));
    let mut last: BTreeMap<usize, Word> = BTreeMap::new();
    let (mut compared, mut strayed) = (0, false);
    for (real, node, word) in all {
        for (other, its) in last.iter().filter(|(other, _)| **other != node) {
            if real - its.real > TOGETHER || !(word.synchronised && its.synchronised) {
                continue;
            }
            let skew = (word.ahead - its.ahead).abs();
            let bound = promised.unwrap_or(word.bound + its.bound);
            let is_faulty = node == faulty || *other == faulty;
            strayed |= is_faulty && skew > bound;
            compared += u32::from(!is_faulty);
            ensure(is_faulty || skew <= bound, || {
                format!("n{node} and n{other} are {skew} ns apart, where {bound} is the bound")
            })?;
        }
        strayed |= node == faulty && !word.synchronised && word.version > 0;
        last.insert(node, word);
    }
    ensure(compared > 100, || format!("{compared} words were compared"))?;
    ensure(strayed, || "the clock of the faulty one was right all the time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: &str = "promise 5000000\n";

    fn said(node: usize, ahead: i64) -> (usize, String) {
        let line = |step: i64| {
            let real = step * 50_000_000 + node as i64;
            format!("at {real} {} {} 1 5000000\n", real + ahead, step / 10)
        };
        (node, PROMISE.to_owned() + &(1..100).map(line).collect::<String>())
    }

    #[test]
    fn clocks_that_part_are_noticed() {
        let all =
            |ahead: [i64; NODES]| ahead.into_iter().enumerate().map(|(n, a)| said(n, a)).collect();
        let judge = |said: &BTreeMap<usize, String>| judge(said, LAST, false);
        assert_eq!(judge(&all([0, 4_000_000, 0, 0, 9_000_000])), Ok(()));
        let parted = judge(&all([0, 6_000_000, 0, 0, 9_000_000]));
        assert!(parted.unwrap_err().contains("6000000 ns apart"));
        let mut none = all([0, 6_000_000, 0, 0, 19_000_000]);
        none.values_mut().for_each(|text| *text = text.replace(PROMISE, ""));
        assert_eq!(judge(&none), Ok(()));
        none.insert(1, said(1, 6_000_000).1);
        assert!(judge(&none).unwrap_err().contains("they promise"));
        let harmless = judge(&all([0, 4_000_000, 0, 0, 1_000_000]));
        assert!(harmless.unwrap_err().contains("right all the time"));
        let mut back = all([0, 0, 0, 0, 9_000_000]);
        back.insert(1, format!("{PROMISE}violation CLK-1"));
        assert!(judge(&back).unwrap_err().contains("violation"));
    }
}
