//! What every medium owes to the storage above it; both that this crate ships are held to it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::io::ErrorKind;

use mainstay_stable::{FileMedium, Medium, MemoryMedium, NAME_SIZE_MAX, check_name};

fn check_contract(medium: &dyn Medium) {
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    assert!(medium.list().unwrap().is_empty());
    medium.create("b").unwrap();
    medium.create("a").unwrap();
    assert_eq!(kind(medium.create("a")), ErrorKind::AlreadyExists);
    assert_eq!(medium.list().unwrap(), ["a", "b"]);

    medium.write_at("a", 2, b"cd").unwrap();
    medium.write_at("a", 0, b"ab").unwrap();
    assert_eq!(medium.len("a").unwrap(), 4);
    assert_eq!(medium.read_at("a", 0, 9).unwrap(), b"abcd");
    assert_eq!(medium.read_at("a", 1, 2).unwrap(), b"bc");
    assert_eq!(medium.read_at("a", 7, 2).unwrap(), b"");
    medium.write_at("a", 6, b"g").unwrap();
    assert_eq!(medium.read_at("a", 0, 9).unwrap(), b"abcd\0\0g");
    medium.truncate("a", 3).unwrap();
    medium.sync_data("a").unwrap();
    assert_eq!(medium.read_at("a", 0, 9).unwrap(), b"abc");

    medium.rename("a", "b").unwrap();
    medium.sync_dir().unwrap();
    assert_eq!(medium.list().unwrap(), ["b"]);
    medium.write_at("b", 3, b"!").unwrap();
    assert_eq!(medium.read_at("b", 0, 9).unwrap(), b"abc!");
    medium.remove("b").unwrap();
    medium.sync_dir().unwrap();
    assert!(medium.list().unwrap().is_empty());

    assert_eq!(medium.len("b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(medium.read_at("b", 0, 1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(kind(medium.write_at("b", 0, b"x")), ErrorKind::NotFound);
    assert_eq!(kind(medium.truncate("b", 0)), ErrorKind::NotFound);
    assert_eq!(kind(medium.sync_data("b")), ErrorKind::NotFound);
    assert_eq!(kind(medium.remove("b")), ErrorKind::NotFound);
    assert_eq!(kind(medium.rename("b", "c")), ErrorKind::NotFound);
    for name in ["", "lock", "../x", ".x", "A", "a/b", &"x".repeat(NAME_SIZE_MAX + 1)] {
        assert_eq!(kind(check_name(name)), ErrorKind::InvalidInput);
        assert_eq!(kind(medium.create(name)), ErrorKind::InvalidInput, "{name}");
    }
}

/// Checks the contract of [`Medium`] on the file system.
#[test]
fn a_directory_of_files_keeps_the_contract() {
    let temp = tempfile::tempdir().unwrap();
    check_contract(&FileMedium::open(temp.path().join("site")).unwrap());
}

/// Checks the contract of [`Medium`] in memory.
#[test]
fn a_directory_in_memory_keeps_the_contract() {
    check_contract(&MemoryMedium::new());
}
