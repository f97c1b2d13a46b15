//! What an operator may have to say to a cluster: `mainstay bootstrap`, `skip`, `accept-loss`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use crate::admin::HEADER;
use crate::cluster::Cluster;
use crate::config::NodeConfig;
use crate::failure::Failure;
use crate::node::BOOTSTRAP;
use crate::report::{GROUP, exchange};

/// How long a node may take to do it: longer than it waits itself.
const PATIENCE: Duration = Duration::from_secs(6);

#[derive(clap::Args)]
pub(crate) struct BootstrapOptions {
    /// The configuration of the node.
    #[arg(long)]
    config: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct SkipOptions {
    /// The cluster's directory.
    #[arg(long)]
    dir: PathBuf,
    /// The group: `state`.
    group: String,
    /// The number of the command, as the alarm `poison #N` says it.
    position: u64,
}

#[derive(clap::Args)]
pub(crate) struct AcceptLossOptions {
    /// The cluster's directory.
    #[arg(long)]
    dir: PathBuf,
    /// The group: `state`.
    group: String,
}

/// Marks a node as a founder: at its next start, its first, it takes part in making the cluster.
pub(crate) fn bootstrap(options: &BootstrapOptions) -> Result<(), Failure> {
    let config = NodeConfig::read(&options.config, &[])?;
    if config.data_dir.exists() {
        let (path, data) = (options.config.display(), config.data_dir.display());
        return Err(Failure::usage(format!(
            "{path}: {data} exists: a node that has lived founds nothing"
        )));
    }
    let mark = options.config.with_file_name(BOOTSTRAP);
    let wrong = |error: std::io::Error| Failure::usage(format!("{}: {error}", mark.display()));
    let file = fs::OpenOptions::new().create(true).append(true).open(&mark).map_err(wrong)?;
    file.sync_all().map_err(wrong)?;
    if let Some(home) = mark.parent().filter(|home| !home.as_os_str().is_empty()) {
        File::open(home).and_then(|home| home.sync_all()).map_err(wrong)?;
    }
    println!("node {} is a founder of cluster {}", config.node, config.cluster);
    Ok(())
}

/// Has a command passed over whose execution panics everywhere. Any node will do: it goes through the order.
pub(crate) fn skip(options: &SkipOptions) -> Result<(), Failure> {
    let cluster = cluster(&options.dir, &options.group)?;
    let mut why = String::new();
    for node in &cluster.nodes {
        let path = format!("/skip/{}", options.position);
        match post(node, &path) {
            Ok((200, text)) => {
                println!("node {}: {text}", node.node);
                return Ok(());
            }
            Ok((409, text)) => {
                return Err(Failure::usage(format!("node {}: {text}", node.node)));
            }
            Ok((_, text)) => why = format!("node {}: {text}", node.node),
            Err(error) => why = format!("node {}: {error}", node.node),
        }
    }
    Err(Failure::unreachable(why))
}

/// Lets the group go on without those that may have more of its past; acknowledged commands may be lost.
pub(crate) fn accept_loss(options: &AcceptLossOptions) -> Result<(), Failure> {
    let cluster = cluster(&options.dir, &options.group)?;
    let mut told = 0;
    for node in &cluster.nodes {
        match post(node, "/accept-loss") {
            Ok((200, text)) => {
                println!("node {}: {text}", node.node);
                told += 1;
            }
            Ok((_, text)) => println!("node {}: {text}", node.node),
            Err(error) => println!("node {}: {error}", node.node),
        }
    }
    if told > 0 { Ok(()) } else { Err(Failure::unreachable("no node was told")) }
}

fn cluster(directory: &std::path::Path, group: &str) -> Result<Cluster, Failure> {
    if group != GROUP {
        return Err(Failure::usage(format!("there is no group {group:?}, only {GROUP:?}")));
    }
    Cluster::read(directory)
}

/// The status code, and what the node says.
fn post(node: &NodeConfig, path: &str) -> std::io::Result<(u16, String)> {
    let (status, body) =
        exchange(node.admin, &format!("POST {path} HTTP/1.0\r\n{HEADER}: 1"), PATIENCE)?;
    let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let text = value["done"].as_str().or_else(|| value["error"].as_str()).unwrap_or("no answer");
    Ok((status, text.to_owned()))
}
