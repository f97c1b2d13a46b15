//! The program of the first page, with three real nodes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use common::{Cluster, NAMES, run};
use mainstay::{Closed, Durability};

// The code of the first page, as it stands there.
include!("readme/program.rs");

const PAGE: &str = include_str!("../../../README.md");

/// Checks that there is no other Rust on the page: what is there runs below.
#[test]
fn the_code_of_the_first_page_is_this_one() {
    let blocks: Vec<&str> = PAGE.split("```rust\n").skip(1).collect();
    assert_eq!(blocks.len(), 1);
    let code = include_str!("readme/program.rs");
    assert_eq!(blocks[0].split("```").next(), Some(code), "tests/readme/program.rs");
}

/// Checks that three nodes with the code of the first page make a cluster and execute; and again, from their disks.
#[test]
fn the_first_page_works() {
    run(async {
        let cluster = Cluster::new(Durability::Disk);
        let addresses = NAMES.map(|name| cluster.nodes[name]);
        let mut total = 0_u64;
        for _ in 0..2 {
            let begin = |name| start(name, addresses, &cluster.dir(name)).unwrap();
            let nodes = NAMES.map(begin);
            for (node, sum) in &nodes {
                total += 6;
                let said = add(node, sum, &[1, 2, 3]).await.unwrap();
                let bytes = Bytes::copy_from_slice(&total.to_le_bytes());
                assert_eq!(said, format!("forced to two disks of three: {bytes:?}"));
            }
            for (node, _) in nodes {
                assert_eq!(node.close().await, Closed::Stopped);
            }
        }
    });
}
