//! Secrets that are rotated under load: everybody who signs with one goes on, customers' servers and clients and the app's own servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::Duration;

use fulmar_protocol::app::App;
use fulmar_protocol::signing::sign_webhook;
use serde_json::Value;

use crate::lines::Lines;
use crate::node::{Node, of, publish};

/// Rotations in one test.
const ROTATIONS: usize = 6;

/// Customers' servers and clients that publish and subscribe for as long as they are let.
struct Load {
    /// What the customer's servers sign with. Each of them holds it for reading from signing to the answer, so that who
    /// waits for writing knows that nobody is under way with a secret that was taken out.
    in_use: Arc<RwLock<Vec<App>>>,
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    subscribed: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(port: u16, first: App) -> Self {
        let [published, subscribed, refused] = [0; 3].map(|_| Arc::new(AtomicU64::new(0)));
        let (in_use, stop) = (Arc::new(RwLock::new(vec![first])), Arc::new(AtomicBool::new(false)));
        let mut load = Self { in_use, stop, published, subscribed, refused, threads: Vec::new() };
        for turn in 0..4 {
            load.spawn(&load.published.clone(), move |n, apps| {
                let n = turn + n;
                publish(port, &apps[n % apps.len()]) == 200
            });
            let mut lines = None;
            load.spawn(&load.subscribed.clone(), move |n, apps| {
                // New connections and ones that have seen several secrets take turns.
                if n.is_multiple_of(10) {
                    lines = Some(Lines::open(port, &apps[0]));
                }
                let lines = lines.as_mut().expect("0 is a multiple of 10");
                lines.subscribe(&apps[(turn + n) % apps.len()], &format!("private-{turn}-{n}"))
            });
        }
        load
    }

    fn spawn(&mut self, counter: &Arc<AtomicU64>, mut act: impl FnMut(usize, &[App]) -> bool + Send + 'static) {
        let (in_use, stop) = (self.in_use.clone(), self.stop.clone());
        let (counter, refused) = (counter.clone(), self.refused.clone());
        self.threads.push(thread::spawn(move || {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let apps = in_use.read().unwrap();
                let counter = if act(n, &apps) { &counter } else { &refused };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    fn some_more(&self) {
        let now = || (self.published.load(Ordering::Relaxed), self.subscribed.load(Ordering::Relaxed));
        let before = now();
        let came = (0..6_000).any(|_| {
            thread::sleep(Duration::from_millis(5));
            let now = now();
            now.0 >= before.0 + 40 && now.1 >= before.1 + 40
        });
        assert!(came, "the load has come to rest: {before:?} to {:?}", now());
    }

    /// Everybody signs with the next secret as well.
    fn learn(&self, next: App) {
        self.in_use.write().unwrap().push(next);
    }

    /// Nobody signs with the oldest any more.
    fn unlearn(&self) -> App {
        self.in_use.write().unwrap().remove(0)
    }

    fn end(self) {
        self.some_more();
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (published, subscribed) = (self.published, self.subscribed);
        assert_eq!(self.refused.load(Ordering::Relaxed), 0, "{published:?} published, {subscribed:?} subscribed");
    }
}

/// OPS-31: everybody who signs moves from one secret to the next while calls and subscriptions go on.
#[test]
fn a_rotation_under_load_refuses_nobody() {
    let node = Node::start("rotation", &[]);
    let load = Load::start(node.port, of(&node.app(&["add", "42"])));
    for _ in 0..ROTATIONS {
        load.some_more();
        load.learn(of(&node.app(&["keys", "rotate", "42"])));
        load.some_more();
        let old = load.unlearn();
        node.run(&["app", "keys", "retire", "42"]).unwrap();
        assert_eq!(node.publish(&old), 401, "a retired secret is refused from the moment of the answer");
    }
    load.end();
}

/// Number of the connection, the app as its secret verified (none when none did), and the body.
type Webhook = (usize, Option<App>, Value);

/// An app's own server: takes webhooks that verify with a secret it knows, and refuses all others.
struct Receiver {
    port: u16,
    /// By app key; the newest secret last.
    known: Arc<RwLock<Vec<App>>>,
    heard: Arc<Mutex<Vec<Webhook>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Self { port, known: Arc::default(), heard: Arc::default() };
        let (known, heard) = (receiver.known.clone(), receiver.heard.clone());
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (known, heard, stream) = (known.clone(), heard.clone(), stream.unwrap());
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    // Ends with the connection, whoever ends it.
                    while hear(&mut reader, &known, |app, body| heard.lock().unwrap().push((number, app, body)))
                        .is_some()
                    {}
                });
            }
        });
        receiver
    }

    /// Waits until something is true of what was heard.
    fn wait_until(&self, what: &str, is_so: impl Fn(&[Webhook]) -> bool) {
        let came = (0..6_000).any(|_| {
            thread::sleep(Duration::from_millis(5));
            is_so(&self.heard.lock().unwrap())
        });
        assert!(came, "never: {what}");
    }
}

/// Reads one webhook, judges its signature and answers.
fn hear(
    reader: &mut BufReader<TcpStream>,
    known: &RwLock<Vec<App>>,
    note: impl FnOnce(Option<App>, Value),
) -> Option<()> {
    let mut headers = std::collections::HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_owned(), value.to_owned()),
            None if line.trim_end().is_empty() => break,
            None => None,
        };
    }
    let mut body = vec![0; headers["Content-Length"].parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let verifies = |app: &&App| {
        app.key.as_str() == headers["X-Pusher-Key"] && sign_webhook(&app.secret, &body) == headers["X-Pusher-Signature"]
    };
    let by = known.read().unwrap().iter().find(verifies).cloned();
    let status = if by.is_some() { "200 OK" } else { "401 Unauthorized" };
    note(by, serde_json::from_slice(&body).ok()?);
    write!(reader.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").ok()
}

/// OPS-31, HOOK-6, HOOK-33: also the app's own servers, which learn of a secret after everybody else.
#[test]
fn a_rotation_under_load_sends_no_webhook_that_its_receiver_cannot_verify() {
    let (node, receiver) = (Node::start("rotation-webhooks", &[]), Receiver::start());
    let url = format!("webhooks=[{{\"url\":\"http://127.0.0.1:{}/\"}}]", receiver.port);
    let first = of(&node.app(&["add", "42", "webhooks_allow_private=true", &url]));
    receiver.known.write().unwrap().push(first.clone());
    let load = Load::start(node.port, first);
    let signed_by = |heard: &[Webhook], app: &App| heard.iter().filter(|(_, by, _)| by.as_ref() == Some(app)).count();
    let mut retired = None;
    for _ in 0..ROTATIONS {
        load.some_more();
        let next = of(&node.app(&["keys", "rotate", "42"]));
        load.learn(next.clone());
        load.some_more();
        // Whatever was sent up to here the receivers could verify without having heard of the new secret.
        receiver.known.write().unwrap().push(next.clone());
        assert_eq!(signed_by(&receiver.heard.lock().unwrap(), &next), 0, "signed by the oldest until it is retired");
        let old = load.unlearn();
        node.run(&["app", "keys", "retire", "42"]).unwrap();
        receiver.wait_until("webhooks are signed by the new secret", |heard| signed_by(heard, &next) >= 2);
        // What the old one signed may still be on its way; what the one before it signed is not.
        receiver.known.write().unwrap().retain(|app| Some(app) != retired.as_ref());
        retired = Some(old);
    }
    let subscribed = load.subscribed.clone();
    load.end();
    let is_occupied = |event: &&Value| event["name"] == "channel_occupied";
    let occupied = |heard: &[Webhook]| {
        let events = heard.iter().flat_map(|(_, _, body)| body["events"].as_array().unwrap());
        events.filter(is_occupied).count() as u64
    };
    receiver.wait_until("every channel is told to be occupied", |heard| {
        occupied(heard) >= subscribed.load(Ordering::Relaxed)
    });
    let heard = receiver.heard.lock().unwrap();
    let refused = heard.iter().filter(|(_, by, _)| by.is_none()).count();
    let connections: std::collections::BTreeSet<usize> = heard.iter().map(|(number, ..)| *number).collect();
    println!("{} webhooks on {} connections, {} edges", heard.len(), connections.len(), occupied(&heard));
    assert!(refused == 0 && heard.len() > 2 * ROTATIONS, "{refused} of {} could not be verified", heard.len());
    assert!(connections.len() < heard.len(), "connections are kept");
}
