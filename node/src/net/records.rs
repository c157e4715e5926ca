//! The records of TLS 1.3 (RFC 8446, 5) on a connection whose handshake rustls has done.
//!
//! rustls' own buffers copy every byte twice on its way in and ask the kernel for a record
//! at a time. Here many records are read at once and opened where they lie, and those that
//! go out are written together. Keys, ciphers and what protects a record are rustls'.
//! See `docs/decisions/0028-records-are-opened-where-they-lie.md`.
//!
//! Not here: the handshake and whose the other end is (`tls`).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, ProtocolVersion,
    Tls13CipherSuite,
};
use tokio::time::{Instant, Sleep, sleep};

#[cfg(test)]
mod tests;

/// Bytes of what a record protects, at most.
const MAX_PLAIN: usize = 1 << 14;
/// Type, version and length before each record.
const HEADER_LEN: usize = 5;
/// A record with its header, at most: padding and tag may take 256 bytes.
const MAX_RECORD: usize = HEADER_LEN + MAX_PLAIN + 256;
/// What is taken from the kernel at once, to begin with and at most: it grows where the
/// kernel has more.
const MIN_READ: usize = MAX_RECORD;
const MAX_READ: usize = 8 * MAX_RECORD;
/// Where nothing came for so long, the room for more than the least is given back.
const IDLE: Duration = Duration::from_secs(1);
/// Records that wait for the kernel to take them.
const MAX_QUEUED: usize = 8;
/// Messages after the handshake that come in pieces are at most so long.
const MAX_HANDSHAKE: usize = 1 << 16;
/// Records and messages without data that may come one after the other. An honest end sends
/// a few tickets and, once in 256 GiB, new keys; each costs more to read than to send.
const MAX_EMPTY: u32 = 32;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Alerts (RFC 8446, 6): how grave they are, and what they say.
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;

/// The keys that follow when those in use have protected as much as they may.
trait Keys: Send {
    fn next_sending(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error>;
    fn next_receiving(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error>;
}

impl<D: Send> Keys for KernelConnection<D> {
    fn next_sending(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.update_tx_secret()
    }

    fn next_receiving(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.update_rx_secret()
    }
}

/// A connection on which TLS protects what is read and written.
pub(super) struct Records<C> {
    io: C,
    keys: Box<dyn Keys>,
    suite: &'static Tls13CipherSuite,
    sealing: Sealing,
    opening: Opening,
    /// Whether the other end may send tickets: a server.
    takes_tickets: bool,
}

/// What goes out.
struct Sealing {
    encrypter: Box<dyn MessageEncrypter>,
    /// The next record's number under these keys.
    next: u64,
    /// So many records may be protected with the same keys.
    limit: u64,
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first of them that the kernel has.
    taken: usize,
    /// The other end asked for new keys.
    owes_keys: bool,
    /// This end has said that no more comes.
    is_closed: bool,
}

/// What comes in.
struct Opening {
    decrypter: Box<dyn MessageDecrypter>,
    next: u64,
    buf: Vec<u8>,
    /// What has been opened and not been read; it lies before `sealed`.
    open: Range<usize>,
    /// What has come and not been opened.
    sealed: Range<usize>,
    /// The beginning of a message that goes on in the next record.
    handshake: Vec<u8>,
    /// The other end has said that no more comes.
    is_ended: bool,
    /// Records and messages without data since the last one with some.
    empty: u32,
    /// What is told to all who read after it went wrong.
    broken: Option<Broken>,
    /// When to look again whether something came, while there is room to be given back.
    look: Option<Pin<Box<Sleep>>>,
    /// Since the last look.
    has_come: bool,
}

/// Why nothing more is read.
#[derive(Debug)]
struct Broken {
    kind: io::ErrorKind,
    why: String,
    /// What the other end is told; nothing where it ended it.
    alert: Option<u8>,
}

/// What the next record was.
enum Opened {
    Data,
    /// One for this layer.
    Control,
    /// Not all of it is there.
    Partly,
}

impl<C> Records<C> {
    /// Of a connection whose handshake is done, with a server that may send tickets or with
    /// a client. `came` is what came behind it.
    ///
    /// # Errors
    /// When the cipher's keys cannot be had.
    pub(super) fn new<D: Send + 'static>(
        io: C,
        (secrets, keys): (ExtractedSecrets, KernelConnection<D>),
        takes_tickets: bool,
        came: &[u8],
    ) -> Result<Self, Error> {
        let suite = keys
            .negotiated_cipher_suite()
            .tls13()
            .ok_or_else(|| Error::General("it is not TLS 1.3".into()))?;
        let (sent, sending) = secrets.tx;
        let (received, receiving) = secrets.rx;
        let mut buf = vec![0; MIN_READ.max(came.len())];
        buf[..came.len()].copy_from_slice(came);
        Ok(Self {
            io,
            keys: Box::new(keys),
            suite,
            sealing: Sealing {
                encrypter: encrypter(suite, sending)?,
                next: sent,
                limit: suite.common.confidentiality_limit,
                queue: VecDeque::new(),
                taken: 0,
                owes_keys: false,
                is_closed: false,
            },
            opening: Opening {
                decrypter: decrypter(suite, receiving)?,
                next: received,
                buf,
                open: 0..0,
                sealed: 0..came.len(),
                handshake: Vec::new(),
                is_ended: false,
                empty: 0,
                broken: None,
                look: None,
                has_come: false,
            },
            takes_tickets,
        })
    }

    #[cfg(test)]
    pub(super) fn suite(&self) -> rustls::CipherSuite {
        self.suite.common.suite
    }

    /// New keys for what goes out, told with the last of the old ones (RFC 8446, 4.6.3).
    fn renew_sending(&mut self) -> Result<(), Error> {
        let told = [KEY_UPDATE, 0, 0, 1, 0];
        self.sealing.seal(ContentType::Handshake, &told)?;
        let (next, secrets) = self.keys.next_sending()?;
        self.sealing.encrypter = encrypter(self.suite, secrets)?;
        (self.sealing.next, self.sealing.owes_keys) = (next, false);
        Ok(())
    }

    fn seal(&mut self, kind: ContentType, bytes: &[u8]) -> io::Result<()> {
        // The last record of these keys tells of the next ones.
        let is_used_up = self.sealing.next.saturating_add(1) >= self.sealing.limit;
        if is_used_up || self.sealing.owes_keys {
            self.renew_sending().map_err(io::Error::other)?;
        }
        self.sealing.seal(kind, bytes).map_err(io::Error::other)
    }

    /// Opens the next record, if all of it is there, and does what it says.
    fn open_next(&mut self) -> Result<Opened, Broken> {
        let opening = &mut self.opening;
        let Some((kind, plain)) = opening.open_record()? else {
            return Ok(Opened::Partly);
        };
        match kind {
            ContentType::ApplicationData if !opening.handshake.is_empty() => {
                return Err(misplaced("a message that was broken off"));
            }
            ContentType::ApplicationData if !plain.is_empty() => {
                (opening.open, opening.empty) = (plain, 0);
                return Ok(Opened::Data);
            }
            ContentType::ApplicationData => opening.had_no_data()?,
            ContentType::Alert => opening.alerted(plain)?,
            ContentType::Handshake => self.told(plain)?,
            _ => return Err(misplaced("a record of a kind that has no place here")),
        }
        Ok(Opened::Control)
    }

    /// Messages after the handshake.
    fn told(&mut self, plain: Range<usize>) -> Result<(), Broken> {
        let opening = &mut self.opening;
        opening.had_no_data()?;
        let bytes = opening.buf.get(plain).unwrap_or_default();
        if opening.handshake.len() + bytes.len() > MAX_HANDSHAKE {
            return Err(bad(DECODE_ERROR, "a message is too long"));
        }
        opening.handshake.extend_from_slice(bytes);
        let messages = std::mem::take(&mut opening.handshake);
        let mut rest = &messages[..];
        while let Some((kind, body, behind)) = first_message(rest) {
            let is_asked = body == [1];
            let is_update = body == [0] || is_asked;
            match kind {
                // Connections are never resumed.
                NEW_SESSION_TICKET if self.takes_tickets => {}
                // What follows is under other keys, so that it cannot begin here.
                KEY_UPDATE if is_update && behind.is_empty() => {
                    let (next, secrets) = self.keys.next_receiving().map_err(no_keys)?;
                    opening.decrypter = decrypter(self.suite, secrets).map_err(no_keys)?;
                    opening.next = next;
                    self.sealing.owes_keys |= is_asked;
                }
                KEY_UPDATE if !is_update => {
                    return Err(bad(ILLEGAL_PARAMETER, "a message about keys that is none"));
                }
                _ => return Err(misplaced("a message that has no place here")),
            }
            opening.had_no_data()?;
            rest = behind;
        }
        opening.handshake = rest.to_vec();
        Ok(())
    }
}

/// The first message, if all of it is there: its kind, what it says, and what is behind it.
fn first_message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, high, mid, low], rest) = bytes.split_first_chunk()?;
    let len = u32::from_be_bytes([0, high, mid, low]) as usize;
    let (body, behind) = rest.split_at_checked(len)?;
    Some((kind, body, behind))
}

impl Sealing {
    fn seal(&mut self, kind: ContentType, bytes: &[u8]) -> Result<(), Error> {
        let message = OutboundPlainMessage {
            typ: kind,
            version: ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(bytes),
        };
        let record = self.encrypter.encrypt(message, self.next)?;
        self.next += 1;
        self.queue.push_back(record.encode());
        Ok(())
    }

    /// Gives the kernel what waits for it.
    fn poll_write_out<C: AsyncWrite + Unpin>(
        &mut self,
        io: &mut C,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(first) = self.queue.front() {
            let mut slices = [IoSlice::new(&[]); MAX_QUEUED];
            slices[0] = IoSlice::new(&first[self.taken..]);
            let others = self.queue.iter().skip(1);
            for (slice, record) in slices[1..].iter_mut().zip(others) {
                *slice = IoSlice::new(record);
            }
            let count = self.queue.len().min(MAX_QUEUED);
            let wrote = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(wrote);
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, bytes: usize) {
        self.taken += bytes;
        while let Some(first) = self.queue.front().map(Vec::len) {
            if self.taken < first {
                break;
            }
            self.taken -= first;
            self.queue.pop_front();
        }
    }
}

impl Opening {
    /// Opens the next record where it lies; none while not all of it is there.
    fn open_record(&mut self) -> Result<Option<(ContentType, Range<usize>)>, Broken> {
        let sealed = self.buf.get_mut(self.sealed.clone()).unwrap_or_default();
        let Some((&mut [kind, _, _, high, low], rest)) = sealed.split_first_chunk_mut() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if ContentType::from(kind) != ContentType::ApplicationData {
            return Err(misplaced("a record is not protected"));
        }
        if HEADER_LEN + len > MAX_RECORD {
            return Err(bad(RECORD_OVERFLOW, "a record is too long"));
        }
        let Some(record) = rest.get_mut(..len) else {
            return Ok(None);
        };
        let message = InboundOpaqueMessage::new(
            ContentType::ApplicationData,
            ProtocolVersion::TLSv1_2,
            record,
        );
        let plain = self.decrypter.decrypt(message, self.next);
        let plain = plain.map_err(|error| bad(alert_of(&error), error))?;
        let (kind, plain_len) = (plain.typ, plain.payload.len());
        self.next += 1;
        let begin = self.sealed.start + HEADER_LEN;
        self.sealed.start = begin + len;
        Ok(Some((kind, begin..begin + plain_len)))
    }

    /// A record or a message had no data.
    fn had_no_data(&mut self) -> Result<(), Broken> {
        self.empty += 1;
        match self.empty > MAX_EMPTY {
            true => Err(misplaced("too many records without data")),
            false => Ok(()),
        }
    }

    fn alerted(&mut self, plain: Range<usize>) -> Result<(), Broken> {
        match self.buf.get(plain) {
            Some(&[_, CLOSE_NOTIFY]) => {
                self.is_ended = true;
                Ok(())
            }
            Some(&[_, alert]) => Err(Broken {
                kind: io::ErrorKind::ConnectionAborted,
                why: format!("the other end ended it with TLS alert {alert}"),
                alert: None,
            }),
            _ => Err(bad(DECODE_ERROR, "an alert that is none")),
        }
    }

    /// Copies what is open, as much as there is room for; how much.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let open = self.buf.get(self.open.clone()).unwrap_or_default();
        let len = open.len().min(out.len());
        out[..len].copy_from_slice(&open[..len]);
        self.open.start += len;
        len
    }

    /// Takes from the kernel what there is. Nothing open is left when it is called.
    fn poll_fill<C: AsyncRead + Unpin>(
        &mut self,
        io: &mut C,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let left = self.sealed.len();
        self.buf.copy_within(self.sealed.clone(), 0);
        (self.open, self.sealed) = (0..0, 0..left);
        let Poll::Ready(read) = Pin::new(io).poll_read(cx, &mut self.buf[left..]) else {
            if left == 0 && self.buf.len() > MIN_READ {
                self.give_back_when_idle(cx);
            }
            return Poll::Pending;
        };
        let read = read?;
        self.has_come = true;
        self.sealed.end += read;
        let (len, is_full) = (self.buf.len(), self.sealed.end == self.buf.len());
        if is_full && len < MAX_READ {
            self.buf.resize((2 * len).min(MAX_READ), 0);
        }
        Poll::Ready(Ok(read))
    }

    /// Nothing is there, and more may come soon or late: a stream that is fast reads all
    /// there is time and again.
    fn give_back_when_idle(&mut self, cx: &mut Context<'_>) {
        let mut look = match self.look.take() {
            Some(look) => look,
            None => {
                self.has_come = false;
                Box::pin(sleep(IDLE))
            }
        };
        while look.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.has_come) {
                self.buf.truncate(MIN_READ);
                self.buf.shrink_to_fit();
                return;
            }
            look.as_mut().reset(Instant::now() + IDLE);
        }
        self.look = Some(look);
    }
}

impl From<&Broken> for io::Error {
    fn from(broken: &Broken) -> Self {
        Self::new(broken.kind, broken.why.clone())
    }
}

impl<C: AsyncWrite + Unpin> Records<C> {
    /// From here on nothing is read or written but the alert that tells the other end, as
    /// far as the kernel takes it at once.
    fn break_off(&mut self, broken: Broken, cx: &mut Context<'_>) {
        if let Some(alert) = broken.alert
            && !self.sealing.is_closed
        {
            // Where records wait, so does whoever wrote them, and takes the alert along: the
            // kernel wakes only the last who asked.
            let is_free = self.sealing.queue.is_empty();
            let sealed = self.seal(ContentType::Alert, &[FATAL, alert]);
            self.sealing.is_closed = true;
            if sealed.is_ok() && is_free {
                let _ = self.sealing.poll_write_out(&mut self.io, cx);
            }
        }
        self.opening.broken = Some(broken);
    }
}

fn encrypter(
    suite: &Tls13CipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageEncrypter>, Error> {
    let (key, iv) = key_of(secrets)?;
    Ok(suite.aead_alg.encrypter(key, iv))
}

fn decrypter(
    suite: &Tls13CipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, Error> {
    let (key, iv) = key_of(secrets)?;
    Ok(suite.aead_alg.decrypter(key, iv))
}

fn key_of(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    match secrets {
        Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv } => {
            Ok((key, iv))
        }
        _ => Err(Error::General("a cipher that is not offered".into())),
    }
}

fn bad(alert: u8, what: impl ToString) -> Broken {
    Broken {
        kind: io::ErrorKind::InvalidData,
        why: what.to_string(),
        alert: Some(alert),
    }
}

fn misplaced(what: &'static str) -> Broken {
    bad(UNEXPECTED_MESSAGE, what)
}

#[allow(clippy::needless_pass_by_value)] // what `map_err` gives
fn no_keys(error: Error) -> Broken {
    bad(INTERNAL_ERROR, error)
}

/// Why a record was not opened.
fn alert_of(error: &Error) -> u8 {
    match error {
        Error::DecryptError => BAD_RECORD_MAC,
        Error::PeerSentOversizedRecord => RECORD_OVERFLOW,
        _ => UNEXPECTED_MESSAGE,
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Records<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut read = 0;
        loop {
            read += this.opening.take(&mut out[read..]);
            if read == out.len() || this.opening.is_ended {
                return Poll::Ready(Ok(read));
            }
            if let Some(broken) = &this.opening.broken {
                // What was read before comes first.
                return Poll::Ready(match read {
                    0 => Err(broken.into()),
                    read => Ok(read),
                });
            }
            match this.open_next() {
                Err(broken) => this.break_off(broken, cx),
                Ok(Opened::Data | Opened::Control) => {}
                Ok(Opened::Partly) if read > 0 => return Poll::Ready(Ok(read)),
                Ok(Opened::Partly) => {
                    if ready!(this.opening.poll_fill(&mut this.io, cx))? == 0 {
                        // It was cut: an end is said.
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Records<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.sealing.is_closed || this.opening.broken.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.sealing.queue.len() >= MAX_QUEUED {
            let out = this.sealing.poll_write_out(&mut this.io, cx)?;
            if out.is_pending() && this.sealing.queue.len() >= MAX_QUEUED {
                return Poll::Pending;
            }
        }
        let room = MAX_QUEUED - this.sealing.queue.len();
        let mut taken = 0;
        for plain in bytes.chunks(MAX_PLAIN).take(room) {
            this.seal(ContentType::ApplicationData, plain)?;
            taken += plain.len();
        }
        // What the kernel does not take now is written when it is flushed.
        let _ = this.sealing.poll_write_out(&mut this.io, cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.sealing.poll_write_out(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.sealing.is_closed {
            this.seal(ContentType::Alert, &[WARNING, CLOSE_NOTIFY])?;
            this.sealing.is_closed = true;
        }
        ready!(this.sealing.poll_write_out(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_close(cx)
    }
}
