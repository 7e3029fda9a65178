//! A client as simple as can be, which subscribes to private channels.

use std::net::TcpStream;

use fulmar_protocol::app::App;
use fulmar_protocol::name::{ChannelName, SocketId};
use fulmar_protocol::signing::Signer;
use serde_json::{Value, json};
use tungstenite::{Message, connect};

/// A connection that subscribes to one private channel after the other.
pub struct Lines {
    pub socket: tungstenite::WebSocket<tungstenite::stream::MaybeTlsStream<TcpStream>>,
    pub socket_id: SocketId,
}

impl Lines {
    pub fn open(port: u16, app: &App) -> Self {
        let url = format!("ws://127.0.0.1:{port}/app/{}?protocol=7&client=test&version=1", app.key);
        let (mut socket, _) = connect(url).unwrap();
        let hello = next(&mut socket);
        let data: Value = serde_json::from_str(hello["data"].as_str().unwrap()).unwrap();
        let socket_id = SocketId::parse(data["socket_id"].as_str().unwrap()).unwrap().unwrap();
        Self { socket, socket_id }
    }

    pub fn subscribe(&mut self, app: &App, channel: &str) -> bool {
        let name = ChannelName::parse(channel, 164).unwrap();
        let auth = Signer::of(app).sign_channel(self.socket_id, &name, None);
        let said = json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": auth } });
        self.socket.send(Message::text(said.to_string())).unwrap();
        loop {
            let answer = next(&mut self.socket);
            if answer["channel"] == channel || answer["event"] == "pusher:error" {
                return answer["event"] == "pusher_internal:subscription_succeeded";
            }
        }
    }
}

pub fn next(socket: &mut tungstenite::WebSocket<tungstenite::stream::MaybeTlsStream<TcpStream>>) -> Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}
