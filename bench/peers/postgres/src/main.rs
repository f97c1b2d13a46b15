//! Measures two-phase commit over two PostgreSQL servers: `peer-postgres [CASE-PREFIX..] [--list] [--seconds N]`.
//!
//! Two servers on the loopback interface, defaults (fsync and synchronous_commit on) but for `max_prepared_transactions`; their data
//! is on one disk. Each client has a connection to each server and rows of its own, 1,000 in all. An action adds one to a row at
//! both servers: `BEGIN; UPDATE; PREPARE TRANSACTION` in one message to each, both at once, then `COMMIT PREPARED` to each, both at once;
//! each of the four steps is forced to the disk by its server. The coordinator keeps no log of its decision: a real one costs one
//! more forced write. Closed loop, an action at a time and client; afterwards both servers must have exactly the actions that were
//! counted and no prepared transaction.

mod server;

use std::cell::Cell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use peers_common::{Case, Measured, Program, Run, closed_loop, find_in, loopback_ports, runtime};
use tokio_postgres::Client;

use server::{PROGRAMS, Server};

const ROWS: u64 = 1_000;
const GUARANTEE: &str = "2 servers of 1 copy, prepare and commit fsynced, no decision log, no TLS";

fn main() -> ExitCode {
    let cases: [(_, fn(&Run) -> _); 2] = [
        ("action/2pc/1client", |run| two_phase(run, 1)),
        ("action/2pc/16clients", |run| two_phase(run, 16)),
    ];
    let case = |(name, measure)| Case::new("action", name, "postgres-2pc", GUARANTEE, measure);
    let check = || {
        for program in ["postgres", "initdb"] {
            find_in(PROGRAMS, program, "postgresql-15")?;
        }
        Ok(())
    };
    Program { name: "peer-postgres", check, cases: cases.map(case).to_vec() }.main()
}

/// A client of both servers.
struct Coordinator {
    name: u64,
    servers: [Client; 2],
    /// The rows that no other client writes.
    rows: std::ops::Range<u64>,
    done: Rc<Cell<u64>>,
}

impl Coordinator {
    /// One action, done at both servers when it returns.
    async fn act(&mut self, number: u64) -> io::Result<()> {
        let row = self.rows.start + number % (self.rows.end - self.rows.start);
        let name = format!("action-{}-{number}", self.name);
        let prepare = format!(
            "BEGIN; UPDATE account SET balance = balance + 1 WHERE id = {row}; \
             PREPARE TRANSACTION '{name}'"
        );
        self.both(&prepare).await?;
        self.both(&format!("COMMIT PREPARED '{name}'")).await?;
        self.done.set(self.done.get() + 1);
        Ok(())
    }

    async fn both(&self, statements: &str) -> io::Result<()> {
        let [a, b] = &self.servers;
        tokio::try_join!(a.batch_execute(statements), b.batch_execute(statements))
            .map(drop)
            .map_err(io::Error::other)
    }
}

fn two_phase(run: &Run, count: u64) -> io::Result<Vec<Measured>> {
    let [a, b] = loopback_ports()?;
    let mut servers = [Server::start(run.dir(), a)?, Server::start(run.dir(), b)?];
    let samples = runtime()?.block_on(async {
        for server in &servers {
            server.make_accounts(ROWS).await?;
        }
        let done = Rc::new(Cell::new(0));
        let mut clients = Vec::new();
        let share = ROWS / count;
        for name in 0..count {
            let both = [servers[0].connect().await?, servers[1].connect().await?];
            let rows = name * share..(name + 1) * share;
            clients.push(Coordinator { name, servers: both, rows, done: done.clone() });
        }
        let act = async |client: &mut Coordinator, number| client.act(number).await;
        let samples = closed_loop(run, clients, act).await?;
        for server in &servers {
            server.expect_actions(done.get()).await?;
        }
        Ok::<_, io::Error>(samples)
    })?;
    for server in &mut servers {
        server.check()?;
    }
    Ok(samples.measured("per_s"))
}
