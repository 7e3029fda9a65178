//! One blocking connection, plain or TLS.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Failure, Target};

/// How long reaching a server may take, and each read and write of a REST call.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a server.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// How long a read may wait before it answers `WouldBlock` or `TimedOut`.
    pub fn set_read_timeout(&self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.set_read_timeout(Some(patience)),
            Self::Tls(stream) => stream.sock.set_read_timeout(Some(patience)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Connects, trying each address of the host.
pub fn connect(target: &Target) -> Result<Stream, Failure> {
    let at = target.authority();
    let addresses = (target.host.as_str(), target.port)
        .to_socket_addrs()
        .map_err(|e| format!("{} cannot be resolved: {e}", target.host))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(socket) => return secure(target, socket),
            Err(e) => last = Some(e),
        }
    }
    Err(Failure::from(match last {
        Some(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            format!(
                "connection refused: is a node listening on {at}? Try `fulmar serve`, or name another with {}",
                target.named_with
            )
        }
        Some(e) => format!("cannot connect to {at}: {e}"),
        None => format!("{} has no address", target.host),
    }))
}

fn secure(target: &Target, mut socket: TcpStream) -> Result<Stream, Failure> {
    let set = socket.set_nodelay(true);
    set.and_then(|()| socket.set_read_timeout(Some(PATIENCE)))
        .and_then(|()| socket.set_write_timeout(Some(PATIENCE)))
        .map_err(|e| format!("cannot prepare the connection: {e}"))?;
    if !target.tls {
        return Ok(Stream::Plain(socket));
    }
    let config = ClientConfig::builder().with_root_certificates(roots(target)?).with_no_client_auth();
    let name = ServerName::try_from(target.host.clone()).map_err(|e| format!("{}: {e}", target.host))?;
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(|e| format!("TLS: {e}"))?;
    while session.is_handshaking() {
        session.complete_io(&mut socket).map_err(|e| {
            format!("TLS with {} failed: {e} (--ca FILE trusts a certificate of your own)", target.authority())
        })?;
    }
    Ok(Stream::Tls(Box::new(StreamOwned::new(session, socket))))
}

fn roots(target: &Target) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    match &target.ca {
        Some(file) => {
            let named = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
            for certificate in CertificateDer::pem_file_iter(file).map_err(|e| named(&e))? {
                roots.add(certificate.map_err(|e| named(&e))?).map_err(|e| named(&e))?;
            }
        }
        None => {
            // A store may hold entries we cannot read; what matters is whether the server's chain ends in one we can.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}
