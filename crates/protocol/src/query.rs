//! The query string of an HTTP call, decoded once and kept in the order in which it is signed.
//!
//! Knows nothing of signatures or of single parameters. The invariant: names are lower-cased and decoded, values are
//! decoded, and the parameters stand sorted by name (arrays by their bare name, equal names as they were sent). What
//! a signature covers and what a handler reads are therefore the same values.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Most parameters one query string may hold; `channels[]` of a publish may take most of them.
pub const QUERY_PARAMETERS_MAX: usize = 256;

/// A parsed query string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Why a query string was refused (HTTP 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// More parameters than are looked at.
    #[error("The query string has more than {max} parameters")]
    TooManyParameters {
        /// The limit that applied.
        max: usize,
    },
    /// A name or value that is not text once decoded.
    #[error("The query string is not valid UTF-8")]
    NotUtf8,
}

impl<'a> Query<'a> {
    /// Reads what stands behind the `?`. Only `&` separates parameters (`;` is legal in values) and only the first `=`
    /// ends a name; a parameter without `=` has the empty value. Nothing is copied where nothing is escaped.
    ///
    /// # Errors
    /// Too many parameters, or bytes that are not UTF-8.
    pub fn parse(raw: &'a str) -> Result<Self, QueryError> {
        let mut parameters = Vec::with_capacity(8);
        for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
            if parameters.len() == QUERY_PARAMETERS_MAX {
                return Err(QueryError::TooManyParameters { max: QUERY_PARAMETERS_MAX });
            }
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            parameters.push((lower_case(decode(name)?), decode(value)?));
        }
        Ok(Self::sorted(parameters))
    }

    /// Takes values that are not escaped, for signing.
    pub(crate) fn from_decoded(parameters: impl Iterator<Item = (&'a str, Cow<'a, str>)>) -> Self {
        Self::sorted(parameters.map(|(name, value)| (lower_case(Cow::Borrowed(name)), value)).collect())
    }

    fn sorted(mut parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Self {
        // The reference verifier sorts arrays by their bare name and writes the brackets afterwards.
        parameters.sort_by(|(a, _), (b, _)| bare(a).cmp(bare(b)));
        Self { parameters }
    }

    /// The first value of a parameter. `name` is lower case; an array's name ends in `[]`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a parameter, as they were sent.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All parameters, decoded, in the order in which they are signed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

fn bare(name: &str) -> &str {
    name.strip_suffix("[]").unwrap_or(name)
}

fn lower_case(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) { Cow::Owned(name.to_ascii_lowercase()) } else { name }
}

fn decode(text: &str) -> Result<Cow<'_, str>, QueryError> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let bytes: Vec<u8> = percent_decode(spaced.as_bytes()).collect();
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| QueryError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(raw: &str) -> Vec<(String, String)> {
        let query = Query::parse(raw).expect("a good query");
        query.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// HTTP-11, trap T-34
    #[test]
    fn only_ampersands_and_the_first_equals_sign_separate() {
        let table: [(&str, &[(&str, &str)]); 7] = [
            ("", &[]),
            ("a=1&&b", &[("a", "1"), ("b", "")]),
            ("prefix=presence-a=@,.;x", &[("prefix", "presence-a=@,.;x")]),
            ("info=a%2Cb&q=x+y%2Bz", &[("info", "a,b"), ("q", "x y+z")]),
            ("Z=1&Info=2", &[("info", "2"), ("z", "1")]),
            ("bad=%zz&%", &[("%", ""), ("bad", "%zz")]),
            (
                "channels%5B%5D=b&channels0=x&channels[]=a",
                &[("channels[]", "b"), ("channels[]", "a"), ("channels0", "x")],
            ),
        ];
        for (raw, expected) in table {
            let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(pairs(raw), expected, "{raw}");
        }
    }

    /// HTTP-11
    #[test]
    fn an_unescaped_query_is_not_copied() {
        let query = Query::parse("auth_key=k&info=a,b").expect("a good query");
        assert!(query.parameters.iter().all(|(n, v)| matches!((n, v), (Cow::Borrowed(_), Cow::Borrowed(_)))));
    }

    /// HTTP-11
    #[test]
    fn too_many_parameters_and_bytes_that_are_not_text_are_refused() {
        let full = vec!["a=1"; QUERY_PARAMETERS_MAX].join("&");
        assert!(Query::parse(&full).is_ok());
        let over = Query::parse(&format!("{full}&a")).map(|_| ());
        assert_eq!(over, Err(QueryError::TooManyParameters { max: QUERY_PARAMETERS_MAX }));
        assert_eq!(Query::parse("a=%ff").map(|_| ()), Err(QueryError::NotUtf8));
    }

    proptest! {
        /// HTTP-11
        #[test]
        fn any_text_is_read_or_refused(raw in ".{0,200}") {
            let _ = Query::parse(&raw);
        }
    }
}
