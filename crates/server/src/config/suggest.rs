//! Which known name somebody may have meant. Pure; only ever used to word a finding.

/// The candidate nearest to `written`, if one is near enough that naming it helps.
pub(super) fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tolerated = (written.len() / 4).clamp(2, 6);
    candidates
        .map(|c| (distance(written, c), c))
        .filter(|(d, _)| *d <= tolerated)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Letters to insert, drop or replace to come from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-2
    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_foreign_word_is_not() {
        let known = ["server.port", "server.host", "limits.connections_max"];
        assert_eq!(nearest("server.prot", known.into_iter()), Some("server.port"));
        assert_eq!(nearest("limits.connection_max", known.into_iter()), Some("limits.connections_max"));
        assert_eq!(nearest("metrics.sink", known.into_iter()), None);
    }
}
