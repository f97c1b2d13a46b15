//! The directory as a replicated state machine.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_base::Position;
use mainstay_directory::resp::CommandParser;
use mainstay_directory::{
    Client, Connection, Directory, KEYS_MAX, Kind, NoRoom, Operation, OperationError, Request,
    command,
};
use mainstay_paradigm::{RestoreError, Snapshot, StateMachine};
use proptest::prelude::*;

fn apply(directory: &mut Directory, kind: Kind, arguments: &[&[u8]]) -> String {
    let command = Operation::new(kind, arguments.iter().copied()).unwrap().encode();
    let mut reply = Vec::new();
    directory.apply(Position(1), &command, &mut reply);
    String::from_utf8(reply).unwrap()
}

fn chunks(mut snapshot: impl Snapshot, max: usize) -> Vec<Bytes> {
    std::iter::from_fn(|| snapshot.next_chunk(max)).collect()
}

fn restored(chunks: &[Bytes]) -> Directory {
    let mut directory = Directory::default();
    for chunk in chunks {
        directory.restore_chunk(chunk).unwrap();
    }
    directory
}

#[test]
fn operations_answer_as_redis_does() {
    let mut d = Directory::default();
    assert_eq!(apply(&mut d, Kind::Get, &[b"k"]), "$-1\r\n");
    assert_eq!(apply(&mut d, Kind::Set, &[b"k", b"v"]), "+OK\r\n");
    assert_eq!(apply(&mut d, Kind::Get, &[b"k"]), "$1\r\nv\r\n");
    assert_eq!(apply(&mut d, Kind::Incr, &[b"n"]), ":1\r\n");
    assert_eq!(apply(&mut d, Kind::Incr, &[b"n"]), ":2\r\n");
    assert_eq!(
        apply(&mut d, Kind::MGet, &[b"n", b"x", b"k"]),
        "*3\r\n$1\r\n2\r\n$-1\r\n$1\r\nv\r\n"
    );
    assert_eq!(apply(&mut d, Kind::Exists, &[b"k", b"k", b"x"]), ":2\r\n");
    assert_eq!(apply(&mut d, Kind::DbSize, &[]), ":2\r\n");
    assert_eq!(apply(&mut d, Kind::Del, &[b"k", b"k", b"x", b"n"]), ":2\r\n");
    assert_eq!(apply(&mut d, Kind::DbSize, &[]), ":0\r\n");
    assert_eq!(d.state_hash(), Directory::default().state_hash());
}

#[test]
fn incr_takes_whole_numbers_only() {
    let mut d = Directory::default();
    let refused = "-ERR value is not an integer or out of range\r\n";
    let texts = ["", "x", "1x", " 1", "+1", "01", "-0", "1.0", "9223372036854775808", "\u{661}"];
    for text in texts {
        apply(&mut d, Kind::Set, &[b"n", text.as_bytes()]);
        assert_eq!(apply(&mut d, Kind::Incr, &[b"n"]), refused, "{text:?}");
        assert_eq!(d.get(b"n").unwrap(), text.as_bytes());
    }
    apply(&mut d, Kind::Set, &[b"n", b"-9223372036854775808"]);
    assert_eq!(apply(&mut d, Kind::Incr, &[b"n"]), ":-9223372036854775807\r\n");
    apply(&mut d, Kind::Set, &[b"n", b"9223372036854775807"]);
    let overflow = "-ERR increment or decrement would overflow\r\n";
    assert_eq!(apply(&mut d, Kind::Incr, &[b"n"]), overflow);
}

#[test]
fn the_directory_is_bounded() {
    let mut d = Directory::new(2 * (128 + 2));
    for key in [b"a", b"b"] {
        assert_eq!(apply(&mut d, Kind::Set, &[key, b"1"]), "+OK\r\n");
    }
    let full = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    assert_eq!(apply(&mut d, Kind::Set, &[b"c", b""]), full);
    assert_eq!(apply(&mut d, Kind::Set, &[b"a", b"22"]), full);
    assert_eq!(apply(&mut d, Kind::Set, &[b"a", b"2"]), "+OK\r\n");
    assert_eq!(apply(&mut d, Kind::Del, &[b"b"]), ":1\r\n");
    assert_eq!(apply(&mut d, Kind::Set, &[b"c", b"3"]), "+OK\r\n");
}

/// An answer in the order is copied by all replicas: it is up to 1 MiB. That to a read shares its values: up to 64 MiB.
#[test]
fn a_reply_is_bounded() {
    let mut d = Directory::default();
    let value = vec![b'v'; 512 << 10];
    apply(&mut d, Kind::Set, &[b"k", &value]);
    assert!(apply(&mut d, Kind::MGet, &[b"k", b"k"]).starts_with("*2\r\n"));
    assert!(apply(&mut d, Kind::MGet, &[b"k", b"k", b"k"]).starts_with("-ERR the values"));
    let read = |keys| d.read(&mget(keys), usize::MAX).unwrap().to_bytes();
    let answer = read(128);
    assert!(answer.starts_with(b"*128\r\n") && answer.len() > 64 << 20);
    assert!(read(129).starts_with(b"-ERR the values"));
}

/// MGET of `k`, so many times.
fn mget(keys: usize) -> command::Read {
    let mut parser = CommandParser::new();
    parser.feed(format!("MGET{}\n", " k".repeat(keys)).as_bytes());
    match command::classify(parser.next_command().unwrap().unwrap()) {
        command::Action::Read(read) => read,
        other => panic!("{other:?}"),
    }
}

/// An answer is given in the room that there is and not in less; either way it is the same bytes as in the order.
#[test]
fn a_read_is_answered_where_there_is_room() {
    for size in [0, 9, 10, 99, 100, 4_095, 4_096, 99_999, 100_000] {
        let mut d = Directory::default();
        apply(&mut d, Kind::Set, &[b"k", &vec![b'v'; size]]);
        let wanted = apply(&mut d, Kind::MGet, &[&b"k"[..]; 3]);
        let read = mget(3);
        assert_eq!(d.read(&read, wanted.len()).unwrap().to_bytes(), wanted);
        let size = wanted.len();
        assert_eq!(d.read(&read, size - 1).unwrap_err(), NoRoom { size });
    }
}

/// Checks MB-80. Entries larger than a chunk are cut and joined, and chunks keep to their size.
#[test]
fn large_entries_are_cut_and_joined() {
    let mut d = Directory::default();
    for key in [b"a", b"b", b"c"] {
        apply(&mut d, Kind::Set, &[key, &vec![key[0]; 300_000]]);
    }
    let chunks = chunks(d.begin_snapshot(), 100_000);
    assert!(chunks.len() == 10 && chunks.iter().all(|chunk| chunk.len() <= 100_000));
    assert_eq!(restored(&chunks).state_hash(), d.state_hash());
    assert_ne!(restored(&chunks[..9]).state_hash(), d.state_hash());
}

#[test]
fn chunks_that_are_none_are_refused() {
    let mut d = Directory::new(300);
    let huge = Err(RestoreError::Chunk("an entry is too large"));
    assert_eq!(d.restore_chunk(&[0xff; 8]), huge);
    let mut other = Directory::default();
    for key in [b"a", b"b", b"c"] {
        apply(&mut other, Kind::Set, &[key, b"v"]);
    }
    let chunk = &chunks(other.begin_snapshot(), 1000)[0];
    let mut d = Directory::new(300);
    assert_eq!(d.restore_chunk(chunk), Err(RestoreError::Chunk("more than settings allow")));
}

/// Checks MB-80. Contents alone decide the bytes of a snapshot: histories that differ in order, in what was overwritten and
/// in what was there in between give the same.
#[test]
fn snapshots_of_equal_contents_are_equal_whatever_the_history() {
    let key = |number: u32| format!("key {number}").into_bytes();
    let (mut upwards, mut downwards) = (Directory::default(), Directory::default());
    for number in 0..3_000_u32 {
        apply(&mut upwards, Kind::Set, &[&key(number), b"value"]);
    }
    for number in (0..9_000_u32).rev() {
        apply(&mut downwards, Kind::Set, &[&key(number), &number.to_le_bytes()]);
    }
    let before = downwards.begin_snapshot();
    for number in 0..9_000_u32 {
        apply(&mut downwards, Kind::Del, &[&key(number)]);
    }
    for number in 0..3_000_u32 {
        apply(&mut downwards, Kind::Set, &[&key(number), b"value"]);
    }
    assert_eq!(upwards.state_hash(), downwards.state_hash());
    let bytes = chunks(upwards.begin_snapshot(), 1_000);
    assert_eq!(chunks(downwards.begin_snapshot(), 1_000), bytes);
    assert_eq!(restored(&bytes).state_hash(), upwards.state_hash());
    assert!(chunks(before, 1_000).concat().len() > 3 * bytes.concat().len() / 2);
}

/// The state and its snapshot may be moved to other threads.
#[test]
fn state_and_snapshot_are_send() {
    fn check<T: Send>() {}
    check::<Directory>();
    check::<<Directory as StateMachine>::Snapshot>();
}

/// The work counts what the size of a command does not show, and never goes back.
#[test]
fn work_grows_with_what_is_copied_behind_a_snapshot() {
    let mut d = Directory::default();
    for number in 0..5_000_u32 {
        apply(&mut d, Kind::Set, &[&number.to_le_bytes(), b"v"]);
    }
    let write = |d: &mut Directory| {
        let before = d.work();
        apply(d, Kind::Set, &[&7_u32.to_le_bytes(), b"w"]);
        d.work() - before
    };
    let plain = write(&mut d);
    let snapshot = d.begin_snapshot();
    let copying = write(&mut d);
    assert!(copying > plain + 500, "{copying} against {plain}");
    assert_eq!(write(&mut d), plain, "copied once");
    drop(snapshot);
}

#[test]
fn keys_of_an_operation_are_bounded() {
    let keys = vec![&b"k"[..]; KEYS_MAX];
    let most = Operation::new(Kind::Del, keys).unwrap().encode();
    assert!(Operation::decode(&most).is_ok());
    let more = [&most[..], &most[1..6]].concat();
    assert_eq!(Operation::decode(&more), Err(OperationError::Arguments));
}

fn operations() -> impl Strategy<Value = (Kind, Vec<Vec<u8>>)> {
    let key = || (0..6u8).prop_map(|key| vec![b'k', key]);
    let value = prop_oneof![any::<i8>().prop_map(|n| n.to_string().into_bytes()), any::<Vec<u8>>()];
    let keys = || prop::collection::vec(key(), 1..4);
    prop_oneof![
        (key(), value).prop_map(|(key, value)| (Kind::Set, vec![key, value])),
        key().prop_map(|key| (Kind::Get, vec![key])),
        key().prop_map(|key| (Kind::Incr, vec![key])),
        keys().prop_map(|keys| (Kind::Del, keys)),
        keys().prop_map(|keys| (Kind::Exists, keys)),
        keys().prop_map(|keys| (Kind::MGet, keys)),
        Just((Kind::DbSize, vec![])),
    ]
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the operation means, said plainly.
fn model(map: &mut Model, kind: Kind, arguments: &[Vec<u8>]) -> Vec<u8> {
    let bulk = |value: Option<&Vec<u8>>| match value {
        None => b"$-1\r\n".to_vec(),
        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
    };
    let count = |count: usize| format!(":{count}\r\n").into_bytes();
    match kind {
        Kind::Set => {
            map.insert(arguments[0].clone(), arguments[1].clone());
            b"+OK\r\n".to_vec()
        }
        Kind::Get => bulk(map.get(&arguments[0])),
        Kind::Del => count(arguments.iter().filter(|key| map.remove(*key).is_some()).count()),
        Kind::Exists => count(arguments.iter().filter(|key| map.contains_key(*key)).count()),
        Kind::DbSize => count(map.len()),
        Kind::MGet => {
            let mut reply = format!("*{}\r\n", arguments.len()).into_bytes();
            arguments.iter().for_each(|key| reply.extend(bulk(map.get(key))));
            reply
        }
        Kind::Incr => {
            let old = map.get(&arguments[0]).map_or(Some(0), |value| {
                let text = String::from_utf8(value.clone()).ok()?;
                text.parse::<i64>().ok().filter(|number| number.to_string() == text)
            });
            let Some(old) = old else {
                return b"-ERR value is not an integer or out of range\r\n".to_vec();
            };
            map.insert(arguments[0].clone(), (old + 1).to_string().into_bytes());
            format!(":{}\r\n", old + 1).into_bytes()
        }
    }
}

proptest! {
    /// Checks PD-30, PD-31. Answers are the model's; hash and snapshot follow from the contents alone.
    #[test]
    fn the_directory_follows_the_model(all in prop::collection::vec(operations(), 0..60), max in 1..200usize) {
        let (mut directory, mut map) = (Directory::default(), Model::new());
        for (kind, arguments) in &all {
            let words = arguments.iter().map(Vec::as_slice);
            let command = Operation::new(*kind, words).unwrap().encode();
            let before = directory.begin_snapshot();
            let bytes = chunks(directory.begin_snapshot(), max);
            let mut reply = Vec::new();
            directory.apply(Position(1), &command, &mut reply);
            prop_assert_eq!(reply, model(&mut map, *kind, arguments));
            prop_assert_eq!(chunks(before, max), bytes, "a snapshot stands still");
        }
        let mut fresh = Directory::default();
        for (key, value) in &map {
            apply(&mut fresh, Kind::Set, &[key, value]);
        }
        prop_assert_eq!(fresh.state_hash(), directory.state_hash());
        let bytes = chunks(directory.begin_snapshot(), max);
        prop_assert_eq!(&chunks(fresh.begin_snapshot(), max), &bytes);
        prop_assert_eq!(restored(&bytes).state_hash(), directory.state_hash());
    }

    /// Checks PD-67. Any bytes have one answer, the same at all replicas; bytes that are no operation change nothing.
    #[test]
    fn any_command_is_answered(commands: Vec<Vec<u8>>) {
        let mut pair = [Directory::default(), Directory::default()];
        for command in &commands {
            let [a, b] = pair.each_mut().map(|directory| {
                let mut reply = Vec::new();
                directory.apply(Position(1), command, &mut reply);
                (reply, directory.state_hash())
            });
            prop_assert!(!a.0.is_empty());
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn no_chunk_makes_it_panic(chunks: Vec<Vec<u8>>) {
        let mut directory = Directory::default();
        let _ = chunks.iter().try_for_each(|chunk| directory.restore_chunk(chunk));
    }

    #[test]
    fn what_is_encoded_is_decoded((kind, arguments) in operations()) {
        let operation = Operation::new(kind, arguments.iter().map(Vec::as_slice)).unwrap();
        let bytes = operation.encode();
        prop_assert_eq!(Operation::decode(&bytes).unwrap(), operation);
    }
}

/// Every key of a command counts, whether it is there or not: a turn may have hundreds of such commands.
#[test]
fn every_key_of_a_command_counts() {
    let mut d = Directory::default();
    apply(&mut d, Kind::Set, &[b"k0", b"v"]);
    let keys: Vec<Vec<u8>> = (0..1_000).map(|number| format!("k{number}").into_bytes()).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for kind in [Kind::Del, Kind::Exists, Kind::MGet] {
        let before = d.work();
        apply(&mut d, kind, &keys);
        assert!(d.work() - before >= 1_000 * 100, "{kind:?}: {}", d.work() - before);
    }
    let mut client = Client::new();
    client.send(&[&[&b"MGET"[..]], &keys[..]].concat());
    let mut connection = Connection::new();
    connection.receive(&client.take_output());
    let Some(Request::Read { read, .. }) = connection.poll_request() else { panic!("no read") };
    let before = d.work();
    assert!(d.read(&read, usize::MAX).is_ok());
    assert!(d.work() - before >= 1_000 * 100, "a read: {}", d.work() - before);
}
