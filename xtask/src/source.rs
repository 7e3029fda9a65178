//! Just enough of Rust's surface to find names and measure functions.
//!
//! No parser: it knows where comments, strings and braces are, and that suffices for [`crate::tidy`] and [`crate::spec`].
//! Invariant: the words of a text, in order, with line numbers that are those of the text.

use std::path::Path;

/// One piece of Rust text that is neither comment nor space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// Its text; a string literal is its opening quote alone.
    pub text: &'a str,
    /// Counted from 1.
    pub line: usize,
}

/// The tokens of `text`: names, numbers, and all else one character at a time.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while at < text.len() {
        let rest = &text[at..];
        let length = piece(rest);
        if !is_silent(rest) {
            let shown = if is_quoted(rest) { &rest[..1] } else { &rest[..length] };
            found.push(Token { text: shown, line });
        }
        line += rest[..length].matches('\n').count();
        at += length;
    }
    found
}

/// Length in bytes of the first piece of `rest`, which is not empty.
fn piece(rest: &str) -> usize {
    let first = rest.chars().next().expect("the caller stops at the end");
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if let Some(length) = raw_string(rest) {
        return length;
    }
    if first == '"' || rest.starts_with("b\"") || rest.starts_with("c\"") {
        let open = rest.find('"').expect("just seen");
        return open + quoted(&rest[open..], '"');
    }
    if first == '\'' {
        return character_or_lifetime(rest);
    }
    if is_name_char(first) {
        return rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
    }
    first.len_utf8()
}

fn is_silent(rest: &str) -> bool {
    rest.starts_with("//") || rest.starts_with("/*") || rest.starts_with(char::is_whitespace)
}

fn is_quoted(rest: &str) -> bool {
    rest.starts_with(['"', '\'']) || raw_string(rest).is_some() || rest.starts_with("b\"") || rest.starts_with("c\"")
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, `br"…"` and so on.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - body.len();
    Some(body.find(&end).map_or(rest.len(), |at| start + at + end.len()))
}

/// Length of a literal that begins and ends with `quote`, where a backslash protects the next character.
fn quoted(rest: &str, quote: char) -> usize {
    let mut protected = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if protected => protected = false,
            '\\' => protected = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// `'a'` is a character, `'a` a lifetime: the third character tells.
fn character_or_lifetime(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) | (Some(_), Some((_, '\''))) => quoted(rest, '\''),
        _ => 1,
    }
}

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its bare name.
    pub name: String,
    /// Line of its `fn`.
    pub line: usize,
    /// Lines from its `fn` to its closing brace, both included.
    pub lines: usize,
}

/// All functions of `text` that have a body, closures and macros not counted.
pub fn functions(text: &str) -> Vec<Function> {
    let tokens = tokens(text);
    let starts = tokens.windows(2).enumerate().filter(|(_, pair)| pair[0].text == "fn" && begins_a_name(pair[1].text));
    starts.filter_map(|(at, pair)| Some((pair, end_of_body(&tokens[at..])?))).map(function).collect()
}

fn function((pair, end): (&[Token<'_>], usize)) -> Function {
    Function { name: pair[1].text.to_owned(), line: pair[0].line, lines: end + 1 - pair[0].line }
}

/// Whether `text` could be declared.
pub fn begins_a_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Line of the brace that closes the function which begins `tokens`; `None` for one without a body.
fn end_of_body(tokens: &[Token<'_>]) -> Option<usize> {
    let mut braces = 0_usize;
    let mut brackets = 0_usize;
    for token in tokens {
        match token.text {
            "(" | "[" => brackets += 1,
            ")" | "]" => brackets = brackets.saturating_sub(1),
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return Some(token.line);
                }
            }
            ";" if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Line, counted from 1, where the tests of a Rust file begin; one past the end when it has none.
///
/// A file of tests alone is known by its folder, or by tests that stand outside a `#[cfg(test)]` module of their own.
pub fn tests_begin(path: &Path, text: &str) -> usize {
    let is_test = |line: &str| line.trim() == "#[test]" || line.trim().starts_with("#[tokio::test");
    let first_module = tests_module(text);
    let stands_alone = text.lines().take(first_module - 1).any(is_test);
    if stands_alone || path.components().any(|part| part.as_os_str() == "tests") || path.starts_with(CONTRACT) {
        return 1;
    }
    first_module
}

/// Tests that every backbone runs, built as a library so that all of them can.
const CONTRACT: &str = "crates/backbone/src/contract";

/// Line where a `#[cfg(test)]` module with a body begins; one past the end when there is none.
fn tests_module(text: &str) -> usize {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let opens_module = |at: usize| {
        let declaration = lines[at + 1..].iter().find(|line| !line.starts_with("#["));
        declaration.is_some_and(|line| line.starts_with("mod ") && !line.ends_with(';'))
    };
    let found = (0..lines.len()).find(|at| lines[*at] == "#[cfg(test)]" && opens_module(*at));
    found.unwrap_or(lines.len()) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_the_insides_of_strings_are_no_words() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(words(r#"g("h \" i", 'j', '\'', b"k")"#), ["g", "(", "\"", ",", "'", ",", "'", ",", "b", ")"]);
        assert_eq!(words("r#\"l \" m\"# n"), ["r", "n"]);
        assert_eq!(words("&'o str"), ["&", "'", "o", "str"]);
    }

    #[test]
    fn a_token_knows_its_line() {
        let text = "a\n\"b\nc\" d\n/*\n*/ e";
        let lines: Vec<_> = tokens(text).iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 2, 3, 5]);
    }

    #[test]
    fn a_function_is_measured_from_its_name_to_its_last_brace() {
        let text = "trait T { fn none(&self); }\nfn one() {\n  if x { \"}\" }\n}\nfn two(a: [u8; 2]) -> u8 { 1 }\n";
        let found: Vec<_> = functions(text).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("one".to_owned(), 2, 3), ("two".to_owned(), 5, 1)]);
    }

    #[test]
    fn tests_begin_at_their_module_or_are_the_whole_file() {
        let begin = |path: &str, text: &str| tests_begin(Path::new(path), text);
        assert_eq!(begin("a.rs", "a\n#[cfg(test)]\nmod tests {\n#[test]\n}\n"), 2);
        assert_eq!(begin("a.rs", "a\n#[cfg(test)]\nmod tests;\nc\n"), 5);
        assert_eq!(begin("a.rs", "a\n#[test]\nfn b() {}\n"), 1);
        assert_eq!(begin("crates/sim/tests/a.rs", "a\n"), 1);
    }
}
