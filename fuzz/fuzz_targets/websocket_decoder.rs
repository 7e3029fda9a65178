//! Whatever bytes a client sends: no panic, nothing asked for beyond the limit, and the same result however they are cut.
//!
//! The first byte of the input chooses the limit, the second how many bytes each read brings.
#![no_main]

use fulmar_protocol::websocket::{
    CLIENT_HEADER_BYTES_MAX, CONTROL_BYTES_MAX, Decoded, Decoder, Incoming, ProtocolError,
};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, PartialEq)]
enum Heard {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Fragment,
    Refused(ProtocolError),
}

fuzz_target!(|bytes: &[u8]| {
    let [limit, read_bytes, stream @ ..] = bytes else { return };
    let limit = usize::from(*limit) * 8;
    let at_once = listen(limit, [stream]);
    assert_eq!(at_once, listen(limit, stream.chunks(usize::from(*read_bytes).max(1))));
});

fn listen<'a>(limit: usize, reads: impl IntoIterator<Item = &'a [u8]>) -> Vec<Heard> {
    let mut decoder = Decoder::new(limit);
    let (mut heard, mut kept) = (Vec::new(), Vec::new());
    for read in reads {
        kept.extend_from_slice(read);
        loop {
            let left = kept.len();
            match decoder.decode(&mut kept) {
                Ok(Decoded::NeedMore { frame_bytes }) => {
                    assert!(frame_bytes > left);
                    assert!(frame_bytes <= limit.max(CONTROL_BYTES_MAX) + CLIENT_HEADER_BYTES_MAX);
                    break;
                }
                Ok(Decoded::Item { message, consumed }) => {
                    heard.push(check(message, limit));
                    assert!(0 < consumed && consumed <= left);
                    kept.drain(..consumed);
                }
                Err(error) => {
                    assert!(matches!(error.close_code().0, 1002 | 1007 | 1009));
                    heard.push(Heard::Refused(error));
                    return heard;
                }
            }
        }
    }
    heard
}

fn check(message: Incoming<'_>, limit: usize) -> Heard {
    match message {
        Incoming::Text(text) => {
            assert!(text.len() <= limit);
            Heard::Text(text.into_owned())
        }
        Incoming::Binary => Heard::Binary,
        Incoming::Ping(payload) => {
            assert!(payload.len() <= CONTROL_BYTES_MAX);
            Heard::Ping(payload.to_vec())
        }
        Incoming::Pong(payload) => {
            assert!(payload.len() <= CONTROL_BYTES_MAX);
            Heard::Pong(payload.to_vec())
        }
        Incoming::Close(code, reason) => {
            assert!(reason.len() <= CONTROL_BYTES_MAX - 2);
            Heard::Close(code, reason.to_owned())
        }
        Incoming::Fragment => Heard::Fragment,
    }
}
