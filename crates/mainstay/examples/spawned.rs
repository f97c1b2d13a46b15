//! A node in a program of several threads: it runs on a thread of its own, and its handles work from everywhere.
//!
//! `cargo run -p mainstay --example spawned`

use std::error::Error;

use mainstay::{ClusterId, Config, GroupConfig, Node, Order};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::new(ClusterId::from_entropy(2), "a", Config::loopback(["a"])?);
    let spawned = Node::spawn(config, |node| {
        let orders = node.group("orders", GroupConfig::memory().stateless())?;
        let bills = node.group("bills", GroupConfig::memory().stateless())?;
        Ok((orders, bills))
    });
    let (node, (orders, bills)) = spawned.await?;
    node.ready().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let group = if number % 2 == 0 { orders.clone() } else { bills.clone() };
        tasks.spawn(async move {
            let receipt = group.cast(format!("number {number}"), Order::Total).await.ok()?;
            receipt.majority().await.ok()
        });
    }
    let reached = tasks.join_all().await.into_iter().flatten().count();
    println!("{reached} of 100 messages are at a majority");
    assert_eq!(reached, 100);
    node.close().await;
    Ok(())
}
