//! The request line that opens a connection: `/app/KEY?protocol=7&client=js&...`, parsed.
//!
//! Parameters are found by name, in any order; unknown ones are ignored. Judging what was asked for is the engine's
//! business: this file only reads.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What a client asks for when it opens a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// The app key, or `None` when the path is not `/app/KEY`.
    pub key: Option<String>,
    /// What follows the key in the path; means nothing yet and is not refused.
    pub suffix: Option<String>,
    /// The protocol version.
    pub protocol: ProtocolVersion,
    /// Which SDK it is, as far as that changes what we may send.
    pub client: ClientKind,
}

/// The `protocol` parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolVersion {
    /// Not given.
    Missing,
    /// Given, but not a number we could compare.
    Malformed,
    /// A number; whether it is spoken here is judged later.
    Number(u32),
}

/// Which SDK speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// pusher-websocket-java: tries to decrypt every event of an encrypted channel whose data is not exactly `{}`.
    Java,
    /// Anything else.
    Other,
}

impl OpenRequest {
    /// Reads a request target (path and query). `prefix` is the configured path prefix, without a trailing slash.
    #[must_use]
    pub fn parse(target: &str, prefix: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (key, suffix) = key_of(path, prefix);
        let mut protocol = ProtocolVersion::Missing;
        let mut client = ClientKind::Other;
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "protocol" => protocol = protocol_of(value),
                "client" if value == "java-client" => client = ClientKind::Java,
                _ => {}
            }
        }
        Self { key, suffix, protocol, client }
    }
}

fn key_of(path: &str, prefix: &str) -> (Option<String>, Option<String>) {
    let Some(rest) = path.strip_prefix(prefix).and_then(|p| p.strip_prefix("/app/")) else { return (None, None) };
    let (key, suffix) = match rest.split_once('/') {
        Some((key, suffix)) => (key, Some(suffix).filter(|s| !s.is_empty())),
        None => (rest, None),
    };
    let key = match percent_decode_str(key).decode_utf8() {
        Ok(key) if !key.is_empty() => Some(Cow::into_owned(key)),
        _ => None,
    };
    (key, suffix.map(str::to_owned))
}

fn protocol_of(value: &str) -> ProtocolVersion {
    match value {
        "" => ProtocolVersion::Missing,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_or(ProtocolVersion::Malformed, ProtocolVersion::Number)
        }
        _ => ProtocolVersion::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sdk_s_way_of_asking_is_read() {
        let js = OpenRequest::parse("/app/KEY?protocol=7&client=js&version=8.6.0&flash=false", "");
        assert_eq!(
            (js.key.as_deref(), js.protocol, js.client),
            (Some("KEY"), ProtocolVersion::Number(7), ClientKind::Other)
        );
        let java = OpenRequest::parse("/app/KEY?client=java-client&protocol=5&version=2.4.4", "");
        assert_eq!((java.protocol, java.client), (ProtocolVersion::Number(5), ClientKind::Java));
    }

    #[test]
    fn a_prefix_is_required_when_configured_and_a_suffix_is_kept() {
        assert_eq!(OpenRequest::parse("/rt/app/k?protocol=7", "/rt").key.as_deref(), Some("k"));
        assert_eq!(OpenRequest::parse("/app/k?protocol=7", "/rt").key, None);
        let with = OpenRequest::parse("/app/k/session-1?protocol=7", "");
        assert_eq!((with.key.as_deref(), with.suffix.as_deref()), (Some("k"), Some("session-1")));
        assert_eq!(OpenRequest::parse("/app/k/", "").suffix, None);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_never_panics() {
        assert_eq!(OpenRequest::parse("/other", "").key, None);
        assert_eq!(OpenRequest::parse("/app/", "").key, None);
        assert_eq!(OpenRequest::parse("/app/%ff", "").key, None);
        assert_eq!(OpenRequest::parse("/app/k", "").protocol, ProtocolVersion::Missing);
        assert_eq!(OpenRequest::parse("/app/k?protocol=", "").protocol, ProtocolVersion::Missing);
        for odd in ["-7", "7.0", "x", "99999999999"] {
            assert_eq!(OpenRequest::parse(&format!("/app/k?protocol={odd}"), "").protocol, ProtocolVersion::Malformed);
        }
    }
}
