use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use mainstay::{
    ClusterId, Config, Node, Outcome, Position, Replicated, RestoreError, Snapshot, StartError, StateMachine,
};

/// Adds up the bytes that it is sent.
#[derive(Default)]
struct Sum(u64);

impl StateMachine for Sum {
    type Snapshot = Once;
    fn apply(&mut self, _at: Position, command: &[u8], reply: &mut Vec<u8>) {
        self.0 += command.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        reply.extend(self.0.to_le_bytes());
    }
    fn begin_snapshot(&mut self) -> Once { Once(Some(self.0)) }
    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        self.0 = u64::from_le_bytes(chunk.try_into().map_err(|_| RestoreError::Chunk("not eight bytes"))?);
        Ok(())
    }
    fn state_hash(&self) -> u128 { self.0.into() }
}

/// The state on its way to a disk or to a joiner.
struct Once(Option<u64>);

impl Snapshot for Once {
    fn next_chunk(&mut self, _max: usize) -> Option<Bytes> {
        self.0.take().map(|sum| Bytes::copy_from_slice(&sum.to_le_bytes()))
    }
}

/// One of three nodes, on a tokio `LocalSet`; the same program with the names of the others runs elsewhere.
fn start(name: &str, addresses: [SocketAddr; 3], directory: &Path) -> Result<(Node, Replicated<Sum>), StartError> {
    let roster = ["a", "b", "c"].map(str::to_owned).into_iter().zip(addresses).collect();
    let config = Config::new(ClusterId::from_entropy(1), name, roster).data_dir(directory);
    let mut builder = Node::builder(config)?;
    let sum = builder.replicate("sum", Sum::default)?;
    Ok((builder.start()?, sum))
}

/// Says what became of a command.
async fn add(node: &Node, sum: &Replicated<Sum>, numbers: &[u8]) -> Result<String, Box<dyn Error>> {
    // All three make the cluster when all are there for the first time; later a majority suffices.
    node.ready().await?;
    Ok(match sum.execute(numbers).await {
        Outcome::Done(sum) => format!("forced to two disks of three: {sum:?}"),
        Outcome::NotDone(reason) => format!("not executed, and it will not be: {reason:?}"),
        other => format!("nobody knows yet: {other:?}"),
    })
}
