//! The gate. Reads only; the cheap steps come first.

use crate::steps::{Verdict, step};
use crate::{cargo, edges, floors, house, packages, purity, words};

/// Runs every step.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run() -> Result<(), String> {
    let root = house::root();
    let pure = house::pure_crates(&root);

    step("formatting", || passed(cargo::run(&["fmt", "--all", "--check"])))?;
    step("floors", || passed(floors::check()))?;
    step("dependencies between crates", || passed(edges::check(&root)))?;
    step("packages: words, licences, pages", || passed(packages::check(&root)))?;
    step("stable: no serde", || passed(packages::stable_stands_alone()))?;
    step("a client, a link: of few crates", || passed(packages::picks_are_small()))?;
    for directory in &pure {
        let name = format!("{directory}: no clock, thread, hash order or hidden randomness");
        step(&name, || passed(words::check(&root, directory)))?;
    }
    for directory in &pure {
        let package = house::package(directory);
        let name = format!("{directory}: no runtime below the machine");
        step(&name, || passed(purity::names_no_runtime(&package)))?;
        let name = format!("{directory}: the machine builds alone");
        step(&name, || passed(purity::builds_alone(&package)))?;
    }
    for (package, features) in house::FAMILIES {
        let name = format!("{package}: each feature builds alone");
        step(&name, || passed(purity::features_build_alone(package, features)))?;
    }
    step("clippy", || {
        passed(cargo::run(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--locked",
            "--",
            "--deny=warnings",
        ]))
    })?;
    step("documentation", || {
        passed(cargo::run_with(
            ("RUSTDOCFLAGS", "-D warnings"),
            &["doc", "--quiet", "--workspace", "--all-features", "--no-deps", "--locked"],
        ))
    })?;
    step("examples in the documentation", || {
        passed(cargo::run(&[
            "test",
            "--quiet",
            "--workspace",
            "--doc",
            "--all-features",
            "--locked",
        ]))
    })?;
    for (package, example) in house::EXAMPLES {
        step(&format!("{package}: the example {example} runs"), || {
            let run = ["run", "--quiet", "--package", package, "--example", example, "--locked"];
            passed(cargo::run(&run))
        })?;
    }
    for directory in house::BROKEN_VARIANTS {
        let package = house::package(directory);
        let name = format!("{directory}: its checks notice deliberately broken variants");
        step(&name, || {
            passed(cargo::run(&[
                "test",
                "--quiet",
                "--package",
                &package,
                "--features",
                "test-util",
                "--test",
                "faults",
                "--locked",
            ]))
        })?;
    }
    step("licences, bans and sources", || {
        if !cargo::has("deny") {
            return Ok(Verdict::Skipped("cargo-deny is not installed"));
        }
        passed(cargo::run(&["deny", "--locked", "check", "bans", "licenses", "sources"]))
    })?;
    println!("verify: all steps passed or were skipped as said above");
    Ok(())
}

fn passed(outcome: Result<(), String>) -> Result<Verdict, String> {
    outcome.map(|()| Verdict::Passed)
}
