//! The program of the first page, with three real nodes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use common::{Cluster, Journal, NAMES, place, run};
use mainstay::{Closed, Durability, Node};

/// Checks that three nodes that are started as README's first page starts them make a cluster and execute.
#[test]
fn the_first_page_works() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let mut nodes = Vec::new();
        for name in NAMES {
            let config = mainstay::Config::new(cluster.id, name, cluster.nodes.clone());
            let mut builder = Node::builder(config.data_dir(cluster.dir(name))).unwrap();
            let sum = builder.replicate("sum", Journal::default).unwrap();
            nodes.push((builder.start().unwrap(), sum));
        }
        for (node, sum) in &nodes {
            node.ready().await.unwrap();
            assert!(place(&sum.execute(&1_u64.to_le_bytes()).await).is_some());
        }
        for (node, _) in nodes {
            assert_eq!(node.close().await, Closed::Stopped);
        }
    });
}
