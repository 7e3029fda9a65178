//! Which publications were delivered here already: what lets every publication travel more than one path.
//!
//! Identities are remembered for [`REMEMBERED`] as one bit each, in pieces of [`PIECE`] counters per origin. What is older
//! than an origin's oldest piece counts as delivered: every path is complete from its beginning, so whatever comes that late
//! came before. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use fulmar_protocol::exchange::Identity;
use hashbrown::HashMap;

/// How long an identity is remembered at least.
pub const REMEMBERED: Duration = Duration::from_secs(90);
/// Counters in one piece.
const PIECE: u64 = 1 << 14;
const WORDS: usize = (PIECE / 64) as usize;
/// Pieces one origin may have, 2 MiB: an origin that publishes more than that in [`REMEMBERED`] is remembered for less.
const PIECES_MAX: usize = 1_024;
/// An origin that nothing came from for this long is forgotten as a whole.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// Identities of the last while.
#[derive(Default)]
pub struct Seen {
    origins: HashMap<u64, Origin>,
    repeats: u64,
}

#[derive(Default)]
struct Origin {
    pieces: BTreeMap<u64, Piece>,
    /// Pieces before this one were there and are forgotten.
    floor: u64,
    touched: Duration,
}

struct Piece {
    bits: Box<[u64; WORDS]>,
    touched: Duration,
}

impl Seen {
    /// Notes an identity; true when it is here for the first time.
    pub fn note(&mut self, now: Duration, identity: Identity) -> bool {
        let origin = self.origins.entry(identity.origin).or_default();
        origin.touched = now;
        let at = identity.counter / PIECE;
        let is_new = at >= origin.floor && {
            let piece = origin.pieces.entry(at).or_insert_with(|| Piece { bits: Box::new([0; WORDS]), touched: now });
            piece.touched = now;
            let bit = identity.counter % PIECE;
            let word = &mut piece.bits[usize::try_from(bit / 64).expect("a piece is small")];
            let was = *word;
            *word |= 1 << (bit % 64);
            was != *word
        };
        if origin.pieces.len() > PIECES_MAX {
            origin.forget_first();
        }
        self.repeats += u64::from(!is_new);
        is_new
    }

    /// Whether this identity was noted before, or is older than memory.
    #[must_use]
    pub fn knows(&self, identity: Identity) -> bool {
        let at = identity.counter / PIECE;
        let bit = identity.counter % PIECE;
        self.origins.get(&identity.origin).is_some_and(|origin| {
            let word = |piece: &Piece| piece.bits[usize::try_from(bit / 64).expect("a piece is small")];
            at < origin.floor || origin.pieces.get(&at).is_some_and(|piece| word(piece) & (1 << (bit % 64)) != 0)
        })
    }

    /// Repeats so far.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Forgets what is old. To be called every few seconds.
    pub fn sweep(&mut self, now: Duration) {
        for origin in self.origins.values_mut() {
            while origin.pieces.len() > 1
                && origin.pieces.first_key_value().is_some_and(|(_, piece)| now >= piece.touched + REMEMBERED)
            {
                origin.forget_first();
            }
        }
        self.origins.retain(|_, origin| now < origin.touched + FORGOTTEN);
    }
}

impl Origin {
    fn forget_first(&mut self) {
        if let Some((at, _)) = self.pieces.pop_first() {
            self.floor = at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(counter: u64) -> Identity {
        Identity { origin: 7, counter }
    }

    const S: fn(u64) -> Duration = Duration::from_secs;

    /// RED-2
    #[test]
    fn a_publication_is_new_once_in_whatever_order_it_comes() {
        let mut seen = Seen::default();
        for counter in [5, 1, 100_000, 2, 3, 99_999] {
            assert!(seen.note(S(0), at(counter)), "{counter}");
            assert!(!seen.note(S(0), at(counter)), "{counter}");
            assert!(seen.knows(at(counter)) && !seen.knows(at(counter + 10)), "{counter}");
        }
        assert!(seen.note(S(0), Identity { origin: 8, counter: 5 }), "origins do not meet");
        assert_eq!(seen.repeats(), 6);
    }

    /// RED-2
    #[test]
    fn what_is_older_than_memory_counts_as_delivered() {
        let mut seen = Seen::default();
        seen.note(S(0), at(1));
        seen.note(S(50), at(PIECE));
        seen.sweep(S(89));
        assert!(seen.note(S(89), at(2)), "within the time everything is known");
        seen.note(S(100), at(PIECE + 1));
        seen.sweep(S(180));
        assert!(!seen.note(S(180), at(2)) && !seen.note(S(180), at(3)), "afterwards nothing comes twice");
        assert!(seen.knows(at(4)), "what is older than memory has come");
        assert!(seen.note(S(180), at(PIECE + 2)));
    }

    /// RED-2
    #[test]
    fn memory_is_bounded_however_much_an_origin_publishes() {
        let mut seen = Seen::default();
        for piece in 0..2 * PIECES_MAX as u64 {
            assert!(seen.note(S(0), at(piece * PIECE)));
        }
        assert!(seen.origins[&7].pieces.len() <= PIECES_MAX);
        seen.sweep(FORGOTTEN);
        assert!(seen.origins.is_empty());
    }
}
