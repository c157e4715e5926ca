//! What the kernel hands over at once: a packet behind a header of virtio, which may stand
//! for many packets of one TCP connection that a network card would cut apart, and join
//! again at the other end (linux/virtio_net.h). Carried as they are, they cost what one
//! packet costs.
//!
//! Not here: when they come out (`pipe`).

/// Bytes of virtio's header: flags, kind, length of the headers, bytes in each packet, and
/// where the checksum is.
pub(super) const HEADER: usize = 10;

/// How long what was handed over is once it is cut into packets, counted from the IP
/// headers on: each packet has headers of its own.
pub(super) fn wire_bytes(handed: &[u8]) -> usize {
    let Some((virtio, packet)) = handed.split_first_chunk::<HEADER>() else {
        return 0;
    };
    let (kind, each) = (virtio[1], u16::from_ne_bytes([virtio[4], virtio[5]]));
    if kind == 0 || each == 0 {
        return packet.len();
    }
    let headers = tcp_headers(packet).unwrap_or(0).min(packet.len());
    let packets = (packet.len() - headers).div_ceil(usize::from(each)).max(1);
    packet.len() + (packets - 1) * headers
}

/// Bytes of the headers of IPv4 and TCP.
fn tcp_headers(packet: &[u8]) -> Option<usize> {
    let ip = usize::from(packet.first()? & 0xf) * 4;
    let tcp = usize::from(packet.get(ip + 12)? >> 4) * 4;
    Some(ip + tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With headers of 20 and 32 bytes.
    fn handed(kind: u8, each: u16, content: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + 52 + content];
        bytes[1] = kind;
        bytes[4..6].copy_from_slice(&each.to_ne_bytes());
        bytes[HEADER] = 0x45;
        bytes[HEADER + 32] = 0x80;
        bytes
    }

    #[test]
    fn a_packet_is_as_long_as_it_is() {
        assert_eq!(wire_bytes(&handed(0, 0, 1000)), 1052);
        assert_eq!(wire_bytes(&[0; HEADER]), 0);
        assert_eq!(wire_bytes(&[]), 0);
    }

    #[test]
    fn what_stands_for_many_packets_has_the_headers_of_each() {
        assert_eq!(wire_bytes(&handed(1, 1448, 1448)), 1500);
        assert_eq!(wire_bytes(&handed(1, 1448, 10 * 1448)), 15_000);
        assert_eq!(wire_bytes(&handed(1, 1448, 10 * 1448 + 1)), 15_053);
    }

    #[test]
    fn headers_that_are_none_are_not_looked_for_beyond_the_end() {
        let mut short = handed(1, 1448, 0);
        short.truncate(HEADER + 15);
        assert_eq!(wire_bytes(&short), 15);
        short.truncate(HEADER);
        assert_eq!(wire_bytes(&short), 0);
    }
}
