//! What a bare server finds in what it reads, and how it frames what it says.

use crate::bench::wire::find;

/// The text between the quotes after `key`, escapes left as they are, and where it ends.
pub(super) fn value<'a>(text: &'a [u8], key: &[u8]) -> Option<(&'a [u8], usize)> {
    let start = find(text, key)? + key.len();
    let mut at = start;
    loop {
        match text.get(at)? {
            b'"' => return Some((&text[start..at], at + 1)),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

pub(super) fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = &head[find(head, name)? + name.len()..];
    Some(&rest[..find(rest, b"\r\n")?])
}

pub(super) fn push_frame(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    out.push(0x81);
    match u8::try_from(len) {
        Ok(short) if short < 126 => out.push(short),
        _ => {
            out.push(126);
            let len = u16::try_from(len).expect("a bench sends no frame above 64 KiB");
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

pub(super) fn accept_key(key: &[u8]) -> [u8; 28] {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = sha1.digest().bytes();
    let mut text = [b'='; 28];
    for (group, out) in digest.chunks(3).zip(text.chunks_mut(4)) {
        let at = |i: usize| u32::from(*group.get(i).unwrap_or(&0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for (i, letter) in out.iter_mut().enumerate().take(group.len() + 1) {
            *letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_rfc_6455() {
        assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_value_ends_at_its_own_quote() {
        let text = br#"{"name":"a\"b","data":"x"}"#;
        assert_eq!(value(text, br#""name":""#), Some((&br#"a\"b"#[..], 14)));
        assert_eq!(value(text, br#""data":""#), Some((&b"x"[..], 25)));
        assert_eq!(value(br#"{"data":"x"#, br#""data":""#), None);
    }
}
