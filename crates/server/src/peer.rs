//! Who is at the other end, when proxies stand between.
//!
//! A proxy is believed only when its own address is in the configured list; anybody else could claim any address.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ppp::HeaderResult;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Most bytes of a PROXY header: version 2 with all the extensions that load balancers add.
const PROXY_HEADER_BYTES_MAX: usize = 4_096;

/// Whether this address is one of our proxies.
pub(crate) fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|network| network.contains(&ip))
}

/// The client's address: that of the peer, unless the peer is a trusted proxy that names another. Proxies append, so
/// the list is read from its end, and the first address that is no proxy of ours is the client's.
pub(crate) fn client_ip(peer: IpAddr, forwarded_for: Option<&str>, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for entry in forwarded_for.unwrap_or_default().rsplit(',') {
        if !is_trusted(client, trusted) {
            break;
        }
        match address_of(entry.trim()) {
            Some(ip) => client = ip,
            None => break,
        }
    }
    client.to_canonical()
}

/// Some proxies add the port.
fn address_of(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Reads the PROXY header (version 1 or 2) that stands before everything else, and nothing behind it. `None` is a
/// header without an address, as health checks of load balancers send it.
pub(crate) async fn read_proxy_header(tcp: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut header = Vec::new();
    let mut seen = [0; PROXY_HEADER_BYTES_MAX];
    loop {
        // Looked at before it is taken, so that not a byte behind the header is.
        let bytes = tcp.peek(&mut seen).await?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = header.len();
        header.extend_from_slice(&seen[..bytes]);
        let end = header_end(&header)?;
        header.truncate(end.unwrap_or(header.len()));
        tcp.read_exact(&mut header[before..]).await?;
        if end.is_some() {
            break;
        }
    }
    match HeaderResult::parse(&header) {
        HeaderResult::V1(Ok(header)) => Ok(v1_source(&header.addresses)),
        // A proxy that speaks for itself, to see whether anybody is there: whatever addresses come along mean nothing.
        HeaderResult::V2(Ok(header)) if header.command == ppp::v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => Ok(v2_source(&header.addresses)),
        _ => Err(no_proxy_header()),
    }
}

/// Where the header at the start of `bytes` ends, if it does.
fn header_end(bytes: &[u8]) -> io::Result<Option<usize>> {
    const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    const V2_FIXED_BYTES: usize = 16;
    const V1_BYTES_MAX: usize = 107;
    if bytes.starts_with(V2_SIGNATURE) {
        let Some([high, low]) = bytes.get(V2_FIXED_BYTES - 2..V2_FIXED_BYTES) else { return Ok(None) };
        let end = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        return if end <= PROXY_HEADER_BYTES_MAX {
            Ok(Some(end).filter(|end| *end <= bytes.len()))
        } else {
            Err(no_proxy_header())
        };
    }
    if V2_SIGNATURE.starts_with(bytes) {
        return Ok(None);
    }
    let line = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    match line.iter().position(|byte| *byte == b'\n') {
        Some(at) => Ok(Some(at + 1)),
        None if bytes.len() < V1_BYTES_MAX && b"PROXY ".starts_with(&bytes[..bytes.len().min(6)]) => Ok(None),
        None => Err(no_proxy_header()),
    }
}

fn no_proxy_header() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a PROXY header")
}

fn v1_source(addresses: &ppp::v1::Addresses) -> Option<IpAddr> {
    match addresses {
        ppp::v1::Addresses::Tcp4(ip) => Some(IpAddr::V4(ip.source_address)),
        ppp::v1::Addresses::Tcp6(ip) => Some(IpAddr::V6(ip.source_address)),
        ppp::v1::Addresses::Unknown => None,
    }
}

fn v2_source(addresses: &ppp::v2::Addresses) -> Option<IpAddr> {
    match addresses {
        ppp::v2::Addresses::IPv4(ip) => Some(IpAddr::V4(ip.source_address)),
        ppp::v2::Addresses::IPv6(ip) => Some(IpAddr::V6(ip.source_address)),
        ppp::v2::Addresses::Unspecified | ppp::v2::Addresses::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_the_list_is_read_from_its_end() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a network")];
        let table = [
            ("203.0.113.9", Some("198.51.100.1"), "203.0.113.9"),
            ("10.0.0.1", None, "10.0.0.1"),
            ("10.0.0.1", Some("198.51.100.1"), "198.51.100.1"),
            ("10.0.0.1", Some("1.1.1.1, 198.51.100.1, 10.2.3.4"), "198.51.100.1"),
            ("::ffff:10.0.0.1", Some("2001:db8::1"), "2001:db8::1"),
            ("10.0.0.1", Some("[2001:db8::1]:443"), "2001:db8::1"),
            ("10.0.0.1", Some("198.51.100.1:5555"), "198.51.100.1"),
            ("10.0.0.1", Some("1.1.1.1, unknown"), "10.0.0.1"),
            ("10.0.0.1", Some(""), "10.0.0.1"),
        ];
        for (peer, header, client) in table {
            assert_eq!(client_ip(ip(peer), header, &trusted), ip(client), "{peer} {header:?}");
        }
    }

    #[test]
    fn a_proxy_header_ends_where_it_says_and_anything_else_is_refused_early() {
        let v1 = b"PROXY TCP4 198.51.100.1 10.0.0.1 5555 6001\r\nGET /";
        for cut in 0..43 {
            assert!(matches!(header_end(&v1[..cut]), Ok(None)) || cut == 0, "{cut}");
        }
        assert!(matches!(header_end(v1), Ok(Some(44))), "{:?}", header_end(v1));
        let v2 = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[9; 14]].concat();
        assert!(matches!(header_end(&v2[..27]), Ok(None)));
        assert!(matches!(header_end(&v2), Ok(Some(28))));
        assert!(header_end(b"GET / HTTP/1.1\r").is_err());
        assert!(header_end(&[b'P'; 200]).is_err());
        assert!(header_end(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff").is_err());
    }
}
