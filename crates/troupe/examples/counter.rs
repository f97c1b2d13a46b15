//! A counter in three replicas, and a shop in two that calls it: each call is executed once by each counter, though both shops make it.
//! `cargo run -p mainstay-troupe --example counter`
use actix::{Actor, Context, Handler, Message};
use mainstay_base::{ClusterId, NodeId};
use mainstay_rpc::Procedure;
use mainstay_service::{StationParts, start};
use mainstay_troupe::{Collator, Config, Troupes, TroupesHandle};
use std::{collections::BTreeMap, error::Error, net::TcpListener};

#[derive(serde::Serialize, serde::Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Add(u64);
impl Procedure for Add {
    const NAME: &'static str = "counter.add";
}

struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Add> for Counter {
    type Result = Result<u64, String>;
    fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) -> Self::Result {
        self.0 += number;
        Ok(self.0)
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = ClusterId::from_entropy(7);
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    let mut roster = BTreeMap::new();
    for name in ["a", "b", "c", "d", "e"] {
        roster.insert(name.to_owned(), free()?);
    }
    let (mut stations, mut counters, mut shops) = (Vec::new(), Vec::new(), Vec::new());
    for name in roster.keys() {
        let parts = StationParts::tcp(cluster, name.as_str(), roster.clone(), None)?;
        let config = Config::started_now(NodeId::new(cluster, "a"));
        let station = start(parts, |node| node.mount::<Troupes>("troupes", config).map(drop))?;
        let troupes = TroupesHandle::open(station.service("troupes")).await?;
        stations.push(station);
        if counters.len() < 3 {
            let part = troupes.troupe("counter").serve(Counter(0).start().recipient::<Add>());
            counters.push(part.join().await?);
        } else {
            let shop = troupes.troupe("shop").join().await?.to("counter", "orders");
            shops.push(shop.collate(Collator::Majority));
        }
    }
    for shop in shops.iter().chain(&shops) {
        println!("the counters are at {}", shop.call(Add(10)).await?);
    }
    Ok(())
}
