//! Which addresses a webhook may go to.
//!
//! Whoever configures a URL must not be able to make the node speak to what only the node can reach. Names are judged by
//! what they resolve to, and the connection is made to that very address: what is allowed here is what is connected to.
//! Nothing here resolves or connects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fulmar_protocol::webhook::Webhooks;
use hyper::Uri;

/// IPv4 networks that are not for everybody: this host, private, shared (carriers), loopback, link-local (and the
/// metadata services of clouds there), protocol assignments, documentation, 6to4 relays, benchmarks, multicast,
/// reserved and broadcast. And one public address at which Azure's hosts serve their guests.
const NOT_PUBLIC_V4: &[(u32, u32)] = &[
    net4([0, 0, 0, 0], 8),
    net4([10, 0, 0, 0], 8),
    net4([100, 64, 0, 0], 10),
    net4([127, 0, 0, 0], 8),
    net4([168, 63, 129, 16], 32),
    net4([169, 254, 0, 0], 16),
    net4([172, 16, 0, 0], 12),
    net4([192, 0, 0, 0], 24),
    net4([192, 0, 2, 0], 24),
    net4([192, 88, 99, 0], 24),
    net4([192, 168, 0, 0], 16),
    net4([198, 18, 0, 0], 15),
    net4([198, 51, 100, 0], 24),
    net4([203, 0, 113, 0], 24),
    net4([224, 0, 0, 0], 4),
    net4([240, 0, 0, 0], 4),
];

/// Of the global unicast space of IPv6, 2000::/3, what is not public after all: protocol assignments (Teredo and others
/// that carry IPv4 addresses among them), 6to4 and documentation. Everything outside 2000::/3 is refused as a whole: with
/// it go loopback, link-local, unique local, multicast, and all forms with an IPv4 address inside.
const NOT_PUBLIC_V6: &[(u128, u128)] =
    &[net6([0x2001, 0], 23), net6([0x2001, 0xdb8], 32), net6([0x2002, 0], 16), net6([0x3fff, 0], 20)];

const fn net4(start: [u8; 4], bits: u32) -> (u32, u32) {
    (u32::from_be_bytes(start), u32::MAX << (32 - bits))
}

const fn net6(start: [u16; 2], bits: u32) -> (u128, u128) {
    ((start[0] as u128) << 112 | (start[1] as u128) << 96, u128::MAX << (128 - bits))
}

/// Whether the endpoints of an app may be at this address.
#[must_use]
pub fn is_allowed(address: IpAddr, webhooks: &Webhooks) -> bool {
    // An IPv4 address in IPv6 clothes reaches the same machine.
    let address = address.to_canonical();
    webhooks.allow_private || is_public(address) || webhooks.allow_networks.iter().any(|net| net.contains(&address))
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !NOT_PUBLIC_V4.iter().any(|(start, mask)| address.to_bits() & mask == *start)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    bits >> 125 == 1 && !NOT_PUBLIC_V6.iter().any(|(start, mask)| bits & mask == *start)
}

/// A URL taken apart. Whether its host may be spoken to is not known before it is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Whether TLS is spoken.
    pub is_tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Host and port as the `Host` header has them.
    pub authority: String,
}

/// Takes a URL apart; the text of the error finishes the sentence "URL ...".
///
/// # Errors
/// What is wrong with it.
pub fn destination(url: &str) -> Result<Destination, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "must be a URL such as https://example.com/webhooks")?;
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("must begin with http:// or https://"),
    };
    let authority = uri.authority().ok_or("must have a host")?;
    if authority.as_str().contains('@') {
        return Err("must not hold a user or password; use headers for credentials");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("must have a host");
    }
    let written_port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let port = match (written_port, authority.port_u16()) {
        ("", _) => {
            if is_tls {
                443
            } else {
                80
            }
        }
        (_, Some(port)) if port > 0 => port,
        _ => return Err("must have a port from 1 to 65535, or none"),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok(Destination { is_tls, host: host.to_owned(), port, path, authority: authority.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhooks(networks: &[&str]) -> Webhooks {
        Webhooks { allow_networks: networks.iter().map(|n| n.parse().unwrap()).collect(), ..Webhooks::default() }
    }

    const NOT_PUBLIC: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.0.9",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.9.9",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ];

    /// HOOK-24
    #[test]
    fn addresses_that_are_not_for_everybody_are_refused_in_all_their_forms() {
        for address in NOT_PUBLIC {
            assert!(!is_allowed(address.parse().unwrap(), &Webhooks::default()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00::1",
            "3ffe::1",
        ] {
            assert!(is_allowed(address.parse().unwrap(), &Webhooks::default()), "{address}");
        }
    }

    /// HOOK-25
    #[test]
    fn an_app_may_allow_networks_or_everything() {
        let some = webhooks(&["10.1.0.0/16", "fd00::/8"]);
        for (address, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("fd00::7", true),
            ("10.2.0.1", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(is_allowed(address.parse().unwrap(), &some), expected, "{address}");
        }
        let all = Webhooks { allow_private: true, ..Webhooks::default() };
        assert!(is_allowed("127.0.0.1".parse().unwrap(), &all));
    }

    /// HOOK-24
    #[test]
    fn a_url_names_a_scheme_of_the_web_a_host_and_nothing_secret() {
        let told = destination("https://example.com/hook?a=b#c").unwrap();
        assert_eq!((told.is_tls, told.host.as_str(), told.port), (true, "example.com", 443));
        assert_eq!((told.path.as_str(), told.authority.as_str()), ("/hook?a=b", "example.com"));
        let numeric = destination("http://[2001:db8::1]:8080").unwrap();
        assert_eq!((numeric.host.as_str(), numeric.port, numeric.path.as_str()), ("2001:db8::1", 8080, "/"));
        assert_eq!(numeric.authority, "[2001:db8::1]:8080");
        for bad in [
            "",
            "example.com",
            "/hook",
            "//example.com",
            "ftp://example.com",
            "file:///etc/passwd",
            "gopher://a/",
            "javascript:alert(1)",
            "http://",
            "http:///path",
            "http://user@example.com",
            "http://a:b@example.com",
            "http://127.0.0.1@example.com/",
            "http://example.com:0",
            "http://example.com:99999",
            "http://example.com:x",
            "http://exa mple.com",
            "http://example.com/\r\nX: y",
            "http://ex\u{e4}mple.com",
            "unix:/run/x.sock",
        ] {
            assert!(destination(bad).is_err(), "{bad:?}");
        }
    }
}
