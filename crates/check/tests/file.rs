//! The files of traces: what they look like, and what is read of them.

use std::fs;
use std::path::Path;

use mainstay_base::trace::{Event, GroupWord, MembershipWord, ProcessWord, What};
use mainstay_base::{
    BootId, BootNonce, ClusterId, GroupId, Incarnation, Instant, Level, MessageId, NodeId, Order,
    Position, SiteId, ViewId,
};
use mainstay_check::Verdict;
use mainstay_check::file::{self, BYTES_MAX, Head, ReadError, Writer, read};

fn cluster() -> ClusterId {
    ClusterId::from_entropy(1)
}

fn head() -> Head {
    let nodes = ["b".to_owned(), "a".to_owned()];
    Head::new(cluster(), "a", nodes, ["g".to_owned()], 5)
}

fn event(number: u64, what: What) -> Event {
    let boot = BootId { node: NodeId::new(cluster(), "a"), nonce: BootNonce(u128::MAX) };
    Event { boot, number, at: Instant::from_nanos(10 * number), what }
}

/// One of each kind.
fn events() -> Vec<Event> {
    let (node, group) = (NodeId::new(cluster(), "a"), GroupId::new(cluster(), "g"));
    let site = SiteId { node, incarnation: Incarnation(2) };
    let (view, message) =
        (ViewId { number: 3, nonce: 255 }, MessageId { sender: site, sequence: 4 });
    let (members, position) = (vec![site], Position(9));
    let order = Order::Total;
    let all = [
        What::Process(ProcessWord::Started),
        What::Membership(MembershipWord::Installed {
            view,
            members: members.clone(),
            roster: vec![node],
        }),
        What::Group(GroupWord::Installed { group, view, members, position }),
        What::Group(GroupWord::Restored { group, position }),
        What::Group(GroupWord::Cast { group, message, order }),
        What::Group(GroupWord::Delivered { group, view, message, order, position: Some(position) }),
        What::Group(GroupWord::Delivered {
            group,
            view,
            message,
            order: Order::Fifo,
            position: None,
        }),
        What::Group(GroupWord::Acknowledged { group, message, position, level: Level::Disk }),
        What::Group(GroupWord::MaybeLost { group, from: position }),
        What::Membership(MembershipWord::Killed),
        What::Process(ProcessWord::Crashed),
    ];
    (0..).zip(all).map(|(number, what)| event(number, what)).collect()
}

fn encoded(events: &[Event]) -> String {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &head(), BYTES_MAX).expect("the head is right");
    events.iter().for_each(|event| writer.event(event).expect("the head names all"));
    writer.stopped().and_then(|()| writer.flush()).expect("memory takes all");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// Golden: the lines of version 1 may never change.
#[test]
fn the_lines_are_frozen() {
    let golden = r#"
{"trace":{"version":1,"cluster":"00000000-0000-4000-8000-000000000001","node":"a","nodes":["a","b"],"groups":["g"],"began_ms":5}}
{"started":{"n":0,"at":0,"boot":"ffffffffffffffffffffffffffffffff"}}
{"view":{"n":1,"at":10,"view":"3:ff","members":["a/2"],"roster":["a"]}}
{"group_view":{"n":2,"at":20,"group":"g","view":"3:ff","members":["a/2"],"position":9}}
{"restored":{"n":3,"at":30,"group":"g","position":9}}
{"cast":{"n":4,"at":40,"group":"g","message":"a/2.4","order":"Total"}}
{"delivered":{"n":5,"at":50,"group":"g","view":"3:ff","message":"a/2.4","order":"Total","position":9}}
{"delivered":{"n":6,"at":60,"group":"g","view":"3:ff","message":"a/2.4","order":"Fifo","position":null}}
{"acknowledged":{"n":7,"at":70,"group":"g","message":"a/2.4","position":9,"level":"Disk"}}
{"maybe_lost":{"n":8,"at":80,"group":"g","from":9}}
{"killed":{"n":9,"at":90}}
{"crashed":{"n":10,"at":100}}
{"stopped":{}}
"#;
    assert_eq!(encoded(&events()), golden.trim_start());
}

#[test]
fn every_kind_of_event_is_read_as_it_was_written() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a-1.jsonl");
    fs::write(&path, encoded(&events())).unwrap();
    let recorded = read(&[home.path().to_owned()]).unwrap();
    assert_eq!(recorded.run.events(), events());
    assert_eq!((recorded.run.boots(), recorded.truncated.len()), ((1, 0), 0));
    assert_eq!(recorded.missing, ["b"]);
}

/// A file that has all the bytes it may have ends with a line that says so, and is judged as far as it goes.
#[test]
fn a_full_file_says_that_it_is() {
    let home = tempfile::tempdir().unwrap();
    let (path, file) = file::create(home.path(), "a").unwrap();
    let mut writer = Writer::new(file, &head(), 4 << 10).unwrap();
    let group = GroupId::new(cluster(), "g");
    let lost = |number| What::Group(GroupWord::MaybeLost { group, from: Position(number) });
    writer.event(&event(0, What::Process(ProcessWord::Started))).unwrap();
    let full = (1..1_000).find_map(|number| writer.event(&event(number, lost(number))).err());
    let why = full.expect("the bound holds").to_string();
    writer.truncated(&why).and_then(|()| writer.flush()).unwrap();
    assert!((3 << 10..5 << 10).contains(&fs::metadata(&path).unwrap().len()));
    let recorded = read(&[path]).unwrap();
    assert!(recorded.run.events().len() > 50);
    assert_eq!((recorded.run.boots(), recorded.truncated.len()), ((1, 1), 1));
    assert!(recorded.truncated[0].ends_with("the file is full"), "{:?}", recorded.truncated);
    assert!(recorded.run.judge().iter().all(|it| !matches!(it.verdict, Verdict::Broken(_))));
}

#[test]
fn an_event_about_a_stranger_is_refused() {
    let mut writer = Writer::new(Vec::new(), &head(), BYTES_MAX).unwrap();
    let group = GroupId::new(cluster(), "another");
    let error = writer
        .event(&event(0, What::Group(GroupWord::MaybeLost { group, from: Position(1) })))
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

/// Only the last line may be torn: its process was killed. All else is damage, and said with its place.
#[test]
fn a_torn_end_is_read_and_damage_is_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a-1.jsonl");
    let read_text = |text: &str| {
        fs::write(&path, text).unwrap();
        read(std::slice::from_ref(&path))
    };
    let whole = encoded(&events()[..3]);
    let torn = read_text(&whole[..whole.len() - "{\"stopped\":{}}\n".len() - 5]).unwrap();
    assert_eq!((torn.run.events().len(), torn.run.boots()), (2, (1, 1)));

    let damaged = read_text(&whole.replace("\"view\"", "\"vista\""));
    let Err(ReadError::Damaged { line: 3, .. }) = damaged else { panic!("no damage in line 3") };
    let late = read_text(&format!("{whole}{{\"stopped\":{{}}}}\n"));
    assert!(matches!(late, Err(ReadError::Damaged { .. })));
    let nothing = read(&[home.path().join("nowhere")]);
    assert!(matches!(nothing, Err(ReadError::Io { .. })));
}

#[test]
fn files_of_two_clusters_are_no_run() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("a-1.jsonl"), encoded(&events())).unwrap();
    let other =
        encoded(&[]).replace(&cluster().to_string(), &ClusterId::from_entropy(2).to_string());
    fs::write(home.path().join("a-2.jsonl"), other).unwrap();
    assert!(matches!(read(&[home.path().to_owned()]), Err(ReadError::Foreign(_))));
}

/// A name cannot lead out of the directory.
#[test]
fn a_name_that_is_a_path_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for name in ["../a", "a/b", "..", ""] {
        assert!(file::create(home.path(), name).is_err(), "{name}");
    }
    let name = |path: &Path| path.file_name().unwrap().to_owned();
    let number = |_| name(&file::create(home.path(), "a").unwrap().0);
    assert_eq!([1, 2].map(number), ["a-1.jsonl", "a-2.jsonl"]);
}
