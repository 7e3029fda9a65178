//! Names that come from outside: channels, events, users, sockets; and the rules that make them valid.
//!
//! A value of one of these types has passed its rules. None of them knows an application's own limits: the caller
//! passes the limit in, because limits can be changed per app while the node runs.

use std::fmt;
use std::sync::Arc;

/// Longest channel name any configuration may allow, in bytes (SDKs refuse more than 200 by themselves).
pub const CHANNEL_NAME_CEILING: usize = 200;

const SERVER_TO_USER_PREFIX: &str = "#server-to-user-";

/// What a channel's name says about it (protocol section 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// Anybody may subscribe.
    Public,
    /// Subscribing needs a signature of the application.
    Private,
    /// Private, and members see each other.
    Presence,
    /// Private; event data is sealed between publisher and subscribers.
    PrivateEncrypted,
    /// Public; the last event is replayed to whoever subscribes.
    Cache,
    /// Private with replay of the last event.
    PrivateCache,
    /// Presence with replay of the last event.
    PresenceCache,
    /// Encrypted with replay of the last event.
    PrivateEncryptedCache,
    /// Events for one signed-in user.
    ServerToUser,
}

impl ChannelKind {
    /// The kind that `name` announces by its prefix. Order matters: `private-encrypted-` also begins with `private-`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if let Some(rest) = name.strip_prefix("private-") {
            return match rest {
                r if r.starts_with("encrypted-cache-") => Self::PrivateEncryptedCache,
                r if r.starts_with("encrypted-") => Self::PrivateEncrypted,
                r if r.starts_with("cache-") => Self::PrivateCache,
                _ => Self::Private,
            };
        }
        if let Some(rest) = name.strip_prefix("presence-") {
            return if rest.starts_with("cache-") { Self::PresenceCache } else { Self::Presence };
        }
        match name {
            n if n.starts_with("cache-") => Self::Cache,
            n if n.starts_with(SERVER_TO_USER_PREFIX) => Self::ServerToUser,
            _ => Self::Public,
        }
    }

    /// Whether a subscription must carry a signature.
    #[must_use]
    pub fn needs_auth(self) -> bool {
        !matches!(self, Self::Public | Self::Cache | Self::ServerToUser)
    }

    /// Whether subscribers are members whom the others see.
    #[must_use]
    pub fn is_presence(self) -> bool {
        matches!(self, Self::Presence | Self::PresenceCache)
    }

    /// Whether the last published event is kept for later subscribers.
    #[must_use]
    pub fn is_cache(self) -> bool {
        matches!(self, Self::Cache | Self::PrivateCache | Self::PresenceCache | Self::PrivateEncryptedCache)
    }

    /// Whether event data is sealed; some SDKs then try to decrypt everything on the channel.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::PrivateEncrypted | Self::PrivateEncryptedCache)
    }

    /// Whether members of the channel may send each other `client-` events.
    #[must_use]
    pub fn takes_client_events(self) -> bool {
        matches!(self, Self::Private | Self::PrivateCache | Self::Presence | Self::PresenceCache)
    }

    /// Whether the channel shows in counts, listings and webhooks.
    #[must_use]
    pub fn is_listed(self) -> bool {
        self != Self::ServerToUser
    }
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// More bytes or characters than allowed.
    #[error("is longer than {max} characters")]
    TooLong {
        /// The limit that applied.
        max: usize,
    },
    /// A character outside the allowed set.
    #[error("contains the character {0:?}, which is not allowed")]
    Character(char),
    /// Event names beginning with `pusher` are the protocol's own.
    #[error("begins with 'pusher', which is reserved")]
    Reserved,
}

/// A valid channel name. Cheap to clone; compared and hashed by its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// Accepts the documented alphabet, and `#` only in the server-to-user form.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn parse(name: &str, max: usize) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > max {
            return Err(NameError::TooLong { max });
        }
        let body = match name.strip_prefix(SERVER_TO_USER_PREFIX) {
            Some("") => return Err(NameError::Empty),
            Some(user) => user,
            None => name,
        };
        match body.chars().find(|c| !is_channel_char(*c)) {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(name.into())),
        }
    }

    /// The text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the name says about the channel.
    #[must_use]
    pub fn kind(&self) -> ChannelKind {
        ChannelKind::of(&self.0)
    }

    /// The user a server-to-user channel belongs to.
    #[must_use]
    pub fn server_to_user(&self) -> Option<&str> {
        self.0.strip_prefix(SERVER_TO_USER_PREFIX)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn is_channel_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '=' | '@' | ',' | '.' | ';')
}

/// Checks the name of an event published over HTTP: real applications use any printable text (Laravel sends
/// `App\Events\OrderShipped`), only the `pusher` prefix is the protocol's own.
///
/// # Errors
/// Says which rule the name breaks.
pub fn check_event_name(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().count() > max {
        return Err(NameError::TooLong { max });
    }
    if let Some(c) = name.chars().find(|c| c.is_control()) {
        return Err(NameError::Character(c));
    }
    if name.starts_with("pusher") {
        return Err(NameError::Reserved);
    }
    Ok(())
}

/// A user of the application, as presence and sign-in name them. Numbers arrive as their literal text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Accepts any non-empty text without control characters of at most `max` characters.
    ///
    /// # Errors
    /// Says which rule the id breaks.
    pub fn parse(id: &str, max: usize) -> Result<Self, NameError> {
        if id.is_empty() {
            return Err(NameError::Empty);
        }
        if id.chars().count() > max {
            return Err(NameError::TooLong { max });
        }
        match id.chars().find(|c| c.is_control()) {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(id.into())),
        }
    }

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The public name of one connection: two numbers joined by a dot. It is a capability (whoever knows it can be named
/// in an exclusion and in signatures), so the halves together carry at least 64 random bits and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId(u64, u64);

impl SocketId {
    /// Joins two halves, which the caller drew at random.
    #[must_use]
    pub fn new(first: u64, second: u64) -> Self {
        Self(first, second)
    }

    /// The two halves, as [`SocketId::new`] takes them.
    #[must_use]
    pub fn parts(self) -> (u64, u64) {
        (self.0, self.1)
    }

    /// A number below `span`, spread evenly over all ids: the randomness of the id put to a second use.
    #[must_use]
    pub fn spread(self, span: u64) -> u64 {
        let mixed = (self.0 ^ self.1.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        u64::try_from((u128::from(mixed) * u128::from(span)) >> 64).expect("below span")
    }

    /// Reads the `digits.digits` form. `Ok(None)` is well-formed text that no connection of ours can have.
    ///
    /// # Errors
    /// The text is not of that form.
    pub fn parse(text: &str) -> Result<Option<Self>, MalformedSocketId> {
        let (first, second) = text.split_once('.').ok_or(MalformedSocketId)?;
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(first) || !digits(second) {
            return Err(MalformedSocketId);
        }
        // A leading zero or an overflowing half is legal text, but never an id that was handed out.
        let canonical = |s: &str| if s.len() > 1 && s.starts_with('0') { None } else { s.parse().ok() };
        Ok(canonical(first).zip(canonical(second)).map(|(a, b)| Self(a, b)))
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A `socket_id` that is not two numbers joined by a dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a socket_id is two numbers joined by a dot")]
pub struct MalformedSocketId;

#[cfg(test)]
mod tests {
    use super::*;

    /// WS-45
    #[test]
    fn the_prefix_decides_the_kind_and_the_longest_prefix_wins() {
        let table = [
            ("private-encrypted-cache-a", ChannelKind::PrivateEncryptedCache),
            ("private-encrypted-a", ChannelKind::PrivateEncrypted),
            ("private-cache-a", ChannelKind::PrivateCache),
            ("private-a", ChannelKind::Private),
            ("presence-cache-a", ChannelKind::PresenceCache),
            ("presence-a", ChannelKind::Presence),
            ("cache-a", ChannelKind::Cache),
            ("#server-to-user-7", ChannelKind::ServerToUser),
            ("Private-a", ChannelKind::Public),
            ("privateer", ChannelKind::Public),
        ];
        for (name, kind) in table {
            assert_eq!(ChannelKind::of(name), kind, "{name}");
        }
    }

    /// WS-44
    #[test]
    fn channel_names_take_the_documented_alphabet_and_nothing_else() {
        for good in ["a", "A-z_0=@,.;9", "private-x", "#server-to-user-u-42"] {
            assert!(ChannelName::parse(good, 164).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "a#b", "#x", "#server-to-user-", "#server-to-user-a#", "ü", "a\n"] {
            assert!(ChannelName::parse(bad, 164).is_err(), "{bad:?}");
        }
        assert!(ChannelName::parse(&"a".repeat(164), 164).is_ok());
        assert_eq!(ChannelName::parse(&"a".repeat(165), 164), Err(NameError::TooLong { max: 164 }));
    }

    /// HTTP-23
    #[test]
    fn event_names_are_any_printable_text_outside_the_reserved_prefix() {
        for good in ["e", "App\\Events\\OrderShipped", "päivä", "client-x", "a.b:c d"] {
            assert_eq!(check_event_name(good, 200), Ok(()), "{good}");
        }
        assert_eq!(check_event_name("pusher-notification", 200), Err(NameError::Reserved));
        assert_eq!(check_event_name("pusher:x", 200), Err(NameError::Reserved));
        assert!(check_event_name("", 200).is_err());
        assert!(check_event_name("a\u{7}", 200).is_err());
        assert!(check_event_name(&"é".repeat(200), 200).is_ok());
        assert!(check_event_name(&"é".repeat(201), 200).is_err());
    }

    /// WS-19
    #[test]
    fn a_socket_id_is_two_numbers_and_prints_as_it_was_read() {
        let id = SocketId::new(123_456, 7_890_123);
        assert_eq!(SocketId::parse(&id.to_string()), Ok(Some(id)));
        assert_eq!(SocketId::parse("151004717.3505838415").map(|i| i.is_some()), Ok(true));
        assert_eq!(SocketId::parse("1.99999999999999999999999"), Ok(None));
        assert_eq!(SocketId::parse("01.2"), Ok(None));
        for bad in ["", "1", "1.", ".1", "1.2.3", "-1.2", "a.b", "1.2 ", "1,2"] {
            assert_eq!(SocketId::parse(bad), Err(MalformedSocketId), "{bad}");
        }
    }
}
