//! Webhooks on real sockets and a real file: endpoints that answer, and what every test here says of them.

mod calls;
mod waiting;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use fulmar_backbone::{Backbone, WorkerId, memory};
use fulmar_engine::webhook_batch::Batch;
use fulmar_protocol::exchange::{Delivery, Join, Leave, Member, Question, Ticket, UserNotice};
use fulmar_protocol::name::UserId;
use fulmar_protocol::webhook::{Endpoint, EventKind, Subject, Webhooks};
use rustls::RootCertStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::egress::Egress;
use super::request::{AttemptError, Resolving};
use super::store::Ended;
use super::*;
/// Answers names from a table; each further question for a name gets its next answer, the last one again and again.
#[derive(Default)]
struct Names {
    answers: HashMap<&'static str, Vec<&'static [&'static str]>>,
    asked: AtomicUsize,
}

impl Names {
    fn of(table: &[(&'static str, &[&'static [&'static str]])]) -> Arc<Self> {
        let answers = table.iter().map(|(name, answers)| (*name, answers.to_vec())).collect();
        Arc::new(Self { answers, asked: AtomicUsize::new(0) })
    }
}

impl Resolve for Names {
    fn resolve(&self, host: &str) -> Resolving {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = match self.answers.get(host) {
            Some(answers) => Ok(answers[turn.min(answers.len() - 1)].iter().map(|a| a.parse().unwrap()).collect()),
            // As the system does: what is an address in any notation means that address.
            None => numeric(host).map(|address| vec![address]).ok_or_else(|| io::Error::other("no such name")),
        };
        Box::pin(async move { answer })
    }
}

/// `inet_aton` and IPv6: what getaddrinfo makes of numbers.
fn numeric(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let number = |text: &str| match text {
        t if t.starts_with("0x") || t.starts_with("0X") => u32::from_str_radix(&t[2..], 16).ok(),
        t if t.len() > 1 && t.starts_with('0') => u32::from_str_radix(&t[1..], 8).ok(),
        t => t.parse().ok(),
    };
    let parts: Vec<u32> = host.trim_end_matches('.').split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    let mut bits = *last;
    for (n, part) in first.iter().enumerate() {
        bits |= part.checked_shl(24 - 8 * u32::try_from(n).ok()?)?;
    }
    Some(IpAddr::from(bits.to_be_bytes()))
}

fn endpoint(url: &str) -> Endpoint {
    let kinds = EventKind::ALL.into_iter().collect();
    Endpoint { url: url.into(), kinds, channel_prefix: String::new(), headers: Vec::new() }
}

fn batch(body: &str) -> Batch {
    Batch {
        id: 7,
        sealed_unix_ms: 1,
        key: "k".into(),
        signature: "s".into(),
        body: body.into(),
        event_ids: vec![3, 4],
        lanes: Vec::new(),
    }
}

fn caller(resolver: Arc<dyn Resolve>) -> Caller {
    Caller::trusting(resolver, RootCertStore::empty())
}

fn anywhere() -> Webhooks {
    Webhooks { allow_private: true, ..Webhooks::default() }
}

/// A receiver that answers each connection with the next of its answers, the last one again and again.
async fn receiver(answers: Vec<Vec<u8>>) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut turn = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answers[turn.min(answers.len() - 1)].clone();
            turn += 1;
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut heard = Vec::new();
                let mut buffer = [0; 4_096];
                while !is_whole(&heard) {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(bytes) => heard.extend_from_slice(&buffer[..bytes]),
                    }
                }
                let _ = tell.send(String::from_utf8(heard).unwrap());
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    (address, told)
}

fn is_whole(heard: &[u8]) -> bool {
    let text = String::from_utf8_lossy(heard);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0");
    body.len() >= length.parse().unwrap()
}

fn ok() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()
}
