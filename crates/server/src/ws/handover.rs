//! A connection on its way from the acceptor to the worker that will own it.

use std::io::{self, Read, Write};

use fulmar_engine::Opening;
use mio::net::TcpStream;
use rustls::ServerConnection;

use crate::fallback::line::WorkerEnd;
use crate::gate::{AppSeat, Seat};

/// Everything the worker needs to take over an upgraded connection.
pub(crate) struct Handover {
    pub(crate) socket: Socket,
    /// The 101 answer, not yet sent: it leaves in one write with the first frame.
    pub(crate) response: Vec<u8>,
    /// Bytes that the client sent behind its handshake: the worker's first input.
    pub(crate) leftover: Vec<u8>,
    pub(crate) opening: Opening,
    /// Counted until the socket is closed; the seat of an HTTP session is its line's.
    pub(crate) seat: Option<Seat>,
    /// Counted against the app's quota.
    pub(crate) app_seat: Option<AppSeat>,
}

/// A non-blocking socket, with or without TLS, or what stands in its place.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsSocket>),
    /// An HTTP session. What its client says comes by the inbox.
    Fallback(WorkerEnd),
}

/// A socket whose bytes are encrypted by rustls.
pub(crate) struct TlsSocket {
    tcp: TcpStream,
    tls: ServerConnection,
}

impl Socket {
    /// Takes over a socket that a runtime has let go of.
    pub(crate) fn plain(tcp: std::net::TcpStream) -> Self {
        Self::Plain(TcpStream::from_std(tcp))
    }

    /// The same with a finished TLS handshake.
    pub(crate) fn tls(tcp: std::net::TcpStream, tls: ServerConnection) -> Self {
        Self::Tls(Box::new(TlsSocket { tcp: TcpStream::from_std(tcp), tls }))
    }

    /// What the operating system knows it by, if it does.
    pub(crate) fn tcp(&mut self) -> Option<&mut TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(socket) => Some(&mut socket.tcp),
            Self::Fallback(_) => None,
        }
    }

    /// Reads what is there. `Ok(0)` is the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(socket) => socket.read(buffer),
            Self::Fallback(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes what fits; the rest is the caller's to keep.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(socket) => socket.write(bytes),
            Self::Fallback(line) => line.write(bytes),
        }
    }

    /// Whether everything written has left for the operating system.
    pub(crate) fn is_flushed(&self) -> bool {
        if let Self::Tls(socket) = self { !socket.tls.wants_write() } else { true }
    }

    /// Pushes out what encryption still holds. `WouldBlock` when the socket is full.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Fallback(_) => Ok(()),
            Self::Tls(socket) => socket.flush(),
        }
    }

    /// Says that a close frame is on its way. Answers whether the peer will answer it.
    pub(crate) fn begin_close(&mut self) -> bool {
        match self {
            Self::Plain(_) | Self::Tls(_) => true,
            Self::Fallback(line) => {
                line.begin_close();
                false
            }
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        if let Self::Tls(socket) = self {
            socket.tls.send_close_notify();
            // Best effort: the peer sees the end of the socket in any case.
            let _: io::Result<()> = socket.flush();
        }
        if let Some(tcp) = self.tcp() {
            // Fails only when the peer is gone already.
            let _: io::Result<()> = tcp.shutdown(std::net::Shutdown::Write);
        }
    }
}

impl TlsSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that closes TCP without saying so in TLS is simply gone.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            if self.tls.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            if let Err(error) = self.tls.process_new_packets() {
                // Tell the peer why, if it still listens.
                let _: io::Result<()> = self.flush();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if self.tls.wants_write() {
                // Key updates and the like; what does not fit leaves with the next frame.
                match self.flush() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
        }
    }

    /// Takes bytes only when everything before them has left, so that what waits stays in the outbox and is counted.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.tls.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}
