//! A client's connection from end to end, the replica behind it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::VecDeque;

use bytes::Bytes;
use mainstay_base::{ClusterId, Incarnation, MessageId, NodeId, Rng, SiteId};
use mainstay_directory::{Client, Connection, Directory, Request, command, resp::Reply};
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
        let (ticket, reply) = match request {
            Request::Write { ticket, payload } => (ticket, self.execute(payload)),
            Request::Read { ticket, read, .. } => {
                (ticket, self.replica.machine().unwrap().read(&read))
            }
            Request::Info { ticket } => return self.connection.answer_info(ticket, "role:member"),
        };
        self.connection.answer(ticket, reply);
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
    let local = server.replica.machine().unwrap().read(&read);
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
