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
}

impl Refusal {
    /// A command cannot be done; the connection stays open.
    pub(crate) fn of_command(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), code: None }
    }

    /// As above with a code that SDKs show.
    pub(crate) fn with_code(code: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), code: Some(code) }
    }

    /// The connection ends with this code.
    pub(crate) fn closing(code: CloseCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), code: Some(code.0) }
    }

    pub(crate) fn code(&self) -> Option<u16> {
        self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn into_message(self) -> Cow<'static, str> {
        self.message
    }

    /// The `pusher:error` frame.
    pub(crate) fn frame(&self) -> Frame {
        server_message::error(&self.message, self.code)
    }
}
