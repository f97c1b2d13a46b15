//! A station in its host: what its outputs become.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::rack::{Effect, Given};
use mainstay_base::service::{Address, Chunks};
use mainstay_base::{Instant, NodeId};
use mainstay_runtime::host::completions;
use mainstay_runtime::{
    CheckpointError, Completed, HostSink, IoId, LocalFuture, Perform, Port, StoreError, Transport,
    blocking, halt,
};
use tokio::task::JoinSet;

use super::disk::ServiceDisk;
use super::handle::{Owing, has_room};
use super::{dial, link_inputs, link_weight};
use crate::{Input, Output, Request, Station, services};

pub(super) struct Wiring {
    transport: Box<dyn Transport>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    disk: Option<ServiceDisk>,
    /// Of this turn, or held back because the log has enough to do; the last is of write `io`.
    records: Vec<Bytes>,
    io: u64,
    /// Checkpoints being written, and jobs.
    beside: JoinSet<()>,
    owing: Owing,
}

impl Wiring {
    pub(super) fn new(
        transport: Box<dyn Transport>,
        addresses: BTreeMap<NodeId, SocketAddr>,
        disk: Option<ServiceDisk>,
    ) -> (Self, Owing) {
        let owing = Owing::default();
        let (records, beside, other) = (Vec::new(), JoinSet::new(), owing.clone());
        (Self { transport, addresses, disk, records, io: 0, beside, owing }, other)
    }

    fn serve(&mut self, output: services::Output, port: &mut Port<'_, Station>) {
        match output {
            services::Output::Effect(effect) => self.effect(effect, port),
            services::Output::Written { io } => {
                if let Some(disk) = &mut self.disk {
                    disk.written(io);
                }
            }
            services::Output::Write { io, entries, keeps } => {
                self.io = io;
                let Some(disk) = &mut self.disk else { return port.feed(Input::Written { io }) };
                let (records, compact) = disk.note(io, &entries, &keeps);
                self.records.extend(records);
                for (of, upto) in compact {
                    port.feed(give(of, Given::Compact { upto }));
                }
            }
        }
    }

    fn effect(&mut self, effect: Effect, port: &mut Port<'_, Station>) {
        match effect {
            Effect::Work { from, work } => {
                self.beside(port, work, move |done| give(from, Given::Done(done)));
            }
            Effect::NextChunk { from } => {
                let chunks = self.disk.as_mut().and_then(|disk| disk.chunks.get_mut(&from));
                let chunk = chunks.and_then(std::collections::VecDeque::pop_front);
                port.feed(give(from, Given::Chunk(chunk)));
            }
            Effect::Checkpoint { from, position, alone, source } => {
                self.checkpoint(from, position, alone, source, port);
            }
            Effect::Send { .. } | Effect::Datagram { .. } | Effect::Persist { .. } => {
                unreachable!("the station carries those out")
            }
        }
    }

    /// Does something on another thread, and hands in what comes of it. A panic there is one of a service: a crash of the station.
    fn beside<T: Send + 'static>(
        &mut self,
        port: &Port<'_, Station>,
        work: Box<dyn FnOnce() -> T + Send>,
        input: impl FnOnce(T) -> Input + 'static,
    ) {
        let handle = port.handle();
        let running = tokio::task::spawn_blocking(work);
        while self.beside.try_join_next().is_some() {}
        self.beside.spawn_local(async move {
            let input = match running.await {
                Ok(done) => input(done),
                Err(error) => fail(format!("what a service does beside its turns ended: {error}")),
            };
            if let Some(handle) = handle.upgrade() {
                // A host that has closed needs nothing any more.
                let _ = handle.send(input).await;
            }
        });
    }

    fn checkpoint(
        &mut self,
        of: Address,
        position: u64,
        alone: bool,
        source: Box<dyn Chunks>,
        port: &mut Port<'_, Station>,
    ) {
        let done = move |written| give(of, Given::Checkpointed { position, written });
        let Some(disk) = &self.disk else {
            // It is made all the same: a state that cannot be written out shows without a disk as well.
            let make = Box::new(move || read(source));
            return self.beside(port, make, move |made| done(made.is_ok()));
        };
        let Some(shelf) = disk.shelf(of) else { return port.feed(done(false)) };
        let writing = shelf.write(disk.disk(), disk.reserve(), position, alone, source);
        let handle = port.handle();
        while self.beside.try_join_next().is_some() {}
        self.beside.spawn_local(async move {
            let written: Result<(), CheckpointError> = writing.await;
            if let Err(error) = &written {
                tracing::warn!(?of, position, %error, "no checkpoint");
            }
            if let Some(handle) = handle.upgrade() {
                // A host that has closed needs no checkpoint.
                let _ = handle.send(done(written.is_ok())).await;
            }
        });
    }

    /// Hands the records of the turn to the log.
    fn write(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let Some(disk) = &mut self.disk else { return };
        match disk.log().persist(IoId(self.io), std::mem::take(&mut self.records)) {
            Ok(()) => {}
            // The next completion begins a turn, and at its end there is a place.
            Err(StoreError::Full(records)) => self.records = records,
            Err(error) => halt(format!("the log takes nothing any more: {error}")),
        }
    }
}

/// Halts the station: nothing that is not stable was told to be.
fn fail(reason: String) -> Input {
    let end = Box::new(move |_: &mut crate::Services, _| halt(reason));
    Input::Service(Request::Change(end))
}

/// Reads a state to its end.
fn read(mut source: Box<dyn Chunks>) -> Result<(), String> {
    while source.next_chunk()?.is_some() {}
    Ok(())
}

fn give(to: Address, given: Given) -> Input {
    Input::Service(Request::Give(to, given))
}

impl Perform<Station> for Wiring {
    fn started(&mut self, port: &mut Port<'_, Station>) {
        let convert = |event| link_inputs(event).into_iter().map(Input::Link).collect();
        self.transport.start(Rc::new(HostSink::new(port.handle(), convert)));
        if let Some(disk) = &mut self.disk {
            disk.log().start(completions(port.handle(), |done: &Completed| match &done.result {
                Ok(()) => Input::Written { io: done.io.0 },
                Err(error) => fail(error.to_string()),
            }));
        }
    }

    fn perform(&mut self, output: Output, port: &mut Port<'_, Station>) {
        match output {
            Output::Dial { node } => {
                let failed = dial(&mut *self.transport, &self.addresses, node);
                failed.into_iter().for_each(|input| port.feed(Input::Link(input)));
            }
            Output::Transmit { conn, frame } => self.transport.send(conn, frame),
            Output::Close { conn } => self.transport.close(conn),
            Output::Service(output) => self.serve(output, port),
        }
    }

    fn turn_ended(&mut self, port: &mut Port<'_, Station>) {
        self.transport.flush();
        self.write();
        for (of, reader) in self.owing.take() {
            port.feed(has_room(of, reader));
        }
    }

    fn closing(&mut self, deadline: Instant) -> LocalFuture<()> {
        // What was handed to the log is written; without a handle nobody can be told any more.
        let disk = self.disk.take();
        let mut beside = std::mem::take(&mut self.beside);
        let drained = self.transport.drain(deadline);
        Box::pin(async move {
            // The directory is free for the next one only when nobody writes there any more.
            while beside.join_next().await.is_some() {}
            if let Some(disk) = disk {
                let on = disk.disk();
                let close = disk.closing();
                // The node ends: then it is closed where it is dropped.
                let _ = blocking(&*on, close).await;
            }
            if !drained.await {
                tracing::warn!("stopped with frames unwritten");
            }
        })
    }

    fn weigh(input: &Input) -> usize {
        let more = if let Input::Link(input) = input { link_weight(input) } else { 0 };
        size_of::<Input>() + more
    }
}
