//! Runs example systems, and shows that each of their criteria can fail.

use std::collections::BTreeSet;

use crate::cargo;

/// Runs the example `name` to its verdict.
pub(crate) fn run(name: &str) -> Result<(), String> {
    let package = format!("mainstay-{name}");
    cargo::run(&["run", "--quiet", "--release", "--locked", "--package", &package])
}

/// Runs the example `name` once for each fault that can be planted in it: each must break the criterion that it is made for,
/// and each criterion must be broken by one.
pub(crate) fn broken(name: &str) -> Result<(), String> {
    let package = format!("mainstay-{name}");
    let program = ["run", "--quiet", "--release", "--locked", "--package", &package, "--"];
    let list = cargo::output(&[&program[..], &["--list-broken"]].concat())?;
    let (criteria, planted) = listed(&list).ok_or("the example does not list its criteria")?;
    let mut unbroken: BTreeSet<&str> = criteria.iter().copied().collect();
    let mut offences = Vec::new();
    for Planted { fault, arguments, breaks, about } in planted {
        let arguments = [&program[..], &["--broken", fault], &arguments[..]].concat();
        let (status, table) = cargo::outcome(&arguments)?;
        let failed = failed(&table);
        println!("{fault}: {about}: breaks {}", failed.join(" "));
        if status != Some(1) || !failed.contains(&breaks) {
            offences.push(format!("{fault} does not break {breaks}: exit status {status:?}"));
        }
        unbroken.retain(|id| !failed.contains(id));
    }
    offences.extend(unbroken.iter().map(|id| format!("nothing breaks {id}")));
    if offences.is_empty() {
        println!("{name}: each of {} can fail", criteria.join(" "));
        return Ok(());
    }
    Err(format!("{name}:\n  {}", offences.join("\n  ")))
}

/// A fault that can be planted.
struct Planted<'a> {
    fault: &'a str,
    arguments: Vec<&'a str>,
    breaks: &'a str,
    about: &'a str,
}

/// The criteria and the faults of a list.
fn listed(list: &str) -> Option<(Vec<&str>, Vec<Planted<'_>>)> {
    let (first, rest) = list.split_once('\n')?;
    let criteria = first.strip_prefix("criteria\t")?.split(' ').collect();
    let planted = rest.lines().map(|line| {
        let mut cells = line.strip_prefix("broken\t")?.splitn(4, '\t');
        let (fault, arguments) = (cells.next()?, cells.next()?.split_whitespace().collect());
        Some(Planted { fault, arguments, breaks: cells.next()?, about: cells.next()? })
    });
    Some((criteria, planted.collect::<Option<_>>()?))
}

/// The criteria that a table says are broken.
fn failed(table: &str) -> Vec<&str> {
    let row = |line| {
        let (id, rest) = str::split_once(line, ' ')?;
        rest.trim_start().starts_with("FAIL ").then_some(id)
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_and_a_table_are_read() {
        let list = "criteria\tA-1 A-2\nbroken\tlazy\t\tA-1\tdoes nothing\nbroken\tloud\t--campaign 3\tA-2\tsays too much\n";
        let (criteria, planted) = listed(list).expect("it is a list");
        assert_eq!(criteria, ["A-1", "A-2"]);
        assert_eq!(planted.len(), 2);
        assert_eq!((planted[0].fault, planted[0].arguments.len()), ("lazy", 0));
        assert_eq!(planted[1].arguments, ["--campaign", "3"]);
        assert!(listed("error").is_none());
        let table = "runs: 1\nA-1    pass  nothing\nA-2    FAIL  something\n       in 1 of 1 runs\nverdict: FAIL\n";
        assert_eq!(failed(table), ["A-2"]);
    }
}
