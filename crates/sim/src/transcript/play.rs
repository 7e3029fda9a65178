//! Plays a transcript on a stage and checks every line of it.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_protocol::app::{App, Secret};
use fulmar_protocol::name::{ChannelName, SocketId};
use fulmar_protocol::signing::Signer;
use serde_json::{Value, json};

use super::{Stage, Step, Transcript};
use crate::envelope;
use crate::frames::{quoted, succeeded};
use crate::world::Heard;

/// Plays one conversation.
///
/// # Panics
/// At the first line that does not come true; the message begins with the file and the line.
pub fn play(transcript: &Transcript, stage: &mut dyn Stage) {
    let mut play = Play {
        stage,
        at: String::new(),
        texts: BTreeMap::new(),
        people: BTreeMap::new(),
        open: BTreeSet::new(),
        speaker: String::new(),
    };
    for (number, step) in &transcript.steps {
        play.at = format!("{}.txt:{number}", transcript.name);
        play.step(step);
    }
    play.at = format!("{}.txt: at the end", transcript.name);
    play.stage.rest();
    for who in play.open.clone() {
        play.expect_nothing(&who);
    }
    for who in play.open {
        play.stage.leave(&who);
    }
}

struct Person {
    app: String,
    socket_id: Option<SocketId>,
    /// The last error heard: it must give the same code and reason as the close frame behind it.
    error: Option<(u16, String)>,
}

struct Play<'s> {
    stage: &'s mut dyn Stage,
    at: String,
    texts: BTreeMap<String, String>,
    people: BTreeMap<String, Person>,
    open: BTreeSet<String>,
    /// Who spoke last.
    speaker: String,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Let { name, value } => {
                let value = self.filled(value);
                self.texts.insert(name.clone(), value);
            }
            Step::Open { who, target, origin } => {
                let target = self.filled(target);
                self.open(who, "main", &target, origin.as_deref());
            }
            Step::Connect { who, app, client } => {
                let key = self.stage.app(app).key;
                self.open(who, app, &format!("/app/{key}?protocol=7&client={client}&version=8.6.0&flash=false"), None);
                let first = self.hear(who);
                let id = self.people[who].socket_id;
                assert!(id.is_some(), "{}: {who} is not connected but told {first:?}", self.at);
            }
            Step::Say { who, text } => {
                let text = self.filled(text);
                self.say(who, &text);
            }
            Step::Subscribe { who, channel, member } => self.subscribe(who, channel, member.as_deref()),
            Step::Join { who, channel } => {
                self.subscribe(who, channel, None);
                self.expect(who, &succeeded(channel));
            }
            Step::Hear { who, text } => {
                // Heard first: what is expected may name what is told here for the first time.
                let heard = self.hear(who);
                let expected = Heard::Text(self.filled(text));
                self.compare(who, heard.as_ref(), &expected);
            }
            Step::HearNothing { who } => {
                self.stage.rest();
                self.expect_nothing(who);
            }
            Step::Closed { who, code } => self.expect_closed(who, *code),
            Step::Leave { who } => {
                self.stage.rest();
                self.expect_nothing(who);
                self.open.remove(who);
                self.stage.leave(who);
            }
            Step::Publish { app, channels, event, except, data } => {
                self.stage.rest();
                let channels: Vec<_> = channels.iter().map(|channel| self.filled(channel)).collect();
                let channels: Vec<_> = channels.iter().map(String::as_str).collect();
                let except = except.as_ref().map(|who| self.socket_id_or_text(who));
                let data = self.filled(data);
                self.stage.publish(app, &channels, event, &data, except.as_deref());
            }
            Step::Wait { ms } => self.stage.wait(*ms),
        }
    }

    fn open(&mut self, who: &str, app: &str, target: &str, origin: Option<&str>) {
        self.stage.rest();
        self.stage.open(who, target, origin);
        self.open.insert(who.to_owned());
        self.people.insert(who.to_owned(), Person { app: app.to_owned(), socket_id: None, error: None });
    }

    fn subscribe(&mut self, who: &str, channel: &str, member: Option<&str>) {
        let channel_data = member.map(|name| self.text(name).to_owned());
        let needs_auth = channel.starts_with("private-") || channel.starts_with("presence-");
        let mut data = json!({"channel": channel});
        if needs_auth {
            data["auth"] = self.sign(who, channel, channel_data.as_deref(), None, false).into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        self.say(who, &json!({"event": "pusher:subscribe", "data": data}).to_string());
    }

    /// What one person says in a row goes out in one burst; before another speaks it has taken effect.
    fn say(&mut self, who: &str, text: &str) {
        if self.speaker != who {
            self.stage.rest();
            who.clone_into(&mut self.speaker);
        }
        self.stage.say(who, text);
    }

    fn hear(&mut self, who: &str) -> Option<Heard> {
        let heard = self.stage.hear(who);
        self.note(who, heard.as_ref());
        heard
    }

    fn note(&mut self, who: &str, heard: Option<&Heard>) {
        let person = self.people.get_mut(who).unwrap_or_else(|| panic!("{}: nobody is called {who}", self.at));
        let Some(Heard::Text(text)) = heard else { return };
        envelope::check(text);
        let message: Value = serde_json::from_str(text).expect("just checked");
        let data = &message["data"];
        match message["event"].as_str() {
            Some("pusher:connection_established") => {
                let data: Value = serde_json::from_str(data.as_str().unwrap_or_default()).unwrap_or_default();
                let id = data["socket_id"].as_str().and_then(|id| SocketId::parse(id).ok().flatten());
                person.socket_id = Some(id.unwrap_or_else(|| panic!("{}: no socket_id in {text}", self.at)));
            }
            Some("pusher:error") => {
                let code = data["code"].as_u64().and_then(|code| u16::try_from(code).ok());
                person.error = code.map(|code| (code, data["message"].as_str().unwrap_or_default().to_owned()));
            }
            _ => {}
        }
    }

    fn expect(&mut self, who: &str, expected: &Heard) {
        let heard = self.hear(who);
        self.compare(who, heard.as_ref(), expected);
    }

    fn compare(&self, who: &str, heard: Option<&Heard>, expected: &Heard) {
        assert_eq!(heard, Some(expected), "{}: heard by {who} (left) and expected (right)", self.at);
    }

    fn expect_nothing(&mut self, who: &str) {
        let heard = self.stage.overheard(who);
        assert_eq!(heard, None, "{}: {who} hears something", self.at);
    }

    fn expect_closed(&mut self, who: &str, code: u16) {
        if self.people[who].error.is_none() {
            let heard = self.hear(who);
            assert!(self.people[who].error.is_some(), "{}: {who} is not told why, but {heard:?}", self.at);
        }
        let (told, reason) = self.people[who].error.clone().expect("just seen");
        assert_eq!(told, code, "{}: the code of the error before the close", self.at);
        let heard = self.hear(who);
        assert_eq!(heard, Some(Heard::Closed(code, reason)), "{}: {who} is closed", self.at);
        self.open.remove(who);
    }

    // Placeholders

    fn text(&self, name: &str) -> &str {
        self.texts.get(name).unwrap_or_else(|| panic!("{}: no text is called {name}", self.at))
    }

    fn socket_id(&self, who: &str) -> SocketId {
        let person = self.people.get(who).and_then(|person| person.socket_id);
        person.unwrap_or_else(|| panic!("{}: nobody connected is called {who}", self.at))
    }

    /// Of somebody, also of one who has left; or any id, as it is written.
    fn socket_id_or_text(&self, who: &str) -> String {
        if who.contains('.') { who.to_owned() } else { self.socket_id(who).to_string() }
    }

    fn sign(
        &self,
        who: &str,
        channel: &str,
        channel_data: Option<&str>,
        app: Option<&str>,
        by_previous: bool,
    ) -> String {
        let app: App = self.stage.app(app.unwrap_or(&self.people[who].app));
        let name = ChannelName::parse(channel, 200).unwrap_or_else(|why| panic!("{}: {channel}: {why}", self.at));
        let previous = Secret::new("previous");
        let secret = if by_previous { &previous } else { &app.secret };
        Signer::new(app.key.as_str(), secret).sign_channel(self.socket_id(who), &name, channel_data)
    }

    /// `text` with every placeholder replaced.
    fn filled(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (placeholder, after) = after.split_once("}}").unwrap_or_else(|| panic!("{}: no end of {{{{", self.at));
            filled.push_str(before);
            filled.push_str(&self.value(&placeholder.split_whitespace().collect::<Vec<_>>()));
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    fn value(&self, words: &[&str]) -> String {
        match words {
            ["key"] => self.stage.app("main").key.to_string(),
            ["key", app] => self.stage.app(app).key.to_string(),
            ["socket", who] => self.socket_id(who).to_string(),
            ["text", name] => self.text(name).to_owned(),
            ["json", name] => quoted(self.text(name)),
            ["inner", name] => {
                let quoted = quoted(self.text(name));
                quoted[1..quoted.len() - 1].to_owned()
            }
            ["repeat", times, text] => text.repeat(self.number(times)),
            ["auth", who, channel, options @ ..] => self.auth(who, channel, options),
            ["user-auth", who, name] => {
                let app = self.stage.app(&self.people[*who].app);
                Signer::of(&app).sign_user(self.socket_id(who), self.text(name))
            }
            ["digest", who, channel, options @ ..] => {
                let auth = self.auth(who, channel, options);
                auth.split_once(':').expect("two parts").1.to_owned()
            }
            _ => panic!("{}: no such placeholder: {words:?}", self.at),
        }
    }

    fn number(&self, text: &str) -> usize {
        text.parse().unwrap_or_else(|_| panic!("{}: {text} is no number", self.at))
    }

    /// `{{auth WHO CHANNEL [as TEXT] [of APP] [previous] [upper]}}`
    fn auth(&self, who: &str, channel: &str, mut options: &[&str]) -> String {
        let (mut channel_data, mut app, mut by_previous, mut is_upper) = (None, None, false, false);
        while let [option, rest @ ..] = options {
            options = rest;
            match (*option, rest) {
                ("as", [name, rest @ ..]) => (channel_data, options) = (Some(self.text(name)), rest),
                ("of", [name, rest @ ..]) => (app, options) = (Some(*name), rest),
                ("previous", _) => by_previous = true,
                ("upper", _) => is_upper = true,
                _ => panic!("{}: no such option: {option}", self.at),
            }
        }
        let auth = self.sign(who, channel, channel_data, app, by_previous);
        match auth.split_once(':') {
            Some((key, digest)) if is_upper => format!("{key}:{}", digest.to_uppercase()),
            _ => auth,
        }
    }
}
