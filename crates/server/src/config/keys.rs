//! A key: what can be written under one name, what it means and what applies when it is not.
//!
//! Reading, `fulmar config explain` and `fulmar config show` all work from the table of keys ([`KEYS`]), so that none of
//! them can know a key the others do not. Turning values into [`super::Config`] takes every key out of it; a test checks
//! that none is left over.

pub use super::table::KEYS;

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A whole number within bounds, both included.
    Integer {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Text that passes a check; the text of the error finishes the sentence "KEY ...".
    Text(Check),
    /// Several texts, each passing the check.
    List(Check),
    /// A file. A relative path in the configuration file starts at that file's folder.
    Path,
    /// Text that is never shown.
    Secret,
    /// Tables, one per webhook endpoint. Only the file can hold them.
    Webhooks,
    /// Tables by name of a group. Only the file can hold them.
    Capacities,
}

type Check = fn(&str) -> Result<(), &'static str>;

/// What applies when nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Nothing; the text says what that means.
    Unset(&'static str),
    /// A number.
    Integer(u64),
    /// A switch.
    Switch(bool),
    /// A text.
    Text(&'static str),
    /// No entries.
    EmptyList,
    /// These entries.
    List(&'static [&'static str]),
}

/// What a bad value does to a node that starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It refuses to start.
    Hard,
    /// It starts with the default and warns: what only observes must never stop what serves.
    Soft,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// `section.key`; the section `apps` is the one written as `[[apps]]`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What applies when it is not written.
    pub preset: Preset,
    /// Unit of a number; empty when it has none.
    pub unit: &'static str,
    /// What it does, in full sentences.
    pub meaning: &'static str,
    /// What a bad value does.
    pub class: Class,
    /// Whether a change in the file takes effect while the node runs.
    pub reloadable: bool,
    /// The flag of `fulmar serve` with the same effect.
    pub flag: Option<&'static str>,
}

impl Key {
    /// The section.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(section, _)| section)
    }

    /// The key within its section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The environment variable with the same effect. Keys of `[[apps]]` have none: see `FULMAR_APPS`.
    #[must_use]
    pub fn variable(&self) -> Option<String> {
        (self.section() != "apps" && !matches!(self.kind, Kind::Capacities))
            .then(|| format!("FULMAR_{}", self.path.replace('.', "__").to_uppercase()))
    }

    /// Whether its value must not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret)
    }

    /// What it takes, as a person reads it.
    #[must_use]
    pub fn kind_text(&self) -> String {
        match self.kind {
            Kind::Integer { min, max: u64::MAX } => format!("a whole number from {min}"),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Switch => "true or false".to_owned(),
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
            Kind::Text(_) => "text".to_owned(),
            Kind::List(_) => "a list of texts".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Secret => "text that is never shown".to_owned(),
            Kind::Webhooks => "a list of tables".to_owned(),
            Kind::Capacities => "tables by name of a group".to_owned(),
        }
    }

    /// The default, as it would be written in TOML, or what no value means.
    #[must_use]
    pub fn preset_text(&self) -> String {
        match self.preset {
            Preset::Unset(meaning) => format!("not set: {meaning}"),
            Preset::Integer(n) => n.to_string(),
            Preset::Switch(on) => on.to_string(),
            Preset::Text(text) => format!("{text:?}"),
            Preset::EmptyList => "[]".to_owned(),
            Preset::List(texts) => format!("{texts:?}"),
        }
    }

    /// All there is to say about the key: what `fulmar config explain KEY` prints.
    #[must_use]
    pub fn explain(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" ({})", self.unit) };
        let mut out = format!("{}\n  {}\n", self.path, self.meaning);
        let mut line = |name: &str, text: &str| out.push_str(&format!("  {name:<9} {text}\n"));
        line("takes", &format!("{}{unit}", self.kind_text()));
        line("default", &self.preset_text());
        match self.variable() {
            Some(variable) => line("variable", &variable),
            None => line("variable", "none; FULMAR_APPS adds whole apps (fulmar serve --help)"),
        }
        if let Some(flag) = self.flag {
            line("flag", flag);
        }
        line(
            "if wrong",
            match self.class {
                Class::Hard => "hard: the node does not start (exit code 78)",
                Class::Soft => "soft: the node warns and uses the default",
            },
        );
        line("change", if self.reloadable { "taken over while the node runs" } else { "needs a restart" });
        out
    }
}

/// The key at `path`.
#[must_use]
pub fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.path == path)
}

pub(super) const fn integer(
    path: &'static str,
    (min, max): (u64, u64),
    preset: u64,
    unit: &'static str,
    meaning: &'static str,
) -> Key {
    hard(path, Kind::Integer { min, max }, Preset::Integer(preset), meaning).in_unit(unit)
}

pub(super) const fn hard(path: &'static str, kind: Kind, preset: Preset, meaning: &'static str) -> Key {
    Key { path, kind, preset, unit: "", meaning, class: Class::Hard, reloadable: false, flag: None }
}

impl Key {
    pub(super) const fn in_unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(super) const fn unset(mut self, meaning: &'static str) -> Self {
        self.preset = Preset::Unset(meaning);
        self
    }

    pub(super) const fn soft(mut self) -> Self {
        self.class = Class::Soft;
        self
    }

    pub(super) const fn reloadable(mut self) -> Self {
        self.reloadable = true;
        self
    }

    pub(super) const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-8
    #[test]
    fn every_key_is_explained_once_and_completely() {
        for (n, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..n].iter().all(|other| other.path != key.path), "{} stands twice", key.path);
            assert!(key.path.contains('.'), "{}", key.path);
            assert!(key.meaning.ends_with('.') && key.meaning.len() > 15, "{} has no meaning", key.path);
            assert!(!key.meaning.contains("  "), "{} has a gap", key.path);
            let text = key.explain();
            for part in [key.path, "takes", "default", "variable", "if wrong", "change"] {
                assert!(text.contains(part), "{text}");
            }
            let (Kind::Integer { min, max }, Preset::Integer(preset)) = (key.kind, key.preset) else { continue };
            assert!(min <= preset && preset <= max, "{}: the default is outside the range", key.path);
            let named = ["port", "s", "ms", "bytes", "max"];
            assert!(!key.unit.is_empty() || named.iter().any(|n| key.path.ends_with(n)), "{} has no unit", key.path);
        }
    }
}
