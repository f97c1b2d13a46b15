//! A process group of three actors, one on each of three nodes: messages in one order, views, a state that joiners get.
//!
//! `cargo run -p mainstay --example chat`

use std::error::Error;

use actix::{Actor, Context, Handler, Message};
use mainstay::{ClusterId, Config, Events, GroupConfig, GroupEvent, Node, Order};

/// Keeps what was said.
struct Chat {
    name: &'static str,
    text: String,
}

impl Actor for Chat {
    type Context = Context<Self>;
}

impl Handler<Events<GroupEvent>> for Chat {
    type Result = ();

    fn handle(&mut self, mut events: Events<GroupEvent>, _: &mut Context<Self>) {
        for event in events.take() {
            match event {
                GroupEvent::State(state) => {
                    self.text = String::from_utf8_lossy(&state.to_bytes()).into()
                }
                GroupEvent::StateWanted(request) => request.give(self.text.clone()),
                GroupEvent::Deliver(line) => self.text += &String::from_utf8_lossy(&line.payload),
                GroupEvent::View(view) => println!("{}: {view}", self.name),
                _ => {}
            }
        }
    }
}

/// Asks for the text so far.
#[derive(Message)]
#[rtype(result = "String")]
struct Text;

impl Handler<Text> for Chat {
    type Result = String;

    fn handle(&mut self, _: Text, _: &mut Context<Self>) -> String {
        self.text.clone()
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = Config::loopback(["ann", "bob", "cat"])?;
    let start = |name| -> Result<_, Box<dyn Error>> {
        let config = Config::new(ClusterId::from_entropy(1), name, nodes.clone());
        let mut node = Node::builder(config)?;
        let group = node.group("chat", GroupConfig::memory())?;
        let chat = Chat { name, text: String::new() }.start();
        group.subscribe(chat.clone().recipient())?;
        Ok((node.start()?, group, chat))
    };
    let members = [start("ann")?, start("bob")?, start("cat")?];
    for (node, ..) in &members {
        node.ready().await?;
    }
    for (node, group, _) in &members {
        let receipt = group.cast(format!("{} is here\n", node.name()), Order::Total).await?;
        receipt.majority().await?;
    }
    let [(ann, group, chat), (bob, ..), (cat, _, other)] = members;
    bob.close().await; // The others go on, and know it.
    let mut views = ann.views().watch().ok_or("it has ended")?;
    let view = views.wait_for(|view| view.members.len() == 2).await?.clone();
    println!("left: {} ({})", view.left[0].0, view.left[0].1);
    group.cast("who is left?\n", Order::Total).await?.safe().await?;
    let (text, others) = (chat.send(Text).await?, other.send(Text).await?);
    print!("{text}");
    assert_eq!((text.lines().count(), &text), (4, &others));
    ann.close().await;
    cat.close().await;
    Ok(())
}
