//! `mainstay node`: one node in the foreground.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mainstay::Node;
use mainstay_directory::Directory;
use mainstay_directory::host::{self, Counted};
use mainstay_runtime::{Closed, Pulse, TcpClients};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::admin;
use crate::config::{self, NodeConfig};
use crate::failure::Failure;
use crate::log::Level;
use crate::trace::TraceFile;
use crate::watch::{self, Doubled};

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
    data_dir: Option<String>,
    /// From which level on it writes to standard error, instead of the configured one.
    #[arg(long, value_enum)]
    log: Option<Level>,
    /// The directory where it keeps a trace of what it does, instead of the configured one.
    #[arg(long)]
    trace: Option<String>,
    /// Stops when the standard input ends: with the process that started it.
    #[arg(long, hide = true)]
    attached: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let flags = [
        ("resp", options.resp.map(|address| address.to_string())),
        ("admin", options.admin.map(|address| address.to_string())),
        ("data_dir", options.data_dir.clone()),
        ("trace", options.trace.clone()),
        ("log", options.log.map(|level| level.name().to_owned())),
    ];
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let overrides: Vec<_> = config::environment().into_iter().chain(flags).collect();
    let config = NodeConfig::read(&options.config, &overrides)?;
    config.log.begin()?;
    let _entered = tracing::error_span!("node", name = config.node).entered();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::halted)?;
    LocalSet::new().block_on(&runtime, serve(options, config))
}

async fn serve(options: &Options, config: NodeConfig) -> Result<(), Failure> {
    let path = options.config.display();
    let mark = options.config.with_file_name(BOOTSTRAP);
    let listen = |key: &str, address| {
        TcpClients::new(address).map_err(|error| Failure::usage(format!("{path}: {key}: {error}")))
    };
    let resp = listen("resp", config.resp)?;
    let admin = listen("admin", config.admin)?;
    let bound = |clients: &TcpClients| clients.local_addr().map_err(Failure::halted);
    let (resp_at, admin_at) = (bound(&resp)?, bound(&admin)?);
    let (mut interrupt, mut terminate) = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)))
        .map_err(Failure::halted)?;

    let bootstrap = mark.exists();
    let data = config.data_dir.display();
    let pulse = Pulse::new();
    let mut settings = config.settings(bootstrap, Arc::clone(&pulse))?;
    let trace = config.begin_trace()?;
    if let Some(trace) = &trace {
        settings = settings.trace(Arc::<TraceFile>::clone(trace));
    }
    let node = Node::start(settings, Directory::default)
        .map_err(|error| Failure::start(format_args!("{path}, {data}"), &error))?;
    if bootstrap {
        // The directory has it from here on. Without the directory the node is a stranger, not a founder.
        fs::remove_file(&mark)
            .map_err(|error| Failure::halted(format!("{}: {error}", mark.display())))?;
    }
    let _beacon = watch::start(pulse, path.to_string()).map_err(Failure::halted)?;
    tracing::info!(founder = bootstrap, "started");
    let counted = Rc::new(Counted::default());
    let clients =
        host::serve_with(node.clone(), Box::new(resp), config.clients(), Rc::clone(&counted));
    let status = admin::serve(config.node.clone(), node.clone(), counted, admin);
    let (name, pid) = (&config.node, std::process::id());
    let mut out = io::stdout();
    // Nobody reads it any more: then nobody is told.
    let _ = writeln!(out, "node {name} pid {pid} resp {resp_at} admin {admin_at}")
        .and_then(|()| out.flush());

    let parent = parent(options.attached);
    let closed = tokio::select! {
        biased;
        () = clients => Closed::Dropped,
        () = status => Closed::Dropped,
        closed = node.closed() => closed,
        doubled = watch::until_doubled(&node) => return Err(second(&config, options, &doubled)),
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

fn second(config: &NodeConfig, options: &Options, doubled: &Doubled) -> Failure {
    let NodeConfig { node, listen, cluster, .. } = config;
    let path = options.config.display();
    Failure::usage(format!(
        "{path}: another process under the name {node} is alive: {doubled} this one at {listen}, in cluster {cluster}"
    ))
}

async fn stop(node: Node<Directory>) -> Closed {
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
