//! What the tests of one connection speak over: a TCP connection on loopback, and keys.

use libp2p::identity::Keypair;
use libp2p::tcp::tokio::TcpStream;
use tokio::net;

/// Both ends of a connection.
pub(in crate::net) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = net::TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (TcpStream(near.unwrap()), TcpStream(far.unwrap().0))
}

/// The key of a seed.
pub(in crate::net) fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}
