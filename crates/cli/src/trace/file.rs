//! Writing: a thread of its own puts the events of a node into its file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mainstay::TraceSink;
use mainstay_base::trace::Event;
use mainstay_check::file::{self, BYTES_MAX, Head};

/// Most events that wait to be written.
const WAITING_MAX: usize = 1 << 18;
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The trace of a process, being written. Nothing that happens to it is felt by the node: it ends early, with a warning, at
/// [`BYTES_MAX`], when the disk fails, or when more events come than are written.
#[derive(Debug)]
pub(crate) struct TraceFile {
    queue: Sender<Said>,
    gauge: Arc<Gauge>,
    written: Mutex<Receiver<()>>,
}

#[derive(Debug, Default)]
struct Gauge {
    /// Events that wait to be written.
    waiting: AtomicUsize,
    /// Nothing is taken any more.
    over: AtomicBool,
}

enum Said {
    Events(Vec<Event>),
    Stopped,
    /// More came than were written.
    Behind,
}

impl TraceFile {
    /// Makes the directory if it is missing, and in it the first `NODE-NUMBER.jsonl` that is not there.
    pub(crate) fn create(directory: &Path, head: &Head) -> io::Result<Arc<Self>> {
        let (_, file) = file::create(directory, &head.node)?;
        Self::begin(file, head, BYTES_MAX)
    }

    fn begin(file: File, head: &Head, bytes_max: u64) -> io::Result<Arc<Self>> {
        let (queue, said) = mpsc::channel();
        let (tell, written) = mpsc::channel();
        let gauge = Arc::new(Gauge::default());
        let file = file::Writer::new(file, head, bytes_max)?;
        let writer = Writer { file, gauge: Arc::clone(&gauge) };
        let node = head.node.clone();
        thread::Builder::new().name("trace".to_owned()).spawn(move || {
            if let Err(why) = writer.run(&said) {
                tracing::warn!(node, why, "the trace ends here; the node goes on");
            }
            // Dropped: that is the sign.
            drop(tell);
        })?;
        Ok(Arc::new(Self { queue, gauge, written: Mutex::new(written) }))
    }

    /// The node has stopped in good order: says so, and waits until all is written.
    pub(crate) fn stop(&self) {
        if self.queue.send(Said::Stopped).is_ok() {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            // Late or over: there is nothing left to do.
            let _ = written.recv_timeout(PATIENCE);
        }
    }
}

impl TraceSink for TraceFile {
    fn record(&self, events: Vec<Event>) {
        if self.gauge.over.load(Ordering::Relaxed) {
            return;
        }
        let count = events.len();
        let waiting = self.gauge.waiting.fetch_add(count, Ordering::Relaxed) + count;
        let said = if waiting > WAITING_MAX {
            self.gauge.over.store(true, Ordering::Relaxed);
            Said::Behind
        } else {
            Said::Events(events)
        };
        // The writer has ended, and said why.
        let _ = self.queue.send(said);
    }
}

/// The thread's part.
struct Writer {
    file: file::Writer<File>,
    gauge: Arc<Gauge>,
}

impl Writer {
    /// Until the node stops or nobody holds the trace any more; an error is why it ends early.
    fn run(mut self, said: &Receiver<Said>) -> Result<(), String> {
        let ended = self.follow(said);
        self.gauge.over.store(true, Ordering::Relaxed);
        if let Err(why) = &ended {
            // A disk that takes nothing takes this neither; then the end is torn, and says as much.
            let _ = self.file.truncated(why).and_then(|()| self.file.flush());
        }
        ended
    }

    fn follow(&mut self, said: &Receiver<Said>) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        while let Ok(first) = said.recv() {
            let mut next = Some(first);
            while let Some(now) = next {
                match now {
                    Said::Events(events) => {
                        self.gauge.waiting.fetch_sub(events.len(), Ordering::Relaxed);
                        events.iter().try_for_each(|it| self.file.event(it)).map_err(failed)?;
                    }
                    Said::Stopped => {
                        return self
                            .file
                            .stopped()
                            .and_then(|()| self.file.flush())
                            .map_err(failed);
                    }
                    Said::Behind => {
                        return Err("events come faster than they are written".to_owned());
                    }
                }
                next = said.try_recv().ok();
            }
            self.file.flush().map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::trace::{GroupWord, ProcessWord, What};
    use mainstay_base::{BootId, BootNonce, ClusterId, GroupId, Instant, NodeId, Position};
    use mainstay_check::Verdict;
    use mainstay_check::file::read;

    use super::*;

    /// A head, and so many events of its node.
    fn recorded(count: u64) -> (Head, Vec<Event>) {
        let cluster = ClusterId::from_entropy(1);
        let head = Head::new(cluster, "a", ["a".to_owned()], ["g".to_owned()], 0);
        let boot = BootId { node: NodeId::new(cluster, "a"), nonce: BootNonce(u128::MAX) };
        let event = |number| {
            let group = GroupId::new(cluster, "g");
            let lost = What::Group(GroupWord::MaybeLost { group, from: Position(number) });
            let what = if number == 0 { What::Process(ProcessWord::Started) } else { lost };
            Event { boot, number, at: Instant::from_nanos(number), what }
        };
        (head, (0..count).map(event).collect())
    }

    /// Checks that what is read is what was written, to the end.
    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let home = tempfile::tempdir().expect("a directory");
        let (head, events) = recorded(2);
        let trace = TraceFile::create(home.path(), &head).expect("it can be written");
        trace.record(events.clone());
        trace.stop();
        let read = read(&[home.path().to_owned()]).expect("it is whole");
        assert_eq!(read.run.events(), events);
        assert_eq!((read.run.boots(), read.truncated.len()), ((1, 0), 0));
    }

    /// Checks that a file that has all the bytes it may have ends with a line that says so, and is judged as far as it goes.
    #[test]
    fn a_full_trace_says_that_it_is() {
        let home = tempfile::tempdir().expect("a directory");
        let (head, events) = recorded(1_000);
        let (path, file) = file::create(home.path(), "a").expect("it can be made");
        let trace = TraceFile::begin(file, &head, 4 << 10).expect("the head fits");
        events.chunks(10).for_each(|turn| trace.record(turn.to_vec()));
        trace.stop();
        assert!((3 << 10..5 << 10).contains(&std::fs::metadata(&path).expect("it is there").len()));
        let read = read(&[path]).expect("it has its end");
        let written = read.run.events().len();
        assert!(written > 50 && read.run.events() == &events[..written]);
        assert_eq!((read.run.boots(), read.truncated.len()), ((1, 1), 1));
        assert!(read.truncated[0].ends_with("the file is full"), "{:?}", read.truncated);
        assert!(read.run.judge().iter().all(|it| !matches!(it.verdict, Verdict::Broken(_))));
    }
}
