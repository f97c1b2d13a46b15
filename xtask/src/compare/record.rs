//! The section of a comparison in `bench/RESULTS.md`.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

use crate::compare::options::Options;
use crate::compare::programs::Machine;
use crate::compare::side::Comparison;
use crate::compare::table::table;
use crate::house;

const RESULTS: &str = "bench/RESULTS.md";

/// What is printed and recorded: where and how it was measured, who was left out, the table.
pub(crate) fn section(
    words: &[&str],
    options: &Options,
    machine: &Machine,
    skipped: &[(String, String)],
    compared: &[Comparison],
) -> String {
    let date = said("date", &["-u", "+%F"]);
    let commit = commit();
    let command = [&["cargo", "xtask", "compare"], words].concat().join(" ");
    let machine = machine_line(machine);
    let (pairs, dir) = (options.pairs, options.dir.display());
    let mut text = format!(
        "## {date}: compared with other systems\n\n\
         Commit {commit}. {machine}; data below `{dir}`. `{command}`: {pairs} pairs of runs, ours and the peer's in turn; medians, \
         and the smallest and the largest beside them. A ratio is that of the medians; above 1 ours is better. A ratio between different \
         guarantees is no verdict: read the last two columns.\n\n"
    );
    for (name, why) in skipped {
        text += &format!("Skipped: {name}: {why}.\n\n");
    }
    text + &table(compared)
}

fn machine_line(machine: &Machine) -> String {
    let shown = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.1}{unit}"))
    };
    let cores = machine.cores.map_or_else(|| "?".to_owned(), |cores| format!("{cores:.0}"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = if kernel.is_empty() { "unknown" } else { kernel.trim() };
    let (force, tcp) = (shown(machine.force_us, " us"), shown(machine.tcp_us, " us"));
    format!(
        "Machine: {cores} cores, kernel {kernel}, median of a forced 4 KiB append {force}, of a 64 B round trip over TCP {tcp}"
    )
}

/// The commit, and whether the files are others than it has; the record itself does not count.
fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    let changed = said("git", &["status", "--porcelain", "--", ".", ":!bench/RESULTS.md"]);
    if changed == "unknown" || changed.is_empty() { commit } else { commit + " (dirty)" }
}

/// What a program says in the root of the workspace.
fn said(program: &str, words: &[&str]) -> String {
    let done = Command::new(program).args(words).current_dir(house::root()).output();
    let said = done.ok().filter(|done| done.status.success());
    said.map_or_else(
        || "unknown".to_owned(),
        |done| String::from_utf8_lossy(&done.stdout).trim().to_owned(),
    )
}

/// Appends a section to the record.
pub(crate) fn append(section: &str) -> Result<(), String> {
    let path = house::root().join(RESULTS);
    let failed = |error| format!("cannot append to {RESULTS}: {error}");
    let mut file = File::options().append(true).open(path).map_err(failed)?;
    file.write_all(format!("\n{section}").as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::side::Side;

    /// Checks that the command, the machine and those left out are told, what is not known as such.
    #[test]
    fn a_section_tells_how_it_was_measured() {
        let words = ["--pairs", "4", "stable/"];
        let options = Options::parse(&words).unwrap();
        let machine = Machine { cores: Some(2.0), force_us: Some(76.04), tcp_us: None };
        let skipped = [("peer-etcd".to_owned(), "etcd is missing: package etcd-server".to_owned())];
        let peer = Side::new("redb", "forced");
        let compared = [Comparison { case: "stable/a".to_owned(), ours: None, peer }];
        let text = section(&words, &options, &machine, &skipped, &compared);
        for told in [
            "`cargo xtask compare --pairs 4 stable/`: 4 pairs",
            "2 cores",
            "append 76.0 us",
            "TCP not measured",
            "Skipped: peer-etcd: etcd is missing: package etcd-server.\n",
            "| `stable/a` | - | - | redb |",
        ] {
            assert!(text.contains(told), "{told} is not in {text}");
        }
        assert!(text.starts_with("## 20") && text.ends_with("|\n"), "{text}");
    }
}
