//! An actix actor that acts at the same time on three nodes: it is sent a message when the common clock says so.
//! `cargo run -p mainstay --example clock`

use std::error::Error;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use mainstay::{ClusterId, Config, Node};
use mainstay_clock::Time;
use mainstay_clock::sync::global::{Global, Setup};
use mainstay_clock::sync::{self, Delay, Function, Kind, Plan, Reading};

struct Player(&'static str);

#[derive(Message)]
#[rtype(result = "()")]
struct Beat(u32);

impl Actor for Player {
    type Context = Context<Self>;
}

impl Handler<Beat> for Player {
    type Result = ();
    fn handle(&mut self, Beat(number): Beat, _: &mut Context<Self>) {
        println!("{} plays beat {number}", self.0);
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = Config::loopback(["a", "b", "c"])?;
    let kind = Kind::Averaging { function: Function::Midpoint, reading: Reading::ROUND_TRIP };
    let mut config = sync::Config::lan(kind, 3, 0);
    config.delay = Delay { min: Duration::from_micros(1), max: Duration::from_millis(30) };
    let mut playing = Vec::new();
    for name in ["a", "b", "c"] {
        let cluster = Config::new(ClusterId::from_entropy(8), name, nodes.clone());
        let mut builder = Node::builder(cluster.durability(mainstay::Durability::Memory))?;
        let mut setup = Setup::new(Plan::new(config.clone())?)?;
        setup.together = true;
        let mounted = setup.clone();
        let clock = builder.mount::<Global>("clock", move |node| mounted.config(node));
        playing.push((builder.start()?, setup.handle(clock), Player(name).start()));
    }
    let from = playing[0].1.sleep_until(Time::from_nanos(1)).await?.time;
    for (_, clock, player) in &playing {
        for number in 1..4 {
            let at = from.saturating_add(Duration::from_millis(100) * number);
            clock.at(at, player.clone().recipient(), Beat(number)).await?;
        }
    }
    playing[0].1.wait_until_past(from.saturating_add(Duration::from_millis(400))).await?;
    Ok(())
}
