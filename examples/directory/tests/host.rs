//! Clients with plain sockets at the port of a real node.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(clippy::disallowed_methods, reason = "real threads and real time")]

use std::cell::Cell;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context as Task, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mainstay::{Config, Durability, Replicated};
use mainstay_base::ClusterId;
use mainstay_directory::host::{self, Options};
use mainstay_directory::resp::{ARGUMENTS_MAX, BULK_BYTES_MAX, Reply, write};
use mainstay_directory::{Client, Directory};
use mainstay_runtime::{ClientListener, ClientStream, LocalFuture, TcpClients};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

const PATIENCE: Duration = Duration::from_secs(20);

/// A node alone, on a thread of its own.
struct Server {
    address: SocketAddr,
    node: Replicated<Directory>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A node that executes commands.
    fn start() -> Self {
        Self::start_with(Options::default())
    }

    fn start_with(options: Options) -> Self {
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            LocalSet::new().block_on(&runtime.unwrap(), async {
                let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
                let nodes = [("a".to_owned(), "127.0.0.1:1".parse().unwrap())].into();
                let config = Config::new(ClusterId::from_entropy(1), "a", nodes)
                    .listen(anywhere)
                    .durability(Durability::Memory)
                    .bootstrap(true);
                let node = Replicated::start(config, Directory::default).unwrap();
                let listener = TcpClients::new(anywhere).unwrap();
                tell.send((listener.local_addr().unwrap(), node.clone())).unwrap();
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    () = host::serve_with(node, Box::new(listener), options, Rc::default()) => {}
                }
            });
        });
        let (address, node) = told.recv_timeout(PATIENCE).unwrap();
        let server = Self { address, node, stop: Some(stop), thread: Some(thread) };
        let deadline = Instant::now() + PATIENCE;
        while Talk::with(&server).ask(&[b"SET", b"ready", b"1"]) != simple("OK") {
            assert!(Instant::now() < deadline, "it executes commands in time");
        }
        server
    }

    /// A number in the answer to INFO.
    fn info(&self, key: &str) -> u64 {
        let Reply::Bulk(Some(text)) = Talk::with(self).ask(&[b"INFO"]) else { panic!("no text") };
        let text = String::from_utf8(text.to_vec()).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("{key}: {text}")).parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join).unwrap().unwrap();
    }
}

/// One client.
struct Talk {
    stream: TcpStream,
    client: Client,
}

impl Talk {
    fn with(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, client: Client::new() }
    }

    fn flush(&mut self) {
        self.stream.write_all(&self.client.take_output()).unwrap();
    }

    fn reply(&mut self) -> Reply {
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(reply) = self.client.poll_reply().unwrap() {
                return reply;
            }
            let size = self.stream.read(&mut buffer).unwrap();
            assert!(size > 0, "it ends before the reply");
            self.client.receive(&buffer[..size]);
        }
    }

    fn ask(&mut self, command: &[&[u8]]) -> Reply {
        self.client.send(command);
        self.flush();
        self.reply()
    }

    /// Until the first byte of an answer is there.
    fn wait(&mut self) {
        assert_eq!(self.stream.peek(&mut [0]).unwrap(), 1);
    }

    fn has_something(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        peeked.is_ok()
    }

    /// All that comes until the other side closes. It may close with bytes of ours unread: then that is the end too.
    fn rest(&mut self) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return all,
                Ok(size) => all.extend_from_slice(&buffer[..size]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
                Err(error) => panic!("it does not close: {error}"),
            }
        }
    }
}

fn simple(text: &str) -> Reply {
    Reply::Simple(text.into())
}

fn bulk(bytes: &[u8]) -> Reply {
    Reply::Bulk(Some(bytes.to_vec().into()))
}

/// Checks that thousands of commands in one stream are executed and answered in their order, more than may be out at once.
#[test]
fn a_pipeline_is_answered_in_order() {
    let server = Server::start();
    let mut talk = Talk::with(&server);
    for number in 0..4_000_u32 {
        let value = number.to_string();
        talk.client.send(&[b"SET", b"k", value.as_bytes()]);
        talk.client.send(&[b"GET", b"k"]);
        talk.client.send(&[b"INCR", b"n"]);
    }
    // Both directions at once, as clients that pipeline do: neither side may wait for the other for ever.
    let output = talk.client.take_output();
    let mut stream = talk.stream.try_clone().unwrap();
    let writer = thread::spawn(move || stream.write_all(&output).unwrap());
    for number in 0..4_000_u32 {
        assert_eq!(talk.reply(), simple("OK"));
        assert_eq!(talk.reply(), bulk(number.to_string().as_bytes()));
        assert_eq!(talk.reply(), Reply::Integer(i64::from(number) + 1));
    }
    writer.join().unwrap();
}

/// Checks that a client that shuts its side still gets all its replies, and then the end.
#[test]
fn a_half_closed_client_gets_all_replies() {
    let server = Server::start();
    let mut talk = Talk::with(&server);
    let value = vec![b'v'; 100_000];
    let mut wanted = Vec::new();
    for _ in 0..20 {
        talk.client.send(&[b"SET", b"k", &value]);
        talk.client.send(&[b"GET", b"k"]);
        write::simple(&mut wanted, "OK");
        write::bulk(&mut wanted, &value);
    }
    let output = talk.client.take_output();
    let mut stream = talk.stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        stream.write_all(&output).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    assert!(talk.rest() == wanted, "all replies, in order, and nothing else");
    writer.join().unwrap();
}

/// Checks the largest value, and that one byte more is refused before it is sent.
#[test]
fn values_are_up_to_512_kib() {
    let server = Server::start();
    let mut talk = Talk::with(&server);
    let value = vec![0xa5; BULK_BYTES_MAX];
    assert_eq!(talk.ask(&[b"SET", b"large", &value]), simple("OK"));
    assert_eq!(talk.ask(&[b"GET", b"large"]), bulk(&value));
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", BULK_BYTES_MAX + 1);
    talk.stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(talk.rest(), b"-ERR Protocol error: invalid bulk length\r\n");
}

/// The memory of this process, in bytes.
#[cfg(target_os = "linux")]
fn memory() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

/// Checks that a client that asks for gigabytes and reads nothing costs neither memory nor the time of the others, and
/// gets its answers when it reads.
#[cfg(target_os = "linux")]
#[test]
fn a_client_that_does_not_read_is_bounded() {
    const VALUES: usize = 24;
    const ASKED: usize = 100;
    let server = Server::start();
    let mut other = Talk::with(&server);
    let keys: Vec<String> = (0..VALUES).map(|number| format!("big{number}")).collect();
    let value = vec![b'x'; BULK_BYTES_MAX];
    for key in &keys {
        assert_eq!(other.ask(&[b"SET", key.as_bytes(), &value]), simple("OK"));
    }
    let mut mget: Vec<&[u8]> = vec![b"MGET"];
    mget.extend(keys.iter().map(String::as_bytes));
    let mut asking = Talk::with(&server);
    (0..ASKED).for_each(|_| asking.client.send(&mget));
    let before = memory();
    asking.flush();
    let mut longest = Duration::ZERO;
    for number in 0..200_u32 {
        let begun = Instant::now();
        // What has been read stays in memory as long as it waits to be written.
        let key = &keys[number as usize % VALUES];
        assert_eq!(other.ask(&[b"SET", key.as_bytes(), &value]), simple("OK"));
        longest = longest.max(begun.elapsed());
    }
    let grown = memory().saturating_sub(before);
    // Of 1.2 GB that were asked for.
    assert!(grown < 150 << 20, "{grown} bytes");
    for _ in 0..3 {
        let Reply::Array(Some(values)) = asking.reply() else { panic!("no values") };
        assert!(values.iter().all(|it| *it == bulk(&value)) && values.len() == VALUES);
    }
    println!("the longest write of another client took {longest:?}");
}

/// Checks that of clients that ask for large answers and read nothing only a few have one: the others get theirs as these go.
#[test]
fn large_answers_wait_for_each_other() {
    const KEYS: usize = 60;
    let mut options = Options::default();
    options.large_rest = PATIENCE;
    let server = Server::start_with(options);
    let mut other = Talk::with(&server);
    let value = vec![b'x'; BULK_BYTES_MAX];
    assert_eq!(other.ask(&[b"SET", b"k", &value]), simple("OK"));
    let mut mget: Vec<&[u8]> = vec![b"k"; KEYS + 1];
    mget[0] = b"MGET";
    let ask = |asking: &mut Talk| {
        asking.client.send(&mget);
        asking.flush();
    };
    let mut few: Vec<_> = (0..4).map(|_| Talk::with(&server)).collect();
    few.iter_mut().for_each(ask);
    few.iter_mut().for_each(Talk::wait);
    let mut late = Talk::with(&server);
    ask(&mut late);
    // A small answer waits for nobody, and by then the large one would have begun.
    for _ in 0..20 {
        assert_eq!(other.ask(&[b"SET", b"k", &value]), simple("OK"));
        assert_eq!(other.ask(&[b"GET", b"k"]), bulk(&value));
    }
    assert!(!late.has_something());
    drop(few.pop());
    let Reply::Array(Some(values)) = late.reply() else { panic!("no values") };
    assert!(values.iter().all(|it| *it == bulk(&value)) && values.len() == KEYS);
    for mut asking in few {
        let Reply::Array(Some(values)) = asking.reply() else { panic!("no values") };
        assert_eq!(values.len(), KEYS);
    }
}

/// Clients that ask for large answers and read nothing are let go one after the other: whoever reads has to wait for a few short rests.
#[test]
fn idle_readers_of_large_answers_are_let_go() {
    const KEYS: usize = 60;
    const IDLE: usize = 12;
    let mut options = Options::default();
    options.large_rest = Duration::from_millis(200);
    let server = Server::start_with(options);
    let mut other = Talk::with(&server);
    let value = vec![b'x'; BULK_BYTES_MAX];
    assert_eq!(other.ask(&[b"SET", b"k", &value]), simple("OK"));
    let mut mget: Vec<&[u8]> = vec![b"k"; KEYS + 1];
    mget[0] = b"MGET";
    let idle: Vec<_> = (0..IDLE).map(|_| Talk::with(&server)).collect();
    for mut asking in idle {
        asking.client.send(&mget);
        asking.flush();
        std::mem::forget(asking);
    }
    let Reply::Array(Some(values)) = other.ask(&mget[..4]) else { panic!("no values") };
    assert_eq!(values.len(), 3);
    let deadline = Instant::now() + PATIENCE;
    while server.info("unread_closed") < IDLE as u64 {
        assert!(Instant::now() < deadline, "all are let go in time");
    }
}

/// A client that always has more to say, and takes every answer at once.
struct Endless {
    left: usize,
    reads: Rc<Cell<usize>>,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
        self.reads.set(self.reads.get() + 1);
        if self.left > 0 {
            self.left -= 1;
            // 16 KiB do not end with a command: the next read goes on where this one ended.
            let at = buffer.remaining() * (self.reads.get() - 1) % PING.len();
            let bytes: Vec<u8> =
                PING.iter().copied().cycle().skip(at).take(buffer.remaining()).collect();
            buffer.put_slice(&bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Accepts one client.
struct Once(Option<Endless>);

impl ClientListener for Once {
    fn accept(&mut self) -> LocalFuture<io::Result<Box<dyn ClientStream>>> {
        match self.0.take() {
            Some(client) => Box::pin(async { Ok(Box::new(client) as Box<dyn ClientStream>) }),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// Checks that a client whose bytes never end does not keep the thread: others have their turn after each read of it.
#[test]
fn a_client_with_much_to_say_lets_others_run() {
    const READS: usize = 300;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (reads, turns) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    LocalSet::new().block_on(&runtime, async {
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let nodes = [("a".to_owned(), "127.0.0.1:1".parse().unwrap())].into();
        let config = Config::new(ClusterId::from_entropy(1), "a", nodes)
            .listen(anywhere)
            .durability(Durability::Memory);
        let node = Replicated::start(config, Directory::default).unwrap();
        let client = Endless { left: READS, reads: Rc::clone(&reads) };
        let serving = host::serve_with(
            node.clone(),
            Box::new(Once(Some(client))),
            Options::default(),
            Rc::default(),
        );
        let serving = tokio::task::spawn_local(serving);
        let other = Rc::clone(&turns);
        while reads.get() <= READS {
            other.set(other.get() + 1);
            tokio::task::yield_now().await;
        }
        serving.abort();
        node.close().await;
    });
    assert!(turns.get() >= READS, "{} turns of others in {READS} reads", turns.get());
}

/// Checks that a client that reads nothing is let go and counted after the time that it has, and no other.
#[test]
fn a_client_that_never_reads_is_let_go() {
    let mut options = Options::default();
    options.write_within = Duration::from_millis(300);
    let server = Server::start_with(options);
    let mut idle = Talk::with(&server);
    let mut other = Talk::with(&server);
    let value = vec![b'x'; BULK_BYTES_MAX];
    assert_eq!(other.ask(&[b"SET", b"k", &value]), simple("OK"));
    let mut deaf = Talk::with(&server);
    (0..100).for_each(|_| deaf.client.send(&[b"GET", b"k"]));
    deaf.flush();
    let deadline = Instant::now() + PATIENCE;
    while server.info("unread_closed") == 0 {
        assert!(Instant::now() < deadline, "it is let go in time");
    }
    assert!(deaf.rest().len() < 100 * value.len());
    assert_eq!(server.info("unread_closed"), 1);
    assert_eq!(idle.ask(&[b"PING"]), simple("PONG"));
}

/// Checks that what is no command costs its connection, is counted, and costs nothing else.
#[test]
fn bad_input_costs_its_connection_alone() {
    let server = Server::start();
    let mut other = Talk::with(&server);
    let before = server.info("protocol_errors");
    let many = format!("*{}\r\n", ARGUMENTS_MAX + 1);
    let deep = "*1\r\n".repeat(100_000);
    let garbage: Vec<u8> = (0..70_000_u32).map(|at| (at * 31 % 251) as u8 | 0x80).collect();
    let bad: [&[u8]; 7] = [
        b"*x\r\n",
        b"*2\r\n$-7\r\n",
        b"*1\r\n$1\r\nPING\r\n",
        many.as_bytes(),
        // Nested arrays: commands have no depth.
        deep.as_bytes(),
        b"SET k \"never closed\n",
        // A line without an end.
        &garbage,
    ];
    for bytes in bad {
        let mut talk = Talk::with(&server);
        let mut stream = talk.stream.try_clone().unwrap();
        let bytes = bytes.to_vec();
        // It may be closed before all is written.
        let writer = thread::spawn(move || drop(stream.write_all(&bytes)));
        let said = talk.rest();
        assert!(said.is_empty() || said.starts_with(b"-ERR Protocol error"), "{said:?}");
        writer.join().unwrap();
    }
    // Cut short: it is no error, and nothing is executed.
    let mut talk = Talk::with(&server);
    talk.stream.write_all(b"*3\r\n$3\r\nSET\r\n$9\r\ntruncated\r\n$5\r\nva").unwrap();
    talk.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(talk.rest(), b"");
    assert_eq!(other.ask(&[b"EXISTS", b"truncated"]), Reply::Integer(0));
    assert_eq!(server.info("protocol_errors") - before, bad.len() as u64);
}

/// Checks that what a page in a browser can have sent writes nothing, is closed and counted, and not as a broken client.
#[test]
fn http_writes_nothing_and_is_counted() {
    let server = Server::start();
    let before = server.info("protocol_errors");
    let heads = ["POST / HTTP/1.1\r\nHost: x\r\n\r\n", "PUT / HTTP/1.1\r\nHost: x\r\n\r\n"];
    for head in heads {
        let mut talk = Talk::with(&server);
        talk.stream.write_all(format!("{head}SET pwned 1\r\n").as_bytes()).unwrap();
        let said = talk.rest();
        assert!(!said.windows(3).any(|part| part == b"+OK"), "{said:?}");
    }
    assert_eq!(Talk::with(&server).ask(&[b"EXISTS", b"pwned"]), Reply::Integer(0));
    assert_eq!(server.info("http_closed"), heads.len() as u64);
    assert_eq!(server.info("protocol_errors"), before);
}

/// Checks that lines of words are refused where they are switched off, and arrays are not.
#[test]
fn inline_commands_can_be_switched_off() {
    let mut options = Options::default();
    options.inline = false;
    let server = Server::start_with(options);
    let mut talk = Talk::with(&server);
    assert_eq!(talk.ask(&[b"SET", b"k", b"v"]), simple("OK"));
    talk.stream.write_all(b"SET k w\r\n").unwrap();
    assert_eq!(talk.rest(), b"-ERR Protocol error: inline commands are switched off\r\n");
    assert_eq!(Talk::with(&server).ask(&[b"GET", b"k"]), bulk(b"v"));

    // An empty line is no command; HTTP is counted as what it is.
    let mut piping = Talk::with(&server);
    piping.stream.write_all(b"\r\n").unwrap();
    assert_eq!(piping.ask(&[b"GET", b"k"]), bulk(b"v"));
    let mut page = Talk::with(&server);
    page.stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k w\r\n").unwrap();
    assert_eq!(page.rest(), b"");
    assert_eq!(server.info("http_closed"), 1);
}

/// Checks that a client that asks for nothing but INFO has one under way at a time.
#[test]
fn info_is_answered_one_by_one() {
    let server = Server::start();
    let mut asking = Talk::with(&server);
    (0..1_000).for_each(|_| asking.client.send(&[b"INFO"]));
    asking.flush();
    for _ in 0..1_000 {
        assert!(matches!(asking.reply(), Reply::Bulk(Some(_))));
    }
}

/// Checks that READONLY and READWRITE are answered, keep their place among other commands, and hold for one connection.
#[test]
fn reads_may_be_local() {
    let server = Server::start();
    let mut talk = Talk::with(&server);
    for word in ["READONLY", "READWRITE"] {
        talk.client.send(&[b"INCR", word.as_bytes()]);
        talk.client.send(&[word.as_bytes()]);
        talk.client.send(&[b"GET", word.as_bytes()]);
        talk.flush();
        assert_eq!(talk.reply(), Reply::Integer(1));
        assert_eq!(talk.reply(), simple("OK"));
        assert_eq!(talk.reply(), bulk(b"1"));
    }
}

/// Checks that clients of a node that has closed are told that nothing was executed, and are counted while they are here.
#[test]
fn clients_of_a_closed_node_are_told() {
    let server = Server::start();
    let mut talk = Talk::with(&server);
    assert_eq!(talk.ask(&[b"SET", b"k", b"1"]), simple("OK"));
    assert!(server.info("connected_clients") >= 2);
    let closing = server.node.clone().close();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(closing);
    for command in [&[&b"SET"[..], b"k", b"2"][..], &[b"GET", b"k"]] {
        let Reply::Error(text) = talk.ask(command) else { panic!("it was executed") };
        assert!(text.starts_with("CLUSTERDOWN"), "{text}");
    }
}
