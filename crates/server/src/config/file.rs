//! The configuration file: TOML with the place of every value, unknown keys set aside.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::capacity::CapacityReader;
use super::finding::{Finding, Place, What};
use super::keys::{KEYS, Key, Kind, Preset, key};
use super::raw::{RawApp, Reader, Settings, Written, bad_value, refused};
use super::suggest::nearest;
use super::value::{Value, one_of, out_of_range, path, secret, within};
use super::webhooks::WebhookReader;

/// Walks the configuration file.
pub(super) struct FileReader<'a> {
    pub reader: &'a mut Reader,
    pub text: &'a str,
    pub path: Arc<Path>,
}

impl FileReader<'_> {
    pub fn read(mut self) {
        let before = self.reader.findings.len();
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let place = self.place(error.span().map_or(0, |span| span.start));
            self.reader.findings.push(Finding::refuses(place, "", What::Syntax(error.message().to_owned())));
        }
        for (section, value) in document.get_ref() {
            self.section(section.get_ref(), section.span().start, value);
        }
        // TOML tables come in the order of their names; people look for mistakes from top to bottom.
        self.reader.findings[before..].sort_by_key(|finding| match finding.place {
            Place::File { line, .. } => line,
            _ => usize::MAX,
        });
        self.reader.raw.apps.sort_by_key(|app| match app.place {
            Place::File { line, .. } => line,
            _ => usize::MAX,
        });
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        Place::File { path: self.path.clone(), line: before.iter().filter(|b| **b == b'\n').count() + 1 }
    }

    fn section(&mut self, section: &str, at: usize, value: &Spanned<DeValue<'_>>) {
        if !KEYS.iter().any(|k| k.section() == section) {
            let meant = nearest(section, KEYS.iter().map(Key::section)).map(|s| format!("[{s}]"));
            let finding = Finding::unknown(self.place(at), section, meant);
            return self.reader.findings.push(finding);
        }
        match (section, value.get_ref()) {
            ("apps", DeValue::Array(entries)) if entries.iter().all(|e| e.get_ref().is_table()) => {
                for entry in entries.iter() {
                    let place = self.place(entry.span().start);
                    let settings = entry.get_ref().as_table().map(|t| self.table("apps", t)).unwrap_or_default();
                    self.reader.raw.apps.push(RawApp { place, settings });
                }
            }
            ("apps", _) => self.refuse(at, section, "must be tables, each under a line [[apps]]"),
            (_, DeValue::Table(table)) => {
                let settings = self.table(section, table);
                self.reader.raw.settings.extend(settings);
            }
            _ => self.refuse(at, section, "must be a table: put a line with its name in brackets above its keys"),
        }
    }

    fn refuse(&mut self, at: usize, key: &str, rule: &'static str) {
        let finding = Finding::refuses(self.place(at), key, What::Breaks(rule));
        self.reader.findings.push(finding);
    }

    fn table(&mut self, section: &str, table: &DeTable<'_>) -> Settings {
        let mut settings = Settings::new();
        for (name, value) in table {
            let path = format!("{section}.{}", name.get_ref());
            let Some(key) = key(&path) else {
                let place = self.place(name.span().start);
                let finding = Finding::unknown(place, &path, self.meant(&path, name.get_ref()));
                self.reader.findings.push(finding);
                continue;
            };
            let place = self.place(name.span().start);
            if let Some(value) = self.value(key, value) {
                settings.insert(key.path, Written { value, place });
            } else if matches!(key.preset, Preset::Unset(_)) {
                settings.insert(key.path, refused(place));
            }
        }
        settings
    }

    /// The key that was probably meant: the right name under another section, or a name much like it.
    fn meant(&self, path: &str, name: &str) -> Option<String> {
        let elsewhere = KEYS.iter().find(|k| k.name() == name).map(|k| k.path);
        elsewhere.or_else(|| nearest(path, KEYS.iter().map(|k| k.path))).map(str::to_owned)
    }

    fn value(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let at = value.span().start;
        let wrong = |found: &DeValue<'_>| What::WrongType {
            expected: key.kind_text(),
            found: match found {
                DeValue::String(text) if !key.is_secret() => format!("{text:?}"),
                other => format!("a TOML {}", other.type_str()),
            },
        };
        let read = match (key.kind, value.get_ref()) {
            (Kind::Integer { min, max }, DeValue::Integer(n)) => i128::from_str_radix(n.as_str(), n.radix())
                .ok()
                .and_then(|n| within(n, min, max))
                .ok_or_else(|| out_of_range(min, max, &n.to_string())),
            (Kind::Switch, DeValue::Boolean(on)) => Ok(Value::Switch(*on)),
            (Kind::OneOf(words), DeValue::String(text)) => one_of(words, text).ok_or_else(|| wrong(value.get_ref())),
            (Kind::Text(check), DeValue::String(text)) => {
                check(text).map(|()| Value::Text(text.to_string())).map_err(What::Breaks)
            }
            (Kind::Path, DeValue::String(text)) => path(text, Some(&self.path)),
            (Kind::Secret, DeValue::String(text)) => secret(text),
            (Kind::List(check), DeValue::Array(items)) => return Some(self.list(key, check, items)),
            (Kind::Webhooks, DeValue::Array(items)) => {
                let webhooks = WebhookReader { file: self, key };
                return Some(Value::Webhooks(webhooks.read(items)));
            }
            (Kind::Capacities, DeValue::Table(groups)) => {
                let capacities = CapacityReader { file: self, key };
                return Some(Value::Capacities(capacities.read(groups)));
            }
            (_, other) => Err(wrong(other)),
        };
        read.map_err(|what| self.reader.findings.push(bad_value(key, self.place(at), key.path, what))).ok()
    }

    /// Every entry is judged on its own line.
    fn list(
        &mut self,
        key: &'static Key,
        check: fn(&str) -> Result<(), &'static str>,
        items: &toml::de::DeArray<'_>,
    ) -> Value {
        let mut texts = Vec::new();
        for item in items.iter() {
            let what = match item.get_ref() {
                DeValue::String(text) => match check(text) {
                    Ok(()) => {
                        texts.push(text.to_string());
                        continue;
                    }
                    Err(rule) => What::Breaks(rule),
                },
                other => What::WrongType { expected: key.kind_text(), found: format!("a TOML {}", other.type_str()) },
            };
            let place = self.place(item.span().start);
            self.reader.findings.push(bad_value(key, place, key.path, what));
        }
        Value::List(texts)
    }
}
