//! A ledger that survives `kill -9`: eight threads pay in, each payment is on disk before it is answered, every thousand payments
//! make a checkpoint.
//!
//! `cargo run -p mainstay-stable --example ledger [DIRECTORY]`: run it again on the same directory, and it goes on.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::{env, thread};

use bytes::Bytes;
use mainstay_stable::{Lsn, Owner, Store};

const THREADS: u64 = 8;
const PAYMENTS: u64 = 250;

fn number(bytes: &[u8]) -> Result<u64, Box<dyn Error>> {
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let own = env::temp_dir().join(format!("ledger-{}", std::process::id()));
    let directory = env::args_os().nth(1).map_or_else(|| own.clone(), Into::into);
    let (store, past) = Store::open(&directory, Owner(*b"example-ledger--"))?;
    let mut balance = match past.checkpoint {
        Some((_, chunks)) => number(&chunks[0])?,
        None => 0,
    };
    for record in &past.tail {
        balance += number(&record.payload)?;
    }
    println!(
        "{}: balance {balance}, {} records behind the checkpoint",
        directory.display(),
        past.tail.len()
    );
    let store = store.into_group_commit();
    // What is paid in, and up to which record: applied in the order of the log by whoever holds the lock.
    let before = balance;
    let ledger = Mutex::new((balance, store.forced(), Vec::<(Lsn, u64)>::new()));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, ledger) = (store.clone(), &ledger);
            scope.spawn(move || {
                for payment in 1..=PAYMENTS {
                    let paid = Bytes::copy_from_slice(&payment.to_le_bytes());
                    let Ok(lsn) = store.append_forced(1, paid) else { return };
                    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                    let (balance, upto, ahead) = &mut *ledger;
                    ahead.push((lsn, payment));
                    ahead.sort_unstable_by(|one, other| other.cmp(one));
                    while let Some((lsn, payment)) = ahead.pop_if(|(lsn, _)| *lsn == upto.next()) {
                        (*balance, *upto) = (*balance + payment, lsn);
                    }
                    if thread == 0
                        && payment % 125 == 0
                        && let Err(error) = store.checkpoint(*upto, [balance.to_le_bytes()])
                    {
                        eprintln!("no checkpoint: {error}");
                    }
                }
            });
        }
    });
    let (balance, upto, ahead) = ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("balance {balance} as of record {}", upto.0);
    assert!(ahead.is_empty());
    assert_eq!(balance, before + THREADS * (1..=PAYMENTS).sum::<u64>());
    if directory == own {
        std::fs::remove_dir_all(own)?;
    }
    Ok(())
}
