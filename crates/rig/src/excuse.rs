//! What a fault excuses, and when: who does the deed says it, and the ledger asks.
//!
//! Nothing is excused that is lost, doubled or out of order.

use std::ops::Range;

/// For a while something was the matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excuses {
    /// Nodes that were away: what passes over one of them meanwhile may be late, refused or without an answer.
    away: Vec<(usize, Range<u64>)>,
    /// The same, and their sockets ended with them.
    gone: Vec<(usize, Range<u64>)>,
    /// There may have been no path: what is sent meanwhile is held, and comes late.
    held: Vec<Range<u64>>,
    /// The same, and it may be refused in clear words.
    refused: Vec<Range<u64>>,
}

impl Excuses {
    /// These nodes, all the time.
    pub fn of_nodes(nodes: &[usize]) -> Self {
        Self { gone: nodes.iter().map(|node| (*node, 0..u64::MAX)).collect(), ..Self::default() }
    }

    /// A node was away and its sockets stood, in nanoseconds since the ledger's beginning.
    #[must_use]
    pub fn away(mut self, node: usize, span_ns: Range<u64>) -> Self {
        self.away.push((node, span_ns));
        self
    }

    /// A node was away, and its sockets ended.
    #[must_use]
    pub fn gone(mut self, node: usize, span_ns: Range<u64>) -> Self {
        self.gone.push((node, span_ns));
        self
    }

    /// Publishes may have been held.
    #[must_use]
    pub fn held(mut self, span_ns: Range<u64>) -> Self {
        self.held.push(span_ns);
        self
    }

    /// Publishes may have been held, and refused.
    #[must_use]
    pub fn refused(mut self, span_ns: Range<u64>) -> Self {
        self.refused.push(span_ns);
        self
    }

    /// Whether this node was away at any time of what lasted from then until then.
    pub fn is_away(&self, node: usize, from_ns: u64, to_ns: u64) -> bool {
        self.away.iter().chain(&self.gone).any(|(of, span)| *of == node && touches(span, from_ns, to_ns))
    }

    /// Whether this node's sockets may have ended then.
    pub fn is_gone(&self, node: usize, at_ns: u64) -> bool {
        self.gone.iter().any(|(of, span)| *of == node && span.contains(&at_ns))
    }

    /// Whether what was sent then may come late.
    pub fn is_held(&self, from_ns: u64, to_ns: u64) -> bool {
        self.held.iter().chain(&self.refused).any(|span| touches(span, from_ns, to_ns))
    }

    /// Whether what was sent then may be refused.
    pub fn is_refused(&self, from_ns: u64, to_ns: u64) -> bool {
        self.refused.iter().any(|span| touches(span, from_ns, to_ns))
    }

    /// When a publisher on this node is asked to publish: the parts of a span in which nothing excuses it.
    pub fn asked_of(&self, node: usize, span_ns: Range<u64>) -> Vec<Range<u64>> {
        let away = self.away.iter().chain(&self.gone).filter(|(of, _)| *of == node).map(|(_, span)| span);
        let mut excused: Vec<_> = away.chain(&self.held).chain(&self.refused).collect();
        excused.sort_unstable_by_key(|span| span.start);
        let (mut parts, mut from_ns) = (Vec::new(), span_ns.start);
        for span in excused {
            parts.push(from_ns..span.start.min(span_ns.end));
            from_ns = from_ns.max(span.end);
        }
        parts.push(from_ns..span_ns.end);
        parts.retain(|part| part.start < part.end);
        parts
    }
}

fn touches(span: &Range<u64>, from_ns: u64, to_ns: u64) -> bool {
    from_ns < span.end && span.start <= to_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_is_asked_for_what_nothing_excuses() {
        let excuses = Excuses::default().held(30..40).refused(35..50).gone(1, 70..u64::MAX);
        assert_eq!(excuses.asked_of(0, 10..90), [10..30, 50..90]);
        assert_eq!(excuses.asked_of(1, 10..90), [10..30, 50..70]);
        assert_eq!(excuses.asked_of(0, 32..45), []);
        assert_eq!(excuses.asked_of(0, 45..200), std::slice::from_ref(&(50..200)));
    }

    #[test]
    fn what_lasts_into_a_span_or_out_of_it_is_touched_by_it() {
        let excuses = Excuses::default().held(30..40).refused(60..70).away(1, 80..90);
        let held = [(10, 29), (10, 30), (39, 50), (40, 50), (50, 65)].map(|(from, to)| excuses.is_held(from, to));
        assert_eq!(held, [false, true, true, false, true]);
        assert!(!excuses.is_refused(30, 40) && excuses.is_refused(65, 66));
        assert!(!excuses.is_gone(1, 85) && excuses.clone().gone(1, 84..86).is_gone(1, 85));
        assert!(excuses.is_away(1, 70, 80) && !excuses.is_away(0, 70, 80) && !excuses.is_away(1, 90, 99));
    }
}
