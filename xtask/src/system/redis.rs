//! The clients of Redis as Debian ships them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use super::cluster::{Cluster, Home, ensure, values};
use super::tools::{is_there, text};
use crate::steps::Verdict;

/// What is typed, and what redis-cli prints.
const COMMANDS: [(&[&str], &str); 22] = [
    (&["PING"], "PONG"),
    (&["PING", "hello"], "hello"),
    (&["ECHO", "a b"], "a b"),
    (&["SELECT", "0"], "OK"),
    (&["SELECT", "1"], "ERR DB index is out of range"),
    (&["SET", "key", "a value"], "OK"),
    (&["GET", "key"], "a value"),
    (&["GET", "nothing"], ""),
    (&["SET", "key", "1", "EX", "5"], "ERR SET option EX is not supported"),
    (&["SET", "n", "41"], "OK"),
    (&["INCR", "n"], "42"),
    (&["INCR", "key"], "ERR value is not an integer or out of range"),
    (&["MGET", "key", "nothing", "n"], "a value\n\n42"),
    (&["EXISTS", "key", "key", "nothing"], "2"),
    (&["DBSIZE"], "2"),
    (&["DEL", "key", "nothing"], "1"),
    (&["EXISTS", "key"], "0"),
    (&["READONLY"], "OK"),
    (&["READWRITE"], "OK"),
    (&["CONFIG", "GET", "save"], "save\n"),
    (&["COMMAND", "COUNT"], "16"),
    (&["QUIT"], "OK"),
];
/// Writes of one mass insertion.
const MASS: usize = 2_000;

/// Each command, at each node in turn, then a mass insertion and the largest value.
pub(super) fn commands() -> Result<Verdict, String> {
    if !is_there("redis-cli") {
        return Ok(Verdict::Skipped("redis-cli is not installed"));
    }
    let home = Home::new("redis")?;
    let cluster = Cluster::start(&home, &[], &[])?;
    for (index, (words, wanted)) in COMMANDS.iter().enumerate() {
        let said = cluster.ask(index % 3, words)?;
        ensure(said == wanted.trim_end(), || format!("{words:?}: {said:?}, not {wanted:?}"))?;
    }
    let info = cluster.ask(0, &["INFO"])?;
    ensure(info.contains("members:3"), || format!("INFO: {info}"))?;
    let unknown = cluster.ask(0, &["HGET", "h", "f"])?;
    ensure(unknown.starts_with("ERR unknown command 'HGET'"), || format!("HGET: {unknown}"))?;

    let mass: String = (0..MASS).map(|number| format!("SET mass{number} {number}\r\n")).collect();
    let said = with_input(&cluster, &["--pipe"], mass.as_bytes())?;
    let wanted = format!("errors: 0, replies: {MASS}");
    ensure(said.contains(&wanted), || format!("redis-cli --pipe: {said}"))?;
    // More than a node takes at once: it is slowed down, and nothing is refused.
    let large = "v".repeat(16 << 10);
    let burst: String = (0..MASS).map(|number| format!("SET burst{number} {large}\r\n")).collect();
    let said = with_input(&cluster, &["--pipe"], burst.as_bytes())?;
    ensure(said.contains(&wanted), || format!("redis-cli --pipe with 16 KiB: {said}"))?;
    let value = vec![b'v'; 512 << 10];
    let said = with_input(&cluster, &["-x", "SET", "large"], &value)?;
    ensure(said.trim_end() == "OK", || format!("redis-cli -x SET: {said}"))?;
    let said = cluster.ask(1, &["GET", "large"])?;
    ensure(said.as_bytes() == value, || format!("GET large: {} bytes", said.len()))?;
    cluster.stop()?;
    Ok(Verdict::Passed)
}

fn with_input(cluster: &Cluster, words: &[&str], input: &[u8]) -> Result<String, String> {
    let shown = format!("redis-cli {}", words.join(" "));
    let mut child = cluster
        .client(30, "redis-cli")
        .args(["-p", cluster.port(0)])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).map_err(|error| format!("{shown}: {error}"))?;
    }
    text(&shown, child.wait_with_output().map_err(|error| format!("{shown}: {error}"))?)
}

/// All tests of redis-benchmark whose commands the directory has.
pub(super) fn benchmark() -> Result<Verdict, String> {
    if !is_there("redis-benchmark") {
        return Ok(Verdict::Skipped("redis-benchmark is not installed"));
    }
    let home = Home::new("benchmark")?;
    let cluster = Cluster::start(&home, &[], &[])?;
    let port = cluster.port(0).to_owned();
    for pipeline in [&[][..], &["-P", "16"]] {
        let mut benchmark = cluster.client(60, "redis-benchmark");
        let benchmark = benchmark
            .args(["-p", &port, "-q", "-c", "50", "-n", "20000", "-r", "1000"])
            .args(["-t", "ping,set,get,incr"])
            .args(pipeline);
        let said = super::tools::run(benchmark)?;
        for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR"] {
            let wanted =
                |line: &str| line.starts_with(test) && line.contains("requests per second");
            let mut lines = said.split(['\r', '\n']).filter(|line| wanted(line));
            let line = lines.next_back().ok_or_else(|| format!("no result of {test}: {said}"))?;
            println!("                {}{line}", if pipeline.is_empty() { "" } else { "-P 16 " });
        }
        ensure(!said.to_lowercase().contains("error"), || said.clone())?;
    }
    let mut large = cluster.client(60, "redis-benchmark");
    let large = large.args(["-p", &port, "-q", "-n", "5000", "-r", "1000", "-t", "set"]);
    let said = super::tools::run(large.args(["-P", "16", "-d", "16384"]))?;
    let fails = said.to_lowercase().contains("error") || !said.contains("requests per second");
    ensure(!fails, || format!("redis-benchmark -P 16 -d 16384: {said}"))?;
    // What was counted once more is what was done: keys and counters are there.
    let size = cluster.ask(1, &["DBSIZE"])?;
    ensure(size.parse::<u32>().is_ok_and(|size| size > 0), || format!("DBSIZE {size}"))?;
    cluster.stop()?;
    Ok(Verdict::Passed)
}

/// A web page that posts commands, and clients that ask for gigabytes and read nothing: the one writes nothing, the others
/// stop nobody.
pub(super) fn abuse() -> Result<Verdict, String> {
    if !is_there("redis-cli") {
        return Ok(Verdict::Skipped("redis-cli is not installed"));
    }
    let home = Home::new("abuse")?;
    let cluster = Cluster::start(&home, &[], &[])?;
    let mut page = connect(&cluster)?;
    let request = b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET pwned 1\r\n";
    page.write_all(request).map_err(|error| error.to_string())?;
    let mut said = Vec::new();
    // It is closed on, perhaps with a reset.
    let _ = page.read_to_end(&mut said);
    let there = cluster.ask(0, &["EXISTS", "pwned"])?;
    ensure(there == "0" && said.is_empty(), || format!("a web page wrote: {there}, {said:?}"))?;
    let counted = cluster.status()?;
    ensure(counted.contains("\"resp-http\": 1"), || format!("not counted: {counted}"))?;

    let value = vec![b'v'; 512 << 10];
    for number in 0..64 {
        with_input(&cluster, &["-x", "SET", &format!("big{number}")], &value)?;
    }
    let views = values(&cluster.status()?, "view");
    let keys: String = (0..64).map(|number| format!(" big{number}")).collect();
    let wants = format!("MGET{keys}\r\n").repeat(200);
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let mut client = connect(&cluster)?;
        // It is read no further than it reads itself.
        let _ = client.write_all(wants.as_bytes());
        greedy.push(client);
    }
    for _ in 0..20 {
        let said = cluster.ask(0, &["SET", "beside", "1"])?;
        ensure(said == "OK", || format!("beside clients that read nothing: {said}"))?;
    }
    let now = values(&cluster.status()?, "view");
    ensure(now == views, || format!("views went from {views:?} to {now:?}"))?;
    // They want 25 GB of answers, of a state of 32 MiB.
    let memory = cluster.memory_mib(0)?;
    ensure(memory < 512, || format!("the node took {memory} MiB for who reads nothing"))?;
    let turns = values(&cluster.status()?, "longest_turn_at_work_us");
    let is_short = |turn: &String| turn.parse::<u64>().is_ok_and(|it| it < 200_000);
    ensure(turns.len() == 3 && turns.iter().all(is_short), || format!("longest turns: {turns:?}"))?;
    drop(greedy);
    flood(&cluster, &value)?;
    let now = values(&cluster.status()?, "view");
    ensure(now == views, || format!("a flood: views went from {views:?} to {now:?}"))?;
    cluster.stop()?;
    Ok(Verdict::Passed)
}

/// Clients that all write large values at once, more than the node takes in of all in a turn: each is answered, and nobody is taken for dead.
fn flood(cluster: &Cluster, value: &[u8]) -> Result<(), String> {
    const CLIENTS: usize = 64;
    const WRITES: usize = 4;
    let head = format!("*3\r\n$3\r\nSET\r\n$4\r\nbig0\r\n${}\r\n", value.len());
    let request = [head.as_bytes(), value, b"\r\n"].concat().repeat(WRITES);
    let writes = |mut client: TcpStream| {
        client.set_read_timeout(Some(Duration::from_secs(60)))?;
        client.set_write_timeout(Some(Duration::from_secs(60)))?;
        client.write_all(&request)?;
        let mut said = vec![0; WRITES * b"+OK\r\n".len()];
        client.read_exact(&mut said).map(|()| said)
    };
    let clients = (0..CLIENTS).map(|_| connect(cluster)).collect::<Result<Vec<_>, _>>()?;
    let said: Vec<std::io::Result<Vec<u8>>> = std::thread::scope(|scope| {
        let all: Vec<_> = clients.into_iter().map(|it| scope.spawn(|| writes(it))).collect();
        all.into_iter().filter_map(|it| it.join().ok()).collect()
    });
    let is_ok = |said: &std::io::Result<Vec<u8>>| {
        said.as_ref().is_ok_and(|said| *said == b"+OK\r\n".repeat(WRITES))
    };
    let wrong = || format!("a flood: {:?}", said.iter().find(|said| !is_ok(said)));
    ensure(said.len() == CLIENTS && said.iter().all(is_ok), wrong)
}

fn connect(cluster: &Cluster) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(format!("127.0.0.1:{}", cluster.port(0)));
    let stream = stream.map_err(|error| error.to_string())?;
    let within = Some(Duration::from_secs(5));
    let bounded = stream.set_read_timeout(within).and_then(|()| stream.set_write_timeout(within));
    bounded.map(|()| stream).map_err(|error| error.to_string())
}
