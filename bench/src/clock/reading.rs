//! How well a clock is read: from the page of this process, and by round trips over UDP on loopback, with and without the stamps of the kernel.

use std::cell::RefCell;
use std::hint::black_box;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use mainstay_base::{ClusterId, Instant, NodeId};
use mainstay_clock::sync::global::GlobalClock;
use mainstay_runtime::{
    Arrived, DatagramKey, DatagramKeys, Datagrams as _, TimeSource, TokioTime, Udp,
};
use tokio::task::LocalSet;

use super::each;
use crate::output::{Measured, Report, percentile};

const TRIPS: usize = 2_000;
/// A turn of a node that has something else to do.
const BUSY: Duration = Duration::from_millis(1);

pub(super) fn run(report: &mut Report) {
    report.case("clock", "clock/now", now);
    report.case("clock", "clock/reading/idle", || round_trips(Duration::ZERO));
    report.case("clock", "clock/reading/busy", || round_trips(BUSY));
}

fn now() -> io::Result<Vec<Measured>> {
    let (clock, time) = (GlobalClock::new(), TokioTime::new());
    clock.attach(time.reader().ok_or(io::ErrorKind::Unsupported)?);
    let ours = each(|| black_box(clock.now()).1 == 0);
    let theirs = each(|| {
        black_box(std::time::Instant::now());
        true
    });
    Ok(vec![Measured::nanos("ns_per_reading", ours), Measured::nanos("clock_gettime_ns", theirs)])
}

/// What a datagram says: when it was sent; and of an answer, when the question came.
fn body(number: u64, came: Instant, sent: Instant) -> Vec<u8> {
    [number, came.as_nanos(), sent.as_nanos()].iter().flat_map(|it| it.to_le_bytes()).collect()
}

fn words(body: &[u8]) -> Option<[u64; 3]> {
    let word = |at: usize| Some(u64::from_le_bytes(body.get(at * 8..at * 8 + 8)?.try_into().ok()?));
    Some([word(0)?, word(1)?, word(2)?])
}

/// Two nodes of one thread, whose clock is one: so what a reading says the other clock is ahead is its error.
fn round_trips(busy: Duration) -> io::Result<Vec<Measured>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, trips(busy))
}

async fn trips(busy: Duration) -> io::Result<Vec<Measured>> {
    let (cluster, key) = (ClusterId::from_entropy(1), DatagramKey([1; 32]));
    let [asker, server] = ["a", "b"].map(|name| NodeId::new(cluster, name));
    let place = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
    let addresses: [(NodeId, SocketAddr); 2] = [(asker, place()?), (server, place()?)];
    let time: Rc<dyn TimeSource> = Rc::new(TokioTime::new());
    let udp = |me, listen| {
        let keys = DatagramKeys::shared(&key, me, [asker, server]);
        let udp = Udp::new(me, listen, addresses.into(), &keys, Rc::clone(&time))?;
        io::Result::Ok(Rc::new(RefCell::new(udp)))
    };
    let (asks, serves) = (udp(asker, addresses[0].1)?, udp(server, addresses[1].1)?);
    let questions = Rc::new(RefCell::new(Vec::<Arrived>::new()));
    let answers = Rc::new(RefCell::new(Vec::<(Arrived, Instant)>::new()));
    let asked = Rc::clone(&questions);
    serves.borrow_mut().start(Box::new(move |it| asked.borrow_mut().push(it)));
    let (answered, clock) = (Rc::clone(&answers), Rc::clone(&time));
    asks.borrow_mut().start(Box::new(move |it| answered.borrow_mut().push((it, clock.now()))));
    let works = || {
        let begun = time.now();
        while time.now().saturating_since(begun) < busy {}
    };
    let mut errors = [Vec::new(), Vec::new()];
    let mut wrong = 0;
    let mut number = 0;
    while errors[0].len() < TRIPS {
        number += 1;
        let sent = time.now();
        asks.borrow_mut().send(server, &body(number, sent, sent));
        works();
        for _ in 0..50 {
            tokio::task::yield_now().await;
            for question in questions.borrow_mut().drain(..) {
                let Some([number, ..]) = words(&question.body) else { continue };
                serves.borrow_mut().send(asker, &body(number, question.at, time.now()));
                works();
            }
            if !answers.borrow().is_empty() {
                break;
            }
        }
        for (answer, read) in answers.borrow_mut().drain(..) {
            let Some([its, came, said]) = words(&answer.body) else { continue };
            if its != number {
                continue;
            }
            let held = Duration::from_nanos(said.saturating_sub(came));
            for (arrived, errors) in [answer.at, read].into_iter().zip(&mut errors) {
                let trip = arrived.saturating_since(sent).saturating_sub(held);
                errors.push(trip / 2);
                let middle = Duration::from_nanos(said) + trip / 2;
                let truth = Duration::from_nanos(arrived.as_nanos());
                wrong += u64::from(middle.abs_diff(truth) > trip / 2 + Duration::from_nanos(2));
            }
        }
    }
    errors.iter_mut().for_each(|it| it.sort_unstable());
    if wrong > 0 {
        return Err(io::Error::other(format!("{wrong} readings were further off than they claim")));
    }
    Ok(vec![
        Measured::micros("stamped_p50_us", percentile(&errors[0], 50)),
        Measured::micros("stamped_p99_us", percentile(&errors[0], 99)),
        Measured::micros("read_p50_us", percentile(&errors[1], 50)),
        Measured::micros("read_p99_us", percentile(&errors[1], 99)),
    ])
}
