//! What is written, and what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mainstay_directory::resp::CommandParser;
use serde::Deserialize;

use crate::failure::Failure;

/// The packages that this program is made of.
const PACKAGES: &str = include_str!("../../../../Cargo.lock");
/// Counted up at the end of each round of packages.
const ROUNDS: &str = "rounds";

/// A write whose outcome can be checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Write {
    Set { key: String, value: String },
    Incr { key: String },
}

/// Writes without end: the same lines round after round.
pub(super) struct Script {
    lines: Vec<Write>,
    /// Each round sets keys of its own.
    fresh: bool,
    round: u64,
    at: usize,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

impl Script {
    /// The packages: `SET name:round version` for each, and `INCR rounds`.
    pub(super) fn packages() -> Result<Self, Failure> {
        let lock: Lock = toml::from_str(PACKAGES).map_err(Failure::usage)?;
        let set = |package: Package| Write::Set { key: package.name, value: package.version };
        let mut lines: Vec<_> = lock.package.into_iter().map(set).collect();
        lines.push(Write::Incr { key: ROUNDS.to_owned() });
        Ok(Self { lines, fresh: true, round: 1, at: 0 })
    }

    /// A file with one `SET key value` or `INCR key` a line, as a client may type it: in quotes, too.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let wrong = |text: &str| Failure::usage(format!("{}: {text}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
        let (mut sets, mut counters, mut lines) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let words = words(line).map_err(|error| wrong(&format!("line {number}: {error}")))?;
            let write = match &words[..] {
                [] => continue,
                [name, key, value] if name.eq_ignore_ascii_case("SET") => {
                    sets.insert(key.clone());
                    Write::Set { key: key.clone(), value: value.clone() }
                }
                [name, key] if name.eq_ignore_ascii_case("INCR") => {
                    counters.insert(key.clone());
                    Write::Incr { key: key.clone() }
                }
                _ => {
                    return Err(wrong(&format!(
                        "line {number} is no SET key value and no INCR key"
                    )));
                }
            };
            lines.push(write);
        }
        if let Some(key) = sets.intersection(&counters).next() {
            return Err(wrong(&format!("{key:?} is set and counted up")));
        }
        if lines.is_empty() {
            return Err(wrong("there is no line"));
        }
        Ok(Self { lines, fresh: false, round: 1, at: 0 })
    }

    /// The next write.
    pub(super) fn next(&mut self) -> Write {
        let mut write = self.lines[self.at].clone();
        if let Write::Set { key, .. } = &mut write
            && self.fresh
        {
            *key = format!("{key}:{}", self.round);
        }
        self.at += 1;
        if self.at == self.lines.len() {
            (self.at, self.round) = (0, self.round + 1);
        }
        write
    }
}

/// The words of an inline command; none if the line is empty.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut parser = CommandParser::new();
    parser.feed(line.as_bytes());
    parser.feed(b"\n");
    let command = parser.next_command().map_err(|error| error.to_string())?;
    let word = |word: &[u8]| String::from_utf8(word.to_vec()).map_err(|error| error.to_string());
    command.iter().flat_map(|command| command.arguments()).map(word).collect()
}

/// What may be found at a key that was set.
#[derive(Default, Debug)]
pub(super) struct Expected {
    pub(super) values: BTreeSet<String>,
    /// One of the writes was acknowledged: the key is there.
    pub(super) acknowledged: bool,
}

/// How often a counter was counted up.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Count {
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
}

/// What may be found at the end.
#[derive(Default, Debug)]
pub(super) struct Ledger {
    pub(super) sets: BTreeMap<String, Expected>,
    pub(super) counters: BTreeMap<String, Count>,
    /// An answer that no write may have.
    pub(super) wrong: Option<String>,
}

impl Ledger {
    /// The write was acknowledged.
    pub(super) fn acknowledge(&mut self, write: Write) {
        match write {
            Write::Set { key, value } => {
                let expected = self.sets.entry(key).or_default();
                expected.values.insert(value);
                expected.acknowledged = true;
            }
            Write::Incr { key } => self.counters.entry(key).or_default().acknowledged += 1,
        }
    }

    /// The write may have been executed, or may still be.
    pub(super) fn doubt(&mut self, write: Write) {
        match write {
            Write::Set { key, value } => {
                self.sets.entry(key).or_default().values.insert(value);
            }
            Write::Incr { key } => self.counters.entry(key).or_default().unknown += 1,
        }
    }

    /// How many keys there are at least and at most.
    pub(super) fn keys(&self) -> (usize, usize) {
        let sets = self.sets.values().filter(|expected| expected.acknowledged).count();
        let counters = self.counters.values().filter(|count| count.acknowledged > 0).count();
        (sets + counters, self.sets.len() + self.counters.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that a line is taken as a client may type it.
    #[test]
    fn a_line_is_an_inline_command() {
        assert_eq!(
            words("  SET k \"a b\" ").as_deref(),
            Ok(&["SET", "k", "a b"].map(str::to_owned)[..])
        );
        assert_eq!(words(" "), Ok(Vec::new()));
        assert!(words("SET k \"a").is_err());
    }

    #[test]
    fn each_round_sets_keys_of_its_own_and_counts_once() {
        let mut script = Script::packages().expect("it is embedded");
        let size = script.lines.len();
        let mut ledger = Ledger::default();
        (0..3 * size).for_each(|_| ledger.acknowledge(script.next()));
        assert_eq!(ledger.counters[ROUNDS].acknowledged, 3);
        assert!(ledger.sets.contains_key("bytes:1") && ledger.sets.contains_key("bytes:3"));
        assert!(ledger.sets.values().all(|expected| expected.acknowledged));
    }
}
