//! Three nodes and no groups: an actix actor is told who works, who joined, who left and why. One node is closed, one is killed.
//!
//! `cargo run -p mainstay --example views`

use std::{error::Error, sync::Arc};

use actix::{Actor, Context, Handler};
use mainstay::{ClusterId, Config, Events, Node, Reason, ViewChanged};

struct Screen;

impl Actor for Screen {
    type Context = Context<Self>;
}

impl Handler<Events<Arc<ViewChanged>>> for Screen {
    type Result = ();

    fn handle(&mut self, views: Events<Arc<ViewChanged>>, _: &mut Context<Self>) {
        for view in views.iter() {
            view.joined.iter().for_each(|member| println!("{}: + {member}", view.id.number));
            view.left.iter().for_each(|(who, why)| println!("{}: - {who}, {why}", view.id.number));
        }
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = Config::loopback(["a", "b", "c"])?;
    let cluster = ClusterId::from_entropy(1);
    let start = |name| Node::builder(Config::new(cluster, name, nodes.clone()))?.start();
    let (a, b, c) = (start("a")?, start("b")?, start("c")?);
    a.views().subscribe(Screen.start().recipient()).await;
    let mut views = a.views().watch().ok_or("it has ended")?;
    views.wait_for(|view| view.members.len() == 3).await?;
    b.close().await;
    views.wait_for(|view| view.left.iter().any(|(_, why)| *why == Reason::Closed)).await?;
    let _b = start("b")?; // Another incarnation.
    views.wait_for(|view| view.members.len() == 3).await?;
    drop(c); // As if it was killed: it tells nobody.
    views.wait_for(|view| view.members.len() == 2).await?;
    Ok(())
}
