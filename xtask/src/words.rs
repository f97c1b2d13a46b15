//! The source of a pure crate names no clock, no thread, no hash order and no hidden randomness.
//!
//! A plain scan for words outside comments and literals. It is coarser than clippy's `disallowed-*` lists but sees
//! every feature and every target, and an `allow` does not silence it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::code::code_only;
use crate::house;

/// Scans `crates/<directory>/src`.
pub(crate) fn check(root: &Path, directory: &str) -> Result<(), String> {
    let mut offences = Vec::new();
    for path in sources(&root.join("crates").join(directory).join("src"))? {
        let source = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display();
        for (line, word) in forbidden_in(&source) {
            offences.push(format!("{shown}:{line}: `{word}`"));
        }
    }
    if offences.is_empty() { Ok(()) } else { Err(format!("\n  {}", offences.join("\n  "))) }
}

/// The forbidden words of `source`, each with its line from 1.
fn forbidden_in(source: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (index, line) in code_only(source).lines().enumerate() {
        for word in house::FORBIDDEN {
            if has_word(line, word) {
                found.push((index + 1, *word));
            }
        }
    }
    found
}

/// Whether `line` has `word` with no letter, digit or underscore on either side.
fn has_word(line: &str, word: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(in_name) && !line[start + word.len()..].starts_with(in_name)
    })
}

/// All `.rs` files under `directory`, in order.
pub(crate) fn sources(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(directory, &error))? {
        let path = entry.map_err(|error| unreadable(directory, &error))?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_forbidden_word_is_found_with_its_line() {
        let source = "use std::collections::{BTreeMap, HashMap};\n\
                      fn f() -> HashSet<u8> { todo }\n\
                      let a = std::time::Instant::now();\n\
                      let b = SystemTime::now;\n\
                      std::thread::spawn(|| {});\n\
                      rand::thread_rng().next();\n";
        let expected: Vec<_> = (1..).zip(house::FORBIDDEN.iter().copied()).collect();
        assert_eq!(forbidden_in(source), expected);
    }

    #[test]
    fn comments_literals_and_other_names_pass() {
        let source = "// a HashMap would hide the order\n\
                      /// Unlike `Instant::now`.\n\
                      let text = \"thread::spawn\";\n\
                      struct OrderedHashMap; fn thread_rng_free() {}\n\
                      let map: BTreeMap<u8, u8> = BTreeMap::new();\n\
                      fn later(now: Instant) -> Instant { now }\n\
                      clock.now_nanos(); green_thread::spawn_local(f);\n";
        assert_eq!(forbidden_in(source), []);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(check(Path::new("/nowhere"), "base").is_err());
    }
}
