//! A process group of three actors, one on each of three nodes: messages in one order, views, a state that joiners get.
//!
//! `cargo run -p mainstay --example chat`

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, TcpListener};

use actix::{Actor, Context, Handler, Message};
use mainstay::{
    ClusterId, Config, Events, GroupConfig, GroupEvent, GroupHandle, Node, Order, State,
};

/// Keeps the lines of the chat.
struct Chat {
    name: &'static str,
    lines: Vec<String>,
}

impl Actor for Chat {
    type Context = Context<Self>;
}

impl Chat {
    fn restore(&mut self, state: &State) {
        let text = String::from_utf8_lossy(&state.to_bytes()).into_owned();
        self.lines = text.lines().map(str::to_owned).collect();
    }
}

impl Handler<Events<GroupEvent>> for Chat {
    type Result = ();

    fn handle(&mut self, mut events: Events<GroupEvent>, _: &mut Context<Self>) {
        for event in events.take() {
            match event {
                GroupEvent::State(state) => self.restore(&state),
                GroupEvent::StateWanted(request) => request.give(self.lines.join("\n")),
                GroupEvent::Deliver(message) => {
                    self.lines.push(String::from_utf8_lossy(&message.payload).into_owned());
                }
                GroupEvent::View(view) => {
                    let names: Vec<_> = view.members.iter().map(ToString::to_string).collect();
                    println!("{}: view {} of {}", self.name, view.id.number, names.join(" "));
                }
                _ => {}
            }
        }
    }
}

/// Asks for the lines so far.
#[derive(Message)]
#[rtype(result = "Vec<String>")]
struct Lines;

impl Handler<Lines> for Chat {
    type Result = Vec<String>;

    fn handle(&mut self, _: Lines, _: &mut Context<Self>) -> Vec<String> {
        self.lines.clone()
    }
}

type Member = (Node, GroupHandle, actix::Addr<Chat>);

fn start(
    name: &'static str,
    nodes: &BTreeMap<String, SocketAddr>,
) -> Result<Member, Box<dyn Error>> {
    let cluster = ClusterId::from_entropy(1);
    let mut node = Node::builder(Config::new(cluster, name, nodes.clone()))?;
    let group = node.group("chat", GroupConfig::memory())?;
    let chat = Chat { name, lines: Vec::new() }.start();
    group.subscribe(chat.clone().recipient())?;
    Ok((node.start()?, group, chat))
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut nodes = BTreeMap::new();
    for (name, listener) in ["ann", "bob", "cat"].into_iter().zip(listeners) {
        nodes.insert(name.to_owned(), listener?.local_addr()?);
    }
    let members = [start("ann", &nodes)?, start("bob", &nodes)?, start("cat", &nodes)?];
    for (node, ..) in &members {
        node.ready().await?;
    }
    for (node, group, _) in &members {
        let receipt = group.cast(format!("{} is here", node.name()), Order::Total).await?;
        receipt.majority().await?;
    }
    let [(ann, _, chat), (bob, ..), (cat, group, other)] = members;
    // Bob goes; the others go on, and know it.
    bob.close().await;
    let mut views = ann.views().watch().ok_or("it has ended")?;
    let view = views.wait_for(|view| view.members.len() == 2).await?.clone();
    println!("left: {} ({:?})", view.left[0].0, view.left[0].1);
    group.cast("who is left?", Order::Total).await?.safe().await?;
    let (lines, others) = (chat.send(Lines).await?, other.send(Lines).await?);
    println!("{}", lines.join("\n"));
    assert_eq!(lines.len(), 4);
    assert_eq!(lines, others);
    ann.close().await;
    cat.close().await;
    Ok(())
}
