//! Two nodes talk over a link and nothing else: one is a task, the other an actix actor that checks what comes.
//!
//! `cargo run -p mainstay-link --example talk`

use std::{collections::BTreeMap, error::Error, io, net::TcpListener};

use actix::{Actor, Context, Handler};
use mainstay_link::actor::{ClusterId, Events, LinkEvent, LinkParts, open, start};

struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Events<LinkEvent>> for Counter {
    type Result = ();

    fn handle(&mut self, events: Events<LinkEvent>, _: &mut Context<Self>) {
        for event in events.iter() {
            match event {
                LinkEvent::Message { payload, .. } => {
                    self.0 += 1;
                    assert_eq!(payload[..], self.0.to_le_bytes(), "none lost, doubled, overtaken");
                }
                // Up, Down; Replaced, with the numbers of what is open.
                other => println!("bob: {other:?}"),
            }
        }
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let free = |name: &str| Ok((name.into(), TcpListener::bind("127.0.0.1:0")?.local_addr()?));
    let roster = ["ann", "bob"].map(free).into_iter().collect::<io::Result<BTreeMap<_, _>>>()?;
    let parts = |name| LinkParts::tcp(ClusterId::from_entropy(7), name, roster.clone());
    let (ann, mut told) = open(parts("ann")?)?;
    let _bob = start(parts("bob")?, Counter(0).start().recipient())?;
    for number in 1..=1_000_u64 {
        // Waits for the first meeting, and whenever bob is a window behind.
        ann.send("bob", number.to_le_bytes().to_vec()).await?;
    }
    // Until bob was given all of them.
    while !matches!(told.next().await, Some(LinkEvent::Acknowledged { upto: 1_000, .. })) {}
    Ok(())
}
