//! Two clients at once, and servers whose executions do not commute.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod support;

use mainstay_base::Duration;
use mainstay_sim::holds_but_with;
use mainstay_sim::{Options, Wire};
use mainstay_troupe::fault::Fault;
use mainstay_troupe::{Sequence, Serving};
use support::{Part, Play, setup, short};

/// Two troupes of clients call a troupe of servers at the same time; whether its replicas execute in one order.
fn is_one_order(seed: u64, sequence: Sequence, fault: Option<Fault>) -> bool {
    let mut server = Part::server("server", &[1, 2, 3]);
    server.serving = Serving { sequence, ..Serving::default() };
    let one = Part::client("one", &[4, 5], "server", 2);
    let two = Part::client("two", &[6], "server", 2);
    let setup = setup(move |config| {
        let mut config = short(config);
        config.fault = fault;
        config
    });
    let options = Options::calm(Wire::Channel);
    let mut play = Play::new(seed, 7, vec![server, one, two], setup, options, Vec::new());
    // Troupe commit loses patience again and again where two clients call all the time.
    let millis = if sequence == Sequence::Commit { 1_500 } else { 400 };
    play.run(Duration::from_millis(millis)).unwrap();
    play.is_open = false;
    play.until("all is over", Duration::from_secs(20), |it| {
        (4..7).all(|node| it.status(node).is_some_and(|it| it.open == 0))
    })
    .unwrap();
    let logs = play.logs("server");
    assert!(logs.len() == 3 && logs[0].len() > 10, "calls are executed");
    let (one, two) = logs[0].iter().partition::<Vec<u64>, _>(|tag| *tag >> 48 == 2);
    assert!(one.is_sorted() && two.is_sorted(), "each client's in its order");
    logs.iter().all(|log| *log == logs[0])
}

/// Checks RPC-43: through a total order, and by troupe commit, all servers execute the calls of two clients in one order.
#[test]
fn two_clients_are_executed_in_one_order() {
    for (sequence, fault) in
        [(Sequence::Cast, Fault::BeginsUnordered), (Sequence::Commit, Fault::CommitsAlone)]
    {
        holds_but_with(
            |fault| {
                let orders = (0..10).filter(|seed| is_one_order(*seed, sequence, fault)).count();
                assert_eq!(orders, 10, "RPC-43: {sequence:?}: servers have come apart");
            },
            &[fault],
        );
    }
}

/// Checks RPC-43: without an order of all, servers do come apart.
#[test]
fn without_an_order_servers_come_apart() {
    let orders = (0..10).filter(|seed| is_one_order(*seed, Sequence::Independent, None)).count();
    println!("in one order by chance: {orders} of 10");
    assert!(orders < 10);
}
