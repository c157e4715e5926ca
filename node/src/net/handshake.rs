//! The handshake of TLS over a connection, up to the moment from which records protect
//! what is sent. rustls says what to send and reads what comes; what lies behind the last
//! of its records is left for who reads next.
//!
//! Not here: what a certificate has to be (`tls`), and the records after it (`records`).

use std::io;
use std::ops::Deref;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, Error, ExtractedSecrets};

use super::tls::TlsError;

/// A handshake takes no more than this from the other end.
const MAX_CAME: usize = 1 << 16;
/// What is asked of the connection at once.
const READ: usize = 4096;
/// Type, version and length before each record.
const HEADER_LEN: usize = 5;

/// One end of a handshake.
pub(super) trait Handshake: Deref<Target: Deref<Target = CommonState>> {
    /// What rustls keeps of this end.
    type Data: Send + 'static;
    /// Whether it is the client, to which a server may send tickets.
    const IS_CLIENT: bool;

    /// Goes one step on.
    fn step<'c, 'i>(&'c mut self, came: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// The keys that were agreed on.
    ///
    /// # Errors
    /// When the handshake is not done.
    fn finish(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error>;
}

impl Handshake for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const IS_CLIENT: bool = true;

    fn step<'c, 'i>(&'c mut self, came: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(came)
    }

    fn finish(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Handshake for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const IS_CLIENT: bool = false;

    fn step<'c, 'i>(&'c mut self, came: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(came)
    }

    fn finish(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

/// What a step asks for.
enum Next {
    Step,
    Write,
    Read,
    Over(Error),
}

/// Carries a handshake out; what came behind it.
///
/// # Errors
/// When the connection fails, or either end refuses the other, which is then told why.
pub(super) async fn handshake<C, H>(socket: &mut C, ours: &mut H) -> Result<Vec<u8>, TlsError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    H: Handshake,
{
    let mut out = Vec::new();
    // rustls is shown one record after the other, so that it never reads what belongs to
    // the records that follow the handshake.
    let (mut came, mut shown) = (Vec::new(), 0);
    loop {
        let UnbufferedStatus { discard, state, .. } = ours.step(&mut came[..shown]);
        let next = next_of(state, &mut out)?;
        came.drain(..discard);
        shown -= discard;
        match next {
            Next::Step => {}
            Next::Write => {
                socket.write_all(&out).await?;
                socket.flush().await?;
                out.clear();
            }
            Next::Read if ours.is_handshaking() => {
                shown = read_record(socket, &mut came, shown).await?;
            }
            Next::Read if shown == 0 => return Ok(came),
            Next::Read => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
            Next::Over(error) => {
                // It is over whether or not the other end hears why.
                let _ = tell_why(socket, ours, &mut came[..shown]).await;
                return Err(error.into());
            }
        }
    }
}

fn next_of<D>(
    state: Result<ConnectionState<'_, '_, D>, Error>,
    out: &mut Vec<u8>,
) -> Result<Next, TlsError> {
    Ok(match state {
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, out)?;
            Next::Step
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Next::Write
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Next::Read,
        Ok(_) => Next::Over(Error::HandshakeNotComplete),
        Err(error) => Next::Over(error),
    })
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), TlsError> {
    let at = out.len();
    let Err(EncodeError::InsufficientSize(needs)) = data.encode(&mut []) else {
        return Ok(());
    };
    out.resize(at + needs.required_size, 0);
    let encoded = data.encode(&mut out[at..]);
    encoded
        .map(drop)
        .map_err(|error| io::Error::other(error).into())
}

/// Sees to it that one record more than `shown` bytes is there; where it ends.
async fn read_record<C: AsyncRead + Unpin>(
    socket: &mut C,
    came: &mut Vec<u8>,
    shown: usize,
) -> io::Result<usize> {
    loop {
        if let Some(&[_, _, _, high, low]) = came[shown..].first_chunk::<HEADER_LEN>() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            let end = shown + HEADER_LEN + len;
            if end <= came.len() {
                return Ok(end);
            }
        }
        let at = came.len();
        if at >= MAX_CAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        came.resize(at + READ, 0);
        let read = socket.read(&mut came[at..]).await;
        came.truncate(at + read.as_ref().map_or(0, |read| *read));
        if read? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Sends the alert that rustls has for the other end. It comes with the next step, and no
/// more steps follow: rustls would read again what it refused. It is shown what it was
/// shown before, since its places in it are still those.
async fn tell_why<C, H>(socket: &mut C, ours: &mut H, came: &mut [u8]) -> Result<(), TlsError>
where
    C: AsyncWrite + Unpin,
    H: Handshake,
{
    let mut out = Vec::new();
    next_of(ours.step(came).state, &mut out)?;
    socket.write_all(&out).await?;
    Ok(socket.flush().await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::net::tls::Tls;
    use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
    use futures::executor::LocalPool;
    use futures::io::Cursor;
    use futures::stream::{IntoAsyncRead, TryStreamExt};
    use futures::task::LocalSpawnExt;
    use libp2p::core::UpgradeInfo;
    use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
    use libp2p::identity::Keypair;
    use std::cell::Cell;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    fn tls(seed: u8) -> Tls {
        Tls::new(&Keypair::ed25519_from_bytes([seed; 32]).unwrap()).unwrap()
    }

    /// One end of a connection in memory, which may change one byte that it sends.
    struct End {
        incoming: IntoAsyncRead<UnboundedReceiver<io::Result<Vec<u8>>>>,
        out: UnboundedSender<io::Result<Vec<u8>>>,
        sent: Arc<Mutex<Vec<u8>>>,
        changes: Option<usize>,
        /// Sends nothing before it reads: flights that follow each other come as one.
        gathers: bool,
        gathered: Vec<u8>,
    }

    fn ends(changes: [Option<usize>; 2]) -> (End, End) {
        let ((to_far, far), (to_near, near)) = (unbounded(), unbounded());
        let end = |incoming: UnboundedReceiver<_>, out, changes| End {
            incoming: incoming.into_async_read(),
            out,
            sent: Arc::default(),
            changes,
            gathers: false,
            gathered: Vec::new(),
        };
        (end(near, to_far, changes[0]), end(far, to_near, changes[1]))
    }

    impl AsyncRead for End {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            out: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            if !self.gathered.is_empty() {
                let gathered = std::mem::take(&mut self.gathered);
                let _ = self.out.unbounded_send(Ok(gathered));
            }
            Pin::new(&mut self.incoming).poll_read(cx, out)
        }
    }

    impl AsyncWrite for End {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let mut sent = self.sent.lock().unwrap();
            let changed = self.changes.and_then(|at| at.checked_sub(sent.len()));
            sent.extend_from_slice(bytes);
            let mut bytes = bytes.to_vec();
            if let Some(byte) = changed.and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1;
            }
            let len = bytes.len();
            drop(sent);
            match self.gathers {
                true => self.gathered.extend(bytes),
                // An end that is gone hears nothing.
                false => drop(self.out.unbounded_send(Ok(bytes))),
            }
            Poll::Ready(Ok(len))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Whether a client and a server come to speak with each other, and what each has sent,
    /// where a byte of what either sends is changed.
    fn speak(changes: [Option<usize>; 2]) -> (bool, [Vec<u8>; 2]) {
        let (near, far) = ends(changes);
        speak_between(near, far)
    }

    fn speak_between(near: End, far: End) -> (bool, [Vec<u8>; 2]) {
        let sent = [near.sent.clone(), far.sent.clone()];
        let name = tls(1).protocol_info().next().unwrap();
        let do_speak = Rc::new(Cell::new(false));
        let mut pool = LocalPool::new();
        let client = async move {
            let (_, mut near) = tls(1).upgrade_outbound(near, name).await.ok()?;
            near.write_all(b"said").await.ok()?;
            near.flush().await.ok()?;
            near.read_exact(&mut [0; 4]).await.ok()
        };
        let spoke = do_speak.clone();
        let server = async move {
            let (_, mut far) = tls(2).upgrade_inbound(far, name).await.ok()?;
            far.read_exact(&mut [0; 4]).await.ok()?;
            far.write_all(b"told").await.ok()?;
            far.flush().await.ok()
        };
        let both = async move {
            let (client, server) = futures::join!(client, server);
            spoke.set(client.is_some() && server.is_some());
        };
        pool.spawner().spawn_local(both).unwrap();
        // Who waits for what never comes is ended by who waits for a handshake.
        pool.run_until_stalled();
        (
            do_speak.get(),
            sent.map(|sent| sent.lock().unwrap().clone()),
        )
    }

    #[test]
    fn a_handshake_of_which_any_byte_was_changed_comes_to_nothing() {
        let (do_speak, [client, server]) = speak([None; 2]);
        assert!(do_speak && client.len() > 1000 && server.len() > 1000);
        // rustls looks at the length alone in the header of a record that is protected, and
        // the record for what stands between the ends says nothing at all.
        let idle = |sent: &[u8]| {
            let (mut at, mut places) = (0, Vec::new());
            while let Some(&[kind, _, _, high, low]) = sent[at..].first_chunk::<HEADER_LEN>() {
                places.extend(at..at + 3);
                places.extend((kind == 20).then_some(at + HEADER_LEN));
                at += HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
            }
            places
        };
        // Signatures differ in length, so that the places are those of each handshake.
        for at in 0..client.len() {
            let (do_speak, [client, _]) = speak([Some(at), None]);
            let counts = at < client.len() && !idle(&client).contains(&at);
            assert!(!(do_speak && counts), "byte {at} of the client");
        }
        for at in 0..server.len() {
            let (do_speak, [_, server]) = speak([None, Some(at)]);
            let counts = at < server.len() && !idle(&server).contains(&at);
            assert!(!(do_speak && counts), "byte {at} of the server");
        }
    }

    #[test]
    fn what_comes_with_the_end_of_a_handshake_is_read_after_it() {
        let (mut near, far) = ends([None; 2]);
        near.gathers = true;
        assert!(speak_between(near, far).0);
    }

    #[test]
    fn an_end_that_sends_no_handshake_is_refused_before_much_is_kept_of_it() {
        let endless = |kind: u8| {
            // Records of the longest, of a message that goes on for 16 MiB.
            let mut record = vec![0; HEADER_LEN + (1 << 14)];
            record[..HEADER_LEN].copy_from_slice(&[kind, 3, 3, 0x40, 0]);
            record[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
            record.repeat(64)
        };
        for bytes in [endless(22), endless(23), endless(20), vec![0; 1 << 20]] {
            let (near, far) = ends([None; 2]);
            near.out.unbounded_send(Ok(bytes)).unwrap();
            let name = tls(1).protocol_info().next().unwrap();
            let mut pool = LocalPool::new();
            let refused = Rc::new(Cell::new(false));
            let told = refused.clone();
            let server = async move { told.set(tls(2).upgrade_inbound(far, name).await.is_err()) };
            pool.spawner().spawn_local(server).unwrap();
            pool.run_until_stalled();
            assert!(refused.get());
        }
    }

    #[test]
    fn one_record_is_shown_at_a_time() {
        let (mut came, record) = (Vec::new(), [22, 3, 3, 0, 2, 7, 7, 22]);
        let mut pool = LocalPool::new();
        let mut cursor = Cursor::new(record);
        let read = pool.run_until(read_record(&mut cursor, &mut came, 0));
        assert_eq!((read.unwrap(), &came[..]), (7, &record[..]));
        assert!(
            pool.run_until(read_record(&mut cursor, &mut came, 7))
                .is_err()
        );
    }
}
