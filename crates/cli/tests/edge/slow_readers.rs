//! Readers that do not read, and writers that do not stop.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    CLOSE, Frame, Identity, Node, PING, PONG, Rest, TEXT, Wire, command, eventually, masked, plain,
    plain_with_small_buffer,
};

/// The numbers that events carry, which must begin at 0 and leave none out. Answers how many there are.
fn contiguous(frames: &[Frame]) -> usize {
    let texts = frames.iter().filter(|frame| frame.opcode == TEXT).map(Frame::json);
    let events: Vec<Value> = texts.filter(|event| event["event"] == "n").collect();
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["data"].as_str().unwrap().split(' ').next().unwrap(), n.to_string(), "a gap");
    }
    events.len()
}

fn number(n: usize, bytes: usize) -> String {
    format!("{n} {}", "x".repeat(bytes))
}

/// Publishes numbered events until only `left` subscriptions are there; answers how many it took. The witness hears each.
fn publish_until(rest: &mut Rest, witness: &mut Wire, bytes: usize, left: u64) -> usize {
    for n in 0.. {
        assert!(n < 100_000, "nobody is closed");
        rest.publish("flood", "n", &number(n, bytes));
        let heard = witness.event();
        assert!(heard["data"].as_str().unwrap().starts_with(&format!("{n} ")), "{heard}");
        if n % 16 == 0 && rest.count("flood") == left {
            return n + 1;
        }
    }
    unreachable!()
}

/// WS-111, WS-112, DEL-7
#[test]
fn a_reader_beyond_its_bytes_is_closed_without_a_gap_and_without_harm_to_others_or_to_memory() {
    let identity = Identity::make("bytes");
    let settings = format!("[limits]\noutbound_bytes_max = 65536\n{}", identity.settings());
    let node = Node::start("bytes", &settings);
    let mut rest = node.rest();
    let mut witness = node.open();
    witness.subscribe("flood");
    let before_kib = node.resident_kib();
    let small = || plain_with_small_buffer(node.port);
    for mut slow in [Wire::plain(small()), identity.secure(small())] {
        slow.establish();
        slow.subscribe("flood");
        let published = publish_until(&mut rest, &mut witness, 2_000, 1);
        let frames = slow.frames();
        let heard = contiguous(&frames);
        assert!(heard < published, "it was closed for being behind");
        let close = frames.iter().find(|frame| frame.opcode == CLOSE);
        assert!(close.is_none_or(|close| close.close_code() == Some(4100)));
        // Its queue, the kernel's buffers aside, and whatever the allocator keeps.
        assert!(node.resident_kib() < before_kib + 16 * 1024, "{} of {before_kib}", node.resident_kib());
    }
}

/// WS-111: also when it takes a little now and then.
#[test]
fn a_reader_of_whom_frames_wait_too_long_is_closed_without_a_gap() {
    let identity = Identity::make("age");
    let settings = format!("[limits]\noutbound_age_max_s = 1\n{}", identity.settings());
    let node = Node::start("age", &settings);
    let mut rest = node.rest();
    for is_secure in [false, true] {
        let stream = plain_with_small_buffer(node.port);
        let mut slow = if is_secure { identity.secure(stream) } else { Wire::plain(stream) };
        slow.establish();
        slow.subscribe("flood");
        // More than sockets take, and within the bytes that may wait.
        let published = 60;
        for n in 0..published {
            rest.publish("flood", "n", &number(n, 9_000));
        }
        assert_eq!(rest.count("flood"), 1, "not closed for its bytes");
        let mut heard = Vec::new();
        let since = Instant::now();
        while rest.count("flood") == 1 {
            if since.elapsed() > Duration::from_millis(100 * heard.len() as u64) && heard.len() < 20 {
                heard.push(slow.frame().unwrap());
            }
            assert!(
                since.elapsed() < Duration::from_secs(15),
                "a reader that takes one frame in a while stays for ever"
            );
        }
        heard.extend(slow.frames());
        let heard = contiguous(&heard);
        assert!(heard < published, "{heard}");
    }
}

/// WS-111, DEL-7
#[test]
fn a_reader_that_pauses_within_its_budget_misses_nothing() {
    let identity = Identity::make("pause");
    let node = Node::start("pause", &identity.settings());
    let mut rest = node.rest();
    for is_secure in [false, true] {
        let stream = plain_with_small_buffer(node.port);
        let mut slow = if is_secure { identity.secure(stream) } else { Wire::plain(stream) };
        slow.establish();
        slow.subscribe("flood");
        for round in 0..4 {
            for n in 0..60 {
                rest.publish("flood", "n", &number(round * 60 + n, 9_000));
            }
            slow.send(&masked(PING, b"still here"));
            // The pong may overtake what other workers still have to tell this one.
            let (pongs, events): (Vec<_>, Vec<_>) =
                (0..61).map(|_| slow.frame().unwrap()).partition(|frame| frame.opcode == PONG);
            assert_eq!(pongs.iter().map(|pong| pong.content.as_slice()).collect::<Vec<_>>(), [b"still here"]);
            for (n, event) in events.iter().enumerate() {
                let data = event.json()["data"].as_str().unwrap().to_owned();
                assert!(data.starts_with(&format!("{} ", round * 60 + n)), "{round} {n}");
            }
        }
    }
}

/// WS-108, WS-111: answers that nobody reads are small and many; they count what they take.
#[test]
fn answers_that_are_not_read_do_not_take_more_memory_than_their_limit() {
    let node = Node::start("pongs", "");
    let before_kib = node.resident_kib();
    for what in [masked(PING, b""), masked(TEXT, b"{}")] {
        let mut wire = Wire::plain(plain_with_small_buffer(node.port));
        wire.establish();
        let many = what.repeat(1_000);
        let mut sent = 0_u64;
        // Until the node has closed it, which a writer is told by an error.
        while wire.try_send(&many).is_ok() {
            sent += many.len() as u64;
            assert!(sent < 1 << 30, "never closed");
        }
        let grown_kib = node.resident_kib().saturating_sub(before_kib);
        assert!(grown_kib < 24 * 1024, "{grown_kib} KiB for answers to {sent} bytes");
    }
}

/// WS-108, WS-111
#[test]
fn when_all_that_waits_together_is_too_much_those_furthest_behind_are_closed() {
    // Alone, each may be as far behind as it likes.
    let settings =
        "[limits]\noutbound_total_bytes_max = 400000\noutbound_bytes_max = 67108864\noutbound_age_max_s = 600";
    let node = Node::start("total", settings);
    let mut rest = node.rest();
    let mut witness = node.open();
    witness.subscribe("flood");
    let mut slow: Vec<_> = (0..8).map(|_| Wire::plain(plain_with_small_buffer(node.port))).collect();
    for wire in &mut slow {
        wire.establish();
        wire.subscribe("flood");
    }
    let published = publish_until(&mut rest, &mut witness, 4_000, 1);
    for mut wire in slow {
        assert!(contiguous(&wire.frames()) < published);
    }
}

/// WS-112, WS-108, T-15
#[test]
fn those_who_send_without_pause_keep_nobody_waiting() {
    let node = Node::start("busy", "");
    let mut rest = node.rest();
    let mut witnesses: Vec<_> = (0..4).map(|_| node.open()).collect();
    witnesses.iter_mut().for_each(|wire| wire.subscribe("news"));
    let is_over = AtomicBool::new(false);
    let what = [
        masked(PING, b"are you there?"),
        masked(TEXT, b"{}"),
        command("pusher:subscribe", json!({"channel": "private-x", "auth": "k1:00"})),
        [
            command("pusher:subscribe", json!({"channel": "mine"})),
            command("pusher:unsubscribe", json!({"channel": "mine"})),
        ]
        .concat(),
    ];
    let longest = std::thread::scope(|scope| {
        for what in &what {
            let mut wire = Wire::plain(plain(node.port));
            wire.establish();
            let mut reader = Wire::plain(wire.stream.tcp().try_clone().unwrap());
            let many = what.repeat(500);
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) && wire.try_send(&many).is_ok() {}
                wire.shut();
            });
            scope.spawn(move || while reader.frame().is_some() {});
        }
        let mut longest = Duration::ZERO;
        for n in 0..200 {
            let since = Instant::now();
            rest.publish("news", "n", &n.to_string());
            for wire in &mut witnesses {
                assert_eq!(wire.event()["data"], n.to_string());
            }
            // Its own commands are heard as well.
            witnesses[n % 4].send(&masked(PING, b""));
            assert_eq!(witnesses[n % 4].frame().unwrap().content, b"");
            longest = longest.max(since.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
        longest
    });
    // Unoptimised and on a machine under load; the turn of a loop is far shorter.
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    eventually("everything of theirs is gone", || (rest.count("mine") == 0).then_some(()));
}

/// HTTP-69
#[test]
fn a_caller_that_takes_nothing_of_its_answers_is_ended_and_one_that_takes_a_little_is_not() {
    let node = Node::start("answers", "[limits]\nanswer_timeout_s = 1");
    let calls = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let [mut stubborn, mut slow] = [0; 2].map(|_| plain_with_small_buffer(node.port));
    for stream in [&stubborn, &slow] {
        stream.set_nonblocking(true).unwrap();
    }
    let since = Instant::now();
    let ended = loop {
        match stubborn.write(calls.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => break error,
            Ok(_) => {}
        }
        // Less than what is asked for, but never nothing for long.
        let _ = slow.write(calls.as_bytes());
        let _ = slow.read(&mut [0; 512]);
        assert!(since.elapsed() < Duration::from_secs(15), "it stays for ever");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(matches!(ended.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{ended}");
    assert!(since.elapsed() >= Duration::from_secs(1));
    slow.set_nonblocking(false).unwrap();
    assert!(slow.read(&mut [0; 512]).unwrap() > 0, "one that takes a little stays");
}
