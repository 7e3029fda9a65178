//! How far the operator lets webhooks go: to which ports, and through which proxy.
//!
//! Holds for all apps of a node, whoever writes their URLs. A proxy is asked for the very address that was judged, not for
//! the name: what a name means is decided once, here.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of a proxy's answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

/// What the operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    /// Ports of endpoints; empty allows all.
    pub ports: Vec<u16>,
    /// `HOST:PORT` of a proxy that takes `CONNECT`; none connects directly.
    pub proxy: Option<String>,
}

/// Why a proxy made no connection.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// It cannot be reached, or broke off.
    #[error("the proxy {proxy}: {source}")]
    Io {
        /// Which.
        proxy: String,
        /// Why.
        source: io::Error,
    },
    /// It said no.
    #[error("the proxy {proxy} answered {status} to CONNECT {address}")]
    Refused {
        /// Which.
        proxy: String,
        /// What it said; 0 for nothing that is HTTP.
        status: u16,
        /// Where to.
        address: SocketAddr,
    },
}

impl Egress {
    /// Whether endpoints may be at this port.
    #[must_use]
    pub fn allows_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }
}

/// A connection to `address` through `proxy`.
pub(super) async fn connect_through(proxy: &str, address: SocketAddr) -> Result<TcpStream, ProxyError> {
    let failed = |source| ProxyError::Io { proxy: proxy.to_owned(), source };
    let mut stream = TcpStream::connect(proxy).await.map_err(failed)?;
    let ask = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head is the endpoint's.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "its answer has no end")));
        }
        answer.push(stream.read_u8().await.map_err(failed)?);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let status = head.parse(&answer).ok().and(head.code).unwrap_or(0);
    if (200..300).contains(&status) {
        return Ok(stream);
    }
    Err(ProxyError::Refused { proxy: proxy.to_owned(), status, address })
}
