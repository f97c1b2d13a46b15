//! Measures Corosync's closed process groups (Totem): `peer-corosync [CASE-PREFIX..] [--list] [--seconds N]`; needs root.
//!
//! Three daemons, each in a network and mount namespace of its own, on a bridge in a fourth: a longer path than
//! loopback, and nothing of it is visible outside. The namespaces have no names: they go with the processes in them. No
//! encryption; the daemons run with real-time priority, as they do by default. A C program of one file on libcpg
//! (`cpg.c`) is built when a case begins, as it needs libcpg-dev; one beside each daemon joins a group and counts.
//!
//! All messages are `CPG_TYPE_AGREED`: delivered in total order as soon as the order is known, whether or not others have
//! them; there is no higher level. `total`: senders give the library bursts of 16 until it refuses; counted at the slowest member.
//! `latency`: one message at a time until its sender has it. `view`: `kill -9` of the third daemon, idle for the window, until the callbacks of both
//! survivors have told of two members; `corosync-knet` and `corosync-udpu` have the default token (3 s and 650 ms for the third
//! node), `corosync-knet-tuned` a token of 300 ms and no coefficient.

mod cluster;
mod net;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use cluster::{Cluster, Mark, NODES, Transport};
use peers_common::{Case, Measured, Missing, Program, Run, find, is_root};

const GUARANTEE: &str = "agreed order, own delivery, in memory, no TLS, real-time daemons";
const VIEW: &str = "both survivors have the view, default token (3650 ms), no TLS";
const VIEW_TUNED: &str = "both survivors have the view, token 300 ms, no TLS";
const KNET: Transport = Transport { name: "knet", tuned: false };
const TUNED: Transport = Transport { name: "knet", tuned: true };
const UDPU: Transport = Transport { name: "udpu", tuned: false };

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for (peer, transport) in [("corosync-knet", KNET), ("corosync-udpu", UDPU)] {
        for (name, size, senders) in [
            ("total/64B/1sender", 64, 1),
            ("total/1KiB/1sender", 1 << 10, 1),
            ("total/16KiB/1sender", 16 << 10, 1),
            ("total/64B/3senders", 64, NODES),
        ] {
            let measure = move |run: &Run| total(run, transport, size, senders);
            cases.push(Case::new("multicast", name, peer, GUARANTEE, measure));
        }
        let measure = move |run: &Run| latency(run, transport);
        cases.push(Case::new("multicast", "latency/64B/delivered", peer, GUARANTEE, measure));
    }
    for (peer, guarantee, transport) in [
        ("corosync-knet", VIEW, KNET),
        ("corosync-knet-tuned", VIEW_TUNED, TUNED),
        ("corosync-udpu", VIEW, UDPU),
    ] {
        let measure = move |run: &Run| view(run, transport);
        cases.push(Case::new("view", "view/kill/member", peer, guarantee, measure));
    }
    Program { name: "peer-corosync", check, cases }.main()
}

fn check() -> Result<(), Missing> {
    find("corosync", "corosync")?;
    find("cc", "gcc")?;
    find("ip", "iproute2")?;
    find("nsenter", "util-linux")?;
    let missing = |what: &str, hint: &str| Missing { what: what.to_owned(), hint: hint.to_owned() };
    if !Path::new("/usr/include/corosync/cpg.h").is_file() {
        return Err(missing("corosync/cpg.h", "package libcpg-dev"));
    }
    if is_root() { Ok(()) } else { Err(missing("root", "namespaces are made by root")) }
}

fn total(
    run: &Run,
    transport: Transport,
    size: usize,
    senders: usize,
) -> io::Result<Vec<Measured>> {
    let marks = load(run, transport, &[&size.to_string(), "many"], senders)?;
    let slowest = marks.iter().min_by(|a, b| a.rate().total_cmp(&b.rate()));
    let rate = |mark: &Mark| Measured::rate("msgs_per_s", mark.delivered, mark.time);
    Ok(slowest.map(rate).into_iter().collect())
}

fn latency(run: &Run, transport: Transport) -> io::Result<Vec<Measured>> {
    let marks = load(run, transport, &["64", "one"], 1)?;
    // Those that did not send have no samples.
    let sampled = marks.iter().find(|mark| !mark.p50.is_zero());
    let mark = sampled.ok_or_else(|| io::Error::other("no message came back"))?;
    Ok(vec![Measured::micros("p50_us", mark.p50), Measured::micros("p99_us", mark.p99)])
}

/// What the members saw in the window while so many of them sent.
fn load(
    run: &Run,
    transport: Transport,
    arguments: &[&str],
    senders: usize,
) -> io::Result<Vec<Mark>> {
    let mut cluster = Cluster::start(run.dir(), transport, arguments)?;
    // The last ones send: as in the main benchmarks the first one does only if all do.
    for member in cluster.members.iter_mut().rev().take(senders) {
        member.tell("cast")?;
    }
    thread::sleep(run.warm_up);
    cluster.mark()?;
    thread::sleep(run.window);
    let marks = cluster.mark()?;
    cluster.check()?;
    if marks.iter().any(|mark| mark.views > 0) {
        return Err(io::Error::other("the view changed: the machine is too busy"));
    }
    Ok(marks)
}

fn view(run: &Run, transport: Transport) -> io::Result<Vec<Measured>> {
    let mut cluster = Cluster::start(run.dir(), transport, &["64", "many"])?;
    // Idle, as a cluster is most of the time: then the token goes round more slowly.
    thread::sleep(run.window);
    let at = Instant::now();
    cluster.kill_last()?;
    for member in cluster.members.iter_mut().take(NODES - 1) {
        cluster::hear_view(member, NODES - 1)?;
    }
    Ok(vec![Measured::millis("view_ms", at.elapsed())])
}
