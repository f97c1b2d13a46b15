//! A lower floor never imports a higher one.

use std::collections::BTreeSet;

use crate::{cargo, house};

/// Arguments of the `cargo tree` whose lines [`offences`] reads: each member at depth 0, what it imports at depth 1.
const TREE: &[&str] = &[
    "tree",
    "--workspace",
    "--locked",
    "--all-features",
    "--edges=normal,build",
    "--depth=1",
    "--prefix=depth",
    "--no-dedupe",
    "--format= {p}",
];

/// Compares the dependencies between the workspace's packages with the table of floors.
pub(crate) fn check() -> Result<(), String> {
    let offences = offences(&tree()?);
    if offences.is_empty() { Ok(()) } else { Err(format!("\n  {}", offences.join("\n  "))) }
}

/// What each member of the workspace depends on, dev-dependencies aside, as `cargo tree` says it.
pub(crate) fn tree() -> Result<String, String> {
    cargo::output(TREE)
}

/// The packages of the workspace.
fn members(tree: &str) -> BTreeSet<&str> {
    tree.lines().filter_map(depth_and_name).filter(|it| it.0 == 0).map(|it| it.1).collect()
}

/// The dependencies between packages of the workspace: who imports, who is imported.
pub(crate) fn imports(tree: &str) -> Vec<(&str, &str)> {
    let members = members(tree);
    let mut importer = "";
    let mut imports = Vec::new();
    for (depth, name) in tree.lines().filter_map(depth_and_name) {
        if depth == 0 {
            importer = name;
        } else if members.contains(name) {
            imports.push((importer, name));
        }
    }
    imports
}

/// What is wrong with a tree of depth 1, one sentence each.
fn offences(tree: &str) -> Vec<String> {
    let homeless = members(tree).into_iter().filter(|name| house::place(name).is_none());
    let homeless = homeless.map(|name| format!("{name} has no place in xtask/src/house.rs"));
    let imports = imports(tree).into_iter();
    homeless.chain(imports.filter_map(|(importer, name)| offence(importer, name))).collect()
}

fn offence(importer: &str, imported: &str) -> Option<String> {
    let (from, to) = (house::place(importer)?, house::place(imported)?);
    if house::may_import(from, to) {
        None
    } else {
        Some(format!("{importer} ({from:?}) may not import {imported} ({to:?})"))
    }
}

/// `"1 serde v1.0.229"` is `(1, "serde")`.
fn depth_and_name(line: &str) -> Option<(u32, &str)> {
    let mut words = line.split_whitespace();
    let depth = words.next()?.parse().ok()?;
    Some((depth, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_house_in_order_passes() {
        let tree = "\
0 mainstay-base v0.1.0 (/house/crates/base)
1 bytes v1.12.1
1 serde v1.0.229

0 mainstay-link v0.1.0 (/house/crates/link)
1 mainstay-base v0.1.0 (/house/crates/base)

0 mainstay-check v0.1.0 (/house/crates/check)
1 mainstay-base v0.1.0 (/house/crates/base)
";
        assert_eq!(offences(tree), Vec::<String>::new());
    }

    #[test]
    fn an_import_from_above_is_named() {
        let tree = "\
0 mainstay-link v0.1.0 (/house/crates/link)
1 mainstay-site v0.1.0 (/house/crates/site)

0 mainstay-site v0.1.0 (/house/crates/site)
1 mainstay-check v0.1.0 (/house/crates/check)

0 mainstay-check v0.1.0 (/house/crates/check)
1 mainstay-link v0.1.0 (/house/crates/link)
";
        assert_eq!(
            offences(tree),
            [
                "mainstay-link (Floor(2)) may not import mainstay-site (Floor(5))",
                "mainstay-site (Floor(5)) may not import mainstay-check (Beside)",
                "mainstay-check (Beside) may not import mainstay-link (Floor(2))",
            ]
        );
    }

    #[test]
    fn a_member_without_a_floor_is_named() {
        assert_eq!(
            offences("0 mainstay-attic v0.1.0 (/house/crates/attic)\n"),
            ["mainstay-attic has no place in xtask/src/house.rs"]
        );
    }

    #[test]
    fn every_member_of_this_workspace_is_read() {
        let tree = tree().expect("cargo tree runs in this workspace");
        let members = members(&tree);
        assert!(members.contains("mainstay-base") && members.contains("xtask"), "{members:?}");
    }
}
