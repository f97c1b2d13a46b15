//! A member as a user writes it: a task casts through the handle of the group, an actor hears what is delivered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use mainstay::{Config, Events, GroupConfig, GroupEvent, GroupHandle, Level, Node, Order};

use super::{Counts, Options, orders};
use crate::cluster::ready;
use crate::process::say;

/// Receipts are looked at once for so many casts.
const STRIDE: u64 = 64;

pub(super) async fn serve(options: Options) -> io::Result<()> {
    let Options { seat, size, outstanding, level, .. } = options;
    let level = level.level();
    let names = seat.nodes();
    let members = names.len();
    let config = Config::new(seat.cluster, seat.name.clone(), names).bootstrap(true);
    let config = config.listen(seat.address()?);
    let mut builder = Node::builder(config).map_err(io::Error::other)?;
    let settings = GroupConfig::memory().deliver_at(level).stateless();
    let group = builder.group("bench", settings).map_err(io::Error::other)?;
    let counts = Rc::new(RefCell::new(Counts::new()));
    let sink = Sink { counts: Rc::clone(&counts), node: None, members };
    let sink = sink.start();
    group.subscribe(sink.clone().recipient()).map_err(io::Error::other)?;
    let node = builder.start().map_err(io::Error::other)?;
    sink.do_send(Started(node.clone()));
    let payload = Bytes::from(vec![7; size]);
    let mut orders = orders();
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            closed = node.closed() => {
                return Err(io::Error::other(format!("the node halted: {closed:?}")));
            }
        };
        match order.as_deref() {
            Some("cast") => drop(tokio::task::spawn_local(cast(
                group.clone(),
                payload.clone(),
                level,
                outstanding,
            ))),
            Some("mark") => counts.borrow_mut().mark(),
            Some(other) => return Err(io::Error::other(format!("not an order: {other:?}"))),
            None => return Ok(()),
        }
    }
}

/// Casts one message a call for as long as the node lives, with at most so many on the way.
async fn cast(group: GroupHandle, payload: Bytes, level: Level, outstanding: u64) {
    let mut receipts = VecDeque::new();
    while let Ok(receipt) = group.cast_for(payload.clone(), Order::Total, level).await {
        let number = receipt.number();
        if !number.is_multiple_of(STRIDE) && outstanding > STRIDE {
            continue;
        }
        receipts.push_back(receipt);
        while receipts.front().is_some_and(|first| first.number() + outstanding <= number + STRIDE)
        {
            let Some(first) = receipts.pop_front() else { break };
            // The fate of what a dead boot had cast is unknown; the next one casts on.
            let _ = first.reached(level).await;
        }
    }
}

struct Sink {
    counts: Rc<RefCell<Counts>>,
    node: Option<Node>,
    members: usize,
}

struct Started(Node);

impl actix::Message for Started {
    type Result = ();
}

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<Started> for Sink {
    type Result = ();

    fn handle(&mut self, Started(node): Started, _: &mut Context<Self>) {
        self.node = Some(node);
    }
}

impl Handler<Events<GroupEvent>> for Sink {
    type Result = ();

    fn handle(&mut self, events: Events<GroupEvent>, _: &mut Context<Self>) {
        let mut counts = self.counts.borrow_mut();
        for event in events.iter() {
            match event {
                GroupEvent::Deliver(_) => counts.delivered += 1,
                GroupEvent::View(view) => {
                    counts.disturbed += 1;
                    say(&format!("view {}", view.members.len()));
                    if let Some(node) =
                        self.node.clone().filter(|_| view.members.len() == self.members)
                    {
                        tokio::task::spawn_local(tell_role(node));
                    }
                }
                _ => {}
            }
        }
    }
}

async fn tell_role(node: Node) {
    let Some(status) = node.status().await else { return };
    let me = status.node;
    let groups = status.stack.into_iter().flat_map(|stack| stack.groups.into_values());
    let is_sequencer = |(group, _): (mainstay_multicast::Status, _)| {
        group.sequencer.is_some_and(|site| site.node == me)
    };
    say(&ready(groups.into_iter().any(is_sequencer)));
}
