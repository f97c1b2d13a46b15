//! What a package must have that others are to use: words to find it by, licences, a page, documentation that builds as it is read.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{cargo, words};

/// Keys of `[package]` that a manifest sets, itself or from the workspace.
const KEYS: &[&str] = &[
    "description",
    "license",
    "repository",
    "readme",
    "documentation",
    "keywords",
    "categories",
    "rust-version",
];

/// Settings of `[package.metadata.docs.rs]`.
const DOCS: &[&str] = &["all-features = true", "rustdoc-args = [\"--cfg\", \"docsrs\"]"];

/// What stands in the crate root of a package with features.
const GATED: &str = "#![cfg_attr(docsrs, feature(doc_cfg))]";

/// Files of every package.
const FILES: &[&str] = &["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// A package as it would be published.
struct Package<'a> {
    manifest: &'a str,
    /// Paths of its files, one a line.
    files: &'a str,
    readme: &'a str,
    /// `src/lib.rs`.
    root: &'a str,
    /// Documentation of all its sources, one line each.
    docs: &'a [String],
}

/// Looks at every package under `crates/` that is published.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut offences = Vec::new();
    for directory in published(root)? {
        offences.extend(of_directory(&directory)?);
    }
    if offences.is_empty() { Ok(()) } else { Err(format!("\n  {}", offences.join("\n  "))) }
}

/// `mainstay-stable` is for programs that have nothing to do with the rest: it brings no serde.
pub(crate) fn stable_stands_alone() -> Result<(), String> {
    let tree = ["tree", "--package=mainstay-stable", "--locked", "--edges=normal"];
    let tree = cargo::output(&[&tree[..], &["--prefix=none", "--format={p}"]].concat())?;
    match tree.lines().find(|line| line.starts_with("serde")) {
        Some(serde) => Err(format!("mainstay-stable depends on {serde}")),
        None => Ok(()),
    }
}

/// What is to be had of few crates: what is built, with what flags, and the most crates in its tree, itself counted.
const SMALL: &[(&str, &[&str], usize)] = &[
    ("a client", &["--package=mainstay", "--no-default-features", "--features=client"], 44),
    ("a link with its actor", &["--package=mainstay-link"], 60),
    ("the machine of a link", &["--package=mainstay-link", "--no-default-features"], 27),
];

/// What users pick alone is built, and of few crates.
pub(crate) fn picks_are_small() -> Result<(), String> {
    for (what, flags, max) in SMALL {
        let locked = [*flags, &["--locked"]].concat();
        let tree =
            [&["tree"], &locked[..], &["--edges=normal", "--prefix=none", "--format={p}"]].concat();
        let count = crates_in(&cargo::output(&tree)?);
        if count > *max {
            return Err(format!("{what} takes {count} crates, at most {max} may be"));
        }
        cargo::run(&[&["check", "--quiet"], &locked[..]].concat())?;
    }
    Ok(())
}

/// How many packages a tree names.
fn crates_in(tree: &str) -> usize {
    let names = tree.lines().map(|line| line.trim_end_matches(" (*)")).filter(|it| !it.is_empty());
    names.collect::<std::collections::BTreeSet<_>>().len()
}

fn published(root: &Path) -> Result<Vec<PathBuf>, String> {
    let crates = root.join("crates");
    let entries =
        fs::read_dir(&crates).map_err(|error| format!("{}: {error}", crates.display()))?;
    let mut found: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| {
        let manifest = text(&path.join("Cargo.toml"));
        !manifest.is_empty() && !manifest.lines().any(|line| line == "publish = false")
    });
    found.sort();
    Ok(found)
}

fn of_directory(directory: &Path) -> Result<Vec<String>, String> {
    let manifest = text(&directory.join("Cargo.toml"));
    let name = value(&manifest, "name").unwrap_or_default().trim_matches('"').to_owned();
    let files = cargo::output(&[
        "package",
        "--package",
        &name,
        "--list",
        "--allow-dirty",
        "--offline",
        "--quiet",
    ])?;
    let mut docs = Vec::new();
    for path in words::sources(&directory.join("src"))? {
        let is_doc = |line: &&str| line.starts_with("//!") || line.starts_with("///");
        let source = text(&path);
        docs.extend(source.lines().map(str::trim).filter(is_doc).map(str::to_owned));
    }
    let package = Package {
        manifest: &manifest,
        files: &files,
        readme: &text(&directory.join("README.md")),
        root: &text(&directory.join("src/lib.rs")),
        docs: &docs,
    };
    Ok(offences(&package).into_iter().map(|offence| format!("{name}: {offence}")).collect())
}

/// What is wrong with a package, one sentence each.
fn offences(package: &Package<'_>) -> Vec<String> {
    let mut offences = Vec::new();
    for key in KEYS {
        let inherited = format!("{key}.workspace");
        if value(package.manifest, key).or_else(|| value(package.manifest, &inherited)).is_none() {
            offences.push(format!("the manifest has no {key}"));
        }
    }
    let docs = package.manifest.split_once("[package.metadata.docs.rs]").map_or("", |it| it.1);
    let docs = docs.split_once("\n[").map_or(docs, |it| it.0);
    for setting in DOCS {
        if !docs.lines().any(|line| line == *setting) {
            offences.push(format!("[package.metadata.docs.rs] lacks {setting}"));
        }
    }
    if package.manifest.contains("\n[features]") && !package.root.contains(GATED) {
        offences.push(format!("it has features, and src/lib.rs lacks {GATED}"));
    }
    for file in FILES {
        if !package.files.lines().any(|line| line == *file) {
            offences.push(format!("the package would have no {file}"));
        }
    }
    let lines = package.readme.lines().chain(package.docs.iter().map(String::as_str));
    for target in lines.flat_map(targets).filter(|target| leads_out(target, package.files)) {
        offences.push(format!("a link to {target} leads nowhere outside the repository"));
    }
    offences
}

/// The value of a key of `[package]`.
fn value<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    let table = manifest.split_once("[package]\n")?.1;
    let table = table.split_once("\n[").map_or(table, |it| it.0);
    table.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(" = ")?.trim()))
}

/// Where the links `[text](target)` of a line lead.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// Whether a target is a path to a file that is not in the package. Names of items, places in a page and addresses are not.
fn leads_out(target: &str, files: &str) -> bool {
    let is_path = target.contains('/') || target.ends_with(".md");
    let is_address = target.contains("://") || target.starts_with('#');
    let file = target.split('#').next().unwrap_or(target);
    is_path && !is_address && !files.lines().any(|line| line == file)
}

/// A file's text; none if it is not there.
fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_counts_once() {
        let tree =
            "mainstay v0.1.0 (/m)\nbytes v1.12.1\nsyn v2.0.1\nsyn v3.0.1\nbytes v1.12.1 (*)\n";
        assert_eq!(crates_in(tree), 4);
    }

    const MANIFEST: &str = "\
[package]
name = \"mainstay-attic\"
description = \"What is kept.\"
rust-version.workspace = true
license.workspace = true
repository.workspace = true
readme = \"README.md\"
documentation = \"https://docs.rs/mainstay-attic\"
keywords = [\"attic\"]
categories = [\"network-programming\"]

[package.metadata.docs.rs]
all-features = true
rustdoc-args = [\"--cfg\", \"docsrs\"]

[features]
test-util = []
";
    const FILES: &str = "Cargo.toml\nLICENSE-APACHE\nLICENSE-MIT\nREADME.md\nsrc/lib.rs\n";

    fn judged(manifest: &str, files: &str, readme: &str, docs: &[&str], root: &str) -> Vec<String> {
        let docs: Vec<String> = docs.iter().map(|line| (*line).to_owned()).collect();
        offences(&Package { manifest, files, readme, root, docs: &docs })
    }

    #[test]
    fn a_whole_package_passes() {
        let docs =
            ["//! [`Item`](crate::Item), [page](https://example.invalid/a.md), [file](src/lib.rs)"];
        let readme = "# attic\n[below](#below) [licence](LICENSE-MIT)";
        assert_eq!(judged(MANIFEST, FILES, readme, &docs, GATED), Vec::<String>::new());
    }

    /// Each thing that a package must have is missed by name.
    #[test]
    fn whatever_is_taken_away_is_named() {
        for line in MANIFEST.lines().filter(|line| line.contains('=') && !line.starts_with("name"))
        {
            if line == "test-util = []" {
                continue;
            }
            let manifest = MANIFEST.replace(&format!("{line}\n"), "");
            let offences = judged(&manifest, FILES, "", &[], GATED);
            let key = line.split([' ', '.']).next().unwrap_or_default();
            assert!(offences.len() == 1 && offences[0].contains(key), "{line}: {offences:?}");
        }
        for file in super::FILES {
            let files = FILES.replace(&format!("{file}\n"), "");
            let expected = format!("the package would have no {file}");
            assert_eq!(judged(MANIFEST, &files, "", &[], GATED), [expected]);
        }
        assert_eq!(judged(MANIFEST, FILES, "", &[], "").len(), 1);
    }

    #[test]
    fn links_into_the_repository_are_named() {
        let readme = "[the page](../../docs/page.md) and [another](page.md)";
        let docs = ["/// See [there](../docs/there.md#place)."];
        assert_eq!(judged(MANIFEST, FILES, readme, &docs, GATED).len(), 3);
    }

    #[test]
    fn the_crates_of_this_workspace_are_found() {
        let found = published(&crate::house::root()).expect("the directory is there");
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
        assert!(
            names.iter().any(|name| *name == "base") && !names.iter().any(|name| *name == "cli")
        );
    }
}
