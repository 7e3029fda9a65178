//! Our WebSocket decoder and `tungstenite`, fed the same bytes, must hear the same messages and refuse the same frames.
//!
//! Streams are random but the same in every run: mostly well-formed frames, some of them slightly damaged. Where the
//! two differ on purpose, the difference is named by a function whose doc begins with that word, and tolerated nowhere
//! else. Not compared: the limit of fragments, which `tungstenite` does not have.

use std::cell::Cell;
use std::io::{self, Cursor, Read, Write};

use fulmar_protocol::websocket::{CLIENT_HEADER_BYTES_MAX, Decoded, Decoder, Incoming};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const STREAMS: u32 = 10_000;
const SEED: [u8; 32] = *b"the same streams in every run...";
const LIMIT: usize = 300;

/// What one side made of a stream: what it heard, and how that ended.
#[derive(Debug, PartialEq)]
struct Judgement {
    heard: Vec<Heard>,
    end: End,
}

#[derive(Debug, PartialEq)]
enum Heard {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

#[derive(Debug, PartialEq)]
enum End {
    /// All whole frames were heard; the next may still come.
    Waiting,
    Closed(Option<u16>, String),
    /// With this close code.
    Refused(u16),
}

fn ours(mut stream: Vec<u8>) -> Judgement {
    let mut decoder = Decoder::new(LIMIT);
    let (mut heard, mut at) = (Vec::new(), 0);
    let end = loop {
        match decoder.decode(&mut stream[at..]) {
            Ok(Decoded::NeedMore { .. }) => break End::Waiting,
            Ok(Decoded::Item { message, consumed }) => {
                at += consumed;
                match message {
                    Incoming::Text(text) => heard.push(Heard::Text(text.into_owned())),
                    Incoming::Binary => heard.push(Heard::Binary),
                    Incoming::Ping(payload) => heard.push(Heard::Ping(payload.to_vec())),
                    Incoming::Pong(payload) => heard.push(Heard::Pong(payload.to_vec())),
                    Incoming::Close(code, reason) => break End::Closed(code, reason.to_owned()),
                    Incoming::Fragment => {}
                }
            }
            Err(error) => break End::Refused(error.close_code().0),
        }
    };
    Judgement { heard, end }
}

fn theirs(stream: Vec<u8>) -> Judgement {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT))
        .read_buffer_size(4096)
        .write_buffer_size(0);
    let mut socket = WebSocket::from_raw_socket(OneWay(Cursor::new(stream)), Role::Server, Some(config));
    let mut heard = Vec::new();
    let end = loop {
        match socket.read() {
            Ok(Message::Text(text)) => heard.push(Heard::Text(text.to_string())),
            Ok(Message::Binary(_)) => heard.push(Heard::Binary),
            Ok(Message::Ping(payload)) => heard.push(Heard::Ping(payload.to_vec())),
            Ok(Message::Pong(payload)) => heard.push(Heard::Pong(payload.to_vec())),
            Ok(Message::Close(None)) => break End::Closed(None, String::new()),
            Ok(Message::Close(Some(close))) => break forgiven_close_code(close.code.into(), close.reason.to_string()),
            Ok(Message::Frame(_)) => unreachable!("only ever written"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break End::Waiting,
            Err(Error::Protocol(_)) => break End::Refused(1002),
            Err(Error::Utf8(_)) => break End::Refused(1007),
            Err(Error::Capacity(_)) => break End::Refused(1009),
            Err(error) => panic!("{error}"),
        }
    };
    Judgement { heard, end }
}

/// A socket whose peer says no more than this and listens to everything.
struct OneWay(Cursor<Vec<u8>>);

impl Read for OneWay {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }
}

impl Write for OneWay {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Difference: it answers a close frame of a forbidden code with 1002 and reports that; we call it the error it is.
/// It also lets 1012 and 1013 pass, which were registered after RFC 6455 and are for servers to send.
fn forgiven_close_code(code: u16, reason: String) -> End {
    match code {
        1002 if reason == "Protocol violation" => End::Refused(1002),
        1012 | 1013 => End::Refused(1002),
        _ => End::Closed(Some(code), reason),
    }
}

/// Difference: we refuse by the header; it waits for the payload. Shown that payload, it must refuse as well.
fn theirs_when_shown_the_payload(mut stream: Vec<u8>) -> Judgement {
    stream.resize(stream.len() + LIMIT + CLIENT_HEADER_BYTES_MAX, 0);
    theirs(stream)
}

/// Difference: it asks how long a frame is before it asks whether there may be such a frame at all.
fn is_refused_for_its_size_first(ours: &End, theirs: &End) -> bool {
    (ours, theirs) == (&End::Refused(1002), &End::Refused(1009))
}

/// Difference: we report a fragmented binary message at its first frame, since that is where it is closed with 1003.
fn without_binary(judgement: Judgement) -> Judgement {
    let heard = judgement.heard.into_iter().filter(|heard| *heard != Heard::Binary).collect();
    Judgement { heard, ..judgement }
}

fn judge(stream: &[u8]) -> Result<End, TestCaseError> {
    let ours = without_binary(ours(stream.to_vec()));
    let mut theirs = without_binary(theirs(stream.to_vec()));
    if theirs.end == End::Waiting && matches!(ours.end, End::Refused(_)) {
        theirs = without_binary(theirs_when_shown_the_payload(stream.to_vec()));
    }
    prop_assert_eq!(&ours.heard, &theirs.heard);
    if !is_refused_for_its_size_first(&ours.end, &theirs.end) {
        prop_assert_eq!(&ours.end, &theirs.end);
    }
    Ok(ours.end)
}

/// A frame before its bytes are made, so that it can be damaged with sense.
#[derive(Debug, Clone)]
struct Plan {
    first: u8,
    is_masked: bool,
    /// How wide the length is written, when it could be written shorter: 0, 1, 2 for 7, 16, 64 bits.
    length_form: u8,
    mask: [u8; 4],
    payload: Vec<u8>,
}

impl Plan {
    fn bytes(&self) -> Vec<u8> {
        let mask_bit = if self.is_masked { 0x80 } else { 0 };
        let length = self.payload.len();
        let mut bytes = vec![self.first];
        match (length, self.length_form) {
            (0..=125, 0) => bytes.push(mask_bit | length as u8),
            (_, 0 | 1) => {
                bytes.push(mask_bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask_bit | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let mask = if self.is_masked { self.mask } else { [0; 4] };
        bytes.extend(&mask[..if self.is_masked { 4 } else { 0 }]);
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

fn frame(first: impl Strategy<Value = u8>, payload: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Plan> {
    let length_form = prop_oneof![8 => Just(0_u8), 1 => Just(1), 1 => Just(2)];
    let is_masked = prop::bool::weighted(0.995);
    (first, is_masked, length_form, any::<[u8; 4]>(), payload).prop_map(
        |(first, is_masked, length_form, mask, payload)| Plan { first, is_masked, length_form, mask, payload },
    )
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        24 => "\\PC{0,20}".prop_map(String::into_bytes),
        1 => (0..2 * LIMIT).prop_map(|size| vec![b'x'; size]),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

/// A message whole or in fragments cut anywhere, with pings between; now and then without its end.
fn message() -> impl Strategy<Value = Vec<Plan>> {
    let opcode = prop_oneof![8 => Just(1_u8), 1 => Just(2)];
    let ping = frame(Just(0x89), prop::collection::vec(any::<u8>(), 0..9));
    let cuts = prop::collection::vec((0..60_usize, ping), 0..4);
    (opcode, frame(Just(0), text()), cuts, prop::bool::weighted(0.97)).prop_map(|(opcode, whole, mut cuts, ends)| {
        let (mut frames, mut first, mut from) = (Vec::new(), opcode, 0);
        cuts.sort_by_key(|(cut, _)| *cut);
        for (cut, ping) in cuts {
            let to = cut.min(whole.payload.len());
            frames.push(Plan { first, payload: whole.payload[from..to].to_vec(), ..whole.clone() });
            frames.extend((cut % 2 == 0).then_some(ping));
            (first, from) = (0, to);
        }
        let first = first | if ends { 0x80 } else { 0 };
        frames.push(Plan { first, payload: whole.payload[from..].to_vec(), ..whole });
        frames
    })
}

fn close() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![4 => 998..1018_u16, 1 => 2998..5002_u16, 1 => any::<u16>()];
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..2),
        6 => (code, text()).prop_map(|(code, reason)| [&code.to_be_bytes()[..], &reason].concat()),
    ]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let control = prop::collection::vec(any::<u8>(), 0..128);
    let frames = prop_oneof![
        12 => message(),
        4 => frame(prop::sample::select(vec![0x89_u8, 0x8a]), control).prop_map(|plan| vec![plan]),
        1 => frame(Just(0x88), close()).prop_map(|plan| vec![plan]),
        1 => frame(any::<u8>(), text()).prop_map(|plan| vec![plan]),
    ];
    let damage = prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ];
    (prop::collection::vec(frames, 1..8), damage).prop_map(|(frames, damage)| {
        let mut bytes: Vec<u8> = frames.iter().flatten().flat_map(Plan::bytes).collect();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes
    })
}

/// WS-98, WS-99, WS-100, WS-101, WS-103, WS-104
#[test]
fn the_websocket_decoder_and_tungstenite_judge_the_same_bytes_alike() {
    let config = Config { cases: STREAMS, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &SEED));
    let ends: [Cell<u32>; 5] = Default::default();
    let outcome = runner.run(&stream(), |stream| {
        let end = match judge(&stream)? {
            End::Waiting => 0,
            End::Closed(..) => 1,
            End::Refused(1002) => 2,
            End::Refused(1007) => 3,
            End::Refused(_) => 4,
        };
        ends[end].update(|count| count + 1);
        Ok(())
    });
    assert_eq!(outcome, Ok(()));
    // Streams that all went well, or none, would prove little.
    assert!(ends.iter().all(|count| count.get() > STREAMS / 100), "waiting, closed, 1002, 1007, 1009: {ends:?}");
}
