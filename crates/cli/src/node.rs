//! `mainstay node`: one node in the foreground.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mainstay::{Node, Replicated, StartError};
use mainstay_clock::sync::global::Global;
use mainstay_directory::Directory;
use mainstay_directory::host;
use mainstay_runtime::{Closed, Pulse, TcpReserved};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::admin;
use crate::clock::hosted;
use crate::config::{NodeConfig, Override};
use crate::failure::Failure;
use crate::limits::Limits;
use crate::log::{Level, Lines};
use crate::out::announce;
use crate::report::Own;
use crate::trace::TraceFile;
use crate::watch;

/// A node has huge pages when it has so much in memory (256 MiB): before, they cost it more than they give.
const HUGE_PAGES_FROM: u64 = 256 << 20;
/// Beside the configuration: the node has part in making the cluster. Gone once it has begun to.
pub(crate) const BOOTSTRAP: &str = "bootstrap";
/// How long a stop may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The node's configuration.
    #[arg(long)]
    config: PathBuf,
    /// Where clients connect, instead of the configured address.
    #[arg(long)]
    resp: Option<SocketAddr>,
    /// Where operators connect, instead of the configured address.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Its directory, instead of the configured one.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// From which level on it writes to standard error, instead of the configured one.
    #[arg(long, value_enum)]
    log: Option<Level>,
    /// The directory where it keeps a trace of what it does, instead of the configured one.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Stops when the standard input ends: with the process that started it.
    #[arg(long, hide = true)]
    attached: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if let Err(error) = mainstay_runtime::huge_pages_from(HUGE_PAGES_FROM) {
        tracing::debug!(%error, "huge pages are as the system has them");
    }
    let flags = [
        ("--resp", options.resp.map(|address| address.to_string())),
        ("--admin", options.admin.map(|address| address.to_string())),
        ("--log", options.log.map(|level| level.name().to_owned())),
    ];
    let flags = flags.into_iter().filter_map(|(flag, value)| Some(Override::flag(flag, value?)));
    let overrides: Vec<_> = Override::environment()?.into_iter().chain(flags).collect();
    let config = NodeConfig::read(&options.config, &overrides)?.with_directories(
        &options.config,
        options.data_dir.as_deref(),
        options.trace.as_deref(),
    );
    let log = config.log.begin()?;
    let _entered = tracing::error_span!("node", name = config.node).entered();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::halted)?;
    LocalSet::new().block_on(&runtime, serve(options, config, log.lines().clone()))
}

async fn serve(options: &Options, config: NodeConfig, log: Lines) -> Result<(), Failure> {
    let path = options.config.display();
    let mark = options.config.with_file_name(BOOTSTRAP);
    let refused = |key: &str, error: &dyn std::fmt::Display| {
        Failure::usage(format!("{}: {error}", config.place(&options.config, key)))
    };
    // Taken before the log is read, so that it is known early that they are free; who connects meanwhile is refused.
    let take = |key: &str, address| TcpReserved::new(address).map_err(|it| refused(key, &it));
    let (resp, admin) = (take("resp", config.resp)?, take("admin", config.admin)?);
    let (resp_at, admin_at) = (resp.local_addr(), admin.local_addr());
    let (mut interrupt, mut terminate) = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)))
        .map_err(Failure::halted)?;

    let bootstrap = mark.exists();
    let data = config.data_dir.display();
    let pulse = Pulse::new();
    let limits = Limits::of_process(config.peers.len(), config.clock.is_some())?;
    let settings = config.settings(bootstrap, Arc::clone(&pulse))?;
    let mut settings = settings.accepted_max(limits.accepted);
    let trace = config.begin_trace()?;
    if let Some(trace) = &trace {
        settings = settings.trace(Arc::<TraceFile>::clone(trace));
    }
    let (_node, node) = begin(&config, settings).map_err(|error| match &error {
        error @ (StartError::Listen(_) | StartError::Datagrams { .. }) => refused("listen", error),
        error => Failure::start(format_args!("{path}, {data}"), error),
    })?;
    let resp = resp.clients().map_err(|error| refused("resp", &error))?;
    let admin = admin.clients().map_err(|error| refused("admin", &error))?;
    if bootstrap {
        // The directory has it from here on. Without the directory the node is a stranger, not a founder.
        fs::remove_file(&mark).map_err(|error| Failure::file(mark.display(), &error))?;
    }
    let (whose, lines) = (path.to_string(), log.clone());
    let beacon = watch::start(pulse, move || watch::end(&whose, &lines));
    let _beacon = beacon.map_err(Failure::halted)?;
    tracing::info!(founder = bootstrap, "started");
    let own = Rc::new(Own { log: Some(log), ..Own::default() });
    let counted = Rc::clone(&own.clients);
    let mut served = config.clients();
    served.clients_max = limits.clients;
    let clients = host::serve_with(node.clone(), Box::new(resp), served, counted);
    let (name, known) = (config.node.clone(), Rc::clone(&own));
    let status = admin::serve(name, node.clone(), known, admin, limits.operators);
    let (name, pid) = (&config.node, std::process::id());
    announce(format!("node {name} pid {pid} resp {resp_at} admin {admin_at}"));

    let parent = parent(options.attached);
    let closed = tokio::select! {
        biased;
        () = clients => Closed::Dropped,
        () = status => Closed::Dropped,
        closed = node.closed() => closed,
        by = watch::until_doubled(&node, &own.deaths) => return Err(second(&config, options, &by)),
        _ = interrupt.recv() => stop(node).await,
        _ = terminate.recv() => stop(node).await,
        _ = parent => stop(node).await,
    };
    match closed {
        Closed::Stopped => {
            if let Some(trace) = trace {
                trace.stop();
            }
            Ok(())
        }
        Closed::Halted { reason } => {
            Err(Failure::halted(format!("{path}, {data}: the node halted: {reason}")))
        }
        _ => Err(Failure::halted(format!("{path}: the node did not end in time"))),
    }
}

/// Starts the node with what is on it: the directory, and a clock if one is wanted. It stops with the last clone of the first.
fn begin(
    config: &NodeConfig,
    settings: mainstay::Config,
) -> Result<(Node, Replicated<Directory>), StartError> {
    let mut builder = Node::builder(settings)?;
    let directory = builder.replicate(mainstay::Config::GROUP, Directory::default)?;
    // It was checked when the configuration was read.
    if let Ok(Some(clock)) = config.clock_setup() {
        builder.mount::<Global>(hosted::INSTANCE, move |mounting| clock.config(mounting));
    }
    Ok((builder.start()?, directory))
}

fn second(config: &NodeConfig, options: &Options, refused_by: &[String]) -> Failure {
    let NodeConfig { node, listen, cluster, .. } = config;
    let (path, peers) = (options.config.display(), refused_by.join(" "));
    Failure::usage(format!(
        "{path}: another process under the name {node} is alive: {peers} refused this one at {listen}, in cluster {cluster}"
    ))
}

async fn stop(node: Replicated<Directory>) -> Closed {
    timeout(PATIENCE, node.close()).await.unwrap_or(Closed::Dropped)
}

/// Ends when the standard input does; never if the node is not attached.
async fn parent(attached: bool) {
    let (tell, told) = oneshot::channel::<()>();
    if attached {
        std::thread::spawn(move || {
            let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
            drop((ended, tell));
        });
        // It is dropped: that is the sign.
        let _ = told.await;
    } else {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use mainstay_runtime::TcpClients;
    use tokio::task::{spawn_blocking, spawn_local};

    use super::*;
    use crate::cluster::Cluster;
    use crate::config::Durability;
    use crate::report::{Number, Report};

    fn has(numbers: &[Number], name: &str, node: &str, word: &str) -> bool {
        let is = |it: &&Number| it.name == name && it.node == node && it.word == word;
        numbers.iter().find(is).is_some_and(|it| it.value > Some(0.0))
    }

    /// Runs three nodes with this clock until what the second one says of it is as wanted.
    fn run_until(clock: &str, is_wanted: impl Fn(&[Number]) -> bool) {
        let home = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::open(home.path(), Some(3), Some(Durability::Memory)).unwrap();
        cluster.release();
        cluster.nodes.iter_mut().for_each(|node| node.clock = Some(toml::from_str(clock).unwrap()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let start = |config: &NodeConfig| {
                begin(config, config.settings(true, Pulse::new()).unwrap()).unwrap()
            };
            let nodes: Vec<_> = cluster.nodes.iter().map(start).collect();
            let at = cluster.nodes[1].admin;
            let (listener, directory) = (TcpClients::new(at).unwrap(), nodes[1].1.clone());
            spawn_local(admin::serve("n2".into(), directory, Rc::<Own>::default(), listener, 1));
            loop {
                let report = spawn_blocking(move || Report::of(at).unwrap()).await.unwrap();
                let Some(clock) = report.services.first() else { continue };
                assert_eq!(clock.kind, "clock");
                if is_wanted(&clock.figures) {
                    break;
                }
            }
            for (_, directory) in nodes {
                drop(directory.close().await);
            }
        });
    }

    /// A node whose configuration has a clock says in its status how that is, with the clocks that it reads.
    #[test]
    fn a_clock_that_is_configured_is_in_the_status() {
        let clock = "algorithm = \"midpoint\"\nfaulty = 0\nperiod_ms = 200";
        run_until(clock, |numbers| {
            assert!(has(numbers, "algorithm", "", "midpoint"), "{numbers:?}");
            assert!(has(numbers, "precision_bound_seconds", "", ""), "{numbers:?}");
            // Nothing is followed, so nothing bounds the distance from the true time.
            assert!(!has(numbers, "accuracy_bound_seconds", "", ""), "{numbers:?}");
            let used = ["n1", "n3"].map(|node| has(numbers, "source_used", node, "used"));
            let is_synchronised = has(numbers, "synchronised", "", "");
            // Of the time something is said while it is synchronised, and only then.
            assert_eq!(has(numbers, "time_error_seconds", "", ""), is_synchronised, "{numbers:?}");
            used == [true; 2] && is_synchronised
        });
    }

    /// One node has the reference, and the others follow it.
    #[test]
    fn a_reference_that_is_configured_is_followed() {
        let clock = "algorithm = \"external\"\nfaulty = 0\nerror_us = 2000\nreference = \"n1\"";
        run_until(clock, |numbers| {
            assert!(has(numbers, "algorithm", "", "external"), "{numbers:?}");
            assert!(has(numbers, "accuracy_bound_seconds", "", ""), "{numbers:?}");
            let of = |name: &str| numbers.iter().find(|it| it.name == name).and_then(|it| it.value);
            let (error, bound) = (of("time_error_seconds"), of("accuracy_bound_seconds"));
            // What users read is no further off than is said.
            assert!(error.is_none_or(|error| error <= bound.unwrap()), "{numbers:?}");
            let reads = has(numbers, "reference_reads_total", "", "");
            let is_synchronised = has(numbers, "synchronised", "", "");
            assert_eq!(has(numbers, "time_error_seconds", "", ""), is_synchronised, "{numbers:?}");
            reads && is_synchronised
        });
    }
}
