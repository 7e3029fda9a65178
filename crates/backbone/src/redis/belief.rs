//! Whom to believe: which server is a group's primary.
//!
//! Every Sentinel is asked; a server is named when a majority of all of them names it, or, while nobody is followed yet, when
//! those that answer agree. A name proves nothing: the server itself must say that it is a primary and show the group's
//! identity. Sentinels are needed to change a primary, not to keep one: whoever is followed and still shows role and identity
//! stays, however many Sentinels are gone. In Redis Cluster its servers are asked instead of Sentinels. Pure.

use std::time::Duration;

/// What is older than this is no sight of anything.
pub const FRESH: Duration = Duration::from_secs(2);

/// What one Sentinel says of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelView {
    /// The primary's address.
    pub primary: String,
    /// Addresses of its replicas.
    pub replicas: Vec<String>,
    /// When it said so.
    pub seen_at: Duration,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerView {
    /// Whether it takes writes.
    pub is_primary: bool,
    /// The group whose data it has, and that group's epoch there; `None` when it has none.
    pub identity: Option<(String, u64)>,
    /// When it said so.
    pub seen_at: Duration,
}

/// Whom the Sentinels name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The server's address.
    pub address: String,
    /// Whether no fresh Sentinel names another: only then may an empty server be taken for the group's own.
    pub is_undisputed: bool,
}

/// Judges what the Sentinels say; one entry for each that is configured, `None` for one that never answered.
#[must_use]
pub fn named(now: Duration, views: &[Option<SentinelView>], is_following: bool) -> Option<Named> {
    let fresh: Vec<&str> =
        views.iter().flatten().filter(|view| now < view.seen_at + FRESH).map(|view| view.primary.as_str()).collect();
    let votes = |address: &str| fresh.iter().filter(|named| **named == address).count();
    let most = fresh.iter().max_by_key(|address| votes(address))?;
    let is_undisputed = votes(most) == fresh.len();
    let has_majority = 2 * votes(most) > views.len();
    let is_enough = has_majority || (is_undisputed && !is_following);
    is_enough
        .then(|| Named { address: (*most).to_owned(), is_undisputed: is_undisputed && (has_majority || !is_following) })
}

/// What a server of a Redis Cluster says of the owner of a group's slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The owner's address.
    pub primary: String,
    /// The configuration under which it got the slot.
    pub epoch: u64,
    /// When that was said.
    pub seen_at: Duration,
}

/// Judges what servers of a Redis Cluster say; one entry for each that is known, `None` for one that said nothing. Whom they
/// name, best first: the higher epoch, then more voices. The first that proves it is followed; whoever is followed stays while
/// nobody before it does.
#[must_use]
pub fn owners(now: Duration, claims: &[Option<Claim>], is_following: bool) -> Vec<Named> {
    let fresh: Vec<&Claim> = claims.iter().flatten().filter(|claim| now < claim.seen_at + FRESH).collect();
    let votes = |address: &str| fresh.iter().filter(|claim| claim.primary == address).count();
    let mut owners: Vec<(u64, usize, &str)> =
        fresh.iter().map(|claim| (claim.epoch, votes(&claim.primary), claim.primary.as_str())).collect();
    owners.sort_unstable_by(|one, other| other.cmp(one));
    let mut ranked: Vec<Named> = Vec::new();
    for (_, votes, address) in owners {
        if ranked.iter().all(|named| named.address != address) {
            let is_undisputed = votes == fresh.len() && (2 * votes > claims.len() || !is_following);
            ranked.push(Named { address: address.to_owned(), is_undisputed });
        }
    }
    ranked
}

/// What to do about a server that is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Follow it: it is a primary and has the group's data.
    Follow,
    /// Follow it and write the group's identity: it is a primary with no data of any group.
    Claim,
    /// It cannot be seen now.
    Unseen,
    /// It is a replica.
    IsReplica,
    /// It has the data of another group: refuse, and tell somebody.
    WrongGroup {
        /// Which.
        identity: String,
    },
}

/// Judges a server that is named for the group with this identity.
#[must_use]
pub fn judge(now: Duration, view: Option<&ServerView>, identity: &str, may_claim: bool) -> Verdict {
    let Some(view) = view.filter(|view| now < view.seen_at + FRESH) else { return Verdict::Unseen };
    match &view.identity {
        Some((found, _)) if found != identity => Verdict::WrongGroup { identity: found.clone() },
        _ if !view.is_primary => Verdict::IsReplica,
        Some(_) => Verdict::Follow,
        None if may_claim => Verdict::Claim,
        None => Verdict::Unseen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn views(named: &[&str]) -> Vec<Option<SentinelView>> {
        let view = |address: &&str| {
            (!address.is_empty()).then(|| SentinelView {
                primary: (*address).to_owned(),
                replicas: Vec::new(),
                seen_at: S(10),
            })
        };
        named.iter().map(view).collect()
    }

    fn address(named: Option<Named>) -> Option<String> {
        named.map(|named| named.address)
    }

    /// RED-7
    #[test]
    fn a_change_needs_a_majority_of_all_and_a_start_needs_no_contradiction() {
        let table: [(&[&str], bool, Option<&str>); 8] = [
            (&["a", "a", "a"], true, Some("a")),
            (&["a", "b", "b"], true, Some("b")),
            (&["b", "a", "a"], false, Some("a")),
            (&["b", "", ""], true, None),
            (&["b", "", ""], false, Some("b")),
            (&["b", "a", ""], false, None),
            (&["a", "b", "c"], false, None),
            (&["", "", ""], false, None),
        ];
        for (said, is_following, expected) in table {
            let found = address(named(S(11), &views(said), is_following));
            assert_eq!(found.as_deref(), expected, "{said:?} {is_following}");
        }
    }

    /// RED-7
    #[test]
    fn old_words_do_not_count() {
        assert_eq!(address(named(S(12), &views(&["a", "a", "a"]), true)), None);
    }

    /// RED-6
    #[test]
    fn an_empty_server_is_claimed_only_when_no_sentinel_contradicts() {
        let undisputed = |said: &[&str]| named(S(11), &views(said), true).is_some_and(|named| named.is_undisputed);
        assert!(undisputed(&["a", "a", "a"]) && undisputed(&["a", "a", ""]));
        assert!(!undisputed(&["a", "a", "b"]));
    }

    /// RED-34
    #[test]
    fn the_owner_with_the_higher_epoch_comes_first_and_one_voice_never_claims() {
        let claims = |said: &[(&str, u64)]| -> Vec<Option<Claim>> {
            let claim = |(primary, epoch): &(&str, u64)| {
                (*epoch > 0).then(|| Claim { primary: (*primary).to_owned(), epoch: *epoch, seen_at: S(10) })
            };
            said.iter().map(claim).collect()
        };
        let ranked = |said: &[(&str, u64)], is_following| -> Vec<(String, bool)> {
            let owners = owners(S(11), &claims(said), is_following);
            owners.into_iter().map(|named| (named.address, named.is_undisputed)).collect()
        };
        let named = |address: &str, is_undisputed| (address.to_owned(), is_undisputed);
        assert_eq!(ranked(&[("a", 1), ("a", 1), ("b", 7)], true), [named("b", false), named("a", false)]);
        assert_eq!(ranked(&[("a", 2), ("b", 2), ("b", 2)], false), [named("b", false), named("a", false)]);
        assert_eq!(ranked(&[("a", 1), ("a", 3), ("b", 2)], false), [named("a", false), named("b", false)]);
        assert_eq!(ranked(&[("a", 1), ("", 0), ("", 0)], false), [named("a", true)]);
        assert_eq!(ranked(&[("a", 1), ("", 0), ("", 0)], true), [named("a", false)]);
        assert_eq!(ranked(&[("a", 1), ("a", 1), ("", 0)], true), [named("a", true)]);
        assert!(owners(S(12), &claims(&[("a", 1)]), false).is_empty());
    }

    /// RED-6
    #[test]
    fn a_name_proves_nothing() {
        let view = |is_primary, identity: Option<&str>| ServerView {
            is_primary,
            identity: identity.map(|identity| (identity.to_owned(), 3)),
            seen_at: S(10),
        };
        let judged = |view: ServerView, may_claim| judge(S(11), Some(&view), "f/g1", may_claim);
        assert_eq!(judged(view(true, Some("f/g1")), false), Verdict::Follow);
        assert_eq!(judged(view(false, Some("f/g1")), true), Verdict::IsReplica);
        assert_eq!(judged(view(true, Some("f/g2")), true), Verdict::WrongGroup { identity: "f/g2".to_owned() });
        assert_eq!(judged(view(false, Some("f/g2")), true), Verdict::WrongGroup { identity: "f/g2".to_owned() });
        assert_eq!(judged(view(true, None), true), Verdict::Claim);
        assert_eq!(judged(view(true, None), false), Verdict::Unseen);
        assert_eq!(judge(S(30), Some(&view(true, Some("f/g1"))), "f/g1", true), Verdict::Unseen);
        assert_eq!(judge(S(11), None, "f/g1", true), Verdict::Unseen);
    }
}
