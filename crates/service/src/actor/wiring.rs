//! A station in its host: what its outputs become.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use mainstay_base::{Instant, NodeId};
use mainstay_link::actor::{dial, inputs, weight};
use mainstay_runtime::{HostSink, LocalFuture, Perform, Port, Transport, halt};

use super::hosting::{Answer, Hosting};
use crate::{Input, Output, Request, Services, Station};

pub(super) struct Wiring {
    pub(super) transport: Box<dyn Transport>,
    pub(super) addresses: BTreeMap<NodeId, SocketAddr>,
    pub(super) hosting: Hosting<Station>,
}

/// A station has one boot.
pub(super) fn input(_life: u64, answer: Answer) -> Input {
    match answer {
        Answer::Given(to, given) => Input::Service(Request::Give(to, given)),
        Answer::Written { io } => Input::Written { io },
        Answer::Change(change) => Input::Service(Request::Change(change)),
        Answer::Failed(reason) => {
            Input::Service(Request::Change(Box::new(move |_: &mut Services, _| halt(reason))))
        }
    }
}

impl Perform<Station> for Wiring {
    fn started(&mut self, port: &mut Port<'_, Station>) {
        let convert = |event| inputs(event).into_iter().map(Input::Link).collect();
        self.transport.start(Rc::new(HostSink::new(port.handle(), convert)));
        self.hosting.start(port);
    }

    fn perform(&mut self, output: Output, port: &mut Port<'_, Station>) {
        match output {
            Output::Dial { node } => {
                let failed = dial(&mut *self.transport, &self.addresses, node);
                failed.into_iter().for_each(|input| port.feed(Input::Link(input)));
            }
            Output::Transmit { conn, frame } => self.transport.send(conn, frame),
            Output::Close { conn } => self.transport.close(conn),
            Output::Service(output) => self.hosting.perform(output, port),
        }
    }

    fn turn_ended(&mut self, port: &mut Port<'_, Station>) {
        self.transport.flush();
        self.hosting.turn_ended(port);
    }

    fn closing(&mut self, deadline: Instant) -> LocalFuture<()> {
        // What was handed to the log is written; without a handle nobody can be told any more.
        let (hosted, drained) = (self.hosting.closing(), self.transport.drain(deadline));
        Box::pin(async move {
            hosted.await;
            if !drained.await {
                tracing::warn!("stopped with frames unwritten");
            }
        })
    }

    fn weigh(input: &Input) -> usize {
        let more = if let Input::Link(input) = input { weight(input) } else { 0 };
        size_of::<Input>() + more
    }
}
