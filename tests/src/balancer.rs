//! A load balancer in front of several servers: each connection goes to the next one that takes it.

use std::io::{Result, copy};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Passes connections on. It listens for as long as the process runs.
pub struct Balancer {
    address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Balancer {
    /// A balancer in front of no servers yet.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, servers) = (listener.local_addr()?, Arc::<Mutex<Vec<SocketAddr>>>::default());
        let of_thread = Arc::clone(&servers);
        thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                let mut servers = of_thread.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let first = number % servers.len().max(1);
                servers.rotate_left(first);
                // Without a server the client is closed.
                if let Some(server) = servers.into_iter().find_map(|server| TcpStream::connect(server).ok()) {
                    let _lost = pass(client, server);
                }
            }
        });
        Ok(Self { address, servers })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on these servers get the connections.
    pub fn set_servers(&self, servers: Vec<SocketAddr>) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers;
    }
}

/// Passes on what either says until one of them ends.
fn pass(client: TcpStream, server: TcpStream) -> Result<()> {
    for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || {
            let _lost = copy(&mut from, &mut to);
            let _ended = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}
