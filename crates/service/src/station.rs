//! The smallest node: a link, and services on it.

use std::collections::VecDeque;
use std::fmt;

use mainstay_base::{ConnId, Frame, Instant, Machine, NodeId, Work};
use mainstay_link::{self as link, Link};

use crate::services::{self, Request, Services};

/// What happened.
pub enum Input {
    /// From the transport, for the link.
    Link(link::Input),
    /// From the host or a user.
    Service(Request),
    /// The write with this number, and all before it, are stable.
    Written {
        /// As in [`services::Output::Write`].
        io: u64,
    },
}

/// What is to be done, in this order.
pub enum Output {
    /// Dial a node; answer once.
    Dial {
        /// Which.
        node: NodeId,
    },
    /// Write a frame.
    Transmit {
        /// On which connection.
        conn: ConnId,
        /// The frame.
        frame: Frame,
    },
    /// Close a connection.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// The services want something of their host.
    Service(services::Output),
}

/// A link and services. Without membership: a service sees no view, and a peer is up when it is connected and has the service
/// mounted as well.
pub struct Station {
    link: Link,
    services: Services,
    outputs: VecDeque<Output>,
}

impl Station {
    /// A station with nothing mounted. `seed` fixes the link's jitter.
    #[must_use]
    pub fn new(link: link::Config, seed: u64, now: Instant) -> Self {
        Self {
            link: Link::new(link, seed, now),
            services: Services::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The services, for their questions.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The same, to mount and to subscribe before the first turn.
    pub fn services_mut(&mut self) -> &mut Services {
        &mut self.services
    }

    /// The link, for its questions.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    fn drain_link(&mut self, now: Instant) {
        self.link.end_turn(now);
        while let Some(output) = self.link.poll_output() {
            match output {
                link::Output::Dial { node } => self.outputs.push_back(Output::Dial { node }),
                link::Output::Transmit { conn, frame } => {
                    self.outputs.push_back(Output::Transmit { conn, frame });
                }
                link::Output::Close { conn } => self.outputs.push_back(Output::Close { conn }),
                // Nothing else is on this node that would want to hear of it.
                link::Output::Event(event) => drop(self.services.on_link(now, event)),
            }
        }
    }
}

impl Machine for Station {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Link(input) => self.link.handle(now, input),
            Input::Written { io } => self.services.written(now, io),
            Input::Service(request) => self.services.on_request(now, request),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.link.handle_timeout(now);
    }

    fn end_turn(&mut self, now: Instant) {
        self.drain_link(now);
        self.services.end_turn(now);
        let mut sent = false;
        while let Some(frame) = self.services.poll_frame() {
            self.link.handle(now, frame);
            sent = true;
        }
        if sent {
            self.drain_link(now);
        }
        while let Some(output) = self.services.poll_output() {
            self.outputs.push_back(Output::Service(output));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.link.poll_timeout(), self.services.poll_timeout()].into_iter().flatten().min()
    }

    fn take_work(&mut self) -> Work {
        self.services.take_work()
    }

    fn intake_bytes_max(&self) -> usize {
        if self.services.is_behind() { 0 } else { usize::MAX }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(input) => f.debug_tuple("Link").field(input).finish(),
            Self::Written { io } => write!(f, "Written({io})"),
            Self::Service(request) => request.fmt(f),
        }
    }
}
