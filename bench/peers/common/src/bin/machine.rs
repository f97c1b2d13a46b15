//! What the machine itself can do, to be read beside every figure: processors, a forced write, a round trip.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use peers_common::{Case, Measured, Program, Run, latencies};

/// A page, as a small commit writes it.
const PAGE: [u8; 4 << 10] = [b'p'; 4 << 10];

fn main() -> ExitCode {
    let case = |name, guarantee, measure| Case::new("machine", name, "machine", guarantee, measure);
    let cases: [(_, _, fn(&Run) -> _); 3] = [
        ("machine/cores", "processors this process may use", cores),
        ("machine/fdatasync/4KiB", "one thread, append and fdatasync, growing file", fdatasync),
        ("machine/tcp/64B", "loopback ping-pong of two threads, blocking, no TLS", ping_pong),
    ];
    let cases = cases.map(|(name, guarantee, measure)| case(name, guarantee, measure)).to_vec();
    Program { name: "peer-machine", check: || Ok(()), cases }.main()
}

fn cores(_run: &Run) -> io::Result<Vec<Measured>> {
    let count = thread::available_parallelism()?.get();
    Ok(vec![Measured { metric: "cores", value: count as f64, unit: "1" }])
}

/// How long each turn took after the warm-up.
fn timed(run: &Run, mut turn: impl FnMut() -> io::Result<()>) -> io::Result<Vec<Measured>> {
    let from = Instant::now() + run.warm_up;
    let until = from + run.window;
    let mut times: Vec<Duration> = Vec::new();
    let mut begun = Instant::now();
    while begun < until {
        turn()?;
        let now = Instant::now();
        if begun >= from {
            times.push(now - begun);
        }
        begun = now;
    }
    Ok(latencies(&mut times).to_vec())
}

fn fdatasync(run: &Run) -> io::Result<Vec<Measured>> {
    let mut file = File::create(run.dir().join("appended"))?;
    timed(run, || file.write_all(&PAGE).and_then(|()| file.sync_data()))
}

fn ping_pong(run: &Run) -> io::Result<Vec<Measured>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    let echo = thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut message = [0; 64];
        // Ends when the other side closes.
        while stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message)?;
        }
        Ok(())
    });
    let mut message = [b'm'; 64];
    let measured = timed(run, || {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)
    });
    drop(stream);
    echo.join().map_err(|_| io::Error::other("the echo panicked"))??;
    measured
}
