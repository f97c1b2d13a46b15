//! A ledger that survives `kill -9`: eight threads pay in, each payment is on disk before it is answered, every thousand payments
//! make a checkpoint.
//!
//! `cargo run -p mainstay-stable --example ledger [DIRECTORY]`: run it again on the same directory, and it goes on.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::{env, thread};

use mainstay_stable::{Owner, Store};

const THREADS: u64 = 8;
const PAYMENTS: u64 = 250;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let own = tempfile::tempdir()?;
    let directory = env::args_os().nth(1).map_or_else(|| own.path().into(), PathBuf::from);
    let (store, past) = Store::open(&directory, Owner(*b"example-ledger--"))?;
    // The last checkpoint is the balance then, each record behind it a payment.
    let saved = past.checkpoint.iter().map(|(_, chunks)| &chunks[0]);
    let paid = saved.chain(past.tail.iter().map(|record| &record.payload));
    let amounts = paid.map(|bytes| bytes[..].try_into().map(u64::from_le_bytes));
    let before: u64 = amounts.sum::<Result<_, _>>()?;
    println!("balance {before}, {} records behind the checkpoint", past.tail.len());
    let store = store.into_group_commit();
    // The balance as of a record, and payments behind that one which were answered out of order.
    let ledger = Mutex::new((before, store.forced(), BTreeMap::new()));
    let pay = |thread: u64, payment: u64| {
        let lsn = store.append_forced(1, payment.to_le_bytes().to_vec().into())?;
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let (balance, upto, ahead) = &mut *ledger;
        ahead.insert(lsn, payment);
        while let Some(payment) = ahead.remove(&upto.next()) {
            (*balance, *upto) = (*balance + payment, upto.next());
        }
        if thread == 0 && payment.is_multiple_of(125) {
            store.checkpoint(*upto, [balance.to_le_bytes()])?;
        }
        Ok::<(), Failure>(())
    };
    thread::scope(|scope| {
        let each = |thread| scope.spawn(move || (1..=PAYMENTS).try_for_each(|it| pay(thread, it)));
        let threads: Vec<_> = (0..THREADS).map(each).collect();
        threads
            .into_iter()
            .try_for_each(|it| it.join().unwrap_or_else(|_| Err("it panicked".into())))
    })?;
    let (balance, upto, _) = ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("balance {balance} as of record {}", upto.0);
    assert_eq!(balance, before + THREADS * (1..=PAYMENTS).sum::<u64>());
    Ok(())
}
