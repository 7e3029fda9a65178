//! One value: of the type and range its key has, or refused.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use fulmar_control::observed::Capacity;
use fulmar_protocol::webhook::{Endpoint, EventKind};

use super::finding::What;
use super::keys::{Key, Kind};

/// A value of the type its key has.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Unset,
    Integer(u64),
    Switch(bool),
    Text(String),
    List(Vec<String>),
    Path(PathBuf),
    Webhooks(Vec<Endpoint>),
    Capacities(BTreeMap<String, Capacity>),
    /// Never leaves this type but into [`fulmar_protocol::app::Secret`].
    Secret(String),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("Unset"),
            Self::Integer(n) => n.fmt(f),
            Self::Switch(on) => on.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::List(texts) => texts.fmt(f),
            Self::Path(path) => path.fmt(f),
            Self::Webhooks(endpoints) => endpoints.fmt(f),
            Self::Capacities(groups) => groups.fmt(f),
            Self::Secret(_) => f.write_str("Secret(..)"),
        }
    }
}

impl Value {
    /// The value for people to see; `None` is nothing, or nothing to be seen.
    pub fn json(&self) -> Option<serde_json::Value> {
        match self {
            Self::Unset | Self::Secret(_) => None,
            Self::Integer(n) => Some((*n).into()),
            Self::Switch(on) => Some((*on).into()),
            Self::Text(text) => Some(text.as_str().into()),
            Self::List(texts) => Some(texts.clone().into()),
            Self::Path(path) => Some(path.to_string_lossy().into()),
            Self::Webhooks(endpoints) => Some(endpoints.iter().map(endpoint_json).collect()),
            Self::Capacities(groups) => {
                Some(groups.iter().map(|(name, group)| (name.clone(), fields_json(group))).collect())
            }
        }
    }
}

/// Values of headers are not shown: people put tokens there.
fn endpoint_json(endpoint: &Endpoint) -> serde_json::Value {
    let hidden = |(name, _): &(String, String)| (name.clone(), serde_json::Value::from("(not shown)"));
    serde_json::json!({
        "url": &*endpoint.url,
        "events": endpoint.kinds.iter().map(EventKind::name).collect::<Vec<_>>(),
        "channel_prefix": endpoint.channel_prefix,
        "headers": endpoint.headers.iter().map(hidden).collect::<serde_json::Map<_, _>>(),
    })
}

fn fields_json(capacity: &Capacity) -> serde_json::Value {
    let fields = super::capacity::fields(capacity).into_iter();
    fields.filter_map(|(name, value)| Some((name.to_owned(), serde_json::Value::from(value?)))).collect()
}

/// Reads a value given as text, as variables and flags give it.
pub(super) fn from_text(key: &Key, text: &str) -> Result<Value, What> {
    let wrong = || What::WrongType { expected: key.kind_text(), found: format!("{text:?}") };
    match key.kind {
        Kind::Integer { min, max } => match text.trim().parse::<i128>() {
            Ok(n) => within(n, min, max).ok_or_else(|| out_of_range(min, max, text.trim())),
            Err(_) => Err(wrong()),
        },
        Kind::Switch => match text {
            "true" | "1" | "yes" | "on" => Ok(Value::Switch(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Switch(false)),
            _ => Err(wrong()),
        },
        Kind::OneOf(words) => one_of(words, text).ok_or_else(wrong),
        Kind::Text(check) => check(text).map(|()| Value::Text(text.to_owned())).map_err(What::Breaks),
        Kind::List(check) => {
            let items: Vec<String> = text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect();
            items.iter().try_for_each(|item| check(item)).map_err(What::Breaks)?;
            Ok(Value::List(items))
        }
        Kind::Path => path(text, None),
        Kind::Secret => secret(text),
        Kind::Webhooks | Kind::Capacities => Err(wrong()),
    }
}

pub(super) fn within(n: i128, min: u64, max: u64) -> Option<Value> {
    u64::try_from(n).ok().filter(|n| (min..=max).contains(n)).map(Value::Integer)
}

pub(super) fn out_of_range(min: u64, max: u64, found: &str) -> What {
    What::OutOfRange { min, max, found: found.to_owned() }
}

pub(super) fn one_of(words: &[&'static str], text: &str) -> Option<Value> {
    words.iter().find(|w| w.eq_ignore_ascii_case(text)).map(|w| Value::Text((*w).to_owned()))
}

pub(super) fn secret(text: &str) -> Result<Value, What> {
    if text.is_empty() {
        return Err(What::Breaks("must not be empty: anybody could sign with it"));
    }
    if text.chars().any(char::is_control) {
        return Err(What::Breaks("must not contain control characters, such as line breaks"));
    }
    Ok(Value::Secret(text.to_owned()))
}

/// A path; a relative one starts at the folder of the file it was written in, if it was written in one.
pub(super) fn path(text: &str, written_in: Option<&Path>) -> Result<Value, What> {
    if text.is_empty() {
        return Err(What::Breaks("must name a file"));
    }
    let folder = written_in.and_then(Path::parent);
    Ok(Value::Path(folder.map_or_else(|| PathBuf::from(text), |folder| folder.join(text))))
}
