//! Clusters of real processes, each bounded in time.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

pub mod load;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long one step may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Clusters run one at a time: they share the machine, and their timeouts are short.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the program to its end.
pub fn mainstay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mainstay")).args(arguments).output().unwrap()
}

/// Judges the traces of a run; the exit status, and all that was said.
pub fn check(traces: &Path, options: &[&str]) -> (Option<i32>, String) {
    let judged = mainstay(&[&["check", traces.to_str().unwrap()], options].concat());
    let said = [judged.stdout, judged.stderr].concat();
    (judged.status.code(), String::from_utf8(said).unwrap())
}

/// What is checked again until it holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in time: {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// A running program; killed when it is dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    /// What it says on standard error, if that is wanted.
    errors: Option<JoinHandle<()>>,
    /// What it has said on standard error.
    text: Arc<Mutex<String>>,
}

impl Running {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.args(arguments);
        Self::of(command)
    }

    /// Runs a command that becomes the program.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (said, lines) = mpsc::sync_channel(64);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).all(|line| said.send(line).is_ok());
        });
        let text = Arc::<Mutex<String>>::default();
        let into = Arc::clone(&text);
        let errors = child.stderr.take().map(|stderr| {
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines() {
                    let mut text = into.lock().unwrap();
                    text.push_str(&line.unwrap());
                    text.push('\n');
                }
            })
        });
        Self { child, lines, errors, text }
    }

    /// Whether it has said this on standard error so far.
    pub fn has_said(&self, what: &str) -> bool {
        self.text.lock().unwrap().contains(what)
    }

    /// All that it said on standard error; it has ended.
    pub fn errors(&mut self) -> String {
        self.errors.take().unwrap().join().unwrap();
        self.text.lock().unwrap().clone()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|status| status.code())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    /// Asks it to stop as a terminal or a service manager does; its exit status.
    pub fn terminate(mut self) -> Option<i32> {
        self.ask_to_stop();
        self.exit_status()
    }

    /// The same without waiting.
    pub fn ask_to_stop(&self) {
        signal(self.child.id(), "TERM");
    }

    /// Kills it, as a crash does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn exit_status(&mut self) -> Option<i32> {
        let mut ended = None;
        until("it ends", || {
            ended = self.ended();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process of this test.
pub fn signal(pid: u32, name: &str) {
    let done = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(done.unwrap().success());
}

/// Whether there is such a process; one that was killed lasts a moment, and so do its ports and locks.
pub fn is_alive(pid: u32) -> bool {
    let asked = Command::new("kill").args(["-0", &pid.to_string()]).stderr(Stdio::null()).status();
    asked.unwrap().success()
}

/// One node as its line says.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub pid: u32,
    pub resp: String,
    pub admin: String,
}

impl Node {
    pub fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let ["node", name, "pid", pid, "resp", resp, "admin", admin] = words[..] else {
            panic!("{line}");
        };
        let pid = pid.parse().unwrap();
        let [name, resp, admin] = [name, resp, admin].map(str::to_owned);
        Self { name, pid, resp, admin }
    }

    /// Writes inline commands and a QUIT, and reads to the end.
    pub fn ask(&self, commands: &str) -> String {
        let mut answer = String::new();
        let Ok(mut stream) = TcpStream::connect(&self.resp) else { return answer };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(format!("{commands}QUIT\r\n").as_bytes());
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    /// Asks again until this is the answer.
    pub fn answers(&self, command: &str, wanted: &str) {
        let mut last = String::new();
        let deadline = Instant::now() + PATIENCE;
        while last != format!("{wanted}+OK\r\n") {
            assert!(Instant::now() < deadline, "{command:?} at {}: {last:?}", self.name);
            last = self.ask(command);
        }
    }
}

/// What the system keeps for a pipe.
pub const PIPE_BYTES: usize = 64 << 10;

/// A node that nobody listens to.
pub struct UnreadNode {
    running: Running,
    _unread: std::io::PipeReader,
}

impl UnreadNode {
    pub fn ask_to_stop(&self) {
        self.running.ask_to_stop();
    }

    pub fn exit_status(&mut self) -> Option<i32> {
        self.running.exit_status()
    }
}

/// What a node says of itself at its admin port.
pub fn report(admin: &str) -> Option<serde_json::Value> {
    let answer = http(admin, "GET /status HTTP/1.0\r\n\r\n", PATIENCE)?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// Asks for a change as an operator does; the status line, if there is one in time.
pub fn post(admin: &str, path: &str, patience: Duration) -> Option<String> {
    let head = format!("POST {path} HTTP/1.0\r\nX-Mainstay-Operator: 1\r\n\r\n");
    http(admin, &head, patience)?.lines().next().map(str::to_owned)
}

/// Sends a request as it is; the answer.
pub fn http(address: &str, head: &str, patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Three nodes under `mainstay up`.
pub struct Up {
    pub running: Running,
    pub nodes: Vec<Node>,
    pub dir: PathBuf,
}

impl Up {
    /// Starts or continues the cluster of a directory; it is ready then.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// The same with more options.
    pub fn start_with(dir: &Path, options: &[&str]) -> Self {
        let up = ["up", "directory", "--dir", dir.to_str().unwrap()];
        Self::of(Running::start(&[&up, options].concat()), dir)
    }

    /// The one that runs in `dir`; it is ready then.
    pub fn of(running: Running, dir: &Path) -> Self {
        let mut nodes: Vec<Node> = (0..3).map(|_| Node::read(&running.line())).collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(running.line(), "ready");
        Self { running, nodes, dir: dir.to_owned() }
    }

    /// The configuration of a node.
    pub fn config(&self, name: &str) -> String {
        self.dir.join(name).join("mainstay.toml").to_str().unwrap().to_owned()
    }

    /// Restarts a node by hand.
    pub fn restart(&self, name: &str) -> (Running, Node) {
        self.restart_with(name, &[])
    }

    /// The same with more options.
    pub fn restart_with(&self, name: &str, options: &[&str]) -> (Running, Node) {
        let node = ["node", "--config", &self.config(name)];
        let running = Running::start(&[&node, options].concat());
        let node = Node::read(&running.line());
        (running, node)
    }

    /// As [`restart`](Self::restart), with files of at most so many blocks of 512 bytes, as on a full disk. Its standard
    /// error is kept.
    pub fn restart_limited(&self, name: &str, blocks: u32, options: &[&str]) -> Running {
        let mut command = Command::new("sh");
        // Without the trap the signal of the limit would end it.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_mainstay")]);
        command.args(["node", "--config", &self.config(name)]).args(options);
        command.env("RUST_BACKTRACE", "1").stderr(Stdio::piped());
        let running = Running::of(command);
        running.line();
        running
    }

    /// As [`restart`](Self::restart), with a log that nobody reads and that has room for nothing more.
    pub fn restart_unread(&self, name: &str) -> (UnreadNode, Node) {
        let (unread, mut full) = std::io::pipe().unwrap();
        full.write_all(&[b'.'; PIPE_BYTES]).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.args(["node", "--config", &self.config(name)]).stderr(full);
        let running = Running::of(command);
        let node = Node::read(&running.line());
        (UnreadNode { running, _unread: unread }, node)
    }

    /// Whether all three execute commands in a view of three.
    pub fn all_serve(&self) -> bool {
        self.status().iter().all(|node| {
            node["reachable"] == true
                && node["members"].as_array().is_some_and(|members| members.len() == 3)
        })
    }

    /// What the nodes say of themselves, in the order of their names.
    pub fn status(&self) -> Vec<serde_json::Value> {
        let status = mainstay(&["status", "--dir", self.dir.to_str().unwrap(), "--output", "json"]);
        serde_json::from_slice(&status.stdout).unwrap()
    }

    /// Whether all three are members and hold equal states.
    pub fn whole(&self) -> bool {
        let nodes = self.status();
        nodes.iter().all(|node| {
            node["reachable"] == true
                && node["members"].as_array().is_some_and(|members| members.len() == 3)
                && node["state_hash"] == nodes[0]["state_hash"]
                && node["delivered"] == nodes[0]["delivered"]
                && node["told_view"] == node["view"]
        })
    }
}
