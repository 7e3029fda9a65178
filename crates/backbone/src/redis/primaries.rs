//! Who is believed to be the primary of each group, for whoever has connections of its own.

/// A server that was believed at the moment it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// `host:port`.
    pub address: String,
    /// The group's identity, which scripts check.
    pub identity: String,
    /// Run id of the server.
    pub run: String,
    /// The highest epoch known.
    pub epoch: u64,
}
