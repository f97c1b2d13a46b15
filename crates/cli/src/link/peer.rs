//! One process of the demo: sends numbered messages to each boot of its peer and checks the numbers that it gets.
//!
//! Lines on standard output: `listening ADDRESS`, `boot NONCE`, `sent PEER-NONCE COUNT`, `got PEER-NONCE COUNT`,
//! `violation TEXT`, and `stopped` behind the last `sent`. On standard input, `stop` ends the sending; the end of the
//! input ends the process.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, BufRead as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::{BootId, BootNonce, ClusterId, Duration, NodeId};
use mainstay_link::{Config, Event, Input};
use mainstay_runtime::{Entropy as _, HostOptions, OsEntropy, Tcp, TcpOptions, TokioTime};
use tokio::sync::mpsc;

use crate::out::{say, tell};

/// Messages sent and not yet acknowledged.
const OUTSTANDING_MAX: u64 = 8192;
const CHANNEL: u16 = 1;
const REPORT_EVERY: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The cluster's id.
    #[arg(long, value_parser = |text: &str| ClusterId::parse(text).ok_or("not a UUID"))]
    cluster: ClusterId,
    /// This node's name.
    #[arg(long)]
    name: String,
    /// The peer's name.
    #[arg(long)]
    peer: String,
    /// Where the peer can be reached.
    #[arg(long)]
    peer_address: SocketAddr,
}

/// What was sent to and received from each boot of the peer.
#[derive(Default)]
struct Tally {
    stopped: bool,
    sent: BTreeMap<BootNonce, u64>,
    got: BTreeMap<BootNonce, u64>,
}

impl Tally {
    fn on_event(&mut self, event: Event) -> Vec<Input> {
        match event {
            Event::Up { boot, .. } if !self.sent.contains_key(&boot.nonce) => self.fill(boot, 0),
            Event::Sent { to, upto } => self.fill(to, upto),
            Event::Deliver { from, payload, .. } => {
                if let Err(violation) = self.check(from.nonce, &payload) {
                    say!("violation {violation}");
                }
                Vec::new()
            }
            Event::Replaced { old, .. } => {
                // Voided with its boot: whatever was under way to it has no outcome to wait for.
                self.sent.remove(&old.nonce);
                Vec::new()
            }
            Event::Dead { by } => {
                say!("violation told dead by {by:?}");
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// What a boot sends is numbered from 1 without a gap: anything else was lost, doubled or out of order.
    fn check(&mut self, from: BootNonce, payload: &[u8]) -> Result<(), String> {
        let last = self.got.entry(from).or_default();
        let number = payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if number != Some(*last + 1) {
            return Err(format!("got {number:?} after {last} from {from:?}"));
        }
        *last += 1;
        Ok(())
    }

    /// The messages that may follow when `acked` have arrived.
    fn fill(&mut self, to: BootId, acked: u64) -> Vec<Input> {
        let sent = self.sent.entry(to.nonce).or_default();
        if self.stopped {
            return Vec::new();
        }
        let numbers = *sent + 1..=acked.saturating_add(OUTSTANDING_MAX);
        let inputs: Vec<_> = numbers.map(|number| message(to, number)).collect();
        *sent += inputs.len() as u64;
        inputs
    }

    fn report(&self) {
        for (word, counts) in [("sent", &self.sent), ("got", &self.got)] {
            for (nonce, count) in counts {
                say!("{word} {} {count}", nonce.0);
            }
        }
    }
}

fn message(to: BootId, number: u64) -> Input {
    let mut payload = [0; 64];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    Input::Send {
        to: to.node,
        boot: Some(to.nonce),
        channel: CHANNEL,
        meta: Bytes::new(),
        payload: Bytes::copy_from_slice(&payload),
    }
}

pub(crate) fn run(options: &Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, exchange(options)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tell!("{}: {reason}", options.name);
            ExitCode::from(70)
        }
    }
}

async fn exchange(options: &Options) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let nonce = BootNonce(OsEntropy.draw().map_err(|error| text(&error))?);
    let me = BootId { node: NodeId::new(options.cluster, &options.name), nonce };
    let peer = NodeId::new(options.cluster, &options.peer);
    let config = Config::lan(options.cluster, me, [peer].into());
    let config = config.build().map_err(|error| text(&error))?;
    let time = Rc::new(TokioTime::new());
    let tcp = Tcp::new(TcpOptions::listening(SocketAddr::from(([127, 0, 0, 1], 0))), time.clone());
    let tcp = tcp.map_err(|error| text(&error))?;
    let listening = tcp.local_addr().ok_or("the transport does not listen")?;
    say!("listening {listening}");
    say!("boot {}", nonce.0);

    let tally = Rc::new(RefCell::new(Tally::default()));
    let events = tally.clone();
    let link = mainstay_site::start_link(
        config,
        nonce.0 as u64,
        Box::new(tcp),
        BTreeMap::from([(peer, options.peer_address)]),
        time,
        HostOptions::default(),
        move |event| events.borrow_mut().on_event(event),
    );
    let mut commands = commands();
    let mut report = tokio::time::interval(REPORT_EVERY);
    loop {
        tokio::select! { biased;
            command = commands.recv() => match command {
                Some(line) if line == "stop" => {
                    tally.borrow_mut().stopped = true;
                    tally.borrow().report();
                    say!("stopped");
                }
                Some(_) => {}
                None => break,
            },
            closed = link.closed() => return Err(format!("the link ended: {closed:?}")),
            _ = report.tick() => tally.borrow().report(),
        }
    }
    link.stop();
    link.closed().await;
    Ok(())
}

/// The lines of standard input, read on a thread of their own.
fn commands() -> mpsc::Receiver<String> {
    let (lines, commands) = mpsc::channel(4);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check behind the verdict must be able to fail.
    #[test]
    fn a_lost_doubled_or_overtaken_message_is_noticed() {
        let from = BootNonce(1);
        for (numbers, right) in [
            (&[1, 2, 3][..], true),
            (&[1, 3], false),
            (&[1, 1], false),
            (&[1, 3, 2], false),
            (&[2], false),
        ] {
            let mut tally = Tally::default();
            let mut check = |number: &u64| tally.check(from, &number.to_le_bytes()).is_ok();
            assert_eq!(numbers.iter().all(&mut check), right, "{numbers:?}");
        }
        assert!(Tally::default().check(from, b"short").is_err());
    }
}
