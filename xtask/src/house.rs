//! The law of the house as tables: which crate stands on which floor, which are pure, which words purity forbids.
//!
//! A new crate is entered here; `verify` refuses a workspace member that has no place.

use std::path::{Path, PathBuf};

/// Where a package stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// On a floor: imports its own floor and those below.
    Floor(u8),
    /// Beside the house: imports the two lowest floors and its like; services name it as a dev-dependency only.
    Beside,
}

use Place::{Beside, Floor};

/// Every member of the workspace. Floors 0 to 9 are libraries for users; from [`PROGRAMS`] on they are programs, and the test kit of
/// users' programs.
const PLACES: &[(&str, Place)] = &[
    ("mainstay-base", Floor(0)),
    ("mainstay-agreement", Floor(1)),
    ("mainstay-runtime", Floor(1)),
    ("mainstay-stable", Floor(1)),
    ("mainstay-link", Floor(2)),
    ("mainstay-service", Floor(3)),
    ("mainstay-clock", Floor(3)),
    ("mainstay-membership", Floor(3)),
    ("mainstay-multicast", Floor(4)),
    ("mainstay-site", Floor(5)),
    ("mainstay-rpc", Floor(6)),
    ("mainstay-troupe", Floor(7)),
    ("mainstay-paradigm", Floor(8)),
    ("mainstay", Floor(9)),
    ("mainstay-cli", Floor(10)),
    ("mainstay-directory", Floor(10)),
    ("mainstay-harness", Floor(10)),
    ("mainstay-kit", Floor(10)),
    ("mainstay-leader", Floor(10)),
    ("mainstay-bench", Floor(11)),
    ("mainstay-tests", Floor(11)),
    ("xtask", Floor(11)),
    ("mainstay-check", Beside),
    ("mainstay-sim", Beside),
];

/// The lowest floor of programs, which may use what stands beside the house.
const PROGRAMS: u8 = 10;

/// The highest floor that a crate beside the house may import.
const GROUND: u8 = 1;

/// Directories under `crates/` whose machine must build without an actor runtime.
const PURE: &[&str] = &[
    "agreement",
    "base",
    "clock",
    "link",
    "service",
    "stable",
    "membership",
    "multicast",
    "paradigm",
    "rpc",
    "site",
    "troupe",
];

/// Directories under `crates/` with a feature `test-util` that breaks the machine, and a test `faults` that notices.
pub(crate) const BROKEN_VARIANTS: &[&str] =
    &["clock", "link", "service", "membership", "multicast", "paradigm", "rpc", "troupe"];

/// Packages with features of which each builds without the others.
pub(crate) const FAMILIES: &[(&str, &[&str])] = &[
    ("mainstay-rpc", &["actor", "names", "streams", "gateway", "tracing"]),
    (
        "mainstay-clock",
        &[
            "logical",
            "graph",
            "averaging",
            "agreement",
            "synchroniser",
            "probabilistic",
            "interval",
            "external",
            "signed",
            "service",
        ],
    ),
];

/// Packages and their examples that show what a user does; each ends by itself, and fails if what it shows is not so.
pub(crate) const EXAMPLES: &[(&str, &str)] = &[
    ("mainstay-clock", "talk"),
    ("mainstay-stable", "ledger"),
    ("mainstay-link", "talk"),
    ("mainstay-service", "board"),
    ("mainstay-rpc", "bank"),
    ("mainstay-troupe", "counter"),
    ("mainstay", "chat"),
    ("mainstay", "clock"),
    ("mainstay", "jobs"),
    ("mainstay", "mounted"),
    ("mainstay", "six"),
    ("mainstay", "spawned"),
    ("mainstay-kit", "queue"),
    ("mainstay", "views"),
];

/// Packages that no pure crate may depend on; a name with a dash behind it (`tokio-util`) counts as well.
pub(crate) const RUNTIMES: &[&str] = &["tokio", "actix"];

/// What the source of a pure crate may not say: time is an argument, randomness a seed, order never a hash.
pub(crate) const FORBIDDEN: &[&str] =
    &["HashMap", "HashSet", "Instant::now", "SystemTime::now", "thread::spawn", "thread_rng"];

/// The place of `package`, if it has one.
pub(crate) fn place(package: &str) -> Option<Place> {
    PLACES.iter().find(|(name, _)| *name == package).map(|(_, place)| *place)
}

/// Whether a package at `importer` may depend on one at `imported`, dev-dependencies aside.
pub(crate) fn may_import(importer: Place, imported: Place) -> bool {
    match (importer, imported) {
        (Floor(importer), Floor(imported)) => imported <= importer,
        (Floor(importer), Beside) => importer >= PROGRAMS,
        (Beside, Floor(imported)) => imported <= GROUND,
        (Beside, Beside) => true,
    }
}

/// The package in the directory `crates/<directory>`.
pub(crate) fn package(directory: &str) -> String {
    format!("mainstay-{directory}")
}

/// The pure crates that exist under `root`, by directory name.
pub(crate) fn pure_crates(root: &Path) -> Vec<&'static str> {
    let exists =
        |directory: &&str| root.join("crates").join(directory).join("Cargo.toml").is_file();
    PURE.iter().copied().filter(exists).collect()
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_imports_itself_and_what_is_below() {
        assert!(may_import(Floor(3), Floor(2)));
        assert!(may_import(Floor(1), Floor(1)));
        assert!(!may_import(Floor(2), Floor(3)));
    }

    #[test]
    fn what_stands_beside_rests_on_the_ground_and_is_not_built_upon() {
        assert!(may_import(Beside, Floor(1)));
        assert!(!may_import(Beside, Floor(2)));
        assert!(may_import(Beside, Beside));
        assert!(!may_import(Floor(9), Beside));
        assert!(may_import(Floor(10), Beside));
    }

    #[test]
    fn every_pure_crate_has_a_floor_and_no_package_has_two_places() {
        for directory in PURE {
            assert!(matches!(place(&package(directory)), Some(Floor(_))), "{directory}");
        }
        for (index, (name, _)) in PLACES.iter().enumerate() {
            assert!(PLACES[..index].iter().all(|(other, _)| other != name), "{name} twice");
        }
    }

    #[test]
    fn only_pure_crates_that_exist_are_listed() {
        assert!(pure_crates(&root()).contains(&"base"));
        assert!(pure_crates(Path::new("/nowhere")).is_empty());
    }
}
