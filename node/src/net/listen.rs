//! Listening at the start: all configured addresses or a clear error. Not what
//! happens to an address later.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::core::transport::{ListenerId, TransportError};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use tokio::time::{Instant, timeout_at};

use super::StartError;
use super::direct;
use super::driver::Driver;

/// How long the system may take to say on which addresses we listen.
const LISTEN: Duration = Duration::from_secs(5);

impl Driver {
    /// Waits until every address has its listener.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<(), StartError> {
        for address in addresses {
            probe(address)?;
        }
        let mut waiting: Vec<(ListenerId, Multiaddr)> = Vec::new();
        for address in addresses {
            let id = self.swarm.listen_on(address.clone());
            let id = id.map_err(|error| refused(address, error))?;
            waiting.push((id, address.clone()));
        }
        let deadline = Instant::now() + LISTEN;
        while let Some((_, address)) = waiting.first() {
            let event = timeout_at(deadline, self.swarm.select_next_some()).await;
            let event = event.map_err(|_| StartError::Timeout {
                address: address.clone(),
            })?;
            match event {
                SwarmEvent::ListenerError { listener_id, error }
                | SwarmEvent::ListenerClosed {
                    listener_id,
                    reason: Err(error),
                    ..
                } => {
                    let of = waiting.iter().find(|(id, _)| *id == listener_id);
                    if let Some((_, address)) = of {
                        return Err(classify(address, error));
                    }
                }
                event => {
                    if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                        waiting.retain(|(id, _)| id != listener_id);
                    }
                    self.on_swarm_event(event);
                }
            }
        }
        Ok(())
    }
}

/// Tries the address without SO_REUSEPORT first: the transport sets it, and
/// with it two nodes of one user would share a port, each getting half of the
/// connections.
fn probe(address: &Multiaddr) -> Result<(), StartError> {
    let bound = match socket_of(address) {
        Some((Kind::Tcp, socket)) if socket.port() != 0 => TcpListener::bind(socket).map(drop),
        Some((Kind::Udp, socket)) if socket.port() != 0 => UdpSocket::bind(socket).map(drop),
        _ => Ok(()),
    };
    bound.map_err(|error| classify(address, error))
}

enum Kind {
    Tcp,
    Udp,
}

fn socket_of(address: &Multiaddr) -> Option<(Kind, SocketAddr)> {
    let ip = direct::ip_of(address)?;
    let mut parts = address.iter().skip(1);
    match parts.next()? {
        Protocol::Tcp(port) => Some((Kind::Tcp, SocketAddr::new(ip, port))),
        Protocol::Udp(port) => Some((Kind::Udp, SocketAddr::new(ip, port))),
        _ => None,
    }
}

fn refused(address: &Multiaddr, error: TransportError<io::Error>) -> StartError {
    match error {
        TransportError::MultiaddrNotSupported(_) => StartError::BadAddress {
            address: address.clone(),
        },
        TransportError::Other(source) => classify(address, source),
    }
}

fn classify(address: &Multiaddr, source: io::Error) -> StartError {
    let address = address.clone();
    if is_in_use(&source) {
        return StartError::AddressInUse { address };
    }
    StartError::Listen { address, source }
}

/// The transports wrap the system's error several times over.
fn is_in_use(error: &(dyn Error + 'static)) -> bool {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        if io.kind() == io::ErrorKind::AddrInUse {
            return true;
        }
        if let Some(inner) = io.get_ref() {
            return is_in_use(inner);
        }
    }
    error.source().is_some_and(is_in_use)
}
