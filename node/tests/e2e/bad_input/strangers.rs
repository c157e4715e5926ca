//! Bytes from whoever reaches a node's port.
//!
//! Not here: strangers that get through the handshake (`net`'s own tests).

use crate::harness::{Lab, noise};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Far more than a node has room for from one address.
const CONNECTIONS: usize = 400;

#[test]
fn garbage_and_idle_connections_on_a_nodes_port_do_not_stop_a_migration() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 16, 1);
    let mut mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    let ports = [mesh.operator.port, mesh.replicator.port, mesh.agent.port];
    let idle: Vec<TcpStream> = (0..CONNECTIONS)
        .filter_map(|number| TcpStream::connect(("127.0.0.1", ports[number % 3])).ok())
        .collect();
    assert!(!idle.is_empty());
    mesh.act("start");
    let garbage = [
        noise(64 << 10, 5),
        vec![0; 64 << 10],
        vec![0xff; 64 << 10],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        // The greeting of the transport's protocol selection, then nonsense.
        b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n"
            .iter()
            .copied()
            .chain(noise(4096, 6))
            .collect(),
        b"\x13/multistream/1.0.0\n\x07/noise\n"
            .iter()
            .copied()
            .chain(noise(4096, 7))
            .collect(),
    ];
    for bytes in &garbage {
        for port in ports {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            // The node may hang up at any byte.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = vec![];
            let ended = stream.read_to_end(&mut answer);
            let timed_out =
                ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(
                !timed_out,
                "the node holds on to a connection that sent garbage"
            );
        }
    }
    mesh.until_passes(1);
    mesh.cut_over(&disk);
    for node in [&mut mesh.operator, &mut mesh.replicator, &mut mesh.agent] {
        assert!(node.is_running());
        assert_eq!(
            node.status()["connected"],
            2,
            "strangers took a member's place"
        );
    }
    drop(idle);
}
