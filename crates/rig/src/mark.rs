//! By which a receipt is recognised: the publisher's number and its count, in the data of the event.

const HEAD: &[u8] = b"~RG";
const MARK_BYTES: usize = 3 + 8 + 8;

/// Event data that needs no escaping in JSON, `data_bytes` long or as long as the mark.
pub fn write(lane: u32, seq: u32, data_bytes: usize) -> String {
    let mut text = format!("~RG{lane:08x}{seq:08x}");
    while text.len() < data_bytes {
        text.push('x');
    }
    text
}

/// Finds `(lane, seq)` in a frame's text.
pub fn find(text: &[u8]) -> Option<(u32, u32)> {
    let at = crate::websocket::find(text, HEAD)?;
    let digits = std::str::from_utf8(text.get(at + HEAD.len()..at + MARK_BYTES)?).ok()?;
    let (lane, seq) = digits.split_at(8);
    Some((u32::from_str_radix(lane, 16).ok()?, u32::from_str_radix(seq, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_in_whatever_is_around_it() {
        let data = write(u32::MAX, 17, 64);
        assert_eq!(data.len(), 64);
        assert_eq!(find(format!(r#"{{"event":"e","data":"{data}"}}"#).as_bytes()), Some((u32::MAX, 17)));
        assert_eq!(find(b"~RG0000"), None);
        assert_eq!(find(b"nothing"), None);
    }
}
