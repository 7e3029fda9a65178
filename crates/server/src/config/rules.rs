//! What texts must look like: addresses, networks, paths, names and origins. Pure; the text of an error finishes the
//! sentence "KEY ...".

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The address a host key means. `localhost` is the one name: listening needs an address.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    if host == "localhost" {
        return Some(IpAddr::from([127, 0, 0, 1]));
    }
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// The network a `trusted_proxies` entry means; a bare address is a network of one.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|n| n.trunc()).or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

pub(super) fn check_host(text: &str) -> Result<(), &'static str> {
    address(text)
        .map(|_| ())
        .ok_or("must be an IP address to listen on, such as 127.0.0.1, 0.0.0.0 or ::, or localhost")
}

pub(super) fn check_network(text: &str) -> Result<(), &'static str> {
    network(text).map(|_| ()).ok_or("must hold networks such as 10.0.0.0/8 or fd00::/8, or single addresses")
}

pub(super) fn check_port(text: &str) -> Result<(), &'static str> {
    let is_port = text.parse::<u16>().is_ok_and(|port| port > 0);
    if is_port { Ok(()) } else { Err("must hold ports from 1 to 65535 as texts, such as [\"443\"]") }
}

/// `HOST:PORT` of a proxy's URL.
pub(super) fn proxy(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("http://")?.trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':')?;
    let is_plain = !host.is_empty() && !authority.contains(['/', '@', '?', '#', ' ']);
    (is_plain && check_port(port).is_ok()).then_some(authority)
}

pub(super) fn check_proxy(text: &str) -> Result<(), &'static str> {
    let is_proxy = text.is_empty() || proxy(text).is_some();
    if is_proxy { Ok(()) } else { Err("must be empty, or http://HOST:PORT") }
}

pub(super) fn check_path_prefix(text: &str) -> Result<(), &'static str> {
    let plain = text.bytes().all(|b| is_unreserved(b) || b == b'/');
    let framed = text.starts_with('/') && !text.ends_with('/') && !text.contains("//");
    if text.is_empty() || (plain && framed) {
        return Ok(());
    }
    Err("must be empty, or begin with / and not end with it, such as /ws")
}

pub(super) fn check_id(text: &str) -> Result<(), &'static str> {
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(is_unreserved) {
        return Ok(());
    }
    Err("must be 1 to 128 letters, digits, or any of - _ . ~")
}

pub(super) fn check_key(text: &str) -> Result<(), &'static str> {
    if text.contains(':') {
        return Err("must not contain ':', which separates the key from the signature in every auth string");
    }
    check_id(text)
}

/// What may stand in a URL's path without being escaped: then nobody can disagree on how it is written.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~')
}

pub(super) fn check_origin(text: &str) -> Result<(), &'static str> {
    let plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let ok = match text.split_once("://") {
        // Only an origin with its scheme can have a port: without one, any port of the host is meant.
        Some(("http" | "https", rest)) => {
            let (host, port) = match rest.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
                _ => (rest, None),
            };
            let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let host_ok = bracketed.map_or_else(|| plain(host), |h| h.parse::<Ipv6Addr>().is_ok());
            host_ok && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0))
        }
        Some(_) => false,
        None => plain(text.strip_prefix("*.").unwrap_or(text)),
    };
    if ok {
        return Ok(());
    }
    Err("must hold origins such as https://example.com, https://example.com:8443, example.com or *.example.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WS-8
    #[test]
    fn origins_are_schemes_and_hosts_and_nothing_else() {
        for good in ["https://a.example", "http://a:8080", "a.example", "*.a.example", "localhost", "https://[::1]:1"] {
            assert_eq!(check_origin(good), Ok(()), "{good}");
        }
        for bad in ["", "*", "https://", "ftp://a", "https://a/b", "a b", "a:80", "https://a:0", "https://*.a", "*."] {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }
}
