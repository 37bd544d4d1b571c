//! A login's stream: what has come is taken from the socket at once, and handed out as it is asked for.
//!
//! A login is read in small exact pieces, a header and then a body. Each of these is a system call, and after a piece that
//! filled its buffer the next one asks the socket again to hear that there is nothing: eight reads for the three messages of
//! a SCRAM login, which are three this way. What nobody has asked for when the login is over is the session's ([`rest`]), or
//! was put where nothing may stand ([`into_inner`]).
//!
//! [`rest`]: Ahead::rest
//! [`into_inner`]: Ahead::into_inner

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scratch::Scratch;

/// A stream, and what has been read of it that nobody has asked for yet.
pub struct Ahead<IO> {
    io: IO,
    /// Never empty: a login that waits holds no buffer.
    read: Option<Scratch>,
}

impl<IO> Ahead<IO> {
    /// Wraps a stream of which nothing has been read.
    pub fn new(io: IO) -> Self {
        Self { io, read: None }
    }

    /// Returns the stream itself; what has been read of it is not seen there any more.
    pub fn inner(&self) -> &IO {
        &self.io
    }

    /// As [`Self::inner`]. Who reads there takes what has been read first.
    pub fn inner_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    /// Takes what has been read that nobody has asked for.
    pub fn rest(&mut self) -> Option<Scratch> {
        self.read.take()
    }

    /// Returns the stream and what has been read of it.
    pub fn into_parts(self) -> (IO, Option<Scratch>) {
        (self.io, self.read)
    }

    /// Returns the stream, unless something has been read of it that would be lost.
    pub fn into_inner(self) -> Option<IO> {
        self.read.is_none().then_some(self.io)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Ahead<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, read } = self.get_mut();
        let mut scratch = match read.take() {
            Some(scratch) => scratch,
            None => {
                let mut scratch = Scratch::take();
                if let Some((polled, _)) = scratch.fill(|buf| Pin::new(&mut *io).poll_read(cx, buf)) {
                    ready!(polled)?;
                }
                scratch
            }
        };
        let count = scratch.len().min(buf.remaining());
        buf.put_slice(&scratch[..count]);
        scratch.consume(count);
        *read = (!scratch.is_empty()).then_some(scratch);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Ahead<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// A socket in which these bytes are, and which must not be asked again.
    struct Once(Option<&'static [u8]>);

    impl AsyncRead for Once {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buf.put_slice(self.0.take().expect("it has given all it has"));
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_message_read_in_pieces_is_one_read_of_the_socket() {
        let mut io = Ahead::new(Once(Some(b"headbody")));
        let mut piece = [0; 4];
        io.read_exact(&mut piece).await.unwrap();
        assert_eq!(&piece, b"head");
        io.read_exact(&mut piece).await.unwrap();
        assert_eq!(&piece, b"body");
        assert!(io.rest().is_none());
    }

    #[tokio::test]
    async fn what_nobody_asked_for_is_kept_and_bars_the_way_out() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b"mine and more").await.unwrap();
        let mut io = Ahead::new(ours);
        io.read_exact(&mut [0; 4]).await.unwrap();
        let (_, read) = io.into_parts();
        assert_eq!(read.as_deref(), Some(&b" and more"[..]));
        let mut io = Ahead::new(&b"twice"[..]);
        io.read_exact(&mut [0; 1]).await.unwrap();
        assert!(io.into_inner().is_none());
    }

    #[tokio::test]
    async fn the_end_is_seen_behind_what_was_read() {
        let mut io = Ahead::new(&b"all"[..]);
        io.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!(io.read(&mut [0; 3]).await.unwrap(), 0);
    }
}
