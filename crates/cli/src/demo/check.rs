//! What the members hold, against what they have acknowledged.

use std::net::SocketAddr;
use std::time::Duration;

use mainstay_base::Rng;
use mainstay_directory::resp::Reply;

use super::script::{Expected, Ledger};
use crate::client::Client;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys of one question.
const KEYS_MAX: usize = 256;
/// Keys that are looked up at each member.
const SAMPLES: usize = 1_000;

/// Every acknowledged write is there once: all keys at the first member, samples at the others, and all counters and
/// the number of keys at each. Answers how many keys there are.
pub(super) fn check(
    ledger: &Ledger,
    members: &[(String, SocketAddr)],
    rng: &mut Rng,
) -> Result<u64, String> {
    if let Some(wrong) = &ledger.wrong {
        return Err(wrong.clone());
    }
    let keys: Vec<&String> = ledger.sets.keys().collect();
    let mut sizes = Vec::new();
    for (index, (name, address)) in members.iter().enumerate() {
        let told = |text: String| format!("{name}: {text}");
        let failed = |error: std::io::Error| format!("{name}: {error}");
        let mut client = Client::connect(*address, PATIENCE).map_err(failed)?;
        let size = integer(client.call(&["DBSIZE"]).map_err(failed)?).map_err(told)?;
        sizes.push(u64::try_from(size).unwrap_or(0));
        let mut sample = || keys[rng.below(keys.len() as u64) as usize];
        let asked: Vec<&String> = if index == 0 {
            keys.clone()
        } else {
            (0..SAMPLES.min(keys.len())).map(|_| sample()).collect()
        };
        for keys in asked.chunks(KEYS_MAX) {
            look_up(ledger, &mut client, keys).map_err(told)?;
        }
        count(ledger, &mut client).map_err(told)?;
    }
    let (least, most) = ledger.keys();
    let size = sizes.first().copied().unwrap_or(0);
    if sizes.iter().any(|other| *other != size) {
        return Err(format!("the members hold {sizes:?} keys"));
    }
    if !(least as u64..=most as u64).contains(&size) {
        return Err(format!("there are {size} keys, not {least} to {most}"));
    }
    Ok(size)
}

fn look_up(ledger: &Ledger, client: &mut Client, keys: &[&String]) -> Result<(), String> {
    let words: Vec<&str> =
        std::iter::once("MGET").chain(keys.iter().map(|key| key.as_str())).collect();
    let reply = client.call(&words).map_err(|error| error.to_string())?;
    let Reply::Array(Some(values)) = reply else { return Err(format!("MGET: {reply:?}")) };
    if values.len() != keys.len() {
        return Err(format!("{} values for {} keys", values.len(), keys.len()));
    }
    for (key, value) in keys.iter().zip(&values) {
        if !ledger.sets.get(*key).is_some_and(|expected| allows(expected, value)) {
            return Err(format!("{key} is {value:?}, not {:?}", ledger.sets.get(*key)));
        }
    }
    Ok(())
}

/// Whether this may be found at a key.
fn allows(expected: &Expected, value: &Reply) -> bool {
    match value {
        Reply::Bulk(None) => !expected.acknowledged,
        Reply::Bulk(Some(bytes)) => {
            std::str::from_utf8(bytes).is_ok_and(|text| expected.values.contains(text))
        }
        _ => false,
    }
}

fn count(ledger: &Ledger, client: &mut Client) -> Result<(), String> {
    for (key, count) in &ledger.counters {
        let reply = client.call(&["GET", key]).map_err(|error| error.to_string())?;
        let found: u64 = match &reply {
            Reply::Bulk(None) => 0,
            Reply::Bulk(Some(bytes)) => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| format!("counter {key} is {reply:?}"))?,
            _ => return Err(format!("GET {key}: {reply:?}")),
        };
        let (least, most) = (count.acknowledged, count.acknowledged + count.unknown);
        if !(least..=most).contains(&found) {
            return Err(format!("counter {key} is {found}, not {least} to {most}"));
        }
    }
    Ok(())
}

fn integer(reply: Reply) -> Result<i64, String> {
    match reply {
        Reply::Integer(number) => Ok(number),
        other => Err(format!("no number: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::script::Write;

    /// The check behind the verdict must be able to fail.
    #[test]
    fn a_lost_or_a_foreign_value_is_noticed() {
        let set = |value: &str| Write::Set { key: "k".to_owned(), value: value.to_owned() };
        let mut ledger = Ledger::default();
        ledger.doubt(set("1"));
        let found = |value: Option<&'static str>| Reply::Bulk(value.map(Into::into));
        assert!(allows(&ledger.sets["k"], &found(None)));
        assert!(allows(&ledger.sets["k"], &found(Some("1"))));
        ledger.acknowledge(set("1"));
        assert!(!allows(&ledger.sets["k"], &found(None)));
        assert!(!allows(&ledger.sets["k"], &found(Some("2"))));
        assert_eq!(ledger.keys(), (1, 1));
    }
}
