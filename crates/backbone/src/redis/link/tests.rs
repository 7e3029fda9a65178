//! What a link does when it is let in and turned out again.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::redis::settings::Credentials;

/// RED-8
#[tokio::test]
async fn whoever_is_turned_out_as_soon_as_it_is_let_in_comes_back_at_a_walk() {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = server.local_addr().expect("it is bound").to_string();
    let greeting = Greeting { credentials: Credentials::default(), database: 0, tls: None, asks_who: false };
    let (events_in, mut events) = mpsc::unbounded_channel();
    let _link = Link::open(LinkId(1), &address, &greeting, 1, events_in);
    let begun = Instant::now();
    // Each pause is at least half of what it is meant to be: 10, 20, 40, 80, and eight of 125 ms.
    for _ in 0..13 {
        let (mut socket, _) = server.accept().await.expect("it comes");
        let mut greeted = [0; 4_096];
        assert!(socket.read(&mut greeted).await.is_ok_and(|length| length > 0));
        // HELLO, and twice CLIENT SETINFO.
        socket.write_all(b"%0\r\n+OK\r\n+OK\r\n").await.expect("it listens");
        let up = events.recv().await.map(|(_, happening)| happening);
        assert!(matches!(up, Some(Happening::Up { .. })), "{up:?}");
        drop(socket);
        let down = events.recv().await.map(|(_, happening)| happening);
        assert!(matches!(down, Some(Happening::Down { .. })), "{down:?}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_150), "{:?}", begun.elapsed());
}
