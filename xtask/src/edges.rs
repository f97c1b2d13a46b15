//! Which crate of the workspace depends on which is written down, with a reason: `docs/dependencies.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::floors;

/// The page with the tables.
const PAGE: &str = "docs/dependencies.md";

/// Where the arrows of the figure are.
const FIGURE: &str = "examples/harness/src/structure.rs";

/// Compares the dependencies between the workspace's packages with the tables of the page, and the reasons of the first table with
/// the arrows of the figure.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let read = |path| fs::read_to_string(root.join(path)).map_err(|it| format!("{path}: {it}"));
    let (page, figure) = (read(PAGE)?, read(FIGURE)?);
    let mut offences = offences(&page, &floors::tree()?);
    offences.extend(foreign(&page, &figure));
    if offences.is_empty() { Ok(()) } else { Err(format!("\n  {}", offences.join("\n  "))) }
}

/// What is wrong, one sentence each.
fn offences(page: &str, tree: &str) -> Vec<String> {
    let mut written = BTreeSet::new();
    let mut offences = Vec::new();
    for (from, to, why) in lines(page) {
        if why.is_empty() {
            offences.push(format!("{PAGE} says of {from} -> {to} no reason"));
        }
        if !written.insert((from, to)) {
            offences.push(format!("{PAGE} has {from} -> {to} twice"));
        }
    }
    let real: BTreeSet<_> = floors::imports(tree).into_iter().collect();
    let missing = real.difference(&written);
    offences.extend(missing.map(|(from, to)| format!("{from} -> {to} has no line in {PAGE}")));
    let idle = written.difference(&real);
    offences.extend(
        idle.map(|(from, to)| format!("{from} -> {to} is no dependency any more ({PAGE})")),
    );
    offences
}

/// The reasons of the first table that are no arrow of the figure. They begin with `one on another:`, or with `one on another,`.
fn foreign(page: &str, figure: &str) -> Vec<String> {
    let arrows: BTreeSet<_> = figure.lines().filter_map(arrow).collect();
    let table = page.split_once("\n## Arrows of the figure\n").map_or("", |it| it.1);
    let table = table.split_once("\n## ").map_or(table, |it| it.0);
    let is_arrow = |why: &str| {
        let pair = why.split([':', ',']).next().and_then(|it| it.split_once(" on "));
        pair.is_some_and(|(one, other)| {
            arrows.contains(&(one, other.trim_start_matches("a weaker ")))
        })
    };
    let mut rows = lines(table).peekable();
    let empty = rows.peek().is_none().then(|| format!("{PAGE} has no arrows of the figure"));
    let wrong = rows.filter(|(_, _, why)| !is_arrow(why)).map(|(from, to, _)| {
        format!(
            "{PAGE} has {from} -> {to} among the arrows of the figure, and it is none ({FIGURE})"
        )
    });
    empty.into_iter().chain(wrong).collect()
}

/// The arrow that a line of the figure's list says.
fn arrow(line: &str) -> Option<(&str, &str)> {
    let (from, rest) = line.trim().strip_prefix("(\"")?.split_once("\", \"")?;
    let (to, _) = rest.split_once("\", ")?;
    Some((from, to))
}

/// The rows of three cells, the heads of the tables aside.
fn lines(page: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    page.lines().filter_map(|line| {
        let row = line.strip_prefix('|')?.strip_suffix('|')?;
        let mut cells = row.splitn(3, '|').map(str::trim);
        let line = (cells.next()?, cells.next()?, cells.next()?);
        (line.0 != "from" && !line.0.starts_with('-')).then_some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_IN_ORDER: &str = "\
| from | to | why |
|---|---|---|
| mainstay-link | mainstay-base | vocabulary |
";
    const TREE: &str = "\
0 mainstay-base v0.1.0 (/house/crates/base)
1 serde v1.0.229

0 mainstay-link v0.1.0 (/house/crates/link)
1 mainstay-base v0.1.0 (/house/crates/base)
";

    #[test]
    fn equal_sets_pass() {
        assert_eq!(offences(PAGE_IN_ORDER, TREE), Vec::<String>::new());
    }

    #[test]
    fn a_planted_dependency_is_named() {
        let planted =
            format!("{TREE}\n0 mainstay-site v0.1.0 (/house)\n1 mainstay-link v0.1.0 (/house)\n");
        assert_eq!(
            offences(PAGE_IN_ORDER, &planted),
            ["mainstay-site -> mainstay-link has no line in docs/dependencies.md"]
        );
    }

    #[test]
    fn a_line_without_a_dependency_is_named() {
        let page = format!("{PAGE_IN_ORDER}| mainstay-base | mainstay-link | upside down |\n");
        assert_eq!(
            offences(&page, TREE),
            ["mainstay-base -> mainstay-link is no dependency any more (docs/dependencies.md)"]
        );
    }

    #[test]
    fn a_line_has_a_reason_and_stands_once() {
        let page = format!("{PAGE_IN_ORDER}| mainstay-link | mainstay-base | |\n");
        assert_eq!(
            offences(&page, TREE),
            [
                "docs/dependencies.md says of mainstay-link -> mainstay-base no reason",
                "docs/dependencies.md has mainstay-link -> mainstay-base twice",
            ]
        );
    }

    #[test]
    fn a_reason_that_is_no_arrow_is_named() {
        let figure = "    (\"membership\", \"multicast\", None),\n    (\"rpc\", \"multicast\", Some(Clockless)),\n";
        let page = |why| {
            format!(
                "\n## Arrows of the figure\n| a | b | {why} |\n\n## More\n| c | d | vocabulary |\n"
            )
        };
        for why in ["rpc on multicast: calls", "membership on a weaker multicast, below: agreement"]
        {
            assert_eq!(foreign(&page(why), figure), Vec::<String>::new());
        }
        for why in ["multicast on rpc: upside down", "vocabulary", "rpc on membership: none"] {
            assert!(foreign(&page(why), figure)[0].starts_with("docs/dependencies.md has a -> b"));
        }
        assert_eq!(foreign("", figure), ["docs/dependencies.md has no arrows of the figure"]);
    }

    /// The page of this workspace, with one dependency more and one line more than there are.
    #[test]
    fn this_workspace_is_in_order_until_an_edge_is_planted() {
        let root = crate::house::root();
        let page = fs::read_to_string(root.join(PAGE)).expect("the page is there");
        let tree = floors::tree().expect("cargo tree runs in this workspace");
        assert_eq!(offences(&page, &tree), Vec::<String>::new());
        let figure = fs::read_to_string(root.join(FIGURE)).expect("the figure is there");
        assert_eq!(foreign(&page, &figure), Vec::<String>::new());
        let planted =
            tree.replace("0 mainstay-link ", "0 mainstay-link v0.1.0\n1 mainstay-stable ");
        assert_eq!(
            offences(&page, &planted)[0],
            "mainstay-link -> mainstay-stable has no line in docs/dependencies.md"
        );
    }
}
