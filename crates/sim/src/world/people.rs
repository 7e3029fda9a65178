//! Those who are connected: opening, saying, publishing, hearing.

use std::collections::VecDeque;
use std::sync::Arc;

use fulmar_backbone::{Backbone, PublishError, Terms};
use fulmar_engine::{AppLookup, Input, Load, Opening, SessionKey};
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::close::CloseCode;
use fulmar_protocol::name::{ChannelKind, ChannelName, SocketId};
use fulmar_protocol::opening::OpenRequest;
use fulmar_protocol::publish::parse_events;
use fulmar_protocol::query::Query;
use fulmar_protocol::signing::{Request, Signer, verify_request};
use serde_json::{Value, json};

use super::{Connection, Heard, Line, NOW_UNIX_S, World, ready};
use crate::frames::succeeded;

impl World {
    /// Opens a connection as an SDK would, and takes the first frame from it.
    #[track_caller]
    pub fn connect(&mut self, app: &str) -> Connection {
        self.connect_as(app, "js")
    }

    /// The same as the SDK that calls itself `client`.
    #[track_caller]
    pub fn connect_as(&mut self, app: &str, client: &str) -> Connection {
        let key = self.app(app).key.clone();
        let connection = self.open(&format!("/app/{key}?protocol=7&client={client}&version=8.6.0"), None);
        let established = format!(
            r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{}\",\"activity_timeout\":{}}}"}}"#,
            self.socket_id(connection),
            self.setup.engine.activity_timeout_ms / 1_000,
        );
        self.expect(connection, established.as_str());
        connection
    }

    /// Opens a connection with any request target and `Origin`, and leaves to the caller what comes of it.
    pub fn open(&mut self, target: &str, origin: Option<&str>) -> Connection {
        let key = OpenRequest::parse(target, "").key;
        let app = self.apps.iter().find(|app| Some(app.key.as_str()) == key.as_deref());
        let over_quota = app.is_some_and(|app| self.is_over_quota(app));
        self.open_under(target, origin, Load { draining: self.is_draining, over_quota, ..Load::default() })
    }

    /// The same with the load as it was when the upgrade was judged, whatever it is now.
    pub fn open_under(&mut self, target: &str, origin: Option<&str>, load: Load) -> Connection {
        let request = OpenRequest::parse(target, "");
        let app = match request.key {
            None => AppLookup::NoPath,
            Some(key) => match self.apps.iter().find(|app| app.key.as_str() == key) {
                Some(app) => AppLookup::Found(Arc::clone(app)),
                None => AppLookup::NoApp { key },
            },
        };
        let app_id = if let AppLookup::Found(app) = &app { Some(app.id.clone()) } else { None };
        let must_authorize = matches!(&app, AppLookup::Found(app) if app.authorized_connections);
        let opening = Opening {
            app,
            must_authorize,
            protocol: request.protocol,
            client: request.client,
            origin: origin.map(str::to_owned),
            secure: false,
            load,
            socket_id: SocketId::new(self.ids.u32(..).into(), self.ids.u64(..)),
        };
        let connection = Connection(self.lines.len());
        let worker = connection.0 % self.desks.len();
        let keys = &mut self.desks[worker].keys;
        let free = keys.iter().position(Option::is_none).unwrap_or_else(|| {
            keys.push(None);
            keys.len() - 1
        });
        keys[free] = Some(connection);
        let key = SessionKey::try_from(free).expect("tests are small");
        let (heard, socket_id) = (VecDeque::new(), opening.socket_id);
        self.lines.push(Line { worker, key, socket_id, app: app_id, heard, is_open: true, is_seated: !must_authorize });
        self.tell(worker, Input::Opened { session: key, opening });
        connection
    }

    fn is_over_quota(&self, app: &App) -> bool {
        let seated = self.seated(Some(&app.id));
        !app.authorized_connections && app.limits.max_connections.is_some_and(|max| seated >= max as usize)
    }

    /// Connections that count towards an app's quota.
    pub(super) fn seated(&self, app: Option<&AppId>) -> usize {
        self.lines.iter().filter(|line| line.is_open && line.is_seated && line.app.as_ref() == app).count()
    }

    /// The socket ends, without a word or after one: all the same to the engine.
    pub fn leave(&mut self, connection: Connection) {
        let Line { worker, key, is_open, .. } = self.lines[connection.0];
        assert!(is_open, "{connection:?} has been closed already");
        self.hang_up(connection);
        self.tell(worker, Input::Gone { session: key });
    }

    /// The driver gives a connection up for a reason of its own.
    pub fn evict(&mut self, connection: Connection, code: CloseCode, reason: &'static str) {
        let Line { worker, key, .. } = self.lines[connection.0];
        self.tell(worker, Input::Evict { session: key, code, reason });
    }

    pub(super) fn hang_up(&mut self, connection: Connection) {
        let line = &mut self.lines[connection.0];
        line.is_open = false;
        self.desks[line.worker].keys[line.key as usize] = None;
    }

    /// The public id of a connection.
    #[must_use]
    pub fn socket_id(&self, connection: Connection) -> SocketId {
        self.lines[connection.0].socket_id
    }

    /// Whether the connection has not been closed by anybody.
    #[must_use]
    pub fn is_open(&self, connection: Connection) -> bool {
        self.lines[connection.0].is_open
    }

    // What clients say

    /// A text message comes.
    pub fn say(&mut self, connection: Connection, text: &str) {
        let Line { worker, key, is_open, .. } = self.lines[connection.0];
        assert!(is_open, "{connection:?} has been closed and cannot say {text}");
        self.tell(worker, Input::Said { session: key, text });
    }

    /// A control frame comes.
    pub fn send_control_frame(&mut self, connection: Connection) {
        let Line { worker, key, .. } = self.lines[connection.0];
        self.tell(worker, Input::Heard { session: key });
    }

    /// Asks for a channel, signed where that is needed.
    pub fn subscribe(&mut self, connection: Connection, channel: &str) {
        let auth = ChannelKind::of(channel).needs_auth().then(|| self.sign(connection, channel, None));
        let data = match auth {
            Some(auth) => json!({"channel": channel, "auth": auth}),
            None => json!({"channel": channel}),
        };
        self.say(connection, &json!({"event": "pusher:subscribe", "data": data}).to_string());
    }

    /// Asks for a presence channel as the user that `channel_data` describes.
    pub fn subscribe_as(&mut self, connection: Connection, channel: &str, channel_data: &str) {
        let auth = self.sign(connection, channel, Some(channel_data));
        let data = json!({"channel": channel, "auth": auth, "channel_data": channel_data});
        self.say(connection, &json!({"event": "pusher:subscribe", "data": data}).to_string());
    }

    /// Asks for a presence channel as a user of whom nothing but the id is told.
    pub fn subscribe_user(&mut self, connection: Connection, channel: &str, user: &str) {
        self.subscribe_as(connection, channel, &json!({"user_id": user}).to_string());
    }

    /// Subscribes to a channel that is no presence channel, and takes the confirmation.
    #[track_caller]
    pub fn join(&mut self, connection: Connection, channel: &str) {
        self.subscribe(connection, channel);
        self.expect(connection, succeeded(channel));
    }

    /// Joins a presence channel as a user and drops what comes of it.
    pub fn enter(&mut self, connection: Connection, channel: &str, user: &str) {
        self.subscribe_user(connection, channel, user);
        self.forget_heard(connection);
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, connection: Connection, channel: &str) {
        self.say(connection, &json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}).to_string());
    }

    /// Sends a client event; `data` is JSON text.
    pub fn trigger(&mut self, connection: Connection, channel: &str, event: &str, data: &str) {
        let head = json!({"event": event, "channel": channel}).to_string();
        self.say(connection, &format!(r#"{},"data":{data}}}"#, &head[..head.len() - 1]));
    }

    /// What the app's own server would answer to the SDK's question whether this connection may have that channel.
    #[must_use]
    pub fn sign(&self, connection: Connection, channel: &str, channel_data: Option<&str>) -> String {
        let line = &self.lines[connection.0];
        let app = self.app(line.app.as_ref().expect("it is connected to an app").as_str());
        let channel = ChannelName::parse(channel, 200).expect("only valid names can be signed");
        Signer::of(app).sign_channel(line.socket_id, &channel, channel_data)
    }

    /// Signs in as the user that `user_data` describes.
    pub fn sign_in(&mut self, connection: Connection, user_data: &str) {
        let auth = self.sign_user(connection, user_data);
        self.say_sign_in(connection, user_data, &auth);
    }

    /// The same with any `auth`.
    pub fn say_sign_in(&mut self, connection: Connection, user_data: &str, auth: &str) {
        let data = json!({"auth": auth, "user_data": user_data});
        self.say(connection, &json!({"event": "pusher:signin", "data": data}).to_string());
    }

    /// What the app's own server would answer to the SDK's question who the user is.
    #[must_use]
    pub fn sign_user(&self, connection: Connection, user_data: &str) -> String {
        let line = &self.lines[connection.0];
        let app = self.app(line.app.as_ref().expect("it is connected to an app").as_str());
        Signer::of(app).sign_user(line.socket_id, user_data)
    }

    /// Opens a connection of a user who watches others, and drops what comes of it.
    #[track_caller]
    pub fn connect_user(&mut self, app: &str, user: &str, watchlist: &[&str]) -> Connection {
        let connection = self.connect(app);
        self.sign_in(connection, &json!({"id": user, "watchlist": watchlist}).to_string());
        self.forget_heard(connection);
        connection
    }

    // What is published

    /// Publishes an event, which must be accepted.
    #[track_caller]
    pub fn publish(&mut self, app: &str, channel: &str, event: &str, data: &str) {
        self.publish_except(app, &[channel], event, data, None);
    }

    /// Publishes an event to several channels but not to one connection; it must be accepted.
    #[track_caller]
    pub fn publish_except(
        &mut self,
        app: &str,
        channels: &[&str],
        event: &str,
        data: &str,
        except: Option<Connection>,
    ) {
        let except = except.map(|connection| self.socket_id(connection).to_string());
        assert_eq!(self.try_publish(app, channels, event, data, except.as_deref()), Ok(()));
    }

    /// Publishes through everything a signed call passes.
    ///
    /// # Errors
    /// The backbone's answer.
    #[track_caller]
    pub fn try_publish(
        &mut self,
        app: &str,
        channels: &[&str],
        event: &str,
        data: &str,
        except: Option<&str>,
    ) -> Result<(), PublishError> {
        let body = json!({"name": event, "channels": channels, "data": data, "socket_id": except}).to_string();
        let app = Arc::clone(self.app(app));
        let path = format!("/apps/{}/events", app.id);
        let signed = Signer::of(&app).sign_request("POST", &path, &[], body.as_bytes(), NOW_UNIX_S);
        let query = Query::parse(&signed).expect("we wrote it");
        let request = Request { app: &app, method: "POST", path: &path, query: &query, body: body.as_bytes() };
        let request = verify_request(request, NOW_UNIX_S).expect("we signed it");
        let publications = parse_events(&request).expect("a test publishes what may be published").publications;
        let outcome = ready(self.backbone.publish(publications, Terms::default()));
        self.settle();
        outcome
    }

    // What is heard

    /// The next thing that a connection hears.
    #[track_caller]
    pub fn expect(&mut self, connection: Connection, expected: impl Into<Heard>) {
        assert_eq!(self.next_heard(connection), Some(expected.into()), "of {connection:?}");
    }

    /// That it hears nothing more for now.
    #[track_caller]
    pub fn expect_nothing(&mut self, connection: Connection) {
        assert_eq!(self.next_heard(connection), None, "of {connection:?}");
    }

    /// That it is told why and then closed.
    #[track_caller]
    pub fn expect_closed(&mut self, connection: Connection, code: CloseCode) {
        let told = self.next_heard(connection);
        let Some(Heard::Text(text)) = &told else { panic!("not told why it is closed, but {told:?}") };
        let error: Value = serde_json::from_str(text).expect("messages are JSON");
        assert_eq!((&error["event"], &error["data"]["code"]), (&json!("pusher:error"), &json!(code.0)), "{text}");
        let reason = error["data"]["message"].as_str().expect("checked with every frame").to_owned();
        assert_eq!(self.next_heard(connection), Some(Heard::Closed(code.0, reason)));
        assert!(!self.is_open(connection));
    }

    /// Takes the next thing that a connection hears.
    pub fn next_heard(&mut self, connection: Connection) -> Option<Heard> {
        self.lines[connection.0].heard.pop_front()
    }

    /// Drops what was heard so far; answers how much it was.
    pub fn forget_heard(&mut self, connection: Connection) -> usize {
        std::mem::take(&mut self.lines[connection.0].heard).len()
    }
}
