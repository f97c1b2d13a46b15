//! Three members of a talk over a network that loses and reorders: nobody reads an answer before its question, and all read
//! the same in the same order.
//!
//! `cargo run -p mainstay-clock --example talk`

use std::error::Error;

use mainstay_base::{ClusterId, Incarnation, NodeId, Rng, SiteId, ViewId};
use mainstay_clock::graph::{Config, Graph, Links};
use mainstay_clock::{Members, Rank};

const LINES: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let cluster = ClusterId::from_entropy(1);
    let names = ["ann", "bob", "cid"];
    let site = |name| SiteId { node: NodeId::new(cluster, name), incarnation: Incarnation(1) };
    let members = Members::new(ViewId { number: 1, nonce: 0 }, names.map(site))?;
    let new = |name| Graph::<String>::new(Config::default().with_waves(), &members, site(name));
    let mut graphs = [new("ann")?, new("bob")?, new("cid")?];
    let (mut rng, mut flying) = (Rng::new(1), Vec::<(usize, Links, String)>::new());
    let mut read = [const { Vec::<String>::new() }; 3];
    let mut said = 0;
    while read.iter().any(|lines| lines.len() < LINES) {
        let at = rng.below(3) as usize;
        // Say something, or say that the others' lines are here.
        let line = format!("{} says line {said}", names[at]);
        let sent = if said < LINES { graphs[at].send(line.clone()).ok() } else { None };
        said += usize::from(sent.is_some());
        let sent = sent.or_else(|| graphs[at].acknowledge(line.clone()));
        let others = (0..3).filter(|to| *to != at);
        flying.extend(others.filter_map(|to| Some((to, sent.clone()?, line.clone()))));
        rng.shuffle(&mut flying);
        while flying.len() > 4 || (said == LINES && !flying.is_empty()) {
            let Some((to, links, body)) = flying.pop() else { break };
            if rng.chance(3, 4) {
                graphs[to].receive(links, body)?;
            }
        }
        // What was lost is missing for what follows it, and who says that has it. The last lines nobody follows: they go again.
        for to in 0..3 {
            let missing: Vec<_> = graphs[to].missing().map(|it| (it.ask, it.id)).collect();
            let leaves = graphs[at].leaves().map(|id| (Rank(at as u16), id));
            for (ask, id) in missing.into_iter().chain(leaves.collect::<Vec<_>>()) {
                let found = graphs[ask.index()].message(id);
                flying.extend(found.map(|(links, body)| (to, links, body.clone())));
            }
            while graphs[to].poll_attached().is_some() {}
            while let Some(wave) = graphs[to].poll_wave() {
                let messages = wave.messages.iter().filter_map(|id| graphs[to].message(*id));
                let lines = messages.filter(|(links, _)| !links.null);
                read[to].extend(lines.map(|(_, line)| line.clone()));
            }
        }
    }
    println!("{}", read[0].join("\n"));
    assert!(read[0] == read[1] && read[1] == read[2]);
    Ok(())
}
