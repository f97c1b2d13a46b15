//! A client's connection from end to end, the replica behind it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};
use mainstay_base::{ClusterId, Incarnation, MessageId, NodeId, Rng, SiteId};
use mainstay_directory::resp::{ProtocolError, Reply, ReplyParser, write};
use mainstay_directory::{Client, Connection, Directory, KEYS_MAX, NoRoom, Request, command};
use mainstay_paradigm::{Config, Outcome, Output, Replica};
use proptest::prelude::*;

/// A connection and a replica; requests wait until the test has them done.
struct Server {
    connection: Connection,
    replica: Replica<Directory>,
    requests: VecDeque<Request>,
}

impl Server {
    fn new() -> Self {
        let config = Config::builder().build().unwrap();
        let replica = Replica::new(config, Directory::default());
        Self { connection: Connection::new(), replica, requests: VecDeque::new() }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.connection.receive(bytes);
        self.poll();
    }

    fn poll(&mut self) {
        self.requests.extend(std::iter::from_fn(|| self.connection.poll_request()));
    }

    /// Orders a payload and gives its answer.
    fn execute(&mut self, payload: Bytes) -> Bytes {
        let node = NodeId::new(ClusterId::from_entropy(1), "a");
        let sender = SiteId { node, incarnation: Incarnation(1) };
        let position = self.replica.position().next();
        let message = MessageId { sender, sequence: position.0 };
        self.replica.deliver(position, message, payload, true).unwrap();
        let outputs: Vec<Output> = std::iter::from_fn(|| self.replica.poll_output()).collect();
        let reply = outputs.iter().find_map(|output| match output {
            Output::Reply { outcome, .. } => Some(command::reply_to(outcome)),
            _ => None,
        });
        reply.unwrap()
    }

    /// Does one request.
    fn perform(&mut self, request: Request) {
        match request {
            Request::Write { ticket, payload } => {
                let reply = self.execute(payload);
                self.connection.answer(ticket, reply);
            }
            Request::Read { ticket, read, local, room } => {
                match self.replica.machine().unwrap().read(&read, room) {
                    Ok(answer) => self.connection.answer(ticket, answer),
                    Err(NoRoom { size }) => self.connection.put_back(ticket, read, local, size),
                }
            }
            Request::Info { ticket } => self.connection.answer_info(ticket, "role:member"),
        }
    }

    /// Does everything and gives what goes to the client.
    fn run(&mut self) -> Bytes {
        let mut output = Vec::new();
        self.poll();
        while let Some(request) = self.requests.pop_front() {
            self.perform(request);
            output.extend(self.connection.take_output());
            self.poll();
        }
        output.extend(self.connection.take_output());
        output.into()
    }
}

/// What a server answers to inline commands.
fn answers(lines: &str) -> String {
    let mut server = Server::new();
    server.receive(lines.as_bytes());
    String::from_utf8(server.run().to_vec()).unwrap()
}

#[test]
fn commands_are_answered_as_redis_does() {
    let arity = |name| format!("-ERR wrong number of arguments for '{name}' command\r\n");
    let cases = [
        ("PING\n", "+PONG\r\n".to_owned()),
        ("ping hello\n", "$5\r\nhello\r\n".to_owned()),
        ("Echo x\n", "$1\r\nx\r\n".to_owned()),
        ("SELECT 0\n", "+OK\r\n".to_owned()),
        ("SELECT 1\n", "-ERR DB index is out of range\r\n".to_owned()),
        ("COMMAND\n", "*0\r\n".to_owned()),
        ("COMMAND DOCS\n", "*0\r\n".to_owned()),
        ("COMMAND COUNT\n", ":16\r\n".to_owned()),
        ("CONFIG GET save\n", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n".to_owned()),
        ("config get appendonly\n", "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n".to_owned()),
        ("CONFIG GET other\n", "*0\r\n".to_owned()),
        ("INFO\n", "$11\r\nrole:member\r\n".to_owned()),
        ("READONLY\n", "+OK\r\n".to_owned()),
        ("READWRITE\n", "+OK\r\n".to_owned()),
        ("GET\n", arity("get")),
        ("get a b\n", arity("get")),
        ("SET k\n", arity("set")),
        ("DEL\n", arity("del")),
        ("DBSIZE x\n", arity("dbsize")),
        ("SET k v EX 5\n", "-ERR SET option EX is not supported\r\n".to_owned()),
        ("SET k v nx\n", "-ERR SET option NX is not supported\r\n".to_owned()),
        ("SET k v huh\n", "-ERR syntax error\r\n".to_owned()),
        (
            "FLUSHALL now\n",
            "-ERR unknown command 'FLUSHALL', with args beginning with: 'now' \r\n".to_owned(),
        ),
        (
            "\"a\\r\\nb\"\n",
            "-ERR unknown command 'a  b', with args beginning with: \r\n".to_owned(),
        ),
        ("SET k v\nGET k\nEXISTS k x\n", "+OK\r\n$1\r\nv\r\n:1\r\n".to_owned()),
    ];
    for (line, answer) in cases {
        assert_eq!(answers(line), answer, "{line}");
    }
}

#[test]
fn quit_answers_what_came_before_and_closes() {
    let mut server = Server::new();
    server.receive(b"SET k v\nQUIT\nPING\n");
    assert!(!server.connection.wants_input() && !server.connection.is_closed());
    assert_eq!(&server.run()[..], b"+OK\r\n+OK\r\n");
    assert!(server.connection.is_closed());
}

#[test]
fn garbage_is_answered_and_closes() {
    let mut server = Server::new();
    server.receive(b"INCR n\n*1\r\n:");
    assert!(!server.connection.is_closed());
    let answer = &b":1\r\n-ERR Protocol error: expected '$', got ':'\r\n"[..];
    assert_eq!(&server.run()[..], answer);
    assert!(server.connection.is_closed());
    server.receive(b"PING\n");
    assert_eq!(&server.run()[..], b"");
}

/// Checks that HTTP executes nothing, whatever stands behind its first lines, and that what came before it is answered.
#[test]
fn http_closes_before_anything_is_executed() {
    let posts = ["POST / HTTP/1.1\r\n", "post x\r\n", "*2\r\n$4\r\nPOST\r\n$1\r\n/\r\n"];
    let other = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n";
    for head in posts.into_iter().chain([other, "Host: x\r\n", "hOST: \r\n"]) {
        let mut server = Server::new();
        server.receive(format!("INCR n\r\n{head}SET pwned 1\r\n\r\nSET pwned 2\r\n").as_bytes());
        let answer = String::from_utf8(server.run().to_vec()).unwrap();
        assert!(answer.starts_with(":1\r\n") && !answer.contains("OK"), "{head:?}: {answer:?}");
        assert!(server.connection.is_closed() && !server.connection.wants_input(), "{head:?}");
        assert_eq!(server.connection.failure(), Some(ProtocolError::Http));
        assert_eq!(server.replica.machine().unwrap().get(b"pwned"), None);
        server.receive(b"SET pwned 3\r\n");
        assert_eq!(&server.run()[..], b"");
    }
    // As values they are what they are.
    assert_eq!(answers("SET POST Host:\nGET POST\n"), "+OK\r\n$5\r\nHost:\r\n");
}

#[test]
fn inline_commands_can_be_switched_off() {
    let mut server = Server::new();
    server.connection = Connection::without_inline();
    server.receive(b"*1\r\n$4\r\nPING\r\n*1\r\n$6\r\nDBSIZE\r\nSET k v\r\n");
    let answer = "+PONG\r\n:0\r\n-ERR Protocol error: inline commands are switched off\r\n";
    assert_eq!(&server.run()[..], answer.as_bytes());
    assert!(server.connection.is_closed());
    assert_eq!(server.replica.machine().unwrap().len(), 0);
}

/// A read waits for the writes before it and a write for the reads before it; answers may come in any order.
#[test]
fn a_pipeline_is_executed_in_order() {
    let mut server = Server::new();
    server.receive(b"SET k 1\nINCR k\nGET k\nDBSIZE\nPING\nSET k 5\nGET k\n");
    assert_eq!(server.requests.len(), 2, "the writes");
    assert!(!server.connection.wants_input());
    let requests = std::mem::take(&mut server.requests);
    requests.into_iter().for_each(|write| server.perform(write));
    server.poll();
    assert_eq!(server.requests.len(), 2, "the reads");
    assert_eq!(&server.connection.take_output()[..], b"+OK\r\n:2\r\n");
    let requests = std::mem::take(&mut server.requests);
    let [first, second] = <[Request; 2]>::try_from(Vec::from(requests)).unwrap();
    server.perform(second);
    server.poll();
    assert!(server.connection.take_output().is_empty() && server.requests.is_empty());
    server.perform(first);
    assert_eq!(&server.run()[..], b"$1\r\n2\r\n:1\r\n+PONG\r\n+OK\r\n$1\r\n5\r\n");
}

#[test]
fn reads_are_local_between_readonly_and_readwrite() {
    let mut server = Server::new();
    server.receive(b"GET a\nREADONLY\nGET b\nREADWRITE\nGET c\n");
    let local = |request: &Request| matches!(request, Request::Read { local: true, .. });
    assert_eq!(server.requests.iter().map(local).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn a_read_can_be_ordered_instead() {
    let mut server = Server::new();
    server.receive(b"SET k v\n");
    server.run();
    server.receive(b"MGET k x\n");
    let Some(Request::Read { read, .. }) = server.requests.pop_front() else { panic!() };
    let local = server.replica.machine().unwrap().read(&read, 100).unwrap().to_bytes();
    assert_eq!(server.execute(read.ordered()), local);
    assert_eq!(&local[..], b"*2\r\n$1\r\nv\r\n$-1\r\n");
}

#[test]
fn requests_and_output_are_bounded() {
    let mut server = Server::new();
    server.receive("INCR n\n".repeat(2_000).as_bytes());
    assert_eq!(server.requests.len(), 1_024);
    let ticket = |request: Option<&Request>| match request {
        Some(Request::Write { ticket, .. }) => *ticket,
        other => panic!("{other:?}"),
    };
    let oldest = ticket(server.requests.front());
    let reply = Bytes::from(vec![b'x'; 1 << 20]);
    server.connection.answer(oldest, reply);
    server.connection.answer(oldest, Bytes::from_static(b"twice"));
    server.poll();
    assert_eq!(server.requests.len(), 1_024, "the output is full");
    assert_eq!(server.connection.take_output().len(), 1 << 20);
    server.poll();
    assert_eq!(server.requests.len(), 1_025);
}

/// Directory with `count` values of `size` bytes at `big0` and so on.
fn with_values(count: usize, size: usize) -> Server {
    let mut server = Server::new();
    for number in 0..count {
        let (mut command, key) = (Vec::new(), format!("big{number}"));
        write::command(&mut command, &[b"SET", key.as_bytes(), &vec![b'x'; size]]);
        server.receive(&command);
        assert_eq!(&server.run()[..], b"+OK\r\n");
    }
    server
}

/// Sends `count` times an MGET of all and a GET, in between what `inline` says; gives the most bytes of answers that
/// were there before the client read any, and whether all answers come in the end.
fn reads_without_reading(keys: usize, size: usize, count: usize) -> usize {
    let mut server = with_values(keys, size);
    let mget: String = (0..keys).map(|number| format!(" big{number}")).collect();
    let commands = format!("MGET{mget}\nECHO hello\nGET big0\nEXISTS big0 big1\n").repeat(count);
    let (mut rest, mut most, mut done) = (commands.as_bytes(), 0, 0);
    let mut parser = ReplyParser::new();
    while done < 4 * count {
        // All that can be done without the client: what has been answered is there, in the output or before it.
        let mut answered = 0;
        loop {
            while !rest.is_empty() && server.connection.wants_input() {
                let (piece, behind) = rest.split_at(rest.len().min(16 << 10));
                server.receive(piece);
                rest = behind;
            }
            let Some(request) = server.requests.pop_front() else { break };
            if let Request::Read { read, room, .. } = &request {
                let answer = server.replica.machine().unwrap().read(read, *room);
                answered += answer.map_or(0, |answer| answer.len());
            }
            server.perform(request);
            server.poll();
        }
        most = most.max(answered);
        // The client reads a little.
        let output = server.connection.output();
        let size = output.remaining().min(300_000);
        assert!(size > 0, "it stands still after {done}");
        parser.feed(&output.copy_to_bytes(size));
        server.poll();
        while let Some(reply) = parser.next_reply().unwrap() {
            match (done % 4, reply) {
                (0, Reply::Array(Some(values))) => assert_eq!(values.len(), keys),
                (1, Reply::Bulk(Some(text))) => assert_eq!(&text[..], b"hello"),
                (2, Reply::Bulk(Some(value))) => assert_eq!(value.len(), size_of_value(&server)),
                (3, Reply::Integer(count)) => assert_eq!(count, 2),
                (place, reply) => panic!("{place}: {reply:?}"),
            }
            done += 1;
        }
    }
    most
}

fn size_of_value(server: &Server) -> usize {
    server.replica.machine().unwrap().get(b"big0").unwrap().len()
}

/// A client that asks for much and reads nothing has 1 MiB of answers here, or one that is longer; all answers come in
/// their order as soon as it reads.
#[test]
fn answers_are_bounded_in_bytes_whatever_is_asked_for() {
    const ROOM: usize = 1 << 20;
    assert!(reads_without_reading(8, 1_000, 100) <= ROOM);
    assert!(reads_without_reading(4, 60_000, 40) <= ROOM);
    let large = 20 * (512 << 10);
    let most = reads_without_reading(20, 512 << 10, 20);
    assert!(
        (large..large + ROOM).contains(&most),
        "{most}: one that is larger than the room is alone"
    );
}

/// Answers that wait for an older one count, too.
#[test]
fn answers_that_wait_for_their_turn_are_bounded() {
    let mut server = Server::new();
    let mut echo = Vec::new();
    write::command(&mut echo, &[b"ECHO", &[b'x'; 100_000]]);
    server.receive(b"INCR n\n");
    let mut taken = 0;
    while taken < 100 && server.connection.wants_input() {
        server.receive(&echo);
        server.poll();
        taken += 1;
    }
    // A mebibyte of answers, and as much of commands.
    assert!(taken < 23, "{taken}");
    assert!(server.connection.take_output().is_empty());
    let output = server.run();
    assert_eq!(output.len(), ":1\r\n".len() + taken * (100_000 + "$100000\r\n\r\n".len()));
}

/// Requests that are out are bounded in bytes and in keys, not in their number alone.
#[test]
fn what_is_out_is_bounded_in_bytes_and_keys() {
    let mut server = Server::new();
    let mut set = Vec::new();
    write::command(&mut set, &[b"SET", b"k", &[b'x'; 100_000]]);
    while server.connection.wants_input() {
        server.receive(&set);
    }
    assert_eq!(server.requests.len(), 11, "a mebibyte and what passes it");
    for name in ["MGET", "DEL", "EXISTS"] {
        let mut server = Server::new();
        server.receive(format!("{name}{}\n", " k".repeat(1_000)).repeat(20).as_bytes());
        assert!((1..=3).contains(&server.requests.len()), "{name}");
    }
}

#[test]
fn keys_of_a_command_are_bounded() {
    for name in ["MGET", "DEL", "EXISTS"] {
        let text = |keys| answers(&format!("{name}{}\n", " k".repeat(keys)));
        assert!(!text(KEYS_MAX).starts_with('-'));
        assert_eq!(text(KEYS_MAX + 1), "-ERR more than 1024 keys in one command\r\n");
    }
}

/// Input is refused while much is held back, and wanted again when it is gone: a slow group slows the client.
#[test]
fn input_is_bounded() {
    let mut server = Server::new();
    let line = "INCR n\n".repeat(10_000);
    let mut count = 0;
    while server.connection.wants_input() {
        server.receive(line.as_bytes());
        count += 10_000;
    }
    assert!(count * 7 < (1 << 20) + 2 * line.len());
    let output = server.run();
    assert_eq!(output.iter().filter(|byte| **byte == b':').count(), count);
    assert!(server.connection.wants_input());
}

#[test]
fn outcomes_that_no_session_gives_have_an_answer() {
    let answer = command::reply_to(&Outcome::Skipped);
    assert_eq!(&answer[..], b"-ERR the command was skipped by an operator\r\n");
    assert_eq!(&command::reply_to(&Outcome::Malformed)[..], command::UNKNOWN_FATE);
}

#[test]
fn the_client_matches_replies_in_order() {
    let (mut server, mut client) = (Server::new(), Client::new());
    client.send(&[b"SET", b"k", b"v"]);
    client.send(&[b"MGET", b"k", b"x"]);
    client.send(&[b"NONE"]);
    assert_eq!((client.unanswered(), client.poll_reply()), (3, Ok(None)));
    server.receive(&client.take_output());
    for byte in server.run() {
        client.receive(&[byte]);
    }
    assert_eq!(client.poll_reply(), Ok(Some(Reply::Simple("OK".into()))));
    let values = vec![Reply::Bulk(Some("v".into())), Reply::Bulk(None)];
    assert_eq!(client.poll_reply(), Ok(Some(Reply::Array(Some(values)))));
    assert!(matches!(client.poll_reply(), Ok(Some(Reply::Error(_)))));
    assert_eq!((client.unanswered(), client.take_output().len()), (0, 0));
}

proptest! {
    /// Any pipeline, cut anywhere and answered in any order that the host may choose, is answered as if one by one.
    #[test]
    fn pipelining_changes_nothing(
        commands in prop::collection::vec(
            prop::sample::select(vec![
                "SET a 1\n", "INCR a\n", "INCR b\n", "GET a\n", "GET b\n", "DEL a b\n", "MGET a b\n", "DBSIZE\n",
                "PING\n", "READONLY\n", "INFO\n", "NONE\n", "GET\n",
            ]), 0..40),
        seed: u64,
    ) {
        let (mut single, mut expected) = (Server::new(), Vec::new());
        for command in &commands {
            single.receive(command.as_bytes());
            expected.extend(single.run());
        }
        let (mut server, mut got, mut rng) = (Server::new(), Vec::new(), Rng::new(seed));
        let all = commands.concat();
        let mut rest = all.as_bytes();
        while !rest.is_empty() || !server.requests.is_empty() {
            if !rest.is_empty() && server.connection.wants_input() && rng.chance(1, 2) {
                let (piece, behind) = rest.split_at(rng.between(1, rest.len() as u64) as usize);
                server.receive(piece);
                rest = behind;
            } else if !server.requests.is_empty() {
                // Writes are done in order; reads in any.
                let count = server.requests.len() as u64;
                let writes = server.requests.iter().any(|r| matches!(r, Request::Write { .. }));
                let index = if writes { 0 } else { rng.below(count) as usize };
                let request = server.requests.remove(index).unwrap();
                server.perform(request);
            }
            got.extend(server.connection.take_output());
            server.poll();
        }
        prop_assert_eq!(got, expected);
        prop_assert_eq!(server.replica.state_hash(), single.replica.state_hash());
    }
}
