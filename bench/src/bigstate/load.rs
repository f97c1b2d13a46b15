//! Clients that write many keys as fast as they can.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};

use crate::client::{Client, is_done};

/// SETs without an answer that each client has.
const PIPELINE: usize = 512;

/// What is written.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
}

/// Whether the load may end once all keys are written; until then they are written once more.
#[derive(Clone, Default)]
pub(crate) struct Enough(Arc<AtomicBool>);

impl Enough {
    pub(crate) fn set(&self, is: bool) {
        self.0.store(is, Ordering::Relaxed);
    }
}

/// What the clients share.
struct Shared {
    load: Load,
    enough: Enough,
    begun: Instant,
    taken: Cell<u64>,
    acknowledged: Cell<u64>,
    /// How long it took until as many SETs as there are keys were acknowledged.
    loaded: Cell<Option<Duration>>,
}

impl Load {
    /// Starts it on a thread of its own, with a client at each address. It ends with how long the keys took, or with the
    /// first answer that is no acknowledgement.
    pub(crate) fn start(
        self,
        addresses: Vec<SocketAddr>,
    ) -> (JoinHandle<io::Result<Duration>>, Enough) {
        let enough = Enough::default();
        let told = enough.clone();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, self.run(&addresses, told))
        };
        (thread::spawn(run), enough)
    }

    /// The same as a task.
    pub(crate) async fn run(
        self,
        addresses: &[SocketAddr],
        enough: Enough,
    ) -> io::Result<Duration> {
        let (taken, acknowledged, loaded) = (Cell::new(0), Cell::new(0), Cell::new(None));
        let begun = Instant::now();
        let shared = Shared { load: self, enough, begun, taken, acknowledged, loaded };
        let shared = Rc::new(shared);
        let mut clients = JoinSet::new();
        for address in addresses {
            clients.spawn_local(write(*address, Rc::clone(&shared)));
        }
        while let Some(done) = clients.join_next().await {
            done.map_err(io::Error::other)??;
        }
        shared.loaded.get().ok_or_else(|| io::Error::other("the keys were not all written"))
    }
}

impl Shared {
    /// The number of the next key to be written.
    fn next(&self) -> Option<u64> {
        let next = self.taken.get();
        let goes_on = next < self.load.keys || !self.enough.0.load(Ordering::Relaxed);
        goes_on.then(|| {
            self.taken.set(next + 1);
            next % self.load.keys
        })
    }

    fn acknowledged(&self) {
        self.acknowledged.update(|count| count + 1);
        if self.acknowledged.get() == self.load.keys {
            self.loaded.set(Some(self.begun.elapsed()));
        }
    }
}

/// Keys have 13 bytes.
pub(crate) fn key(number: u64) -> String {
    format!("key:{number:09}")
}

async fn write(address: SocketAddr, shared: Rc<Shared>) -> io::Result<()> {
    let mut client = Client::connect(address, 0).await?;
    let value = vec![b'v'; shared.load.value_bytes];
    loop {
        while client.waiting() < PIPELINE
            && let Some(number) = shared.next()
        {
            client.push(key(number).as_bytes(), &value);
        }
        if client.waiting() == 0 {
            return Ok(());
        }
        client.flush().await?;
        let mut refused = None;
        let answered = |reply, _| {
            if is_done(&reply) {
                shared.acknowledged();
            } else {
                refused.get_or_insert(reply);
            }
        };
        client.receive(answered).await?;
        if let Some(reply) = refused {
            return Err(io::Error::other(format!("a SET of the load was answered {reply:?}")));
        }
    }
}
