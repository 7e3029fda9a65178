//! Everything a client can be refused, and what it is told.

use std::borrow::Cow;

use fulmar_protocol::close::CloseCode;
use fulmar_protocol::frame::Frame;
use fulmar_protocol::server_message;

/// Over the rate of client events; the connection stays.
pub(crate) const CLIENT_EVENT_RATE: u16 = 4301;
/// A watchlist was longer than it may be; the sign-in stands with its beginning.
pub(crate) const WATCHLIST_CUT: u16 = 4302;

/// A refusal with its text; the code is absent for most command-level errors, as on the hosted service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    message: Cow<'static, str>,
    code: Option<u16>,
    kind: Kind,
}

/// Of what kind the refusal of a subscribe is, to a channel's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It shows no right to the channel, or cannot be understood.
    Auth,
    /// There is no place: on the channel, or for the connection.
    Full,
    /// More often than may be.
    TooFast,
    /// For the moment.
    Unavailable,
}

impl Refusal {
    /// A command cannot be done; the connection stays open.
    pub(crate) fn of_command(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), code: None, kind: Kind::Auth }
    }

    /// As above with a code that SDKs show.
    pub(crate) fn with_code(code: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), code: Some(code), kind: Kind::Auth }
    }

    /// The connection ends with this code.
    pub(crate) fn closing(code: CloseCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), code: Some(code.0), kind: Kind::Auth }
    }

    pub(crate) fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn code(&self) -> Option<u16> {
        self.code
    }

    pub(crate) fn into_message(self) -> Cow<'static, str> {
        self.message
    }

    /// What a channel's listeners are told. The type of the first is the one pusher-js makes itself.
    pub(crate) fn subscription_error(&self, channel: &str) -> Frame {
        let (kind, status) = match self.kind {
            Kind::Auth => ("AuthError", 401),
            Kind::Full => ("LimitReached", 403),
            Kind::TooFast => ("LimitReached", 429),
            Kind::Unavailable => ("Unavailable", 503),
        };
        server_message::subscription_error(channel, kind, &self.message, status)
    }

    /// The `pusher:error` frame.
    pub(crate) fn frame(&self) -> Frame {
        server_message::error(&self.message, self.code)
    }
}
