//! RFC 6455, the part a server needs: client bytes to messages, and the few frames that are not JSON.
//!
//! Pure bytes: no socket, no clock, and no memory for a connection that says nothing. [`Decoder`] looks at bytes where
//! the driver has read them, unmasks a whole frame in place and lends out its text; what is not yet a whole frame stays
//! with the driver. Only a fragmented message is kept here, and only until its last fragment. The opening handshake's
//! HTTP belongs to the server; what hangs on its key is at the foot. Extensions are not offered, so a reserved bit is
//! always a mistake.
//!
//! Invariant: a length is judged from the header, before anybody waits for the bytes it announces or makes room for
//! them. [`ProtocolError`] ends the connection; nothing a peer sends can panic.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use crate::close::CloseCode;

/// Most bytes a frame header of a server can take (servers do not mask).
pub const HEADER_BYTES_MAX: usize = 10;

/// Most bytes a frame header of a client can take: a partial frame is never longer than this and its message's limit.
pub const CLIENT_HEADER_BYTES_MAX: usize = 14;

/// Most bytes the payload of a ping, pong or close can have (section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Most fragments one message may come in. Empty fragments cost a client six bytes and never reach the size limit, so
/// they need one of their own.
pub const FRAGMENTS_MAX: u32 = 1024;

/// Two bytes and a mask: no frame of a client is shorter.
const CLIENT_FRAME_BYTES_MIN: usize = 6;

const FINAL: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const MASKED: u8 = 0x80;

/// Turns the bytes of one client into messages.
///
/// Sixteen bytes while no fragmented message is under way. Not to be used again after an error.
#[derive(Debug)]
pub struct Decoder {
    message_bytes_max: usize,
    unfinished: Option<Box<Unfinished>>,
}

/// A message of which the last fragment has not come.
#[derive(Debug, Default)]
struct Unfinished {
    fragments: u32,
    message_bytes: usize,
    /// `None` for binary, which nobody will read: its bytes are counted and dropped.
    text: Option<TextSoFar>,
}

#[derive(Debug, Default)]
struct TextSoFar {
    bytes: Vec<u8>,
    /// So many of them are known to be whole characters.
    checked_bytes: usize,
}

/// What [`Decoder::decode`] found at the start of its input.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Not a whole frame yet: keep the input and come back with more behind it.
    NeedMore {
        /// Bytes from the start of the input that the frame needs, as far as its header tells. Always more than the
        /// input has, and at most [`CLIENT_HEADER_BYTES_MAX`] more than the larger of the message limit and
        /// [`CONTROL_BYTES_MAX`].
        frame_bytes: usize,
    },
    /// One whole frame.
    Item {
        /// What it said.
        message: Incoming<'a>,
        /// Bytes of the input it took; the next frame begins behind them.
        consumed: usize,
    },
}

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text message: borrowed from the input unless it came in fragments.
    Text(Cow<'a, str>),
    /// A binary message, or the first fragment of one. This protocol has none.
    Binary,
    /// Wants a pong with the same payload.
    Ping(&'a [u8]),
    /// Answers a ping, or is sent as a sign of life.
    Pong(&'a [u8]),
    /// Goodbye, with a valid code (if any) and a reason. Whatever follows is not to be read.
    Close(Option<u16>, &'a str),
    /// A piece of a message that goes on, or the end of a binary one: nothing to act on, but a sign of life.
    Fragment,
}

/// How a client broke RFC 6455 or a limit. All of it is the client's doing, and ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Section 5.1: clients mask.
    #[error("frame is not masked")]
    NotMasked,
    /// Section 5.2: these bits belong to extensions, and none was agreed.
    #[error("reserved bit is set")]
    ReservedBit,
    /// Section 5.2: no such kind of frame.
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    /// Section 5.5: control frames come whole.
    #[error("control frame is fragmented")]
    ControlFragmented,
    /// Section 5.5: more than [`CONTROL_BYTES_MAX`].
    #[error("control frame is longer than 125 bytes")]
    ControlTooLong,
    /// Section 5.4: there is no message to continue.
    #[error("continuation of no message")]
    NothingToContinue,
    /// Section 5.4: only control frames may come between the fragments of a message.
    #[error("new message inside a fragmented one")]
    MessageInsideMessage,
    /// Section 5.2: the most significant bit of a 64-bit length must be 0.
    #[error("length has its highest bit set")]
    LengthOverflow,
    /// Section 5.5.1: a payload of one byte cannot hold a code.
    #[error("close frame with half a code")]
    HalfCloseCode,
    /// Section 7.4: not a code that may be sent.
    #[error("close code {0} must not be sent")]
    ForbiddenCloseCode(u16),
    /// Section 8.1: text, or the reason of a close, is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// The message is, or is announced to be, larger than the limit.
    #[error("message is longer than {message_bytes_max} bytes")]
    TooBig {
        /// The limit that applied.
        message_bytes_max: usize,
    },
    /// The message came in more than [`FRAGMENTS_MAX`] pieces.
    #[error("message has more than 1024 fragments")]
    TooManyFragments,
}

impl ProtocolError {
    /// The code that tells the client which of the three it was (section 7.4.1).
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::NotUtf8 => CloseCode::NOT_UTF8,
            Self::TooBig { .. } | Self::TooManyFragments => CloseCode::TOO_BIG,
            Self::NotMasked
            | Self::ReservedBit
            | Self::ReservedOpcode(_)
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::NothingToContinue
            | Self::MessageInsideMessage
            | Self::LengthOverflow
            | Self::HalfCloseCode
            | Self::ForbiddenCloseCode(_) => CloseCode::PROTOCOL,
        }
    }
}

impl Decoder {
    /// A decoder that refuses messages longer than `message_bytes_max`, whether whole or as the sum of fragments.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, unfinished: None }
    }

    /// Decodes the frame at the start of `input`.
    ///
    /// `input` is only written to when a whole frame is there, and then no further than `consumed`: what is left can be
    /// kept and shown again. A header is judged as its bytes come, the length before its payload.
    ///
    /// # Errors
    /// The client broke the protocol or a limit: close with [`ProtocolError::close_code`].
    pub fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<'a>, ProtocolError> {
        let header = match self.see_header(input)? {
            Seen::Part { header_bytes } => return Ok(Decoded::NeedMore { frame_bytes: header_bytes }),
            Seen::Whole(header) => header,
        };
        let frame_bytes = header.header_bytes + header.payload_bytes;
        let Some(payload) = input.get_mut(header.header_bytes..frame_bytes) else {
            return Ok(Decoded::NeedMore { frame_bytes });
        };
        unmask(payload, header.mask);
        let message = self.take(header.opcode, header.is_final, payload)?;
        Ok(Decoded::Item { message, consumed: frame_bytes })
    }

    /// Whether fragments of a message came and its end did not: a peer that stops here holds memory.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        self.unfinished.is_some()
    }

    fn see_header(&self, input: &[u8]) -> Result<Seen, ProtocolError> {
        let part = Seen::Part { header_bytes: CLIENT_FRAME_BYTES_MIN };
        let Some(&first) = input.first() else { return Ok(part) };
        let (opcode, is_final) = (Opcode::of(first)?, first & FINAL != 0);
        self.admit(opcode, is_final)?;

        let Some(&second) = input.get(1) else { return Ok(part) };
        if second & MASKED == 0 {
            return Err(ProtocolError::NotMasked);
        }
        let short_length = second & !MASKED;
        let length_bytes = match short_length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let header_bytes = CLIENT_FRAME_BYTES_MIN + length_bytes;
        let Some(rest) = input.get(2..header_bytes) else { return Ok(Seen::Part { header_bytes }) };

        let (length, mask) = rest.split_at(length_bytes);
        let length = match length_bytes {
            0 => u64::from(short_length),
            _ => length.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        };
        let payload_bytes = self.admit_length(opcode, length)?;
        let mask = mask.try_into().expect("a mask is what is left of the header: four bytes");
        Ok(Seen::Whole(Header { opcode, is_final, mask, header_bytes, payload_bytes }))
    }

    /// May such a frame come now?
    fn admit(&self, opcode: Opcode, is_final: bool) -> Result<(), ProtocolError> {
        match (opcode, &self.unfinished) {
            (Opcode::Ping | Opcode::Pong | Opcode::Close, _) if !is_final => Err(ProtocolError::ControlFragmented),
            (Opcode::Continuation, None) => Err(ProtocolError::NothingToContinue),
            (Opcode::Continuation, Some(message)) if message.fragments == FRAGMENTS_MAX => {
                Err(ProtocolError::TooManyFragments)
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(ProtocolError::MessageInsideMessage),
            _ => Ok(()),
        }
    }

    fn admit_length(&self, opcode: Opcode, length: u64) -> Result<usize, ProtocolError> {
        if length >> 63 != 0 {
            return Err(ProtocolError::LengthOverflow);
        }
        let (bytes_left, refusal) = match &self.unfinished {
            _ if opcode.is_control() => (CONTROL_BYTES_MAX, ProtocolError::ControlTooLong),
            Some(message) => (self.message_bytes_max - message.message_bytes, self.too_big()),
            None => (self.message_bytes_max, self.too_big()),
        };
        usize::try_from(length).ok().filter(|length| *length <= bytes_left).ok_or(refusal)
    }

    fn too_big(&self) -> ProtocolError {
        ProtocolError::TooBig { message_bytes_max: self.message_bytes_max }
    }

    fn take<'a>(&mut self, opcode: Opcode, is_final: bool, payload: &'a [u8]) -> Result<Incoming<'a>, ProtocolError> {
        match opcode {
            Opcode::Text if is_final => Ok(Incoming::Text(Cow::Borrowed(read_text(payload)?))),
            Opcode::Binary if is_final => Ok(Incoming::Binary),
            Opcode::Text => {
                let mut message = Box::new(Unfinished { text: Some(TextSoFar::default()), ..Unfinished::default() });
                message.push(payload)?;
                self.unfinished = Some(message);
                Ok(Incoming::Fragment)
            }
            Opcode::Binary => {
                let mut message = Box::<Unfinished>::default();
                message.push(payload)?;
                self.unfinished = Some(message);
                Ok(Incoming::Binary)
            }
            Opcode::Continuation => self.resume(is_final, payload),
            Opcode::Ping => Ok(Incoming::Ping(payload)),
            Opcode::Pong => Ok(Incoming::Pong(payload)),
            Opcode::Close => read_close(payload),
        }
    }

    fn resume<'a>(&mut self, is_final: bool, payload: &[u8]) -> Result<Incoming<'a>, ProtocolError> {
        let message = self.unfinished.as_mut().ok_or(ProtocolError::NothingToContinue)?;
        message.push(payload)?;
        if !is_final {
            return Ok(Incoming::Fragment);
        }
        match self.unfinished.take().and_then(|message| message.text) {
            None => Ok(Incoming::Fragment),
            Some(text) => {
                let text = String::from_utf8(text.bytes).map_err(|_| ProtocolError::NotUtf8)?;
                Ok(Incoming::Text(Cow::Owned(text)))
            }
        }
    }
}

impl Unfinished {
    fn push(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        self.fragments += 1;
        self.message_bytes += payload.len();
        self.text.as_mut().map_or(Ok(()), |text| text.push(payload))
    }
}

impl TextSoFar {
    /// A character may be cut in two by the end of a fragment; anything else that is wrong is wrong at once.
    fn push(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        self.bytes.extend_from_slice(payload);
        match simdutf8::compat::from_utf8(&self.bytes[self.checked_bytes..]) {
            Ok(text) => self.checked_bytes += text.len(),
            Err(error) if error.error_len().is_none() => self.checked_bytes += error.valid_up_to(),
            Err(_) => return Err(ProtocolError::NotUtf8),
        }
        Ok(())
    }
}

/// As much of a header as its bytes show.
enum Seen {
    Part { header_bytes: usize },
    Whole(Header),
}

struct Header {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    header_bytes: usize,
    payload_bytes: usize,
}

#[derive(Clone, Copy)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    /// The opcode in a frame's first byte.
    fn of(first: u8) -> Result<Self, ProtocolError> {
        if first & RESERVED_BITS != 0 {
            return Err(ProtocolError::ReservedBit);
        }
        match first & 0x0f {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xa => Ok(Self::Pong),
            reserved => Err(ProtocolError::ReservedOpcode(reserved)),
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Section 5.3, two masks' width at a time: the payload begins with the mask's first byte, and eight is a multiple of
/// the mask's length, so every word sees the same mask.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn read_text(payload: &[u8]) -> Result<&str, ProtocolError> {
    simdutf8::basic::from_utf8(payload).map_err(|_| ProtocolError::NotUtf8)
}

fn read_close(payload: &[u8]) -> Result<Incoming<'_>, ProtocolError> {
    match payload {
        [] => Ok(Incoming::Close(None, "")),
        [_] => Err(ProtocolError::HalfCloseCode),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let reason = read_text(reason)?;
            match code {
                1000..=1003 | 1007..=1011 | 3000..=4999 => Ok(Incoming::Close(Some(code), reason)),
                _ => Err(ProtocolError::ForbiddenCloseCode(code)),
            }
        }
    }
}

/// Writes the header of an unfragmented text frame of `text_bytes`; answers how many bytes were used.
pub fn write_server_header(header: &mut [u8; HEADER_BYTES_MAX], text_bytes: usize) -> usize {
    header[0] = 0x81;
    match text_bytes {
        0..=125 => {
            header[1] = text_bytes as u8;
            2
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(text_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(text_bytes as u64).to_be_bytes());
            10
        }
    }
}

/// A ping frame. Of a payload longer than [`CONTROL_BYTES_MAX`] only the beginning is sent.
#[must_use]
pub fn ping(payload: &[u8]) -> Bytes {
    control(0x89, &[], payload)
}

/// The pong frame that answers a ping of this payload (section 5.5.3).
#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    control(0x8a, &[], payload)
}

/// A close frame. A reason that does not fit is cut behind a whole character, at 123 bytes or a little before.
#[must_use]
pub fn close(code: CloseCode, reason: &str) -> Bytes {
    let mut reason_bytes = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(reason_bytes) {
        reason_bytes -= 1;
    }
    control(0x88, &code.0.to_be_bytes(), &reason.as_bytes()[..reason_bytes])
}

/// The close frame that answers one without a code.
#[must_use]
pub fn close_without_code() -> Bytes {
    Bytes::from_static(&[0x88, 0])
}

fn control(first: u8, start: &[u8], rest: &[u8]) -> Bytes {
    let rest = &rest[..rest.len().min(CONTROL_BYTES_MAX - start.len())];
    let payload_bytes = u8::try_from(start.len() + rest.len()).expect("at most CONTROL_BYTES_MAX");
    [&[first, payload_bytes], start, rest].concat().into()
}

/// What section 1.3 has every server append to the key of the handshake.
const HANDSHAKE_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Padding is asked for; the four bits after the last byte are not looked at, since a key is a nonce and the answer is
/// made of its letters.
const HANDSHAKE_BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Whether a `Sec-WebSocket-Key` is the base64 of 16 bytes, as section 4.2.1 demands.
#[must_use]
pub fn is_handshake_key(sec_websocket_key: &str) -> bool {
    // Checked first: a header of any length may come, and the buffer below holds no more than what 24 letters can say.
    let mut nonce = [0; 18];
    sec_websocket_key.len() == 24
        && HANDSHAKE_BASE64.decode_slice(sec_websocket_key, &mut nonce).is_ok_and(|nonce_bytes| nonce_bytes == 16)
}

/// The `Sec-WebSocket-Accept` that proves to a client that its handshake was understood (section 4.2.2).
#[must_use]
pub fn accept_key(sec_websocket_key: &str) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(sec_websocket_key.as_bytes());
    hash.update(HANDSHAKE_GUID);
    HANDSHAKE_BASE64.encode(hash.digest().bytes())
}

#[cfg(test)]
mod tests;
