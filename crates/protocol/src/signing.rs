//! Who may: checks signatures, and makes them for our own calls.
//!
//! Three things are signed with an app's secret: a subscription, a sign-in and an HTTP call. Whatever passed its check
//! leaves here as [`Signed`], which nobody else can make: code that asks for one cannot be reached without the check.
//! This file looks up no app and reads no clock. It never lets an expected digest, or anything else computed with a
//! secret, into an error.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::ops::Deref;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::app::{App, Secret};
use crate::name::{ChannelName, SocketId};
use crate::query::Query;

/// Seconds between `auth_timestamp` and the server's clock at which a call is refused, on either side.
pub const TIMESTAMP_SKEW_S: u64 = 600;

/// What was signed by the app's secret. Made in this file alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<T>(T);

impl<T> Signed<T> {
    /// The value without its proof.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A subscription that the application allows (protocol section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelAuth<'a> {
    /// The connection it is allowed to.
    pub socket_id: SocketId,
    /// The channel it is allowed on.
    pub channel: &'a ChannelName,
    /// What the application says about the subscriber; the text as it was signed.
    pub channel_data: Option<&'a str>,
}

/// A sign-in that the application allows (protocol section 12.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserAuth<'a> {
    /// The connection that signs in.
    pub socket_id: SocketId,
    /// Who the user is; the text as it was signed.
    pub user_data: &'a str,
}

/// An HTTP call as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The app that `auth_key` names.
    pub app: &'a App,
    /// The HTTP method.
    pub method: &'a str,
    /// The path as it came, escapes and all, without the query.
    pub path: &'a str,
    /// The parameters.
    pub query: &'a Query<'a>,
    /// The raw body.
    pub body: &'a [u8],
}

/// Why a subscription or a sign-in is not allowed. The texts are those of the hosted service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The channel needs a signature and none was given.
    #[error("Auth info required to subscribe to {channel}")]
    Missing {
        /// The channel asked for.
        channel: ChannelName,
    },
    /// Not two parts joined by a colon.
    #[error("Auth value for subscription to {channel} is invalid: should be of format 'key:signature'")]
    Malformed {
        /// The channel asked for.
        channel: ChannelName,
    },
    /// The same, at sign-in.
    #[error("Invalid format: auth must have the format key:signature")]
    MalformedSignin,
    /// Signed for another app.
    #[error("Invalid key in subscription auth data: '{key}'")]
    WrongKey {
        /// The key given.
        key: String,
    },
    /// No secret of the app makes this signature.
    #[error("Invalid signature: Expected HMAC SHA256 hex digest of {signed_text}, but got {signature}")]
    BadSignature {
        /// What should have been signed.
        signed_text: String,
        /// The signature given.
        signature: String,
    },
}

/// Why an HTTP call is not let in (HTTP 401). The texts are those of the reference verifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestAuthError {
    /// A parameter that every call (or every call with a body) must carry.
    #[error("Missing parameter: {0}")]
    Missing(&'static str),
    /// No app has this key.
    #[error("Unknown auth_key")]
    UnknownKey,
    /// The path names another app than the key does.
    #[error("The auth_key does not belong to the app of the path")]
    OtherApp,
    /// No `auth_version`.
    #[error("Version required")]
    VersionRequired,
    /// Only version 1.0 exists.
    #[error("Version not supported")]
    VersionNotSupported,
    /// No `auth_timestamp`, or one that is not a number of seconds.
    #[error("Timestamp required")]
    TimestampRequired,
    /// Signed too long ago, or by a clock that is ahead.
    #[error(
        "Timestamp expired: Given timestamp ({}) not within {TIMESTAMP_SKEW_S}s of server time ({})",
        Utc(*.given_unix_s), Utc(*.now_unix_s)
    )]
    TimestampExpired {
        /// The time the call says it was signed at.
        given_unix_s: u64,
        /// The server's time.
        now_unix_s: u64,
    },
    /// No secret of the app makes this signature.
    #[error(
        "Invalid signature: you should have sent HmacSHA256Hex({signed_text:?}, your_secret_key), \
         but you sent {signature:?}"
    )]
    BadSignature {
        /// What should have been signed.
        signed_text: String,
        /// The signature given.
        signature: String,
    },
    /// The body is not the one that was signed.
    #[error("Invalid body_md5: the MD5 of the body received is {received}, but you sent {given:?}")]
    BodyChanged {
        /// Digest of the body that came in.
        received: String,
        /// The parameter given.
        given: String,
    },
}

/// Checks that the application lets this connection on this channel. An empty `auth` counts as none: SDKs send one.
///
/// # Errors
/// Says what is wrong with `auth`, in the words of the hosted service.
pub fn check_channel_auth<'a>(
    app: &App,
    socket_id: SocketId,
    channel: &'a ChannelName,
    channel_data: Option<&'a str>,
    auth: &str,
) -> Result<Signed<ChannelAuth<'a>>, AuthError> {
    if auth.is_empty() {
        return Err(AuthError::Missing { channel: channel.clone() });
    }
    let (key, signature) = auth.split_once(':').ok_or_else(|| AuthError::Malformed { channel: channel.clone() })?;
    let asked = ChannelAuth { socket_id, channel, channel_data };
    check_socket_auth(app, &asked, key, signature)?;
    Ok(Signed(asked))
}

/// Checks that the application lets this connection sign in as the user of `user_data`.
///
/// # Errors
/// Says what is wrong with `auth`, in the words of the hosted service.
pub fn check_user_auth<'a>(
    app: &App,
    socket_id: SocketId,
    user_data: &'a str,
    auth: &str,
) -> Result<Signed<UserAuth<'a>>, AuthError> {
    let (key, signature) = auth.split_once(':').ok_or(AuthError::MalformedSignin)?;
    let asked = UserAuth { socket_id, user_data };
    check_socket_auth(app, &asked, key, signature)?;
    Ok(Signed(asked))
}

fn check_socket_auth(app: &App, text: &impl fmt::Display, key: &str, signature: &str) -> Result<(), AuthError> {
    if key != app.key.as_str() {
        return Err(AuthError::WrongKey { key: key.to_owned() });
    }
    if !is_signed(app, text, signature) {
        return Err(AuthError::BadSignature { signed_text: text.to_string(), signature: signature.to_owned() });
    }
    Ok(())
}

/// Checks the signature of an HTTP call (protocol section 13.2), as all official libraries make it.
///
/// # Errors
/// Says which check failed, in the words of the reference verifier.
pub fn verify_request(request: Request<'_>, now_unix_s: u64) -> Result<Signed<Request<'_>>, RequestAuthError> {
    check_key(&request)?;
    match request.query.get("auth_version") {
        None => return Err(RequestAuthError::VersionRequired),
        Some("1.0") => {}
        Some(_) => return Err(RequestAuthError::VersionNotSupported),
    }
    check_timestamp(request.query, now_unix_s)?;
    check_signature(&request)?;
    // Last, so that nobody without the secret can make us digest large bodies.
    check_body(request.query, request.body)?;
    Ok(Signed(request))
}

fn check_key(request: &Request<'_>) -> Result<(), RequestAuthError> {
    let app = request.app;
    if request.query.get("auth_key").ok_or(RequestAuthError::Missing("auth_key"))? != app.key.as_str() {
        return Err(RequestAuthError::UnknownKey);
    }
    // One library leaves the app out of one path; the key alone names it there.
    let named = request.path.strip_prefix("/apps/").map(|rest| rest.split_once('/').map_or(rest, |(id, _)| id));
    if named.is_some_and(|id| id != app.id.as_str()) {
        return Err(RequestAuthError::OtherApp);
    }
    Ok(())
}

fn check_timestamp(query: &Query<'_>, now_unix_s: u64) -> Result<(), RequestAuthError> {
    let given_unix_s: u64 =
        query.get("auth_timestamp").and_then(|text| text.parse().ok()).ok_or(RequestAuthError::TimestampRequired)?;
    if given_unix_s.abs_diff(now_unix_s) >= TIMESTAMP_SKEW_S {
        return Err(RequestAuthError::TimestampExpired { given_unix_s, now_unix_s });
    }
    Ok(())
}

fn check_signature(request: &Request<'_>) -> Result<(), RequestAuthError> {
    let Request { app, method, path, query, .. } = *request;
    let signature = query.get("auth_signature").ok_or(RequestAuthError::Missing("auth_signature"))?;
    let signs = |path: &str| is_signed(app, &RequestText { method, path, query }, signature);
    // Some libraries sign the path as the caller wrote it and escape it afterwards.
    if signs(path) || unescaped(path).is_some_and(|path| signs(&path)) {
        return Ok(());
    }
    let signed_text = RequestText { method, path, query }.to_string();
    Err(RequestAuthError::BadSignature { signed_text, signature: signature.to_owned() })
}

fn unescaped(path: &str) -> Option<Cow<'_, str>> {
    if path.contains('%') { percent_decode_str(path).decode_utf8().ok() } else { None }
}

fn check_body(query: &Query<'_>, body: &[u8]) -> Result<(), RequestAuthError> {
    let given = match query.get("body_md5") {
        Some(given) => given,
        None if body.is_empty() => return Ok(()),
        None => return Err(RequestAuthError::Missing("body_md5")),
    };
    let received: [u8; 16] = Md5::digest(body).into();
    if from_hex::<16>(given).is_some_and(|given| bool::from(received.ct_eq(&given))) {
        return Ok(());
    }
    Err(RequestAuthError::BodyChanged { received: to_hex(&received), given: given.to_owned() })
}

/// Signs for one app: what its own servers do, and our command line and tests.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    key: &'a str,
    secret: &'a Secret,
}

impl<'a> Signer<'a> {
    /// A signer for any app whose key and secret are known.
    #[must_use]
    pub fn new(key: &'a str, secret: &'a Secret) -> Self {
        Self { key, secret }
    }

    /// A signer with the app's present secret.
    #[must_use]
    pub fn of(app: &'a App) -> Self {
        Self::new(app.key.as_str(), &app.secret)
    }

    /// The `auth` of a subscription.
    #[must_use]
    pub fn sign_channel(&self, socket_id: SocketId, channel: &ChannelName, channel_data: Option<&str>) -> String {
        self.socket_auth(&ChannelAuth { socket_id, channel, channel_data })
    }

    /// The `auth` of a sign-in.
    #[must_use]
    pub fn sign_user(&self, socket_id: SocketId, user_data: &str) -> String {
        self.socket_auth(&UserAuth { socket_id, user_data })
    }

    fn socket_auth(&self, text: &impl fmt::Display) -> String {
        format!("{}:{}", self.key, to_hex(&digest(self.secret, text)))
    }

    /// The whole query string of an HTTP call: `params` (not escaped, arrays as `name[]`) and the signature.
    #[must_use]
    pub fn sign_request(
        &self,
        method: &str,
        path: &str,
        params: &[(&str, &str)],
        body: &[u8],
        now_unix_s: u64,
    ) -> String {
        let auth = [
            ("auth_key", Cow::Borrowed(self.key)),
            ("auth_timestamp", Cow::Owned(now_unix_s.to_string())),
            ("auth_version", Cow::Borrowed("1.0")),
        ];
        let md5 = (!body.is_empty()).then(|| ("body_md5", Cow::Owned(to_hex(&Md5::digest(body)))));
        let given = params.iter().map(|(name, value)| (*name, Cow::Borrowed(*value)));
        let query = Query::from_decoded(auth.into_iter().chain(md5).chain(given));
        let signature = to_hex(&digest(self.secret, &RequestText { method, path, query: &query }));
        let mut escaped = String::new();
        for (name, value) in query.iter().chain([("auth_signature", signature.as_str())]) {
            let separator = if escaped.is_empty() { "" } else { "&" };
            let (name, value) = (utf8_percent_encode(name, ESCAPED), utf8_percent_encode(value, ESCAPED));
            write!(escaped, "{separator}{name}={value}").expect("a String takes any text");
        }
        escaped
    }
}

/// The signature of a webhook: over the body exactly as it is sent, with the secret alone (protocol section 14.1).
#[must_use]
pub fn sign_webhook(secret: &Secret, body: &[u8]) -> String {
    let mut digesting = Hmac::<Sha256>::new_from_slice(secret.expose()).expect("a key of any length will do");
    digesting.update(body);
    to_hex(&digesting.finalize().into_bytes())
}

const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The text that is signed for a subscription.
impl fmt::Display for ChannelAuth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.socket_id, self.channel)?;
        match self.channel_data {
            Some(data) => write!(f, ":{data}"),
            None => Ok(()),
        }
    }
}

/// The text that is signed for a sign-in.
impl fmt::Display for UserAuth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::user::{}", self.socket_id, self.user_data)
    }
}

/// The text that is signed for an HTTP call.
struct RequestText<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a Query<'a>,
}

impl fmt::Display for RequestText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.method.chars() {
            f.write_char(letter.to_ascii_uppercase())?;
        }
        f.write_str("\n")?;
        f.write_str(self.path)?;
        let mut separator = "\n";
        for (name, value) in self.query.iter().filter(|(name, _)| *name != "auth_signature") {
            for part in [separator, name, "=", value] {
                f.write_str(part)?;
            }
            separator = "&";
        }
        Ok(())
    }
}

/// Whether any secret of the app signs `text` so. Time taken says nothing about how much of the signature is right.
fn is_signed(app: &App, text: &impl fmt::Display, signature: &str) -> bool {
    let Some(given) = from_hex::<32>(signature) else { return false };
    app.secrets().any(|secret| digest(secret, text).ct_eq(&given).into())
}

/// Feeds `text` to the digest piece by piece: on the way in of every publish, no string is built.
fn digest(secret: &Secret, text: &impl fmt::Display) -> [u8; 32] {
    let mut digesting = Digesting(Hmac::new_from_slice(secret.expose()).expect("a key of any length will do"));
    write!(digesting, "{text}").expect("a digest takes any text");
    digesting.0.finalize().into_bytes().into()
}

struct Digesting(Hmac<Sha256>);

impl fmt::Write for Digesting {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Seconds since 1970 as a date people can compare.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        // Counted in 400-year eras from 1 March of year 0, so that the leap day is the last of its year.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, carried) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year + carried;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests;
