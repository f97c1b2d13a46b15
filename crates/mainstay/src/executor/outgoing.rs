//! States on their way out: to joiners, and into checkpoints.

use bytes::Bytes;
use mainstay_base::service::Chunks;
use mainstay_base::{Duration, Level, Position};
use mainstay_paradigm::{self as paradigm, SnapshotStream, StateMachine};
use mainstay_site::AppPort;

use super::{Executor, retire};

/// What a byte of a chunk counts that is made of the state (4 ns).
const CHUNK_BYTE: Duration = Duration::from_nanos(4);

/// A state on its way to joiners.
pub(super) struct Sponsor<U> {
    position: Position,
    stream: SnapshotStream<U>,
    next: Option<Bytes>,
}

/// A state on its way into a checkpoint.
struct Stream<U>(SnapshotStream<U>);

impl<U: paradigm::Snapshot> Chunks for Stream<U> {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
        self.0.next_chunk().map_err(|error| error.to_string())
    }
}

/// Which checkpoint is to be written, or is being written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    Nothing,
    /// Of the state that a sponsor gave: the member is whole when it is forced.
    Transferred(Position),
    Usual,
}

impl<S: StateMachine + 'static> Executor<S> {
    pub(super) fn begin_sponsoring(&mut self, position: Position, port: &mut AppPort<'_>) {
        retire(self.sponsor.take());
        let right = self.replica.position() == position;
        let Some(mut stream) = self.replica.snapshot().ok().filter(|_| right) else {
            return tracing::error!(?position, "there is no state to give to joiners");
        };
        match stream.next_chunk() {
            Ok(next) => self.sponsor = Some(Sponsor { position, stream, next }),
            Err(error) => tracing::error!(%error, "the state cannot be written out"),
        }
        self.give_chunk(position, port);
    }

    pub(super) fn give_chunk(&mut self, position: Position, port: &mut AppPort<'_>) {
        let Some(mut sponsor) = self.sponsor.take_if(|sponsor| sponsor.position == position) else {
            return;
        };
        let chunk = sponsor.next.take().unwrap_or_default();
        match sponsor.stream.next_chunk() {
            Ok(next) => sponsor.next = next,
            Err(error) => return tracing::error!(%error, "the state cannot be written out"),
        }
        self.replica.charge(CHUNK_BYTE * chunk.len() as u32, chunk.len());
        let last = sponsor.next.is_none();
        port.snapshot_chunk(position, chunk, last);
        self.sponsor = Some(sponsor).filter(|_| !last);
    }

    /// Begins the checkpoint that is due, one at a time.
    pub(super) fn begin_checkpoint(&mut self, port: &mut AppPort<'_>) {
        if let Some(position) = self.transferred {
            if self.settings.level != Level::Disk {
                self.transferred = None;
                return port.restored(position);
            }
            if self.writing == Writing::Nothing
                && !self.status.disk_short
                && let Ok(stream) = self.replica.snapshot()
            {
                self.transferred = None;
                self.writing = Writing::Transferred(position);
                port.checkpoint(position, true, Box::new(Stream(stream)));
            }
        } else if self.writing == Writing::Nothing
            && let Some(stream) =
                self.checkpoint.take_if(|stream| stream.position() <= port.forced())
        {
            self.writing = Writing::Usual;
            let position = stream.position();
            port.checkpoint(position, false, Box::new(Stream(stream)));
        }
    }
}
