//! A service of one's own on a node, in an actor of its own, beside a process group: it adds up what it is given.
//!
//! `cargo run -p mainstay --example mounted`

use std::error::Error;

use actix::{Actor, Context, Handler};
use mainstay::service::{Class, In, Logged, Never, Out, Outbox, Service, Start};
use mainstay::{
    Channel, ClusterId, Config, Events, GroupConfig, Instant, Machine, Node, Order, Placement,
};

struct Counter {
    out: Outbox<Self>,
    count: u64,
}

impl Machine for Counter {
    type Input = In<Self>;
    type Output = Out<Self>;
    fn handle(&mut self, _: Instant, input: In<Self>) {
        if let In::Command(number) = input {
            self.count += number;
            self.out.tell(self.count);
        }
    }
    fn handle_timeout(&mut self, _: Instant) {}
    fn end_turn(&mut self, _: Instant) {}
    fn poll_output(&mut self) -> Option<Out<Self>> {
        self.out.pop()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

impl Service for Counter {
    const CHANNEL: Channel = Channel(0x4100);
    const NAME: &'static str = "counter";
    const CLASS: Class = Class::Calls;
    type Message = Never;
    type Record = Never;
    type Command = u64;
    type Event = u64;
    type Job = Never;
    type Done = Never;
    type Past = ();
    type Config = ();
    type Status = u64;
    fn fold((): &mut (), _: Logged<Never>) {}
    fn recover((): (), _: Start<()>) -> Self {
        Self { out: Outbox::default(), count: 0 }
    }
    fn work(job: Never) -> Never {
        match job {}
    }
    fn status(&self) -> u64 {
        self.count
    }
}

/// An actor that hears the service.
struct Listener(tokio::sync::mpsc::UnboundedSender<u64>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Events<u64>> for Listener {
    type Result = ();
    fn handle(&mut self, counts: Events<u64>, _: &mut Context<Self>) {
        for count in counts.iter() {
            // Nobody waits for it any more.
            let _ = self.0.send(*count);
        }
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::new(ClusterId::from_entropy(8), "a", Config::loopback(["a"])?)
        .durability(mainstay::Durability::Memory);
    let mut node = Node::builder(config)?;
    let group = node.group("news", GroupConfig::memory().stateless())?;
    let counter = node.mount_beside::<Counter>("counter", Placement::Thread, |_| ());
    let node = node.start()?;
    node.ready().await?;
    let (told, mut counts) = tokio::sync::mpsc::unbounded_channel();
    counter.subscribe(Listener(told).start().recipient(), 100).await?;
    counter.send(3).await?;
    counter.try_send(4)?;
    while counts.recv().await.ok_or("it ended")? != 7 {}
    group.cast("seven", Order::Total).await?.majority().await?;
    println!("counted {} on {:?}", counter.status().await?, counter.placement());
    node.close().await;
    Ok(())
}
