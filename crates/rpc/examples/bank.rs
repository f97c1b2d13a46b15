//! A bank on two nodes, without membership: an actix actor serves withdrawals, another node calls it. The bank's node is killed and comes
//! back with its results: what was answered is not done again, and what was not is told as it is.
//!
//! `cargo run -p mainstay-rpc --example bank`

use std::collections::BTreeMap;
use std::error::Error;
use std::net::TcpListener;

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
        self.0 = self.0.checked_sub(amount).ok_or(format!("{amount} is more than {}", self.0))?;
        Ok(self.0)
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (cluster, home) = (ClusterId::from_entropy(7), tempfile::tempdir()?);
    let free = |name: &str| Ok((name.to_owned(), TcpListener::bind("127.0.0.1:0")?.local_addr()?));
    let roster: BTreeMap<_, _> =
        ["bank", "shop"].map(free).into_iter().collect::<std::io::Result<_>>()?;
    let open = async |name: &str| -> Result<(StationHandle, RpcHandle), Box<dyn Error>> {
        let parts = StationParts::tcp(cluster, name, roster.clone(), Some(home.path().join(name)))?;
        let config = Config { stored: name == "bank", ..Config::started_now() };
        let station = start(parts, |node| node.mount::<Rpc>("rpc", config).map(drop))?;
        let rpc = RpcHandle::open(station.service("rpc"), cluster, name).await?;
        Ok((station, rpc))
    };
    let (station, bank) = open("bank").await?;
    let (_shop, shop) = open("shop").await?;
    bank.serve(Bank(100).start().recipient::<Withdraw>()).await?;
    let account = shop.to(NodeId::new(cluster, "bank"));
    println!("30 withdrawn, {} left", account.exactly_once(Withdraw(30)).await?);
    match account.exactly_once(Withdraw(500)).await {
        Err(CallError::Remote(why)) => println!("the bank says: {why}"),
        other => return Err(format!("not as it should be: {other:?}").into()),
    }
    station.stop();
    station.closed().await;
    drop((station, bank));
    let waiting = account.exactly_once(Withdraw(20));
    let (_station, bank) = open("bank").await?;
    bank.serve(Bank(70).start().recipient::<Withdraw>()).await?;
    match waiting.await {
        Ok(left) => println!("20 withdrawn at the bank's new node, {left} left"),
        Err(CallError::Failed(failure)) => println!("{failure}"),
        Err(CallError::Remote(why)) => return Err(why.into()),
    }
    Ok(())
}
