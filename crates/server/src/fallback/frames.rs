//! The frames of the HTTP fallback: text lines that carry what a WebSocket carries.
//!
//! Pure. A worker writes WebSocket frames to every connection; [`Translator`] turns those into lines, so that a session
//! over HTTP is spoken to by the same code as any other. Reads only frames of our own making: unmasked and unfragmented.

use bytes::Bytes;
use fulmar_protocol::close::CloseCode;

/// The session is open.
pub(crate) const OPEN: &str = "o\n";
/// Nothing new: somebody is still there.
pub(crate) const HEARTBEAT: &str = "h\n";
/// Bytes before the first frame of a streaming answer: some browsers and proxies hold back the first two kilobytes.
pub(crate) const PRELUDE_BYTES: usize = 2_048;
/// UTF-16 units of one streaming answer beyond which pusher-js breaks it off, at the end of a line, and asks for the
/// next: `256 * 1024` characters in its source, in all versions.
pub(crate) const STREAM_UNITS_MAX: usize = 256 * 1024;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

/// The start of every streaming answer.
pub(crate) fn prelude() -> String {
    let mut prelude = "h".repeat(PRELUDE_BYTES);
    prelude.push('\n');
    prelude
}

/// One message.
pub(crate) fn message(text: &str) -> String {
    // Quotes are what JSON text has most of to escape.
    let mut line = Vec::with_capacity(text.len() + text.len() / 4 + 8);
    line.extend_from_slice(b"a[");
    serde_json::to_writer(&mut line, text).expect("text is written into memory");
    line.extend_from_slice(b"]\n");
    String::from_utf8(line).expect("JSON of text is text")
}

/// The end of the session.
pub(crate) fn close(code: CloseCode, reason: &str) -> String {
    format!("c[{},{}]\n", code.0, serde_json::Value::from(reason))
}

/// How long `text` is to JavaScript.
pub(crate) fn units(text: &[u8]) -> usize {
    // One unit per character, and a second one for those of four bytes.
    text.iter().map(|byte| usize::from(byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0)).sum()
}

/// What is translated, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// For the peer.
    Frame(Bytes),
    /// For the peer, and the last.
    Last(Bytes),
}

/// Turns WebSocket frames of the server into lines, however they are cut.
#[derive(Debug, Default)]
pub(crate) struct Translator {
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
}

impl Translator {
    /// Hands every line that `bytes` complete to `take`.
    pub(crate) fn translate(&mut self, bytes: &[u8], mut take: impl FnMut(Line)) {
        if self.partial.is_empty() {
            self.partial = translate(bytes, &mut take).to_vec();
            return;
        }
        self.partial.extend_from_slice(bytes);
        let whole = std::mem::take(&mut self.partial);
        self.partial = translate(&whole, &mut take).to_vec();
    }
}

/// Answers what is left behind the last whole frame.
fn translate<'a>(mut bytes: &'a [u8], take: &mut impl FnMut(Line)) -> &'a [u8] {
    while let Some((opcode, content, rest)) = split_frame(bytes) {
        bytes = rest;
        // A pong answers a ping, and there is none over HTTP.
        match opcode {
            TEXT => take(Line::Frame(message(&String::from_utf8_lossy(content)).into())),
            PING => take(Line::Frame(Bytes::from_static(HEARTBEAT.as_bytes()))),
            CLOSE => take(Line::Last(close_line(content).into())),
            _ => {}
        }
    }
    bytes
}

fn close_line(content: &[u8]) -> String {
    match content {
        [high, low, reason @ ..] => {
            close(CloseCode(u16::from_be_bytes([*high, *low])), &String::from_utf8_lossy(reason))
        }
        _ => close(CloseCode::NORMAL, ""),
    }
}

/// Opcode and content of the first frame, and what follows it.
fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (length, rest) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (u64::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*length), rest)
        }
        short => (u64::from(short), rest),
    };
    let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((first & 0x0f, content, rest))
}

/// The messages in the body of a send: an array of texts. `None` when it is anything else.
pub(crate) fn sent(body: &[u8]) -> Option<Vec<String>> {
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use fulmar_protocol::frame::Frame;
    use fulmar_protocol::websocket;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut translator = Translator::default();
        let mut lines = Vec::new();
        for piece in pieces {
            translator.translate(piece, |line| {
                let (Line::Frame(bytes) | Line::Last(bytes)) = line;
                lines.push(String::from_utf8(bytes.to_vec()).expect("lines are text"));
            });
        }
        lines
    }

    /// FB-5
    #[test]
    fn a_message_is_a_json_string_in_an_array_on_one_line() {
        let text = "{\"event\":\"e\",\"data\":\"a\\n\u{e9}\u{2028}\u{1f989}\"}\n";
        let line = message(text);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let inner = line.strip_prefix('a').and_then(|l| l.strip_suffix('\n')).expect("a[...] and the end of the line");
        assert_eq!(serde_json::from_str::<Vec<String>>(inner).expect("JSON"), [text]);
    }

    /// FB-5
    #[test]
    fn a_close_carries_its_code_and_reason() {
        assert_eq!(close(CloseCode::NO_SUCH_APP, "no \"x\""), "c[4001,\"no \\\"x\\\"\"]\n");
    }

    /// FB-5, FB-15
    #[test]
    fn what_a_worker_writes_to_a_websocket_becomes_lines_however_it_is_cut() {
        let long = "x".repeat(70_000);
        let mut written = Vec::new();
        for text in ["", "short", &"m".repeat(126), &long] {
            written.extend_from_slice(Frame::new(text).bytes());
        }
        written.extend_from_slice(&websocket::ping(&[]));
        written.extend_from_slice(&websocket::pong(b"ignored"));
        written.extend_from_slice(&websocket::close(CloseCode::RECONNECT, "later"));
        written.extend_from_slice(&websocket::close_without_code());
        let expected = [
            message(""),
            message("short"),
            message(&"m".repeat(126)),
            message(&long),
            HEARTBEAT.to_owned(),
            "c[4200,\"later\"]\n".to_owned(),
            "c[1000,\"\"]\n".to_owned(),
        ];
        assert_eq!(lines(&[&written]), expected);
        for size in [1, 2, 3, 7, 1_000] {
            // The long one byte by byte would be quadratic: enough of it is cut around its header.
            let (short, rest) = written.split_at(if size == 1 { 300 } else { written.len() });
            let mut pieces: Vec<&[u8]> = short.chunks(size).collect();
            pieces.push(rest);
            assert_eq!(lines(&pieces), expected, "{size}");
        }
    }

    /// FB-10
    #[test]
    fn length_is_counted_as_javascript_counts_it() {
        for text in ["", "abc", "h\u{e9}\u{20ac}", "\u{1f989}\u{10ffff}x"] {
            assert_eq!(units(text.as_bytes()), text.encode_utf16().count(), "{text}");
        }
    }

    /// FB-6
    #[test]
    fn a_send_is_an_array_of_texts_and_nothing_else() {
        assert_eq!(sent(br#"["{\"event\":\"pusher:ping\"}"]"#), Some(vec![r#"{"event":"pusher:ping"}"#.to_owned()]));
        assert_eq!(sent(b"[]"), Some(Vec::new()));
        assert_eq!(sent(b"[\"a\",\"b\"]").map(|texts| texts.len()), Some(2));
        for odd in [&b""[..], b"{}", b"\"a\"", b"[1]", b"[\"a\"", b"[null]", b"[\"\xff\"]", b"[[\"a\"]]"] {
            assert_eq!(sent(odd), None, "{odd:?}");
        }
    }
}
