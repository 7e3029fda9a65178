//! What goes over the wire in a bench: the handshake, frames, the mark by which a delivery is recognised, signatures.
//!
//! This is the client's side, written independently of the server's crates so that a mistake there shows here.

use std::fmt::Write as _;
use std::ops::Range;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

/// A server frame: opcode, where its payload lies, and where the next frame begins.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerFrame {
    /// RFC 6455 opcode.
    pub opcode: u8,
    /// The payload's place in the bytes that were given.
    pub payload: Range<usize>,
}

/// A frame no server may send, in the words of a report.
pub type BadFrame = &'static str;

/// Reads the frame at the head of `bytes`; `None` until it is complete.
///
/// # Errors
/// The frame is masked, fragmented, compressed or longer than anything a bench sends.
pub fn read_frame(bytes: &[u8]) -> Result<Option<ServerFrame>, BadFrame> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0xf0 != 0x80 {
        return Err("a frame is fragmented or carries reserved bits");
    }
    if second & 0x80 != 0 {
        return Err("a frame from the server is masked");
    }
    let (header, len) = match second {
        127 => return Err("a frame is longer than 64 KiB"),
        126 if bytes.len() < 4 => return Ok(None),
        126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        short => (2, usize::from(short)),
    };
    if bytes.len() < header + len {
        return Ok(None);
    }
    Ok(Some(ServerFrame { opcode: first & 0x0f, payload: header..header + len }))
}

/// Appends a masked frame, as a client must send it.
pub fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    out.push(0x80 | opcode);
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => out.push(0x80 | short),
        _ => {
            out.push(0x80 | 126);
            let len = u16::try_from(payload.len()).expect("a bench sends no frame above 64 KiB");
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// The upgrade request of a connection.
pub fn upgrade_request(key: &str, host: &str) -> String {
    format!(
        "GET /app/{key}?protocol=7&client=bench&version=1.0&flash=false HTTP/1.1\r\nHost: {host}\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Where `needle` begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}

/// Finds the socket id in `pusher:connection_established`, whose data is JSON within JSON.
pub fn socket_id(text: &[u8]) -> Option<&str> {
    let after = &text[find(text, b"socket_id")? + 9..];
    let start = after.iter().position(u8::is_ascii_digit)?;
    let len = after[start..].iter().position(|b| !b.is_ascii_digit() && *b != b'.')?;
    std::str::from_utf8(&after[start..start + len]).ok()
}

/// Which event a delivery is of: who published it, its number there, and its place in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The publisher's index.
    pub lane: u16,
    /// Place in the batch.
    pub place: u8,
    /// The publisher's count, from one.
    pub seq: u32,
}

const MARK_HEAD: &[u8] = b"~BM";
const MARK_BYTES: usize = 3 + 4 + 2 + 8;

impl Mark {
    /// Event data of `data_bytes` bytes that begins with this mark. It needs no escaping in JSON.
    pub fn data(self, data_bytes: usize) -> String {
        let mut text = format!("~BM{:04x}{:02x}{:08x}", self.lane, self.place, self.seq);
        while text.len() < data_bytes {
            text.push('x');
        }
        text
    }

    /// Finds the mark in a frame's text. `hint` is where the last one was: servers repeat themselves.
    pub fn find(text: &[u8], hint: &mut usize) -> Option<Self> {
        if text.get(*hint..*hint + MARK_HEAD.len()) != Some(MARK_HEAD) {
            *hint = find(text, MARK_HEAD)?;
        }
        let digits = text.get(*hint + MARK_HEAD.len()..*hint + MARK_BYTES)?;
        let mut value = 0_u64;
        for digit in digits {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            value = value << 4 | u64::from(nibble);
        }
        // 56 bits: each part is exactly as wide as its type.
        #[allow(clippy::cast_possible_truncation)]
        Some(Self { lane: (value >> 40) as u16, place: (value >> 32) as u8, seq: value as u32 })
    }
}

/// Signs requests and subscriptions of one application.
#[derive(Debug, Clone)]
pub struct Signer {
    app_id: String,
    key: String,
    mac: Hmac<Sha256>,
}

impl Signer {
    /// For the application with these credentials.
    pub fn new(app_id: &str, key: &str, secret: &str) -> Self {
        let mac = Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
        Self { app_id: app_id.into(), key: key.into(), mac }
    }

    /// The application's public key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The `auth` of a private channel's subscription.
    pub fn channel_auth(&self, socket_id: &str, channel: &str) -> String {
        format!("{}:{}", self.key, self.hex(&[socket_id, ":", channel]))
    }

    /// A complete signed POST to `/apps/{id}/{verb}`.
    pub fn post(&self, verb: &str, host: &str, body: &str, unix_s: u64) -> String {
        let path = format!("/apps/{}/{verb}", self.app_id);
        let query = format!(
            "auth_key={}&auth_timestamp={unix_s}&auth_version=1.0&body_md5={}",
            self.key,
            hex(&Md5::digest(body.as_bytes()))
        );
        let signature = self.hex(&["POST\n", &path, "\n", &query]);
        format!(
            "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn hex(&self, parts: &[&str]) -> String {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(part.as_bytes());
        }
        hex(&mac.finalize().into_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An HTTP response's status and how many bytes it takes in all; `None` until its head is complete.
///
/// # Errors
/// It is not HTTP, or does not say how long its body is.
pub fn read_response(bytes: &[u8]) -> Result<Option<(u16, usize)>, &'static str> {
    let Some(head) = find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > 16 * 1024 { Err("a response's head is longer than 16 KiB") } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..head]).map_err(|_| "a response's head is not text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
    let status = status.ok_or("a response has no status")?;
    let length = lines.filter_map(|l| l.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, v)| v.trim().parse::<usize>().ok()).ok_or("a response has no Content-Length")?;
    Ok(Some((status, head + 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_the_envelope_and_the_hint_follows_it() {
        let mark = Mark { lane: 99, place: 9, seq: 0xdead_beef };
        let mut hint = 0;
        for envelope in [r#"{"data":"#, r#"{"event":"bench","channel":"c7","data":"#] {
            let text = format!("{envelope}\"{}\"}}", mark.data(140));
            assert_eq!(Mark::find(text.as_bytes(), &mut hint), Some(mark));
            assert_eq!(hint, envelope.len() + 1);
        }
        assert_eq!(Mark::find(b"{}", &mut hint), None);
        assert_eq!(Mark::find(b"~BM0000", &mut hint), None);
    }

    #[test]
    fn frames_are_read_only_when_complete_and_only_as_servers_may_send_them() {
        let frame = [0x81, 2, b'h', b'i', 0x81];
        assert_eq!(read_frame(&frame), Ok(Some(ServerFrame { opcode: 1, payload: 2..4 })));
        assert_eq!(read_frame(&frame[..3]), Ok(None));
        let mut long = vec![0x81, 126, 0, 200];
        assert_eq!(read_frame(&long[..3]), Ok(None));
        long.resize(204, b'x');
        assert_eq!(read_frame(&long), Ok(Some(ServerFrame { opcode: 1, payload: 4..204 })));
        assert!(read_frame(&[0x01, 0]).is_err());
        assert!(read_frame(&[0x81, 0x82]).is_err());
    }

    #[test]
    fn a_masked_frame_unmasks_to_what_was_said() {
        for text in ["hi".to_owned(), "x".repeat(300)] {
            let mut bytes = Vec::new();
            write_masked(&mut bytes, 1, text.as_bytes());
            let header = if text.len() < 126 { 2 } else { 4 };
            let key = bytes[header..header + 4].to_vec();
            let plain: Vec<u8> = bytes[header + 4..].iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
            assert_eq!(plain, text.as_bytes());
        }
    }

    #[test]
    fn signatures_are_those_of_the_published_examples() {
        let signer = Signer::new("3", "278d425bdf160c739803", "7ad3773142a6692b25b8");
        assert_eq!(
            signer.channel_auth("1234.1234", "private-foobar"),
            "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
        );
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let request = signer.post("events", "localhost", body, 1_353_088_179);
        assert!(request.contains("body_md5=ec365a775a4cd0599faeb73354201b6f"), "{request}");
        assert!(request.contains("da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"), "{request}");
    }

    #[test]
    fn the_socket_id_is_found_within_nested_json() {
        let text = br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"12.345\",\"a\":1}"}"#;
        assert_eq!(socket_id(text), Some("12.345"));
        assert_eq!(socket_id(b"{}"), None);
    }

    #[test]
    fn a_response_is_as_long_as_it_says() {
        assert_eq!(read_response(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Ok(Some((200, 40))));
        assert_eq!(read_response(b"HTTP/1.1 200 OK\r\nconte"), Ok(None));
        assert!(read_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
