//! One word, one thing: names declared here do not use the words that this project has struck out.
//!
//! Only declarations are looked at (what is defined here, not what is used from elsewhere), by their parts: `replica_set` has the
//! words `replica` and `set`. The table says what to write instead.

use super::Finding;
use crate::source::{self, Token};

/// A struck-out word.
struct Struck {
    /// Words that follow each other in a name.
    words: &'static [&'static str],
    /// What to write.
    instead: &'static str,
    /// Where the rule holds.
    holds: Holds,
}

/// How far a rule goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// In every name.
    Everywhere,
    /// In names of types, traits, modules and variants.
    InTypes,
    /// In names of functions.
    InFunctions,
    /// Only as a whole name, in the crates whose business it is.
    AloneInTheData,
}

const fn struck(words: &'static [&'static str], instead: &'static str, holds: Holds) -> Struck {
    Struck { words, instead, holds }
}

const STRUCK: [Struck; 28] = [
    struck(&["cluster"], "deployment (or redis_cluster for that product)", Holds::Everywhere),
    struck(&["instance"], "node", Holds::Everywhere),
    struck(&["instances"], "nodes", Holds::Everywhere),
    struck(&["master"], "primary", Holds::Everywhere),
    struck(&["slave"], "replica", Holds::Everywhere),
    struck(&["slaves"], "replicas", Holds::Everywhere),
    struck(&["partition"], "shard", Holds::Everywhere),
    struck(&["serial"], "position", Holds::Everywhere),
    struck(&["payload"], "frame (finished bytes) or data (of an event)", Holds::Everywhere),
    struck(&["user", "list"], "roster", Holds::Everywhere),
    struck(&["users", "list"], "roster", Holds::Everywhere),
    struck(&["lease", "ttl"], "lease", Holds::Everywhere),
    struck(&["channel", "created"], "occupied", Holds::Everywhere),
    struck(&["channel", "empty"], "vacated", Holds::Everywhere),
    struck(&["client"], "connection (IO) or session (conversation)", Holds::AloneInTheData),
    struck(&["clients"], "connections (IO) or sessions (conversations)", Holds::AloneInTheData),
    struck(&["listener"], "subscription", Holds::AloneInTheData),
    struck(&["broadcast"], "delivery", Holds::AloneInTheData),
    struck(&["thread"], "worker", Holds::AloneInTheData),
    struck(&["job"], "plan or step", Holds::AloneInTheData),
    struck(&["manager"], "what it does", Holds::InTypes),
    struck(&["handler"], "what it does", Holds::InTypes),
    struck(&["helper"], "what it does", Holds::InTypes),
    struck(&["helpers"], "what they do", Holds::InTypes),
    struck(&["util"], "what it does", Holds::InTypes),
    struck(&["utils"], "what they do", Holds::InTypes),
    struck(&["impl"], "what it does", Holds::InTypes),
    struck(&["get"], "the noun alone, or a verb that says how", Holds::InFunctions),
];

/// Names that may keep a struck-out word: (end of the path, name, why).
const EXCEPTIONS: [(&str, &str, &str); 3] = [
    ("crates/protocol/src/opening.rs", "client", "the query parameter is called so"),
    ("crates/engine/src/opening.rs", "client", "the value of that parameter"),
    ("crates/engine/src/session.rs", "client", "the value of that parameter"),
];

/// The data plane's crates: there the bare words mean what they must not.
const DATA: [&str; 3] = ["crates/protocol/", "crates/engine/", "crates/backbone/"];

/// RFC 6455 calls the inside of its frames payload, and so does code that follows it word for word, here and in the benchmark's
/// own generator of load.
const RFC_FILES: [&str; 2] = ["websocket", "xtask/src/bench/"];

/// Names declared in `text` that use a struck-out word.
pub fn findings(file: &str, text: &str) -> Vec<Finding> {
    if file.starts_with("xtask/src/tidy") {
        return Vec::new();
    }
    let tokens = source::tokens(text);
    let mut findings = Vec::new();
    for declared in declared(&tokens) {
        if EXCEPTIONS.iter().any(|(path, name, _)| file.ends_with(path) && declared.name == *name) {
            continue;
        }
        if let Some(struck) = STRUCK.iter().find(|struck| struck.forbids(file, &declared)) {
            let what = format!("`{}`: not {}, write {}", declared.name, struck.words.join(" "), struck.instead);
            findings.push(Finding { file: file.to_owned(), line: declared.line, what });
        }
    }
    findings
}

impl Struck {
    fn forbids(&self, file: &str, declared: &Declared<'_>) -> bool {
        let words = words_of(declared.name);
        if self.words == ["payload"] && RFC_FILES.iter().any(|part| file.contains(part)) {
            return false;
        }
        let at = words.windows(self.words.len()).position(|part| part == self.words);
        let Some(at) = at else { return false };
        match self.holds {
            Holds::Everywhere => !(self.words == ["cluster"] && at > 0 && words[at - 1] == "redis"),
            Holds::InTypes => declared.kind == Kind::Type,
            // `get_mut` is the standard library's own pair of `get`.
            Holds::InFunctions => {
                declared.kind == Kind::Function && at == 0 && words.len() > 1 && declared.name != "get_mut"
            }
            Holds::AloneInTheData => words.len() == self.words.len() && DATA.iter().any(|data| file.starts_with(data)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Type,
    Function,
    Value,
}

/// A name that this text gives to something.
#[derive(Debug, PartialEq, Eq)]
struct Declared<'a> {
    name: &'a str,
    kind: Kind,
    line: usize,
}

/// Names that follow a keyword of declaration, and names before a single colon (fields, parameters).
fn declared<'a>(tokens: &[Token<'a>]) -> Vec<Declared<'a>> {
    let mut found = variants(tokens);
    for at in 1..tokens.len() {
        let token = &tokens[at];
        if !source::begins_a_name(token.text) {
            continue;
        }
        let kind = match tokens[at - 1].text {
            "struct" | "enum" | "trait" | "type" | "mod" | "union" => Some(Kind::Type),
            "fn" => Some(Kind::Function),
            "let" | "const" | "static" | "mut" | "ref" => Some(Kind::Value),
            _ => is_before_single_colon(tokens, at).then_some(Kind::Value),
        };
        found.extend(kind.map(|kind| Declared { name: token.text, kind, line: token.line }));
    }
    found
}

/// `name: Type`, and neither `path::name` nor `name::path`.
fn is_before_single_colon(tokens: &[Token<'_>], at: usize) -> bool {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    text(at + 1) == ":" && text(at + 2) != ":" && text(at - 1) != ":" && text(at - 1) != "'"
}

/// Names of the variants of enums: what follows the opening brace or a comma at its depth.
fn variants<'a>(tokens: &[Token<'a>]) -> Vec<Declared<'a>> {
    let starts = tokens.iter().enumerate().filter(|(_, token)| token.text == "enum").map(|(at, _)| at);
    starts.flat_map(|start| variants_of(&tokens[start..])).collect()
}

fn variants_of<'a>(tokens: &[Token<'a>]) -> Vec<Declared<'a>> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut expects_name = false;
    for token in tokens {
        match token.text {
            "{" | "(" | "[" => {
                depth += 1;
                expects_name = depth == 1 && token.text == "{";
            }
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" {
                    break;
                }
                // An attribute before a variant ends with a bracket.
                expects_name = depth == 1 && token.text == "]";
            }
            "," => expects_name = depth == 1,
            "#" => {}
            name if expects_name && source::begins_a_name(name) => {
                found.push(Declared { name, kind: Kind::Type, line: token.line });
                expects_name = false;
            }
            _ => expects_name = false,
        }
    }
    found
}

/// Parts of a name in lower case: at underscores, and where a capital follows a small letter.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && was_small) {
            words.push(String::new());
        }
        was_small = c.is_lowercase() || c.is_ascii_digit();
        if c != '_' {
            words.last_mut().expect("there is always one").extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, text: &str) -> Vec<String> {
        let names = findings(file, text).into_iter();
        names.map(|finding| finding.what.split('`').nth(1).unwrap_or_default().to_owned()).collect()
    }

    fn anywhere(text: &str) -> Vec<String> {
        check("crates/server/src/a.rs", text)
    }

    #[test]
    fn names_are_cut_at_underscores_and_capitals() {
        assert_eq!(words_of("RedisClusterSlot"), ["redis", "cluster", "slot"]);
        assert_eq!(words_of("FRAME_BYTES_MAX"), ["frame", "bytes", "max"]);
        assert_eq!(words_of("_user2list"), ["user2list"]);
    }

    #[test]
    fn a_struck_out_word_is_found_in_whatever_is_declared() {
        let text = "struct MasterNode { slave: u8 }\nenum E { A, Payload(u8), #[x] B { instance: u8 } }\n\
                    fn cluster_size(partition: u8) { let user_list = 1; const SERIAL: u8 = 1; }\n";
        let mut found = anywhere(text);
        found.sort();
        assert_eq!(
            found,
            ["MasterNode", "Payload", "SERIAL", "cluster_size", "instance", "partition", "slave", "user_list"]
        );
    }

    #[test]
    fn what_is_only_used_or_written_in_texts_is_not_a_declaration() {
        assert!(anywhere("fn f() { x.partition(y); tls::Payload::new(); // master\n g(\"slave\") }").is_empty());
        assert!(anywhere("let redis_cluster = 1; let masterpiece = 2;").is_empty());
    }

    #[test]
    fn empty_words_are_refused_in_types_and_get_in_functions() {
        assert_eq!(
            anywhere("struct ConnectionManager; mod utils; fn get_name() {} fn handler() {}"),
            ["ConnectionManager", "utils", "get_name"]
        );
        assert!(anywhere("fn get() {} fn target() {}").is_empty());
    }

    #[test]
    fn bare_words_are_struck_out_where_they_would_mislead() {
        assert_eq!(check("crates/engine/src/a.rs", "struct Client; fn f(listener: u8) {}"), ["Client", "listener"]);
        assert!(check("crates/engine/src/a.rs", "struct ClientMessage; fn client_events() {}").is_empty());
        assert!(anywhere("fn accept(listener: TcpListener) {}").is_empty());
    }

    #[test]
    fn the_codec_may_speak_as_its_rfc_does() {
        assert!(check("crates/protocol/src/websocket.rs", "let payload_bytes = 1;").is_empty());
    }
}
