//! Two stations with a service that calls and streams, beside bare TCP: what the channels of services cost.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_base::service::{
    Class, In, Logged, Never, Out, Outbox, PeerChange, Service, Start, Wire,
};
use mainstay_base::{BootId, Channel, ClusterId, Machine};
use mainstay_service::{StationHandle, StationParts, start};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::output::{Measured, Report, percentile};

const WARM_UP: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
enum Message {
    Ask,
    Answer,
    /// Not answered.
    Stream,
}

#[derive(Debug, Serialize, Deserialize)]
struct Packet {
    message: Message,
    #[serde(skip)]
    body: Bytes,
}

impl Wire for Packet {
    fn payload(&self) -> Bytes {
        self.body.clone()
    }

    fn with_payload(mut self, payload: Bytes) -> Option<Self> {
        self.body = payload;
        Some(self)
    }
}

/// What one end does. The other one answers and counts.
#[derive(Clone, Copy)]
enum Load {
    None,
    /// So many calls are out at a time.
    Calls(usize),
    Stream,
}

/// Calls: when each that is out began, and how long those took that came back. Streams: bytes that came.
#[derive(Default)]
struct Got {
    bytes: u64,
    took: Vec<Duration>,
}

/// Calls or streams without end; `BULK`: of the lowest class.
struct Pump<const BULK: bool> {
    load: Load,
    body: Bytes,
    out: Outbox<Self>,
    to: Option<BootId>,
    full: bool,
    begun: std::collections::VecDeque<Instant>,
    got: Got,
}

impl<const BULK: bool> Pump<BULK> {
    fn send(&mut self, message: Message) {
        if let Some(to) = self.to {
            self.out.send(to, Packet { message, body: self.body.clone() });
        }
    }

    fn call(&mut self) {
        self.begun.push_back(Instant::now());
        self.send(Message::Ask);
    }

    /// Enough to fill what the class may have on the way, each turn.
    fn stream(&mut self) {
        if matches!(self.load, Load::Stream) && !self.full {
            (0..4).for_each(|_| self.send(Message::Stream));
            self.out.put(Out::Again);
        }
    }
}

impl<const BULK: bool> Machine for Pump<BULK> {
    type Input = In<Self>;
    type Output = Out<Self>;

    fn handle(&mut self, _: mainstay_base::Instant, input: In<Self>) {
        match input {
            In::Peer(PeerChange::Up { boot }) => {
                self.to = Some(boot);
                if let Load::Calls(count) = self.load {
                    (0..count).for_each(|_| self.call());
                }
            }
            In::Message { message: Packet { message, body }, .. } => match message {
                Message::Ask => self.send(Message::Answer),
                Message::Answer => {
                    self.got.took.extend(self.begun.pop_front().map(|begun| begun.elapsed()));
                    self.call();
                }
                Message::Stream => self.got.bytes += body.len() as u64,
            },
            // Whoever asked has gone: then nobody is told.
            In::Command(tell) => drop(tell.send(std::mem::take(&mut self.got))),
            In::Full { .. } => self.full = true,
            In::Room { .. } => self.full = false,
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: mainstay_base::Instant) {}

    fn end_turn(&mut self, _: mainstay_base::Instant) {
        self.stream();
    }

    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<mainstay_base::Instant> {
        None
    }
}

impl<const BULK: bool> Service for Pump<BULK> {
    const CHANNEL: Channel = Channel(0x4000 + BULK as u16);
    const NAME: &'static str = "pump";
    const CLASS: Class = if BULK { Class::Bulk } else { Class::Calls };
    type Message = Packet;
    type Record = Never;
    /// Give what was got so far, and begin anew.
    type Command = oneshot::Sender<Got>;
    type Event = Never;
    type Job = Never;
    type Done = Never;
    type Past = ();
    type Config = (Load, Bytes);
    type Status = ();

    fn fold((): &mut (), _: Logged<Never>) {}

    fn recover((load, body): (Load, Bytes), _: Start<()>) -> Self {
        Self {
            load,
            body,
            out: Outbox::default(),
            to: None,
            full: false,
            begun: std::collections::VecDeque::new(),
            got: Got::default(),
        }
    }

    fn work(job: Never) -> Never {
        match job {}
    }

    fn status(&self) {}
}

/// A station on a thread of its own, until its handle is dropped.
fn station<const BULK: bool>(
    name: &'static str,
    roster: BTreeMap<String, SocketAddr>,
    load: Load,
    body: Bytes,
) -> io::Result<(StationHandle, thread::JoinHandle<io::Result<()>>)> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async move {
            let cluster = ClusterId::from_entropy(1);
            let parts = StationParts::tcp(cluster, name, roster, None).map_err(io::Error::other)?;
            let mount = |node: &mut mainstay_service::Mounting<'_>| {
                node.mount::<Pump<BULK>>("pump", (load, body)).map(drop)
            };
            let station = start(parts, mount).map_err(io::Error::other)?;
            let closed = station.closed();
            // The other end waits for it.
            let _ = tell.send(station);
            closed.await;
            Ok(())
        })
    });
    let station = told.recv().map_err(io::Error::other)?;
    Ok((station, thread))
}

/// What the end that counts has got in the time of the measurement.
fn pair<const BULK: bool>(load: Load, size: usize) -> io::Result<Got> {
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    let roster = BTreeMap::from([("a".to_owned(), free()?), ("b".to_owned(), free()?)]);
    let body = Bytes::from(vec![7; size]);
    let (a, one) = station::<BULK>("a", roster.clone(), load, body.clone())?;
    let (b, other) = station::<BULK>("b", roster, Load::None, body)?;
    let counts = if matches!(load, Load::Stream) { &b } else { &a };
    let pump = counts.service::<Pump<BULK>>("pump");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let got = runtime.block_on(async {
        let mut got = Got::default();
        for wait in [WARM_UP, MEASURE] {
            tokio::time::sleep(wait).await;
            let (tell, told) = oneshot::channel();
            pump.send(tell).await.map_err(io::Error::other)?;
            got = told.await.map_err(io::Error::other)?;
        }
        io::Result::Ok(got)
    });
    drop((pump, a, b));
    for thread in [one, other] {
        thread.join().map_err(|_| io::Error::other("a station panicked"))??;
    }
    got
}

/// The same over bare TCP: each end on a thread of its own, messages with their length in front.
fn bare(load: Load, size: usize) -> io::Result<Got> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let answers = matches!(load, Load::Calls(_));
    let echo = thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let mut stream = TcpStream::from_std(stream)?;
            stream.set_nodelay(true)?;
            let from = Instant::now() + WARM_UP;
            let (mut message, mut bytes) = (vec![0; size], 0);
            loop {
                if stream.read_exact(&mut message).await.is_err() {
                    return io::Result::Ok(bytes);
                }
                if answers {
                    stream.write_all(&message).await?;
                }
                let now = Instant::now();
                if now >= from && now < from + MEASURE {
                    bytes += size as u64;
                }
            }
        })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let took = runtime.block_on(async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (from, mut took) = (Instant::now() + WARM_UP, Vec::new());
        let mut message = vec![7; size];
        while Instant::now() < from + MEASURE {
            let begun = Instant::now();
            stream.write_all(&message).await?;
            if answers {
                stream.read_exact(&mut message).await?;
                took.extend((begun >= from).then(|| begun.elapsed()));
            }
        }
        io::Result::Ok(took)
    })?;
    let bytes = echo.join().map_err(|_| io::Error::other("the echo panicked"))??;
    Ok(Got { bytes, took })
}

fn calls(mut got: Got) -> Vec<Measured> {
    got.took.sort_unstable();
    vec![
        Measured::rate("calls_per_s", got.took.len() as u64, MEASURE),
        Measured::micros("p50_us", percentile(&got.took, 50)),
        Measured::micros("p99_us", percentile(&got.took, 99)),
    ]
}

fn stream(got: &Got) -> Vec<Measured> {
    vec![Measured::rate("kib_per_s", got.bytes >> 10, MEASURE)]
}

/// Measures all cases, each with stations of its own.
pub(crate) fn run(report: &mut Report) {
    let one = Load::Calls(1);
    report.case("services", "services/call/64B/1", || pair::<false>(one, 64).map(calls));
    report.case("services", "services/call/64B/1/tcp", || bare(one, 64).map(calls));
    report.case("services", "services/call/64B/256", || {
        pair::<false>(Load::Calls(256), 64).map(calls)
    });
    report.case("services", "services/stream/64KiB", || {
        pair::<true>(Load::Stream, 65_000).map(|got| stream(&got))
    });
    report.case("services", "services/stream/64KiB/tcp", || {
        bare(Load::Stream, 65_000).map(|got| stream(&got))
    });
}
