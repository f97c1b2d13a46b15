//! The table `[clock]` of real nodes: their clocks are kept together by an algorithm that signs, and by datagrams over UDP.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::{Up, mainstay, turn, until};
use serde_json::Value;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// The first figure of this name, of this other node.
fn figure<'a>(status: &'a Value, name: &str, node: &str) -> Option<&'a Value> {
    let clock = status["services"].as_array()?.iter().find(|it| it["kind"] == "clock")?;
    clock["figures"]
        .as_array()?
        .iter()
        .find(|it| it["name"] == name && it["node"].as_str().unwrap_or_default() == node)
}

/// Adds a table `[clock]` to the configuration of each node.
fn add(configs: &[String], clock: &str) {
    for config in configs {
        let text = fs::read_to_string(config).unwrap();
        fs::write(config, text + clock).unwrap();
    }
}

/// Whether each clock is synchronised and reads both others.
fn all_read_all(up: &Up) -> bool {
    NAMES.iter().zip(up.status()).all(|(me, status)| {
        let is_one = |name, node| figure(&status, name, node).is_some_and(|it| it["value"] == 1.0);
        let others = NAMES.iter().filter(|name| *name != me);
        is_one("synchronised", "") && others.into_iter().all(|name| is_one("source_used", name))
    })
}

/// Makes a secret key; the public one.
fn key(file: &Path) -> String {
    let made = mainstay(&["clock-key", file.to_str().unwrap()]);
    assert!(made.status.success());
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// Nodes with keys of datagrams read each other's clocks by UDP, with stamps: one that has another key is not heard, until it has the right one.
#[test]
fn nodes_with_keys_of_datagrams_read_clocks_by_udp() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    let configs = NAMES.map(|name| up.config(name));
    assert_eq!(up.running.terminate(), Some(0));
    let clock = "\n[clock]\nalgorithm = \"midpoint\"\nfaulty = 0\nperiod_ms = 400\nreading = \"stamped-round-trip\"\n";
    add(&configs, &format!("{clock}datagram_keys = \"udp.key\"\n"));
    let file = |name: &str| home.path().join(name).join("udp.key");
    key(&file("n1"));
    fs::copy(file("n1"), file("n2")).unwrap();
    key(&file("n3"));
    let up = Up::start(home.path());
    until("what has another key is refused, and nobody is synchronised", || {
        up.status().iter().all(|it| it["refused"]["datagram-forged"].as_u64() > Some(3))
    });
    for status in up.status() {
        assert_eq!(figure(&status, "synchronised", "").unwrap()["value"], 0.0);
    }
    assert_eq!(up.running.terminate(), Some(0));
    fs::copy(file("n1"), file("n3")).unwrap();
    let up = Up::start(home.path());
    until("each clock is synchronised and reads both others", || all_read_all(&up));
    assert_eq!(up.running.terminate(), Some(0));
    // Without datagrams nothing is stamped.
    let text = fs::read_to_string(&configs[0]).unwrap();
    fs::write(&configs[0], text.replace("datagram_keys", "# datagram_keys")).unwrap();
    let refused = mainstay(&["node", "--config", &configs[0]]);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("midpoint by stamped-round-trip needs datagrams by UDP"), "{why}");
    assert_eq!(refused.status.code(), Some(2));
}

/// Nodes with keys of `mainstay clock-key` synchronise by CSM, and `mainstay status` shows the bound, the error and each other clock.
#[test]
fn nodes_with_keys_keep_their_clocks_together_and_say_so() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let up = Up::start(home.path());
    let configs = NAMES.map(|name| up.config(name));
    assert_eq!(up.running.terminate(), Some(0));
    let mut clock = "\n[clock]\nalgorithm = \"csm\"\nfaulty = 1\nperiod_ms = 400\n".to_owned();
    clock.push_str("secret_file = \"clock.key\"\n\n[clock.publics]\n");
    for name in NAMES {
        let public = key(&home.path().join(name).join("clock.key"));
        writeln!(clock, "{name} = {public:?}").unwrap();
    }
    add(&configs, &clock);
    let up = Up::start(home.path());
    until("each clock is synchronised and reads both others", || all_read_all(&up));
    for status in up.status() {
        assert_eq!(figure(&status, "algorithm", "").unwrap()["word"], "csm");
        let number = |name| figure(&status, name, "").and_then(|it| it["value"].as_f64());
        let bound = number("precision_bound_seconds").unwrap();
        // Messages may take 20 ms.
        assert!((0.01..0.5).contains(&bound), "{bound}");
        assert_eq!(number("accuracy_bound_seconds"), None, "nothing is followed");
    }
    let shown = mainstay(&["status", "--dir", home.path().to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    for wanted in ["precision bound ", "time error ", "source used 1 (used)"] {
        assert!(shown.lines().filter(|line| line.contains(wanted)).count() >= 3, "{shown}");
    }
    assert_eq!(up.running.terminate(), Some(0));
}
