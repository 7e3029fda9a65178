//! Close codes, and what each tells a client to do.

/// A WebSocket close code as this server sends it.
///
/// SDKs act on ranges: 4000-4099 and everything from 4300 stop for good, 4100-4199 come back after a pause,
/// 4200-4299 come back at once. A temporary condition must therefore never use the first range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

/// What SDKs do after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Do not come back (until a person acts).
    StayAway,
    /// Come back after about a second.
    BackOff,
    /// Come back immediately.
    ComeBackNow,
}

impl CloseCode {
    /// The peer said goodbye.
    pub const NORMAL: Self = Self(1000);
    /// RFC 6455: a frame broke the WebSocket protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// RFC 6455: binary data, which this protocol does not have.
    pub const UNSUPPORTED: Self = Self(1003);
    /// RFC 6455: text that is not UTF-8.
    pub const NOT_UTF8: Self = Self(1007);
    /// RFC 6455: a message larger than the limit.
    pub const TOO_BIG: Self = Self(1009);
    /// The app accepts only TLS.
    pub const TLS_ONLY: Self = Self(4000);
    /// No app has this key.
    pub const NO_SUCH_APP: Self = Self(4001);
    /// The app is disabled.
    pub const APP_DISABLED: Self = Self(4003);
    /// The app's connection quota is used up.
    pub const OVER_QUOTA: Self = Self(4004);
    /// The path is not `/app/KEY`.
    pub const NO_SUCH_PATH: Self = Self(4005);
    /// The protocol version is not spoken here.
    pub const UNSUPPORTED_PROTOCOL: Self = Self(4007);
    /// No protocol version was given.
    pub const NO_PROTOCOL: Self = Self(4008);
    /// The connection may not be here (origin, or terminated by the application).
    pub const UNAUTHORIZED: Self = Self(4009);
    /// The node is full, or this reader is too slow.
    pub const OVER_CAPACITY: Self = Self(4100);
    /// The node is going away, or lost what it needs for this socket.
    pub const RECONNECT: Self = Self(4200);
    /// A ping was not answered.
    pub const PONG_MISSED: Self = Self(4201);

    /// What SDKs do when they see this code.
    #[must_use]
    pub fn advice(self) -> Advice {
        match self.0 {
            4000..=4099 | 4300.. => Advice::StayAway,
            4200..=4299 => Advice::ComeBackNow,
            _ => Advice::BackOff,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WS-40
    #[test]
    fn only_lasting_conditions_tell_a_client_to_stay_away() {
        for lasting in [CloseCode::NO_SUCH_APP, CloseCode::APP_DISABLED, CloseCode::OVER_QUOTA, CloseCode::UNAUTHORIZED]
        {
            assert_eq!(lasting.advice(), Advice::StayAway, "{lasting:?}");
        }
        assert_eq!(CloseCode::OVER_CAPACITY.advice(), Advice::BackOff);
        for passing in [CloseCode::RECONNECT, CloseCode::PONG_MISSED] {
            assert_eq!(passing.advice(), Advice::ComeBackNow, "{passing:?}");
        }
    }
}
