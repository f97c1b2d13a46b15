//! What a node is given beside its file: variables, flags, directories, of any bytes.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::Command;

use common::{Node, Running, Up, turn};

/// A word that is no UTF-8.
fn odd() -> &'static OsStr {
    OsStr::from_bytes(b"odd\xff")
}

/// A cluster whose nodes have stopped.
fn stopped(home: &std::path::Path) -> PathBuf {
    let up = Up::start(home);
    assert_eq!(up.running.terminate(), Some(0));
    home.join("n1/mainstay.toml")
}

fn node(config: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(["node", "--config"]).arg(config);
    command
}

/// Checks that what the node is not asked to read may hold any bytes, and so may the directories it works in.
#[test]
fn bytes_that_are_no_text_are_nobodys_error() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let config = stopped(home.path());
    let place = home.path().join(odd());
    fs::create_dir(&place).unwrap();
    let mut command = node(&config);
    command.env("X", odd()).env(odd(), odd()).env("PWD", &place).current_dir(&place);
    command.arg("--data-dir").arg(&place).arg("--trace").arg(place.join("trace"));
    let running = Running::of(command);
    Node::read(&running.line());
    assert_eq!(running.terminate(), Some(0));
    assert!(place.join("cell-identity").exists() && place.join("trace").exists());
    // A whole cluster there.
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(["up", "directory", "--dir", "cluster"]).env("X", odd()).current_dir(&place);
    let up = Up::of(Running::of(command), &place.join("cluster"));
    up.nodes[0].answers("SET a 1\r\n", "+OK\r\n");
    assert_eq!(up.running.terminate(), Some(0));
}

/// Checks that a value of the environment that is wrong is told of by the name of its variable, not of the file.
#[test]
fn a_wrong_variable_is_named() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let config = stopped(home.path());
    let said = |name: &str, value: &OsStr| {
        let run = node(&config).env(name, value).output().unwrap();
        assert_eq!(run.status.code(), Some(2), "{name}");
        String::from_utf8(run.stderr).unwrap()
    };
    for (name, value, why) in [
        ("MAINSTAY__RESP", "nowhere", "invalid socket address"),
        ("MAINSTAY__RESP", "192.0.2.1:7", "192.0.2.1:7 is not loopback"),
        ("MAINSTAY__DURABILITY", "paper", "unknown variant `paper`"),
        ("MAINSTAY__CLUSTER", "paper", "is not a UUID"),
        ("MAINSTAY__COLOUR", "red", "unknown field `colour`"),
    ] {
        let said = said(name, value.as_ref());
        let begins = format!("mainstay: {name}: ");
        assert!(said.starts_with(&begins) && said.contains(why), "{said}");
    }
    assert_eq!(said("MAINSTAY__LOG", odd()), "mainstay: MAINSTAY__LOG: not UTF-8\n");
    // It does not fit the file.
    let said = said("MAINSTAY__NODE", "n2".as_ref());
    assert!(said.contains("mainstay.toml: with MAINSTAY__NODE: peers names this node"), "{said}");
}

/// Checks that the address of a peer that cannot be dialled is refused at the start.
#[test]
fn an_address_of_a_peer_that_cannot_be_dialled_is_refused() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let config = stopped(home.path());
    let good = fs::read_to_string(&config).unwrap();
    let line = good.lines().find(|line| line.starts_with("n2 = ")).unwrap();
    for (address, why) in [("10.0.0.1:9", "not loopback"), ("127.0.0.1:0", "port 0")] {
        fs::write(&config, good.replace(line, &format!("n2 = \"{address}\""))).unwrap();
        let run = node(&config).output().unwrap();
        assert_eq!(run.status.code(), Some(2), "{address}");
        let said = String::from_utf8(run.stderr).unwrap();
        let wanted = format!("n1/mainstay.toml: peer \"n2\" at {address}: {why}");
        assert!(said.contains(&wanted), "{said}");
    }
}
