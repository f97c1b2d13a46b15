//! The stores: how each is opened, and how it commits.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::fjall::{Database as Fjall, KeyspaceCreateOptions, PersistMode};
use ::redb::{Database as Redb, Durability, TableDefinition};
use rusqlite::Connection;

use crate::{Commit, VALUE};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("values");
/// A page, as a small commit writes it.
const PAGE: [u8; 4 << 10] = [b'p'; 4 << 10];
/// Pages of a file that is written before; then it is written again from its beginning.
const PAGES: u64 = 4 << 10;
/// A connection waits so long for the others.
const BUSY: Duration = Duration::from_secs(10);

pub(crate) fn fjall(dir: &Path, threads: usize) -> io::Result<Vec<Commit>> {
    let database = Fjall::builder(dir).open().map_err(io::Error::other)?;
    let values = database.keyspace("values", KeyspaceCreateOptions::default);
    let values = values.map_err(io::Error::other)?;
    let commit = |_| {
        let (database, values) = (database.clone(), values.clone());
        Box::new(move |key: u64| {
            values.insert(key.to_be_bytes(), VALUE).map_err(io::Error::other)?;
            database.persist(PersistMode::SyncAll).map_err(io::Error::other)
        }) as Commit
    };
    Ok((0..threads).map(commit).collect())
}

pub(crate) fn redb(dir: &Path, threads: usize) -> io::Result<Vec<Commit>> {
    let database = Arc::new(Redb::create(dir.join("values")).map_err(io::Error::other)?);
    let commit = |_| {
        let database = Arc::clone(&database);
        Box::new(move |key| commit_redb(&database, key).map_err(io::Error::other)) as Commit
    };
    Ok((0..threads).map(commit).collect())
}

fn commit_redb(database: &Redb, key: u64) -> Result<(), ::redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.open_table(TABLE)?.insert(key, VALUE.as_slice())?;
    Ok(transaction.commit()?)
}

pub(crate) fn sqlite(dir: &Path, threads: usize) -> io::Result<Vec<Commit>> {
    let connect = |_| {
        let connection = connect_sqlite(&dir.join("values")).map_err(io::Error::other)?;
        Ok(Box::new(move |key| commit_sqlite(&connection, key).map_err(io::Error::other)) as Commit)
    };
    (0..threads).map(connect).collect()
}

fn connect_sqlite(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let table = "CREATE TABLE IF NOT EXISTS kept (key INTEGER PRIMARY KEY, value BLOB NOT NULL)";
    connection.execute_batch(table)?;
    Ok(connection)
}

fn commit_sqlite(connection: &Connection, key: u64) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO kept VALUES (?1, ?2)")?;
    // A key is below KEYS: it is the same number with a sign.
    insert.execute((key.cast_signed(), VALUE.as_slice())).map(drop)
}

/// Files that grow.
pub(crate) fn growing(dir: &Path, threads: usize) -> io::Result<Vec<Commit>> {
    let commit = |thread: usize| {
        let mut file = File::create(dir.join(thread.to_string()))?;
        Ok(Box::new(move |_| {
            file.write_all(&PAGE)?;
            file.sync_data()
        }) as Commit)
    };
    (0..threads).map(commit).collect()
}

/// Files whose size does not change.
pub(crate) fn filled(dir: &Path, threads: usize) -> io::Result<Vec<Commit>> {
    let commit = |thread: usize| {
        let mut file = File::create(dir.join(thread.to_string()))?;
        (0..PAGES).try_for_each(|_| file.write_all(&[0; PAGE.len()]))?;
        file.sync_all()?;
        let mut pages = (0..PAGES).cycle();
        Ok(Box::new(move |_| {
            let page = pages.next().unwrap_or_default();
            file.write_all_at(&PAGE, page * PAGE.len() as u64)?;
            file.sync_data()
        }) as Commit)
    };
    (0..threads).map(commit).collect()
}
