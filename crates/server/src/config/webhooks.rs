//! The tables of `webhooks` in an app: what each may hold, with every mistake on its own line.

use fulmar_protocol::webhook::{Endpoint, EventKind, Kinds};
use hyper::header::{HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::file::FileReader;
use super::finding::{Finding, What};
use super::keys::Key;
use super::raw::bad_value;
use super::suggest::nearest;
use crate::webhooks::address::destination;
use crate::webhooks::request::RESERVED_HEADERS;

const FIELDS: [&str; 4] = ["url", "events", "channel_prefix", "headers"];
/// Endpoints one app may have.
const ENDPOINTS_MAX: usize = 2_000;
/// Characters of a URL.
const URL_MAX: usize = 2_048;

/// Reads the tables under one key.
pub(super) struct WebhookReader<'r, 'a> {
    pub file: &'r mut FileReader<'a>,
    pub key: &'static Key,
}

impl WebhookReader<'_, '_> {
    /// The endpoints without a mistake; the mistakes are findings.
    pub fn read(mut self, items: &DeArray<'_>) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for item in items.iter() {
            let at = item.span().start;
            let DeValue::Table(table) = item.get_ref() else {
                self.refuse(at, "must be a list of tables, such as { url = \"https://example.com/webhooks\" }");
                continue;
            };
            let Some(endpoint) = self.endpoint(at, table) else { continue };
            if endpoints.iter().any(|other| other.url == endpoint.url) {
                self.refuse(at, "must not name one URL twice: put all its events into one table");
            } else if endpoints.len() >= ENDPOINTS_MAX {
                self.refuse(at, "must not hold more than 2000 endpoints");
                return endpoints;
            } else {
                endpoints.push(endpoint);
            }
        }
        endpoints
    }

    fn endpoint(&mut self, at: usize, table: &DeTable<'_>) -> Option<Endpoint> {
        let (mut url, mut kinds, mut channel_prefix, mut headers) =
            (None, Some(Kinds::HOSTED), Some(String::new()), Some(Vec::new()));
        let mut names_url = false;
        for (name, value) in table {
            match name.get_ref().as_ref() {
                "url" => {
                    names_url = true;
                    url = self.url(value);
                }
                "events" => kinds = self.events(value),
                "channel_prefix" => channel_prefix = self.text(value, "channel_prefix must be a text"),
                "headers" => headers = self.headers(value),
                other => {
                    let path = format!("{}.{other}", self.key.path);
                    let meant = nearest(other, FIELDS.into_iter()).map(|field| format!("{}.{field}", self.key.path));
                    let finding = Finding::unknown(self.file.place(name.span().start), path, meant);
                    self.file.reader.findings.push(finding);
                }
            }
        }
        if !names_url {
            self.refuse(at, "must have a url in each table");
        }
        Some(Endpoint { url: url?.into(), kinds: kinds?, channel_prefix: channel_prefix?, headers: headers? })
    }

    fn url(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.text(value, "url must be a text")?;
        let judged = if text.len() > URL_MAX { Err("must not be longer than 2048 characters") } else { Ok(()) };
        match judged.and_then(|()| destination(&text)) {
            Ok(_) => Some(text),
            Err(rule) => {
                self.refuse(value.span().start, rule);
                None
            }
        }
    }

    fn events(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Kinds> {
        let rule = "events must be a list of names of events";
        let DeValue::Array(items) = value.get_ref() else {
            self.refuse(value.span().start, rule);
            return None;
        };
        let mut kinds = Vec::new();
        let mut all = true;
        for item in items.iter() {
            let named = self.text(item, rule);
            let Some(name) = named else {
                all = false;
                continue;
            };
            match EventKind::parse(&name) {
                Some(kind) => kinds.push(kind),
                None => {
                    all = false;
                    let meant = nearest(&name, EventKind::ALL.into_iter().map(EventKind::name)).map(str::to_owned);
                    let place = self.file.place(item.span().start);
                    let called = format!("{}.events: {name}", self.key.path);
                    self.file.reader.findings.push(Finding::refuses(place, called, What::Unknown { nearest: meant }));
                }
            }
        }
        all.then(|| kinds.into_iter().collect())
    }

    fn headers(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<(String, String)>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.refuse(value.span().start, "headers must be a table of names and texts");
            return None;
        };
        let mut headers = Vec::new();
        let mut all = true;
        for (name, value) in table {
            let (name, at) = (name.get_ref(), name.span().start);
            let rule = match value.get_ref() {
                DeValue::String(_) if HeaderName::try_from(name.as_ref()).is_err() => Some("headers has a bad name"),
                DeValue::String(_) if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) => {
                    Some("headers must not hold a header that the node sets itself")
                }
                DeValue::String(text) if HeaderValue::try_from(text.as_ref()).is_err() => {
                    Some("headers has a value that no header can have")
                }
                DeValue::String(text) => {
                    headers.push((name.to_string(), text.to_string()));
                    None
                }
                _ => Some("headers must hold texts only"),
            };
            if let Some(rule) = rule {
                all = false;
                self.refuse(at, rule);
            }
        }
        all.then_some(headers)
    }

    fn text(&mut self, value: &Spanned<DeValue<'_>>, rule: &'static str) -> Option<String> {
        if let DeValue::String(text) = value.get_ref() {
            return Some(text.to_string());
        }
        self.refuse(value.span().start, rule);
        None
    }

    fn refuse(&mut self, at: usize, rule: &'static str) {
        let finding = bad_value(self.key, self.file.place(at), self.key.path, What::Breaks(rule));
        self.file.reader.findings.push(finding);
    }
}
