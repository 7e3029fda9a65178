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

/// A server somewhere, by name or by number.
pub(super) fn check_address(text: &str) -> Result<(), &'static str> {
    let split = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_host = |host: &str| match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|host| host.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    };
    if split.is_some_and(|(host, _)| is_host(host)) {
        return Ok(());
    }
    Err("must be host:port, such as 10.0.0.1:6379, redis.example.com:6379 or [fd00::1]:6379")
}

/// Where figures are sent.
pub(super) fn check_sink(text: &str) -> Result<(), &'static str> {
    check_address(text).map_err(|_| "must be host:port, such as 127.0.0.1:8125 or telegraf.example.com:8125")
}

/// What no receiver of statsd lines reads as anything but part of a name.
pub(super) fn check_metric_prefix(text: &str) -> Result<(), &'static str> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
    if text.len() <= 64 && text.bytes().all(is_plain) && !text.starts_with('.') && !text.ends_with('.') {
        return Ok(());
    }
    Err("must be at most 64 letters, digits, _ and dots, the latter not at an end")
}

pub(super) fn check_group(text: &str) -> Result<(), &'static str> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(());
    }
    Err("must hold names of groups as Sentinel has them: 1 to 64 letters, digits, or any of - . _")
}

/// It becomes the beginning of every key, where a colon ends it.
pub(super) fn check_deployment(text: &str) -> Result<(), &'static str> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(());
    }
    Err("must be 1 to 64 small letters, digits or -")
}

pub(super) fn check_topology(text: &str) -> Result<(), &'static str> {
    match text {
        "single" | "sentinel" | "cluster" => Ok(()),
        _ => Err("must be single, sentinel or cluster"),
    }
}

pub(super) fn check_role(text: &str) -> Result<(), &'static str> {
    match text {
        "websocket" | "rest" | "webhooks" => Ok(()),
        _ => Err("must hold roles: websocket, rest, webhooks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NODE-1
    #[test]
    fn addresses_of_servers_are_hosts_with_ports() {
        for good in ["10.0.0.1:6379", "redis-1.example.com:1", "[::1]:6379", "a_b:65535"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["", "host", ":6379", "host:", "host:0", "host:65536", "::1:6379", "[::1]", "redis://h:1", "a b:1"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }

    /// NODE-1
    #[test]
    fn a_deployment_s_name_never_reaches_beyond_its_colon() {
        for (name, is_good) in
            [("fulmar", true), ("eu-1", true), ("", false), ("a:b", false), ("A", false), ("a/b", false)]
        {
            assert_eq!(check_deployment(name).is_ok(), is_good, "{name}");
        }
        for (name, is_good) in [("mymaster", true), ("g.1_a", true), ("", false), ("a/b", false), ("a,b", false)] {
            assert_eq!(check_group(name).is_ok(), is_good, "{name}");
        }
    }

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
