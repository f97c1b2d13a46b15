//! Real processes, files that they write, and connections between them that are cut: for tests of what is shipped.
//!
//! A test starts processes of its own executable, each of which runs one test function that does what the environment says. Nothing in here is deterministic.
#![allow(clippy::disallowed_methods, reason = "real processes have real clocks and threads")]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// So long a test waits for something.
const LIMIT: Duration = Duration::from_secs(30);

/// The house of a run: a directory with addresses, and logs of one line a write.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// The house in this directory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes down where nodes `n0`, `n1` and so on listen, as the node `of` is to see it; `None`: as all do.
    ///
    /// # Errors
    /// Of the disk.
    pub fn write_roster(&self, of: Option<usize>, addresses: &[SocketAddr]) -> io::Result<()> {
        let lines: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        std::fs::write(self.0.join(roster_of(of)), lines)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Of the disk, and if it is no list of addresses.
    pub fn roster(&self, of: Option<usize>) -> io::Result<BTreeMap<String, SocketAddr>> {
        let text = std::fs::read_to_string(self.0.join(roster_of(of)))?;
        let named = |(at, line): (usize, &str)| {
            line.parse().map(|it| (format!("n{at}"), it)).map_err(io::Error::other)
        };
        text.lines().enumerate().map(named).collect()
    }

    /// A log, to be written at its end.
    ///
    /// # Errors
    /// Of the disk.
    pub fn log(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.0.join(name))
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Of the disk.
    pub fn say(&self, name: &str, line: &str) -> io::Result<()> {
        self.log(name)?.write_all(format!("{line}\n").as_bytes())
    }

    /// What was written; nothing if there is no such log.
    #[must_use]
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether anything was.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }
}

fn roster_of(of: Option<usize>) -> String {
    of.map_or_else(|| "roster".to_owned(), |of| format!("roster-{of}"))
}

/// Waits until something is so.
///
/// # Panics
/// After 30 s.
pub fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LIMIT, "not so after {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A process that ends with its owner.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a process of this executable that runs one test function, with these in its environment.
    ///
    /// # Errors
    /// Of the system.
    pub fn start<'a>(
        test: &str,
        environment: impl IntoIterator<Item = (&'a str, String)>,
    ) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", test, "--nocapture"]).stdout(Stdio::null());
        Ok(Self(command.envs(environment).spawn()?))
    }

    /// It does nothing from here on (SIGSTOP).
    ///
    /// # Errors
    /// Of the system.
    pub fn stop(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), Signal::STOP)?)
    }

    /// It goes on (SIGCONT).
    ///
    /// # Errors
    /// Of the system.
    pub fn go_on(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), Signal::CONT)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Of the system.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }
}

impl Drop for Running {
    /// It is killed (SIGKILL), and gone.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connections that go through it can be held and cut. It listens at an address of its own; where one node is to reach another one through it, its roster has
/// this address for the other one.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    valve: Arc<Valve>,
}

#[derive(Debug)]
struct Valve {
    to: SocketAddr,
    state: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Flow {
    is_cut: bool,
    is_over: bool,
    /// Bytes of those who dialled are held back; of those who were dialled.
    holds: [bool; 2],
    /// So many.
    held: [usize; 2],
    open: Vec<TcpStream>,
}

impl Proxy {
    /// One in front of this address.
    ///
    /// # Errors
    /// Of the system.
    pub fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let (state, changed) = (Mutex::default(), Condvar::new());
        let valve = Arc::new(Valve { to, state, changed });
        let of = Arc::clone(&valve);
        thread::spawn(move || of.listen(&listener));
        Ok(Self { address, valve })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All connections break, what was held is lost, and no new one is let through.
    pub fn cut(&self) {
        let mut flow = self.valve.lock();
        flow.is_cut = true;
        for stream in flow.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(flow);
        self.valve.changed.notify_all();
    }

    /// Connections are let through, and nothing is held.
    pub fn join(&self) {
        let mut flow = self.valve.lock();
        (flow.is_cut, flow.holds) = (false, [false; 2]);
        drop(flow);
        self.valve.changed.notify_all();
    }

    /// From here on bytes are held back: those of the ones who dial, or of the ones who are dialled.
    pub fn hold(&self, dialled: bool) {
        let mut flow = self.valve.lock();
        flow.holds[usize::from(dialled)] = true;
        flow.held[usize::from(dialled)] = 0;
    }

    /// So many bytes of a direction are held back.
    #[must_use]
    pub fn held(&self, dialled: bool) -> usize {
        self.valve.lock().held[usize::from(dialled)]
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.valve.lock().is_over = true;
        // Its listener looks.
        let _ = TcpStream::connect(self.address);
    }
}

impl Valve {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.lock().is_over {
                return;
            }
            if let Ok(stream) = stream {
                // Whoever is not reached is not there: the connection is closed.
                let _ = self.connect(stream);
            }
        }
    }

    fn connect(self: &Arc<Self>, near: TcpStream) -> io::Result<()> {
        if self.lock().is_cut {
            return Ok(());
        }
        let far = TcpStream::connect(self.to)?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let mut flow = self.lock();
        if flow.is_cut {
            return Ok(());
        }
        flow.open.extend([near.try_clone()?, far.try_clone()?]);
        drop(flow);
        let ends = [(near.try_clone()?, far.try_clone()?), (far, near)];
        for (dialled, (from, to)) in ends.into_iter().enumerate() {
            let valve = Arc::clone(self);
            thread::spawn(move || valve.copy(from, to, dialled));
        }
        Ok(())
    }

    /// Hands bytes on until either end is closed.
    fn copy(&self, mut from: TcpStream, mut to: TcpStream, dialled: usize) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count) = from.read(&mut bytes) {
            if count == 0
                || !self.may_pass(dialled, count)
                || to.write_all(&bytes[..count]).is_err()
            {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Waits while bytes are held. False: they are lost.
    fn may_pass(&self, dialled: usize, count: usize) -> bool {
        let mut flow = self.lock();
        if flow.holds[dialled] {
            flow.held[dialled] += count;
        }
        while flow.holds[dialled] && !flow.is_cut {
            flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
        !flow.is_cut
    }
}
