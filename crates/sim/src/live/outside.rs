//! What clients see of a room.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use mainstay_base::{Duration, Instant, Rng};
use mainstay_runtime::SeededEntropy;

use super::kernel::{Clock, Kernel};
use super::net::Net;
use super::room::{Handles, Kind};
use super::start::name;
use super::stream::{ClientPort, ClientPorts, Dialer};

/// What clients see of a room.
pub struct Outside<H> {
    pub(super) seed: u64,
    pub(super) kernel: Rc<Kernel>,
    pub(super) net: Rc<RefCell<Net>>,
    pub(super) handles: Handles<H>,
}

impl<H: Clone> Outside<H> {
    /// The handle of a node; `None`: it is down.
    #[must_use]
    pub fn node(&self, index: usize) -> Option<H> {
        self.handles.borrow().get(index).cloned().flatten()
    }

    /// The true time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.kernel.now()
    }

    /// Completes after so long.
    pub fn sleep(&self, length: Duration) -> impl Future<Output = ()> + use<H> {
        self.kernel.alarm(self.kernel.now() + length)
    }

    /// A client of its own, as on a machine beside those of the nodes. In cuts and resets of a script it is the next process
    /// behind the nodes and the clients before it.
    #[must_use]
    pub fn client(&self) -> ClientPorts {
        let point = self.net.borrow_mut().add_client();
        let port = ClientPort::attach(&self.net, point);
        let rng = Rng::new(self.seed).stream(&format!("client at {point}"));
        let kernel = Rc::clone(&self.kernel);
        let clock =
            Clock { kernel, origin: Instant::ZERO, drift: 0, busy: Rc::default(), of: None };
        let nodes = self.handles.borrow().len();
        let net = self.net.borrow();
        let endpoints: BTreeMap<_, _> =
            (0..nodes).map(|node| (name(node), net.address(nodes + node))).collect();
        ClientPorts {
            dialer: Box::new(Dialer(port)),
            time: Rc::new(clock),
            entropy: Box::new(SeededEntropy::new(rng)),
            endpoints,
        }
    }

    /// Puts what a client did or saw into the [hash](super::Room::hash).
    pub fn note(&self, client: usize, number: u64) {
        self.kernel.note(Kind::Noted as u8, client, number);
    }
}

impl<H> Clone for Outside<H> {
    fn clone(&self) -> Self {
        Self {
            seed: self.seed,
            kernel: Rc::clone(&self.kernel),
            net: Rc::clone(&self.net),
            handles: Rc::clone(&self.handles),
        }
    }
}

impl<H> fmt::Debug for Outside<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("now", &self.kernel.now()).finish_non_exhaustive()
    }
}
