//! One frame each way on a request stream, and one after another on a gossip
//! stream: a big-endian u32 length, then that
//! many bytes. Not a format: what is inside belongs to the consumer.
//!
//! A frame that is refused is handed up as a value, so that the refusal can
//! name the peer; the codec itself does not know who is at the other end.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length says more than this protocol's limit. Nothing was allocated.
    #[error("frame of {len} bytes is over the limit of {limit}")]
    Oversized {
        /// What the peer announced, bytes.
        len: usize,
        /// What this protocol takes, bytes.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame")]
    Truncated,
    /// The stream ended before a frame began.
    #[error("stream ended without a frame")]
    Empty,
}

/// What arrived on a request stream, or what is to be sent.
#[derive(Debug)]
pub(super) enum Frame {
    Whole(Vec<u8>),
    Refused(FrameError),
}

/// Reads and writes the frames of one protocol.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    /// Largest frame in either direction, bytes.
    pub(super) limit: usize,
}

pub(super) enum ReadError {
    Frame(FrameError),
    Io(io::Error),
}

impl Frames {
    pub(super) async fn read<T: AsyncRead + Unpin + Send>(
        &self,
        io: &mut T,
    ) -> Result<Vec<u8>, ReadError> {
        let mut prefix = [0; 4];
        let mut have = 0;
        while have < prefix.len() {
            match io.read(&mut prefix[have..]).await {
                Ok(0) if have == 0 => return Err(ReadError::Frame(FrameError::Empty)),
                Ok(0) => return Err(ReadError::Frame(FrameError::Truncated)),
                Ok(n) => have += n,
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
        let len = u32::from_be_bytes(prefix) as usize;
        if len > self.limit {
            let limit = self.limit;
            return Err(ReadError::Frame(FrameError::Oversized { len, limit }));
        }
        // Grows with what arrives: a length alone makes us allocate nothing.
        let mut bytes = Vec::new();
        io.take(len as u64)
            .read_to_end(&mut bytes)
            .await
            .map_err(ReadError::Io)?;
        if bytes.len() < len {
            return Err(ReadError::Frame(FrameError::Truncated));
        }
        Ok(bytes)
    }

    pub(super) async fn write<T: AsyncWrite + Unpin + Send>(
        &self,
        io: &mut T,
        frame: Frame,
    ) -> io::Result<()> {
        let bytes = match frame {
            Frame::Whole(bytes) if bytes.len() <= self.limit => bytes,
            Frame::Whole(_) | Frame::Refused(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        io.write_all(&len.to_be_bytes()).await?;
        io.write_all(&bytes).await?;
        io.flush().await
    }
}

impl request_response::Codec for Frames {
    type Protocol = StreamProtocol;
    type Request = Frame;
    type Response = Frame;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Frame>
    where
        T: AsyncRead + Unpin + Send,
    {
        match self.read(io).await {
            Ok(bytes) => Ok(Frame::Whole(bytes)),
            Err(ReadError::Frame(error)) => Ok(Frame::Refused(error)),
            Err(ReadError::Io(error)) => Err(error),
        }
    }

    async fn read_response<T>(&mut self, protocol: &StreamProtocol, io: &mut T) -> io::Result<Frame>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read_request(protocol, io).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        frame: Frame,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, frame).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        frame: Frame,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, frame).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;

    const FRAMES: Frames = Frames { limit: 8 };

    fn read(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
        block_on(FRAMES.read(&mut Cursor::new(bytes))).map_err(|error| match error {
            ReadError::Frame(error) => error,
            ReadError::Io(error) => panic!("a cursor does not fail: {error}"),
        })
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut io = Cursor::new(Vec::new());
        block_on(FRAMES.write(&mut io, Frame::Whole(b"12345678".to_vec()))).unwrap();
        assert_eq!(read(io.get_ref()).unwrap(), b"12345678");
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_any_of_it_is_read() {
        let refused = FrameError::Oversized { len: 9, limit: 8 };
        assert_eq!(read(&[0, 0, 0, 9]), Err(refused));
        let limit = FRAMES.limit;
        let len = u32::MAX as usize;
        assert_eq!(read(&[255; 4]), Err(FrameError::Oversized { len, limit }));
    }

    #[test]
    fn a_stream_that_ends_early_is_told_from_one_that_never_began() {
        assert_eq!(read(&[]), Err(FrameError::Empty));
        assert_eq!(read(&[0, 0]), Err(FrameError::Truncated));
        assert_eq!(read(&[0, 0, 0, 3, 1, 2]), Err(FrameError::Truncated));
    }

    #[test]
    fn a_frame_over_the_limit_is_not_sent() {
        let mut io = Cursor::new(Vec::new());
        let error = block_on(FRAMES.write(&mut io, Frame::Whole(vec![0; 9]))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(io.get_ref().is_empty());
    }
}
