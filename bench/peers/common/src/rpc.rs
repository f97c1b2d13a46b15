//! The cases of remote calls: a client asks a server in another process of this machine to send bytes back.

use std::io::{self, Write as _};
use std::process::{Command, ExitCode};

use crate::figures::{Measured, latencies};
use crate::load::closed_loop;
use crate::process::{Missing, Talker, command, run_to_end};
use crate::program::{Case, Program, Run, runtime};

/// The argument with which a program starts itself as the server.
const SERVE: &str = "serve";
/// Calls without an answer in the cases of throughput.
const IN_FLIGHT: usize = 64;

const CASES: [(&str, usize, bool); 8] = [
    ("rpc/echo/64B", 64, false),
    ("rpc/echo/64B/64inflight", 64, true),
    ("rpc/echo/1KiB", 1 << 10, false),
    ("rpc/echo/1KiB/64inflight", 1 << 10, true),
    ("rpc/echo/16KiB", 16 << 10, false),
    ("rpc/echo/16KiB/64inflight", 16 << 10, true),
    ("rpc/echo/64KiB", 64 << 10, false),
    ("rpc/echo/64KiB/64inflight", 64 << 10, true),
];

/// A way to call another process. A value is a client; its clones share one connection. Client and server each run on
/// one thread of tokio.
pub trait Echo: Clone + 'static {
    /// `peer-NAME`.
    const PROGRAM: &'static str;
    /// What is measured.
    const PEER: &'static str;
    /// What stands behind an answer.
    const GUARANTEE: &'static str;

    /// Serves on a free port of the loopback interface, of which `listening` is told, until the process is killed.
    fn serve(listening: impl FnOnce(u16)) -> impl Future<Output = io::Result<()>>;

    /// Connects to the server at this port.
    fn connect(port: u16) -> impl Future<Output = io::Result<Self>>;

    /// Sends bytes and waits until they come back.
    fn echo(&self, payload: Vec<u8>) -> impl Future<Output = io::Result<Vec<u8>>>;
}

/// Does what the command line says; as the server, what [`Echo::serve`] does. Each case has a client process of its own.
pub fn echo_main<E: Echo>() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(SERVE) {
        let served = runtime().and_then(|runtime| runtime.block_on(E::serve(say)));
        let error = served.err().unwrap_or_else(|| io::Error::other("the server has ended"));
        eprintln!("{}: {error}", E::PROGRAM);
        return ExitCode::FAILURE;
    }
    let case = |(name, size, many)| {
        Case::new("rpc", name, E::PEER, E::GUARANTEE, move |run| measure::<E>(run, size, many))
    };
    let check = || Ok::<_, Missing>(());
    Program { name: E::PROGRAM, check, cases: CASES.map(case).to_vec() }.main_apart()
}

fn say(port: u16) {
    // Who started the server has gone if there is no telling it; then this process ends as well.
    let _ = writeln!(io::stdout().lock(), "port {port}");
}

fn measure<E: Echo>(run: &Run, size: usize, many: bool) -> io::Result<Vec<Measured>> {
    let mut server = command(std::env::current_exe()?);
    server.arg(SERVE);
    let mut server = Talker::start(server, &run.dir().join("log"))?;
    let port = server.hear("port")?;
    let port = port.first().and_then(|port| port.parse().ok());
    let port = port.ok_or_else(|| io::Error::other("the server said no port"))?;
    let mut samples = runtime()?.block_on(async {
        let client = E::connect(port).await?;
        let clients = vec![client; if many { IN_FLIGHT } else { 1 }];
        let ask = async move |client: &mut E, _| {
            let answer = client.echo(vec![b'e'; size]).await?;
            let same = answer.len() == size;
            same.then_some(()).ok_or_else(|| io::Error::other("not what was sent"))
        };
        closed_loop(run, clients, ask).await
    })?;
    server.process.check()?;
    if many {
        Ok(samples.measured("calls_per_s"))
    } else {
        Ok(latencies(&mut samples.times).to_vec())
    }
}

/// Lets the program at this path measure two cases for a second each, its data below `dir`, for its own test: bytes must
/// come back, one call at a time and 64 at once, and only the cases of these names may be measured.
///
/// # Errors
/// The program failed, or did not print just the figures of these cases, none of them zero.
pub fn try_echo(program: &str, dir: &str) -> io::Result<()> {
    const EXPECTED: [(&str, &str); 5] = [
        ("rpc/echo/64B", "p50_us"),
        ("rpc/echo/64B", "p99_us"),
        ("rpc/echo/16KiB/64inflight", "calls_per_s"),
        ("rpc/echo/16KiB/64inflight", "p50_us"),
        ("rpc/echo/16KiB/64inflight", "p99_us"),
    ];
    let mut program = Command::new(program);
    program.args(["--exact", EXPECTED[0].0, EXPECTED[4].0, "--seconds=1", "--dir", dir]);
    let printed = run_to_end(&mut program)?;
    let is_expected = |(line, (case, metric)): (&str, (&str, &str))| {
        let begin = format!("{{\"bench\":\"rpc\",\"case\":\"{case}\",\"metric\":\"{metric}\",");
        line.starts_with(&begin) && !line.contains("\"peer_value\":0.0")
    };
    let all = printed.lines().zip(EXPECTED).all(is_expected);
    let same = all && printed.lines().count() == EXPECTED.len();
    same.then_some(()).ok_or_else(|| io::Error::other(format!("not what was asked for: {printed}")))
}
