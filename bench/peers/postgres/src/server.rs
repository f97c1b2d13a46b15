//! One server, run as the user `postgres` if this program runs as root: the server refuses root.

use std::io;
use std::path::Path;
use std::process::Command;

use peers_common::{
    Process, Signal, command, command_as, eventually, find_in, is_root, run_to_end,
};
use tokio_postgres::{Client, Config, NoTls};

/// Where Debian keeps the programs of the server.
pub(crate) const PROGRAMS: &[&str] = &["/usr/lib/postgresql/15/bin"];
/// The user of the system that runs it; also its own superuser.
const USER: &str = "postgres";

/// A running server.
pub(crate) struct Server {
    process: Process,
    port: u16,
}

impl Server {
    /// Makes a database in a directory of its own and starts a server on it.
    pub(crate) fn start(dir: &Path, port: u16) -> io::Result<Self> {
        let home = dir.join(port.to_string());
        make_directory(&home)?;
        let mut make = program("initdb")?;
        // Forced to the disk by the first checkpoint at the latest; only making the database is hastened.
        make.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        make.args(["--username", USER, "--pgdata"]).arg(&home);
        run_to_end(&mut make)?;
        let mut server = program("postgres")?;
        server.arg("-D").arg(&home).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        for option in ["unix_socket_directories=", "max_prepared_transactions=100"] {
            server.args(["-c", option]);
        }
        let log = dir.join(format!("{port}.log"));
        // Killed at once, it would leave its shared memory behind.
        let process = Process::start(server, &log)?.gently(Signal::QUIT);
        Ok(Self { process, port })
    }

    /// A connection, as soon as the server answers.
    pub(crate) async fn connect(&self) -> io::Result<Client> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(USER).dbname(USER);
        let connected = async || config.connect(NoTls).await.map_err(io::Error::other);
        let (client, connection) = eventually("postgres", connected).await?;
        // Ends with the client, whose calls tell its error.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Makes the table with so many rows.
    pub(crate) async fn make_accounts(&self, rows: u64) -> io::Result<()> {
        let statements = format!(
            "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL); \
             INSERT INTO account SELECT id, 0 FROM generate_series(0, {rows} - 1) AS id"
        );
        self.connect().await?.batch_execute(&statements).await.map_err(io::Error::other)
    }

    /// That exactly so many actions are committed, and none is only prepared.
    pub(crate) async fn expect_actions(&self, count: u64) -> io::Result<()> {
        let query =
            "SELECT sum(balance)::bigint, (SELECT count(*) FROM pg_prepared_xacts) FROM account";
        let row = self.connect().await?.query_one(query, &[]).await.map_err(io::Error::other)?;
        let (committed, prepared): (i64, i64) = (row.get(0), row.get(1));
        if u64::try_from(committed) == Ok(count) && prepared == 0 {
            return Ok(());
        }
        let told = format!("{count} actions done, {committed} committed, {prepared} left prepared");
        Err(io::Error::other(told))
    }

    /// That it still runs.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        self.process.check()
    }
}

fn program(name: &str) -> io::Result<Command> {
    let path = find_in(PROGRAMS, name, "postgresql-15").map_err(io::Error::other)?;
    Ok(command_as(USER, path))
}

/// A directory that belongs to the server.
fn make_directory(path: &Path) -> io::Result<()> {
    if !is_root() {
        return std::fs::create_dir(path);
    }
    let mut install = command("install");
    install.args(["-d", "-m", "700", "-o", USER, "-g", USER]).arg(path);
    run_to_end(&mut install).map(drop)
}
