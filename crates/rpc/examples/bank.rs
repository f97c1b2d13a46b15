//! A bank and a shop: an actor serves withdrawals, the shop calls it; the bank's node is stopped and comes back.
//! `cargo run -p mainstay-rpc --example bank`
use std::{collections::BTreeMap, error::Error, net::TcpListener};

use actix::{Actor, Context, Handler, Message};
use mainstay_base::{ClusterId, NodeId};
use mainstay_rpc::{CallError, Config, Procedure, Rpc, RpcHandle};
use mainstay_service::{StationHandle, StationParts, start};

#[derive(serde::Serialize, serde::Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Withdraw(u64);

impl Procedure for Withdraw {
    const NAME: &'static str = "bank.withdraw";
}

struct Bank(u64);

impl Actor for Bank {
    type Context = Context<Self>;
}

impl Handler<Withdraw> for Bank {
    type Result = Result<u64, String>;
    fn handle(&mut self, Withdraw(amount): Withdraw, _: &mut Context<Self>) -> Self::Result {
        let left = self.0.checked_sub(amount);
        self.0 = left.ok_or_else(|| format!("{amount} is more than {}", self.0))?;
        Ok(self.0)
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (cluster, home) = (ClusterId::from_entropy(7), tempfile::tempdir()?);
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    let roster = BTreeMap::from([("bank".to_owned(), free()?), ("shop".to_owned(), free()?)]);
    let open = async |name: &str| -> Result<(StationHandle, RpcHandle), Box<dyn Error>> {
        let parts = StationParts::tcp(cluster, name, roster.clone(), Some(home.path().join(name)))?;
        let config = Config { stored: name == "bank", ..Config::started_now() };
        let station = start(parts, |node| node.mount::<Rpc>("rpc", config).map(drop))?;
        let rpc = RpcHandle::open(station.service("rpc"), cluster, name).await?;
        Ok((station, rpc))
    };
    let ((station, bank), (_shop, shop)) = (open("bank").await?, open("shop").await?);
    bank.serve(Bank(100).start().recipient::<Withdraw>()).await?;
    let account = shop.to(NodeId::new(cluster, "bank"));
    println!("30 withdrawn, {} left", account.exactly_once(Withdraw(30)).await?);
    let Err(CallError::Remote(why)) = account.exactly_once(Withdraw(500)).await else {
        return Err("the bank gave too much".into());
    };
    println!("the bank says: {why}");
    station.stop();
    station.closed().await;
    let waiting = tokio::task::spawn_local(account.exactly_once(Withdraw(20)));
    let (_station, bank) = open("bank").await?;
    bank.serve(Bank(70).start().recipient::<Withdraw>()).await?;
    assert_eq!(waiting.await?, Ok(50));
    Ok(())
}
