//! A finished WebSocket text frame: encoded once, shared by every receiver.

use bytes::Bytes;

use crate::websocket::{HEADER_BYTES_MAX, write_server_header};

/// Bytes ready for a socket: an unmasked text frame. Cloning shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
    text_at: u8,
}

impl Frame {
    /// Encodes `text` as one frame.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::build(text.len(), |buffer| buffer.extend_from_slice(text.as_bytes()))
    }

    /// Encodes the UTF-8 text that `write` appends, in one allocation when `text_bytes` was guessed high enough.
    #[must_use]
    pub fn build(text_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        // The header's size depends on the text's: leave room for the largest and cut what was not needed.
        let mut buffer = Vec::with_capacity(HEADER_BYTES_MAX + text_bytes);
        buffer.resize(HEADER_BYTES_MAX, 0);
        write(&mut buffer);
        let mut header = [0; HEADER_BYTES_MAX];
        let used = write_server_header(&mut header, buffer.len() - HEADER_BYTES_MAX);
        let start = HEADER_BYTES_MAX - used;
        buffer[start..HEADER_BYTES_MAX].copy_from_slice(&header[..used]);
        let bytes = Bytes::from(buffer).slice(start..);
        Self { bytes, text_at: u8::try_from(used).expect("a header has at most 10 bytes") }
    }

    /// Header and text, as they go to a WebSocket.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The JSON text alone, for transports that frame differently and for tests.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[usize::from(self.text_at)..]).expect("only text is written into a frame")
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never true: a frame has at least a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WS-105
    #[test]
    fn a_frame_carries_the_shortest_header_and_its_text() {
        for (size, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let text = "x".repeat(size);
            let frame = Frame::new(&text);
            assert_eq!(frame.len(), size + header);
            assert_eq!(frame.text(), text);
            assert_eq!(frame.bytes()[0], 0x81);
        }
    }
}
