//! A client that can say SET and WAIT in one write, which redis-benchmark cannot.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// How many keys one client writes.
const KEYS: u64 = 1_000;
/// 64 bytes, as in the main benchmarks.
const VALUE: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
/// How many milliseconds a WAIT may take; then it answers with fewer replicas, which is a failure here.
const WAIT_MS: u64 = 5_000;
/// Most bytes of a bulk answer.
const BULK_MAX: usize = 1 << 20;

/// A connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Client {
    pub(crate) async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::new(stream), line: String::new() };
        // A server that loads its data refuses.
        client.ask("PING\r\n").await?;
        Ok(client)
    }

    /// Sends an inline command: the text of its answer.
    pub(crate) async fn ask(&mut self, command: &str) -> io::Result<String> {
        self.stream.write_all(command.as_bytes()).await?;
        self.answer().await
    }

    /// Writes keys in one write, and waits for all answers.
    pub(crate) async fn set_all(
        &mut self,
        keys: impl Iterator<Item = String>,
        value: &[u8],
    ) -> io::Result<()> {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for key in keys {
            let head =
                format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len());
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
            count += 1;
        }
        self.stream.write_all(&bytes).await?;
        for _ in 0..count {
            let answer = self.answer().await?;
            if answer != "OK" {
                return Err(io::Error::other(format!("SET was answered {answer:?}")));
            }
        }
        Ok(())
    }

    /// Writes a key, and waits until a replica has it.
    pub(crate) async fn set_and_wait(&mut self, name: usize, number: u64) -> io::Result<()> {
        let key = format!("key:{name}:{}", number % KEYS);
        let (size, ms) = (key.len(), WAIT_MS.to_string());
        let pair = format!(
            "*3\r\n$3\r\nSET\r\n${size}\r\n{key}\r\n$64\r\n{VALUE}\r\n\
             *3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n${}\r\n{ms}\r\n",
            ms.len()
        );
        self.stream.write_all(pair.as_bytes()).await?;
        let set = self.answer().await?;
        let replicas = self.answer().await?;
        if set == "OK" && replicas.parse().is_ok_and(|count: u64| count >= 1) {
            Ok(())
        } else {
            Err(io::Error::other(format!("SET was answered {set:?}, WAIT {replicas:?}")))
        }
    }

    async fn answer(&mut self) -> io::Result<String> {
        self.line.clear();
        if self.stream.read_line(&mut self.line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = self.line.trim_end();
        let unknown = || io::Error::other(format!("answered {line:?}"));
        match line.split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(text.to_owned()),
            Some(("$", size)) => {
                let size: Option<usize> = size.parse().ok().filter(|size| *size <= BULK_MAX);
                let mut bulk = vec![0; size.ok_or_else(unknown)? + b"\r\n".len()];
                self.stream.read_exact(&mut bulk).await?;
                Ok(String::from_utf8_lossy(&bulk).trim_end().to_owned())
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the value has the size that the command announces.
    #[test]
    fn the_value_has_64_bytes() {
        assert_eq!(VALUE.len(), 64);
    }
}
