//! One client that writes one key after the other, and when each was acknowledged.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::load::key;
use crate::client::{Client, is_done};

/// Between a refusal and the next attempt.
const PAUSE: Duration = Duration::from_millis(1);
/// How often it is looked at whether the client is to stop while an answer is waited for.
const TICK: Duration = Duration::from_millis(50);
/// Of the keys of the client, which the load does not write.
const KEYS: std::ops::Range<u64> = 900_000_000..900_001_000;

/// When SETs were sent and acknowledged.
type Samples = Vec<(Instant, Instant)>;

/// The client, on a thread of its own.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    any: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Samples>>,
}

impl Probe {
    /// `is_stubborn`: what fails is tried again, on another connection if need be; otherwise the client ends with it.
    pub(crate) fn start(address: SocketAddr, is_stubborn: bool) -> Self {
        let (stop, any) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let mut run = Run {
            stop: Arc::clone(&stop),
            any: Arc::clone(&any),
            is_stubborn,
            samples: Vec::new(),
        };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run.go(address))?;
            Ok(run.samples)
        });
        Self { stop, any, thread }
    }

    /// Whether it failed.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it: all that was acknowledged.
    pub(crate) fn stop(self) -> io::Result<Samples> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the client panicked"))?
    }
}

/// When the first SET of any of them was acknowledged, to the millisecond.
pub(crate) fn first(probes: &[Probe], patience: Duration) -> io::Result<Instant> {
    let until = Instant::now() + patience;
    while !probes.iter().any(|probe| probe.any.load(Ordering::Relaxed)) {
        if Instant::now() > until {
            return Err(io::Error::other("no SET was acknowledged any more"));
        }
        thread::sleep(PAUSE);
    }
    Ok(Instant::now())
}

struct Run {
    stop: Arc<AtomicBool>,
    any: Arc<AtomicBool>,
    is_stubborn: bool,
    samples: Samples,
}

impl Run {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn go(&mut self, address: SocketAddr) -> io::Result<()> {
        while !self.is_over() {
            match self.converse(address).await {
                Err(_) if self.is_stubborn => sleep(PAUSE).await,
                done => return done,
            }
        }
        Ok(())
    }

    /// On one connection, until it is over.
    async fn converse(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut client = Client::connect(address, 0).await?;
        for number in KEYS.cycle() {
            let begun = Instant::now();
            client.push(key(number).as_bytes(), b"v");
            client.flush().await?;
            let mut answer = None;
            while answer.is_none() {
                if self.is_over() {
                    return Ok(());
                }
                let receive = client.receive(|reply, _| answer = Some(reply));
                if let Ok(received) = timeout(TICK, receive).await {
                    received?;
                }
            }
            match answer {
                Some(reply) if is_done(&reply) => {
                    self.samples.push((begun, Instant::now()));
                    self.any.store(true, Ordering::Relaxed);
                }
                _ if self.is_stubborn => sleep(PAUSE).await,
                other => {
                    let said = format!("a SET of the single client was answered {other:?}");
                    return Err(io::Error::other(said));
                }
            }
        }
        Ok(())
    }
}
