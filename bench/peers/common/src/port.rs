//! Ports that nobody uses.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// So many free ports of the loopback interface, all different. Nothing holds them: who is to listen starts soon.
pub fn loopback_ports<const COUNT: usize>() -> io::Result<[u16; COUNT]> {
    // All are held at once, that none is given twice.
    let mut held = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that no port is given twice and that each can be bound.
    #[test]
    fn ports_differ_and_are_free() {
        let ports = loopback_ports::<8>().unwrap();
        let bound = ports.map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        assert!(bound.iter().all(Result::is_ok), "{bound:?}");
    }
}
