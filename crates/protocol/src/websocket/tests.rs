//! The examples of RFC 6455, the families of cases that the Autobahn suite made customary, and properties.
//!
//! `tests/websocket_differential.rs` holds the same decoder against another implementation.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 65_536;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A frame as a client sends it, of the given first byte and the shortest length.
fn raw_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut header = [0; HEADER_BYTES_MAX];
    let header_bytes = write_server_header(&mut header, payload.len());
    header[0] = first;
    header[1] |= MASKED;
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    header[..header_bytes].iter().copied().chain(mask).chain(masked).collect()
}

/// The last (or only) frame of a message.
fn last(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    raw_frame(FINAL | opcode, payload.as_ref())
}

/// A frame that another of its message follows.
fn more(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    raw_frame(opcode, payload.as_ref())
}

/// [`Incoming`] as it can be kept; pieces of messages are left out.
#[derive(Debug, Clone, PartialEq)]
enum Heard {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Refused(ProtocolError),
}

fn heard(incoming: Incoming<'_>) -> Option<Heard> {
    match incoming {
        Incoming::Text(text) => Some(Heard::Text(text.into_owned())),
        Incoming::Binary => Some(Heard::Binary),
        Incoming::Ping(payload) => Some(Heard::Ping(payload.to_vec())),
        Incoming::Pong(payload) => Some(Heard::Pong(payload.to_vec())),
        Incoming::Close(code, reason) => Some(Heard::Close(code, reason.to_owned())),
        Incoming::Fragment => None,
    }
}

/// Reads as a driver does: what is left of one read is kept and put before the next.
fn listen<'a>(limit: usize, reads: impl IntoIterator<Item = &'a [u8]>) -> Vec<Heard> {
    let mut decoder = Decoder::new(limit);
    let mut items = Vec::new();
    let mut kept = Vec::new();
    for read in reads {
        kept.extend_from_slice(read);
        let mut at = 0;
        loop {
            let left = kept.len() - at;
            match decoder.decode(&mut kept[at..]) {
                Ok(Decoded::NeedMore { frame_bytes }) => {
                    assert!(frame_bytes > left, "asked for nothing more");
                    assert!(frame_bytes <= limit.max(CONTROL_BYTES_MAX) + CLIENT_HEADER_BYTES_MAX, "{frame_bytes}");
                    break;
                }
                Ok(Decoded::Item { message, consumed }) => {
                    items.extend(heard(message));
                    assert!((CLIENT_FRAME_BYTES_MIN..=left).contains(&consumed));
                    at += consumed;
                }
                Err(error) => {
                    items.push(Heard::Refused(error));
                    return items;
                }
            }
        }
        kept.drain(..at);
    }
    items
}

/// The frames, read at once and byte by byte, are heard as `expected`.
#[track_caller]
fn check(frames: &[Vec<u8>], expected: &[Heard]) {
    let stream = frames.concat();
    assert_eq!(listen(LIMIT, [stream.as_slice()]), expected, "read at once");
    if stream.len() <= 4096 {
        assert_eq!(listen(LIMIT, stream.chunks(1)), expected, "read byte by byte");
    }
}

#[track_caller]
fn check_refused(frames: &[Vec<u8>], expected: ProtocolError) {
    check(frames, &[Heard::Refused(expected)]);
}

fn text(text: &str) -> Heard {
    Heard::Text(text.to_owned())
}

/// WS-108
#[test]
fn a_decoder_of_an_idle_connection_is_two_words() {
    assert_eq!(size_of::<Decoder>(), 2 * size_of::<usize>());
}

/// WS-106
#[test]
fn the_examples_of_section_5_7_are_understood() {
    let hello = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(last(TEXT, "Hello"), hello);
    check(&[hello], &[text("Hello")]);
    check(&[more(TEXT, "Hel"), last(CONTINUATION, "lo")], &[text("Hello")]);
    let ping = vec![0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check(&[ping], &[Heard::Ping(b"Hello".to_vec())]);
    let masked_pong = vec![0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check(&[masked_pong], &[Heard::Pong(b"Hello".to_vec())]);
    for bytes in [256, 65_536] {
        check(&[last(BINARY, vec![0; bytes])], &[Heard::Binary]);
    }
}

/// WS-99
#[test]
fn a_frame_without_a_mask_is_refused_at_its_second_byte() {
    check_refused(&[vec![0x81, 0x05]], ProtocolError::NotMasked);
    check_refused(&[vec![0x89, 0x00]], ProtocolError::NotMasked);
}

/// WS-106
#[test]
fn text_of_every_length_encoding_arrives_whole_from_any_prefix() {
    for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
        let said: String = ('a'..='z').cycle().take(size).collect();
        let mut bytes = last(TEXT, &said);
        let mut decoder = Decoder::new(LIMIT);
        let total = bytes.len();
        for prefix in 0..total {
            let Ok(Decoded::NeedMore { frame_bytes }) = decoder.decode(&mut bytes[..prefix]) else {
                panic!("{prefix} of {total} bytes were enough");
            };
            assert!(prefix < frame_bytes && frame_bytes <= total);
        }
        let decoded = decoder.decode(&mut bytes);
        assert_eq!(decoded, Ok(Decoded::Item { message: Incoming::Text(said.into()), consumed: total }));
    }
}

/// WS-106
#[test]
fn a_length_may_be_written_longer_than_it_needs_to_be() {
    let four = b"\x89\xfe\x00\x02\x00\x00\x00\x00hi".to_vec();
    let ten = b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00hi".to_vec();
    check(&[four, ten], &[Heard::Ping(b"hi".to_vec()), text("hi")]);
}

/// WS-106
#[test]
fn whole_text_is_lent_from_the_bytes_that_were_read() {
    let mut bytes = last(TEXT, "not copied");
    match Decoder::new(LIMIT).decode(&mut bytes) {
        Ok(Decoded::Item { message: Incoming::Text(Cow::Borrowed("not copied")), .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// WS-106
#[test]
fn bytes_behind_a_frame_are_left_as_they_came() {
    let next = last(TEXT, "next");
    let mut bytes = [last(TEXT, "first"), next.clone()].concat();
    let Ok(Decoded::Item { consumed, .. }) = Decoder::new(LIMIT).decode(&mut bytes) else { panic!("no frame") };
    assert_eq!(bytes[consumed..], next);
}

/// WS-34, WS-107
#[test]
fn pings_and_pongs_of_up_to_125_bytes_are_heard_with_their_payload() {
    for payload in [vec![], b"Hello".to_vec(), vec![0x00, 0xff, 0xfe, 0x80], vec![0xfe; CONTROL_BYTES_MAX]] {
        check(&[last(PING, &payload)], &[Heard::Ping(payload.clone())]);
        check(&[last(PONG, &payload)], &[Heard::Pong(payload.clone())]);
    }
    let ten: Vec<_> = (0..10_u8).map(|n| last(PING, [n])).collect();
    check(&ten, &(0..10_u8).map(|n| Heard::Ping(vec![n])).collect::<Vec<_>>());
}

/// WS-100
#[test]
fn control_frames_that_are_long_or_fragmented_are_refused() {
    for opcode in [CLOSE, PING, PONG] {
        check_refused(&[last(opcode, [0; 126])], ProtocolError::ControlTooLong);
        check_refused(&[last(opcode, vec![0; 65_536])], ProtocolError::ControlTooLong);
        check_refused(&[more(opcode, "part")], ProtocolError::ControlFragmented);
    }
}

/// WS-100
#[test]
fn reserved_bits_are_refused_on_every_frame() {
    for bits in 1..=7_u8 {
        for opcode in [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] {
            let first = FINAL | (bits << 4) | opcode;
            check_refused(&[raw_frame(first, b"")], ProtocolError::ReservedBit);
        }
    }
    let expected = [text("Hello"), Heard::Refused(ProtocolError::ReservedBit)];
    check(&[last(TEXT, "Hello"), raw_frame(0xc1, b"Hello"), last(PING, "")], &expected);
}

/// WS-100
#[test]
fn reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in ["", "body"] {
            check_refused(&[last(opcode, payload)], ProtocolError::ReservedOpcode(opcode));
        }
    }
}

/// WS-98, WS-107
#[test]
fn a_message_may_come_in_fragments_with_control_frames_between() {
    check(&[more(TEXT, "Hello"), last(CONTINUATION, "")], &[text("Hello")]);
    check(&[more(TEXT, ""), more(CONTINUATION, ""), last(CONTINUATION, "")], &[text("")]);
    check(
        &[
            more(TEXT, "He"),
            last(PING, "1"),
            more(CONTINUATION, "ll"),
            last(PONG, "2"),
            last(CONTINUATION, "o"),
            last(TEXT, "next"),
        ],
        &[Heard::Ping(b"1".to_vec()), Heard::Pong(b"2".to_vec()), text("Hello"), text("next")],
    );
    check(&[more(TEXT, "He"), last(CLOSE, [0x03, 0xe8])], &[Heard::Close(Some(1000), String::new())]);
}

/// WS-100
#[test]
fn fragments_out_of_order_are_refused() {
    check_refused(&[last(CONTINUATION, "lost")], ProtocolError::NothingToContinue);
    check_refused(&[more(CONTINUATION, "lost")], ProtocolError::NothingToContinue);
    for opcode in [TEXT, BINARY] {
        check_refused(&[more(TEXT, "He"), last(opcode, "llo")], ProtocolError::MessageInsideMessage);
        check_refused(&[more(TEXT, "He"), more(opcode, "llo")], ProtocolError::MessageInsideMessage);
    }
    check(
        &[more(TEXT, "a"), last(CONTINUATION, "b"), last(CONTINUATION, "c")],
        &[text("ab"), Heard::Refused(ProtocolError::NothingToContinue)],
    );
}

/// WS-108
#[test]
fn the_memory_of_a_fragmented_message_goes_with_its_end() {
    let mut decoder = Decoder::new(LIMIT);
    assert!(matches!(decoder.decode(&mut more(TEXT, "He")), Ok(Decoded::Item { .. })));
    assert!(decoder.is_inside_message());
    assert!(matches!(decoder.decode(&mut last(CONTINUATION, "y")), Ok(Decoded::Item { .. })));
    assert!(!decoder.is_inside_message());
}

/// WS-108
#[test]
fn empty_fragments_cannot_go_on_for_ever() {
    let mut frames = vec![more(TEXT, "")];
    frames.resize(FRAGMENTS_MAX as usize, more(CONTINUATION, ""));
    let mut within = frames.clone();
    within[FRAGMENTS_MAX as usize - 1] = last(CONTINUATION, "end");
    check(&within, &[text("end")]);
    frames.push(last(CONTINUATION, ""));
    check_refused(&frames, ProtocolError::TooManyFragments);
}

/// WS-102
#[test]
fn a_binary_message_is_reported_once_at_its_first_frame() {
    check(&[last(BINARY, [0xff])], &[Heard::Binary]);
    check(
        &[more(BINARY, [0xff]), last(PING, ""), more(CONTINUATION, [0xfe]), last(CONTINUATION, ""), last(TEXT, "t")],
        &[Heard::Binary, Heard::Ping(vec![]), text("t")],
    );
}

/// WS-101
#[test]
fn text_must_be_utf8() {
    let good =
        ["κόσμε", "\u{0}", "\u{7f}\u{80}\u{7ff}\u{800}", "\u{d7ff}\u{e000}\u{fffd}\u{ffff}", "\u{10000}\u{10ffff}"];
    for said in good {
        check(&[last(TEXT, said)], &[text(said)]);
    }
    for bytes in NOT_UTF8 {
        check_refused(&[last(TEXT, bytes)], ProtocolError::NotUtf8);
        check_refused(
            &[last(TEXT, [b"fine before ".as_slice(), bytes, b" and after"].concat())],
            ProtocolError::NotUtf8,
        );
    }
}

const NOT_UTF8: [&[u8]; 14] = [
    b"\x80",
    b"\xbf",
    b"\xc2",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x80\x80",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\x80",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
];

/// WS-98, WS-101
#[test]
fn characters_may_be_cut_by_fragments_but_not_broken() {
    let said = "aé€😀z";
    for cut in 0..=said.len() {
        let (before, after) = said.as_bytes().split_at(cut);
        check(&[more(TEXT, before), last(CONTINUATION, after)], &[text(said)]);
        check(&[more(TEXT, before), more(CONTINUATION, ""), last(CONTINUATION, after)], &[text(said)]);
    }
    let bytewise: Vec<_> = said.bytes().map(|byte| more(CONTINUATION, [byte])).collect();
    check(&[vec![more(TEXT, "")], bytewise, vec![last(CONTINUATION, "")]].concat(), &[text(said)]);
    for bytes in NOT_UTF8 {
        for cut in 0..=bytes.len() {
            let (before, after) = bytes.split_at(cut);
            check_refused(&[more(TEXT, before), last(CONTINUATION, after)], ProtocolError::NotUtf8);
        }
    }
}

/// WS-101
#[test]
fn text_that_cannot_become_utf8_is_refused_before_its_message_is_complete() {
    check_refused(&[more(TEXT, "κόσμε"), more(CONTINUATION, b"\xf4\x90")], ProtocolError::NotUtf8);
}

/// WS-42
#[test]
fn a_close_is_heard_with_its_code_and_reason() {
    check(&[last(CLOSE, "")], &[Heard::Close(None, String::new())]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let with_reason = [&u16::to_be_bytes(code)[..], "à bientôt".as_bytes()].concat();
        check(&[last(CLOSE, u16::to_be_bytes(code))], &[Heard::Close(Some(code), String::new())]);
        check(&[last(CLOSE, with_reason)], &[Heard::Close(Some(code), "à bientôt".to_owned())]);
    }
    let longest = [&[0x03, 0xe8][..], &[b'x'; 123]].concat();
    check(&[last(CLOSE, longest)], &[Heard::Close(Some(1000), "x".repeat(123))]);
}

/// WS-104
#[test]
fn a_close_that_makes_no_sense_is_refused() {
    check_refused(&[last(CLOSE, [3])], ProtocolError::HalfCloseCode);
    for code in [0, 999, 1004, 1005, 1006, 1012, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check_refused(&[last(CLOSE, u16::to_be_bytes(code))], ProtocolError::ForbiddenCloseCode(code));
    }
    for bytes in NOT_UTF8 {
        check_refused(&[last(CLOSE, [[0x03, 0xe8].as_slice(), bytes].concat())], ProtocolError::NotUtf8);
    }
}

/// WS-103
#[test]
fn a_message_beyond_the_limit_is_refused_by_its_header_alone() {
    let too_big = ProtocolError::TooBig { message_bytes_max: LIMIT };
    let whole = [0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0].to_vec();
    check_refused(&[whole], too_big);
    let largest = [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0].to_vec();
    check_refused(&[largest], too_big);
    let binary = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0].to_vec();
    check_refused(&[binary], too_big);
    let end_of_fragments = [0x80, 0xfe, 0xff, 0xff, 0, 0, 0, 0].to_vec();
    check_refused(&[more(TEXT, "ab"), end_of_fragments.clone()], too_big);
    check(&[more(BINARY, "ab"), end_of_fragments], &[Heard::Binary, Heard::Refused(too_big)]);
}

/// WS-103
#[test]
fn fragments_may_add_up_to_the_limit_exactly() {
    let half = "x".repeat(LIMIT / 2);
    check(
        &[more(TEXT, &half), last(PING, [0; 125]), last(CONTINUATION, &half)],
        &[Heard::Ping(vec![0; 125]), Heard::Text(half.repeat(2))],
    );
}

/// WS-100
#[test]
fn a_length_with_its_highest_bit_set_is_a_protocol_error() {
    let bytes = [0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    check_refused(&[bytes], ProtocolError::LengthOverflow);
}

/// WS-99, WS-100, WS-101, WS-103
#[test]
fn every_refusal_has_one_of_three_close_codes() {
    assert_eq!(ProtocolError::NotMasked.close_code(), CloseCode::PROTOCOL);
    assert_eq!(ProtocolError::ForbiddenCloseCode(1005).close_code(), CloseCode::PROTOCOL);
    assert_eq!(ProtocolError::NotUtf8.close_code(), CloseCode::NOT_UTF8);
    assert_eq!(ProtocolError::TooBig { message_bytes_max: 1 }.close_code(), CloseCode::TOO_BIG);
    assert_eq!(ProtocolError::TooManyFragments.close_code(), CloseCode::TOO_BIG);
}

/// WS-105
#[test]
fn control_frames_of_the_server_are_short_whole_and_unmasked() {
    assert_eq!(ping(b"")[..], [0x89, 0]);
    assert_eq!(pong(b"Hello")[..], *b"\x8a\x05Hello");
    assert_eq!(close(CloseCode::NORMAL, "")[..], [0x88, 2, 0x03, 0xe8]);
    assert_eq!(close(CloseCode::OVER_CAPACITY, "full")[..], *b"\x88\x06\x10\x04full");
    assert_eq!(close_without_code()[..], [0x88, 0]);
    assert_eq!(ping(&[7; 200])[..], [&[0x89, 125][..], &[7; 125]].concat());
}

/// WS-105
#[test]
fn a_long_reason_is_cut_behind_a_whole_character() {
    for (reason, kept) in [("x".repeat(124), 123), ("€".repeat(42), 123), ("é".repeat(62), 122), ("😀".repeat(31), 120)]
    {
        let frame = close(CloseCode::RECONNECT, &reason);
        assert_eq!(usize::from(frame[1]), 2 + kept);
        assert_eq!(frame[4..], reason.as_bytes()[..kept]);
    }
}

/// WS-16
#[test]
fn the_handshake_is_answered_as_in_section_1_3() {
    assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

/// WS-16
#[test]
fn a_handshake_key_is_sixteen_bytes_of_base64() {
    for good in ["dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAB=="] {
        assert!(is_handshake_key(good), "{good}");
    }
    let long = "A".repeat(10_000);
    for bad in ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZ!==", "AAAAAAAAAAAAAAAAAAAAAAAA", &long] {
        assert!(!is_handshake_key(bad), "{bad}");
    }
}

/// A few whole messages as frames, with what is to be heard.
fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<Heard>)> {
    let fragmented = ("\\PC{0,40}", prop::collection::vec(0..40_usize, 0..5));
    let message = prop_oneof![
        fragmented.prop_map(|(said, cuts)| (fragments(&said, &cuts), Heard::Text(said))),
        (0..400_usize).prop_map(|size| (last(BINARY, vec![9; size]), Heard::Binary)),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| (last(PING, &bytes), Heard::Ping(bytes))),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| (last(PONG, &bytes), Heard::Pong(bytes))),
    ];
    prop::collection::vec(message, 0..8).prop_map(|messages| {
        let (frames, heard): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        (frames.concat(), heard)
    })
}

fn fragments(said: &str, cuts: &[usize]) -> Vec<u8> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| (*cut).min(said.len())).collect();
    cuts.sort_unstable();
    let (mut stream, mut opcode, mut from) = (Vec::new(), TEXT, 0);
    for cut in cuts {
        stream.extend(more(opcode, &said.as_bytes()[from..cut]));
        (opcode, from) = (CONTINUATION, cut);
    }
    stream.extend(last(opcode, &said.as_bytes()[from..]));
    stream
}

/// Bytes that often look like frames, so that chance gets past the second byte.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => prop::sample::select(vec![0x81, 0x01, 0x80, 0x00, 0x82, 0x02, 0x88, 0x89, 0x8a]),
        1 => any::<u8>()
    ];
    let second = prop_oneof![4 => 0x80..=0x86_u8, 1 => 0xfd..=0xff_u8, 1 => any::<u8>()];
    let frame = (first, second, prop::collection::vec(any::<u8>(), 4..12))
        .prop_map(|(first, second, rest)| [vec![first, second], rest].concat());
    prop::collection::vec(frame, 0..12).prop_map(|frames| frames.concat())
}

proptest! {
    /// WS-106
    #[test]
    fn any_cutting_of_a_valid_stream_is_heard_the_same((stream, expected) in conversation(), size in 1..64_usize) {
        prop_assert_eq!(&listen(LIMIT, [stream.as_slice()]), &expected);
        prop_assert_eq!(&listen(LIMIT, stream.chunks(size)), &expected);
    }

    /// WS-106, WS-108
    #[test]
    fn any_bytes_are_judged_the_same_however_cut(stream in hostile(), size in 1..16_usize, limit in 0..300_usize) {
        let at_once = listen(limit, [stream.as_slice()]);
        prop_assert_eq!(at_once, listen(limit, stream.chunks(size)));
    }

    /// WS-106
    #[test]
    fn unmasking_in_words_is_unmasking_in_bytes(payload in prop::collection::vec(any::<u8>(), 0..70), mask: [u8; 4]) {
        let bytewise: Vec<_> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let mut words = payload;
        unmask(&mut words, mask);
        prop_assert_eq!(words, bytewise);
    }
}
