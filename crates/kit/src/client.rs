//! A client in a room: it writes down what it asks and what it is told.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use mainstay::{ClientConfig, Commands, Failed, Replicated};
use mainstay_base::{Duration, Instant, Rng};
use mainstay_check::linear::Operation;
use mainstay_sim::live::{ClientPorts, Outside};

use crate::linear::Asked;
use crate::place::cluster;

/// How long a command may take; then nobody knows.
const DEADLINE: Duration = Duration::from_secs(3);

/// What all clients of a run were told, in the order in which they were told it.
pub(crate) type Book<S> = Rc<RefCell<Written<S>>>;

pub(crate) struct Written<S: Commands> {
    pub(crate) history: Vec<Asked<S>>,
    pub(crate) wrong: Option<String>,
}

impl<S: Commands> Default for Written<S> {
    fn default() -> Self {
        Self { history: Vec::new(), wrong: None }
    }
}

/// A client: the shipped [`mainstay::Client`], with a session, redirects and retries, on a machine of its own in the room. Its
/// connections are delayed, cut and reset, but it does not crash.
pub struct Client<S: Commands> {
    number: usize,
    client: mainstay::Client,
    nodes: Outside<Replicated<S>>,
    rng: RefCell<Rng>,
    until: Instant,
    book: Book<S>,
}

impl<S: Commands<Command: Clone>> Client<S> {
    pub(crate) fn connect(
        number: usize,
        ports: ClientPorts,
        nodes: Outside<Replicated<S>>,
        rng: Rng,
        until: Instant,
        book: Book<S>,
    ) -> Result<Self, mainstay::ConnectError> {
        let ClientPorts { dialer, time, mut entropy, endpoints } = ports;
        let config = ClientConfig::new(cluster(), endpoints).deadline(DEADLINE);
        let client = mainstay::Client::connect_over(config, dialer, time, &mut *entropy)?;
        Ok(Self { number, client, nodes, rng: RefCell::new(rng), until, book })
    }

    /// Has a command executed, once, and answers its reply. What was asked and told goes into the history.
    ///
    /// # Errors
    /// [`Failed`], within three seconds.
    pub async fn execute(&self, command: S::Command) -> Result<S::Reply, Failed>
    where
        S::Reply: Clone,
    {
        let invoked = self.nodes.now();
        let told = self.client.send::<S>(command.clone()).await;
        let (client, now) = (self.number as u64, self.nodes.now());
        let mut book = self.book.borrow_mut();
        let written = match &told {
            Ok(reply) => Operation::returned(client, invoked, now, command, reply.clone()),
            Err(Failed::NotDone(_)) => return told,
            Err(failed) => {
                if *failed == Failed::Reply {
                    book.wrong = Some(format!("client {client}: {failed}"));
                }
                Operation::unknown(client, invoked, command)
            }
        };
        book.history.push(written);
        self.nodes.note(self.number, book.history.len() as u64);
        told
    }

    /// Which client it is, from 0.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }

    /// Whether it is time to end: everything is healed then.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.nodes.now() >= self.until
    }

    /// A number below `bound`, out of the seed. 0 if `bound` is.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.rng.borrow_mut().below(bound) }
    }

    /// Waits for so many milliseconds.
    pub async fn sleep(&self, millis: u64) {
        self.nodes.sleep(Duration::from_millis(millis)).await;
    }
}

impl<S: Commands> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("number", &self.number).finish_non_exhaustive()
    }
}
