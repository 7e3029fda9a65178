//! `.env` files as Laravel and Node read them: `NAME=value`, quotes, comments, `${NAME}`.

use std::collections::BTreeMap;

pub fn parse(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let (text, is_literal) = unquoted(value.trim());
        let value = if is_literal { text.to_owned() } else { expanded(text, &variables) };
        variables.insert(name.trim().to_owned(), value);
    }
    variables
}

/// The text, and whether it stands as it is (single quotes).
fn unquoted(value: &str) -> (&str, bool) {
    for quote in ['"', '\''] {
        if let Some((text, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return (text, quote == '\'');
        }
    }
    (value.split_once(" #").map_or(value, |(value, _)| value).trim_end(), false)
}

fn expanded(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str(known.get(name).map_or("", String::as_str));
        rest = tail;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-35
    #[test]
    fn a_line_means_what_it_means_to_laravel() {
        let text = "# comment\nA=1\nexport B = two words # said\nC=\"x # y\"\nD='${A}'\nE=\"${A}-${NONE}${B}\"\nnothing\nF=\nG=a#b\n";
        let parsed = parse(text);
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "x # y"),
            ("D", "${A}"),
            ("E", "1-two words"),
            ("F", ""),
            ("G", "a#b"),
        ];
        assert_eq!(parsed.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    }
}
