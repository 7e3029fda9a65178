//! `fulmar subscribe`: a client of the WebSocket protocol that prints what it hears.
//!
//! It keeps the rules that official SDKs keep: it pings when it hears nothing for the time the server named, and
//! comes back as the close code advises. What was published goes to standard output; what happens to the connection and
//! its channels to standard error.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fulmar_protocol::app::App;
use fulmar_protocol::close::{Advice, CloseCode};
use fulmar_protocol::name::{CHANNEL_NAME_CEILING, ChannelName, SocketId};
use fulmar_protocol::signing::Signer;
use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket};

use super::connect::{PATIENCE, Stream, connect};
use super::{Door, Failure, Target, print};
use crate::args::SubscribeArgs;

const BACK_OFF: Duration = Duration::from_secs(1);

/// How long a ping may stay unanswered, as official SDKs have it.
const PONG_PATIENCE: Duration = Duration::from_secs(30);

pub fn subscribe(args: &SubscribeArgs) -> Result<(), Failure> {
    let door = Door::of(&args.target)?;
    let parse = |name: &String| match ChannelName::parse(name, CHANNEL_NAME_CEILING) {
        Ok(name) => Ok(name),
        Err(why) => Err(Failure::usage(format!("the channel name {name:?} {why}"))),
    };
    let channels = args.channels.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let channel_data = channel_data(&args.user_id, args.user_info.as_deref())?;
    let mut listener = Listener { args, door: &door, channels, channel_data, left: args.count, was_open: false };
    loop {
        let before = Instant::now();
        match listener.listen() {
            Ended::Done => return Ok(()),
            Ended::Failed(failure) if !listener.was_open => return Err(failure),
            Ended::Failed(failure) => {
                eprintln!("{failure}; trying again");
                sleep(BACK_OFF);
            }
            Ended::Closed { code, reason } => {
                eprintln!("closed: {code} {reason}");
                match CloseCode(code).advice() {
                    Advice::StayAway => {
                        let hint = match &door {
                            Door::Public(target) if code == CloseCode::NO_SUCH_APP.0 => target.app_hint(),
                            _ => "",
                        };
                        return Err(format!("the server asks not to come back{hint}").into());
                    }
                    // Coming back at once is meant for a server that goes away, not for one that closes at once.
                    Advice::ComeBackNow if before.elapsed() > BACK_OFF => {}
                    Advice::ComeBackNow | Advice::BackOff => sleep(BACK_OFF),
                }
            }
        }
    }
}

/// What presence channels are told of this subscriber.
fn channel_data(user_id: &str, user_info: Option<&str>) -> Result<String, Failure> {
    let mut data = json!({ "user_id": user_id });
    if let Some(info) = user_info {
        data["user_info"] =
            serde_json::from_str(info).map_err(|e| Failure::usage(format!("--user-info is not JSON: {e}")))?;
    }
    Ok(data.to_string())
}

/// How one connection ended.
pub(super) enum Ended {
    /// As many events as were asked for have been printed.
    Done,
    /// The server closed.
    Closed { code: u16, reason: String },
    /// It could not be made, or broke.
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<String> for Ended {
    fn from(text: String) -> Self {
        Self::Failed(text.into())
    }
}

pub(super) struct Listener<'a> {
    pub(super) args: &'a SubscribeArgs,
    door: &'a Door,
    pub(super) channels: Vec<ChannelName>,
    channel_data: String,
    /// Events still to print; `None` is no end.
    left: Option<u64>,
    /// Whether a connection has ever been established: from then on trouble is waited out.
    was_open: bool,
}

/// What a message asks of whoever reads.
pub(super) enum Asks {
    /// The connection is established: subscribe, and ping after so much silence.
    Subscriptions { socket_id: String, silence: Duration },
    /// A pong.
    Pong,
    /// Nothing.
    Nothing,
}

impl Listener<'_> {
    fn listen(&mut self) -> Ended {
        if self.is_done() {
            return Ended::Done;
        }
        let listened = match self.door {
            Door::Public(target) => self.converse(target),
            Door::Admin { remote, app } => super::watch::watch(self, remote, app),
        };
        match listened {
            Ok(()) => Ended::Done,
            Err(ended) => ended,
        }
    }

    /// Whether as many events as were asked for have been printed.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    fn converse(&mut self, target: &Target) -> Result<(), Ended> {
        let mut socket = open(target)?;
        let mut silence = PATIENCE;
        let mut pinged = false;
        loop {
            let patience = if pinged { PONG_PATIENCE } else { silence };
            socket.get_ref().set_read_timeout(patience).map_err(|e| format!("cannot set a timeout: {e}"))?;
            let text = match socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(Message::Close(frame)) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                    let _ = socket.flush();
                    return Err(Ended::Closed { code, reason });
                }
                Ok(_) => {
                    pinged = false;
                    continue;
                }
                Err(Error::Io(e)) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if pinged {
                        return Err(Ended::from("the server is silent".to_owned()));
                    }
                    pinged = true;
                    say(&mut socket, &json!({"event": "pusher:ping", "data": {}}))?;
                    continue;
                }
                Err(e) => return Err(Ended::from(format!("the connection broke: {e}"))),
            };
            pinged = false;
            let message: Value =
                serde_json::from_str(&text).map_err(|e| format!("the server said something that is not JSON: {e}"))?;
            match self.hear(&message, &target.authority()) {
                Asks::Subscriptions { socket_id, silence: named } => {
                    silence = named;
                    self.ask_for_channels(target, &mut socket, &socket_id)?;
                }
                Asks::Pong => say(&mut socket, &json!({"event": "pusher:pong", "data": {}}))?,
                Asks::Nothing => {}
            }
            if self.is_done() {
                let _ = socket.close(None).and_then(|()| socket.flush());
                return Ok(());
            }
        }
    }

    /// Takes one message, and prints what is to be printed of it.
    pub(super) fn hear(&mut self, message: &Value, from: &str) -> Asks {
        let text = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default();
        let channel = text("channel");
        match text("event") {
            "pusher:connection_established" => {
                let data: Value = serde_json::from_str(text("data")).unwrap_or_default();
                let socket_id = data["socket_id"].as_str().unwrap_or_default();
                let seconds = data["activity_timeout"].as_u64().unwrap_or(120).max(1);
                eprintln!("connected to {from} as {socket_id}");
                self.was_open = true;
                return Asks::Subscriptions { socket_id: socket_id.to_owned(), silence: Duration::from_secs(seconds) };
            }
            "pusher:ping" => return Asks::Pong,
            "pusher:pong" => {}
            "pusher:error" => eprintln!("error: {}", message["data"]),
            "pusher:subscription_error" => eprintln!("{channel}: not subscribed: {}", text("data")),
            "pusher_internal:subscription_succeeded" => match text("data") {
                "" | "{}" => eprintln!("subscribed to {channel}"),
                roster => eprintln!("subscribed to {channel}: {roster}"),
            },
            // Members, counts and cache misses: about the channel, but nothing that somebody published.
            event if event.starts_with("pusher") => {
                let event = event.split_once(':').map_or(event, |(_, name)| name);
                eprintln!("{channel}: {event} {}", text("data"));
            }
            _ => {
                self.print_event(message);
                self.left = self.left.map(|n| n - 1);
            }
        }
        Asks::Nothing
    }

    fn ask_for_channels(&self, target: &Target, socket: &mut WebSocket<Stream>, socket_id: &str) -> Result<(), Ended> {
        let id = SocketId::parse(socket_id).ok().flatten();
        for channel in &self.channels {
            let request = subscription(&target.app, id, channel, &self.channel_data)
                .ok_or_else(|| format!("the server named this connection {socket_id:?}, which nobody can sign"))?;
            say(socket, &request)?;
        }
        Ok(())
    }

    fn print_event(&self, message: &Value) {
        if self.args.json {
            return print(&format!("{message}\n"));
        }
        let text = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default();
        // Data is text by the protocol; servers that send an object instead are shown as they are.
        let data = message.get("data").map(|d| d.as_str().map_or_else(|| d.to_string(), str::to_owned));
        print(&format!("{}\t{}\t{}\n", text("channel"), text("event"), data.unwrap_or_default()));
    }
}

fn open(target: &Target) -> Result<WebSocket<Stream>, Ended> {
    let stream = connect(target)?;
    let url = format!(
        "{}://{}{}/app/{}?protocol=7&client=fulmar-cli&version={}",
        if target.tls { "wss" } else { "ws" },
        target.authority(),
        target.path_prefix,
        target.app.key,
        env!("CARGO_PKG_VERSION"),
    );
    let (socket, _) = tungstenite::client(url, stream)
        .map_err(|e| format!("{} does not open a WebSocket: {e}", target.authority()))?;
    Ok(socket)
}

/// The request for one channel; `None` when it needs a signature and there is no socket id to sign.
fn subscription(app: &App, socket_id: Option<SocketId>, channel: &ChannelName, member: &str) -> Option<Value> {
    let mut data = json!({ "channel": channel.as_str() });
    if channel.kind().needs_auth() {
        let member = channel.kind().is_presence().then_some(member);
        data["auth"] = json!(Signer::of(app).sign_channel(socket_id?, channel, member));
        if let Some(member) = member {
            data["channel_data"] = json!(member);
        }
    }
    Some(json!({ "event": "pusher:subscribe", "data": data }))
}

fn say(socket: &mut WebSocket<Stream>, message: &Value) -> Result<(), Ended> {
    socket.send(Message::text(message.to_string())).map_err(|e| Ended::from(format!("the connection broke: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WS-47
    #[test]
    fn only_channels_that_need_it_are_signed() {
        let app = App::new("1", "278d425bdf160c739803", "7ad3773142a6692b25b8");
        let id = SocketId::parse("1234.1234").expect("two numbers");
        let ask = |name: &str, id| {
            let channel = ChannelName::parse(name, CHANNEL_NAME_CEILING).expect("a valid name");
            subscription(&app, id, &channel, r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#)
        };
        let public = ask("foobar", None).expect("needs no id");
        assert_eq!(public["data"], json!({"channel": "foobar"}));
        let private = ask("private-foobar", id).expect("there is an id");
        let auth = "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        assert_eq!(private["data"], json!({"channel": "private-foobar", "auth": auth}));
        let presence = ask("presence-foobar", id).expect("there is an id");
        let auth = "278d425bdf160c739803:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80";
        assert_eq!(presence["data"]["auth"], auth);
        assert!(presence["data"]["channel_data"].is_string());
        assert_eq!(ask("private-foobar", None), None);
    }
}
