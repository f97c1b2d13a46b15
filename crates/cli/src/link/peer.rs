//! One process of the demo: sends numbered messages to each boot of its peer and checks the numbers that it gets.
//!
//! Lines on standard output: `listening ADDRESS`, `boot NONCE`, `sent PEER-NONCE COUNT`, `got PEER-NONCE COUNT`,
//! `violation TEXT`, and `stopped` behind the last `sent`. On standard input, `stop` ends the sending; the end of the
//! input ends the process.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;

use bytes::Bytes;
use mainstay_base::{BootNonce, ClusterId, Duration};
use mainstay_link::actor::{LinkEvent, LinkHandle, LinkParts, Peer, SendError, open};
use mainstay_runtime::{OsEntropy, Tcp, TcpOptions, TokioTime};
use tokio::sync::mpsc;

use crate::out::{say, tell};

/// Messages sent and not yet acknowledged.
const OUTSTANDING_MAX: u64 = 1024;
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
    /// Whom messages may follow to, and how many of them have arrived there.
    fn on_event(&mut self, event: LinkEvent) -> Option<(Peer, u64)> {
        match event {
            LinkEvent::Up { peer } => {
                let is_new = !self.sent.contains_key(&peer.boot.nonce);
                return is_new.then_some((peer, 0));
            }
            LinkEvent::Acknowledged { to, upto } => return Some((to, upto)),
            LinkEvent::Message { from, payload } => {
                if let Err(violation) = self.check(from.boot.nonce, &payload) {
                    say!("violation {violation}");
                }
            }
            LinkEvent::Replaced { old, .. } => {
                // Voided with its boot: whatever was under way to it has no outcome to wait for.
                self.sent.remove(&old.boot.nonce);
            }
            LinkEvent::Dead { by, .. } => say!("violation told dead by {by:?}"),
            _ => {}
        }
        None
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

    fn report(&self) {
        for (word, counts) in [("sent", &self.sent), ("got", &self.got)] {
            for (nonce, count) in counts {
                say!("{word} {} {count}", nonce.0);
            }
        }
    }
}

fn message(number: u64) -> Bytes {
    let mut payload = [0; 64];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    Bytes::copy_from_slice(&payload)
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
    let time = Rc::new(TokioTime::new());
    let tcp = Tcp::new(TcpOptions::listening(SocketAddr::from(([127, 0, 0, 1], 0))), time.clone());
    let tcp = tcp.map_err(|error| text(&error))?;
    let listening = tcp.local_addr().ok_or("the transport does not listen")?;
    let names = [(&options.name, listening), (&options.peer, options.peer_address)];
    let roster = names.map(|(name, address)| (name.clone(), address)).into();
    let (cluster, name) = (options.cluster, options.name.as_str());
    let parts = LinkParts::new(cluster, name, roster, Box::new(tcp), time, Box::new(OsEntropy));
    let (link, mut events) = open(parts).map_err(|error| text(&error))?;
    say!("listening {listening}");
    say!("boot {}", link.me().boot.nonce.0);

    let mut tally = Tally::default();
    let mut commands = commands();
    let mut report = tokio::time::interval(REPORT_EVERY);
    loop {
        tokio::select! { biased;
            command = commands.recv() => match command {
                Some(line) if line == "stop" => {
                    tally.stopped = true;
                    tally.report();
                    say!("stopped");
                }
                Some(_) => {}
                None => break,
            },
            _ = report.tick() => tally.report(),
            event = events.next() => match event {
                Some(event) => if let Some((to, acked)) = tally.on_event(event) {
                    fill(&mut tally, &link, &to, acked).await?;
                },
                None => return Err(format!("the link ended: {:?}", link.closed().await)),
            },
        }
    }
    link.stop();
    link.closed().await;
    Ok(())
}

/// Sends the messages that may follow when `acked` have arrived.
async fn fill(tally: &mut Tally, link: &LinkHandle, to: &Peer, acked: u64) -> Result<(), String> {
    let sent = tally.sent.entry(to.boot.nonce).or_default();
    while !tally.stopped && *sent < acked.saturating_add(OUTSTANDING_MAX) {
        match link.send(to, message(*sent + 1)).await {
            Ok(_) => *sent += 1,
            Err(SendError::Replaced(_)) => break,
            Err(refused) => return Err(refused.to_string()),
        }
    }
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
