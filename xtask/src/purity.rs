//! A pure crate builds without its actor, and then depends on no runtime.

use crate::{cargo, house};

/// Builds the machine of `package` alone.
pub(crate) fn builds_alone(package: &str) -> Result<(), String> {
    cargo::run(&["check", "--quiet", "--locked", "--package", package, "--no-default-features"])
}

/// Builds `package` with each one of its optional features alone, the default ones apart.
pub(crate) fn features_build_alone(package: &str, features: &[&str]) -> Result<(), String> {
    features.iter().try_for_each(|feature| {
        let with = ["--no-default-features", "--features", feature];
        let check = ["check", "--quiet", "--locked", "--package", package];
        cargo::run(&[&check[..], &with].concat()).map_err(|error| format!("{feature}: {error}"))
    })
}

/// Looks for an actor runtime below `package`.
pub(crate) fn names_no_runtime(package: &str) -> Result<(), String> {
    let tree = cargo::output(&[
        "tree",
        "--locked",
        "--package",
        package,
        "--no-default-features",
        "--edges=normal",
        "--prefix=none",
        "--format={p}",
    ])?;
    match runtime_in(&tree) {
        None => Ok(()),
        Some(name) => Err(format!("{package} depends on {name} without its default features")),
    }
}

/// The first package in `tree` that is, or belongs to, an actor runtime.
fn runtime_in(tree: &str) -> Option<&str> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).find(|name| {
        house::RUNTIMES.iter().any(|runtime| {
            name.strip_prefix(runtime).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_without_a_runtime_passes() {
        let tree = "mainstay-link v0.1.0 (/tokio/link)\nbytes v1.12.1\ntokiolike v1.0.0\n";
        assert_eq!(runtime_in(tree), None);
    }

    #[test]
    fn a_runtime_is_found_at_any_depth_and_under_its_family_names() {
        assert_eq!(
            runtime_in("mainstay-link v0.1.0\nbytes v1.12.1\ntokio v1.54.1\n"),
            Some("tokio")
        );
        assert_eq!(runtime_in("x v1.0.0\nactix-rt v2.15.0\n"), Some("actix-rt"));
        assert_eq!(runtime_in("x v1.0.0\ntokio-util v0.7.20 (*)\n"), Some("tokio-util"));
    }
}
