//! HTTP bodies of `events` and `batch_events`, turned into publications whose frames are encoded here, once.
//!
//! The text given as `data` is never decoded: the very bytes between its quotes reach every subscriber. A call is
//! accepted or refused as a whole, so nothing leaves here until everything was checked. Counts that a call asks for
//! are only named here ([`Info`]), not counted, and nothing here answers HTTP.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use self::body::{BatchBody, Fields, Listed, Text, read_json, to_json};
use crate::app::App;
use crate::exchange::Publication;
use crate::frame::Frame;
use crate::name::{ChannelKind, ChannelName, NameError, SocketId, check_event_name};
use crate::signing::{Request, Signed};

mod body;

/// Most channels one call may name under any configuration; what comes after is counted but not kept.
pub const PUBLISH_CHANNELS_CEILING: usize = 1_000;

/// Most events one batch may carry under any configuration; what comes after is counted but not kept.
pub const BATCH_EVENTS_CEILING: usize = 1_000;

/// Most characters of a refused name or attribute that an error repeats.
const ECHO_CHARS_MAX: usize = 200;

/// A call to `events`: one event, for one or more channels.
#[derive(Debug, Clone)]
pub struct Publish {
    /// One for each distinct channel, in the order they were named.
    pub publications: Vec<Publication>,
    /// What the answer is to tell about each channel, as far as it applies ([`Info::on`]).
    pub info: Info,
}

/// One event of a batch.
#[derive(Debug, Clone)]
pub struct BatchEvent {
    /// The event.
    pub publication: Publication,
    /// What the answer is to tell about its channel, as far as it applies ([`Info::on`]).
    pub info: Info,
}

/// Attributes of a channel that a call asks for with `info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Info {
    /// Subscribed connections.
    pub subscription_count: bool,
    /// Distinct users present.
    pub user_count: bool,
    /// The event kept for later subscribers. Publishing calls do not take it.
    pub cache: bool,
}

/// An attribute that does not exist, or not for this call (HTTP 400).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid info parameter: the attribute {attribute:?} is not available here")]
pub struct UnknownAttribute {
    /// The attribute given, cut to a printable length.
    pub attribute: String,
}

impl Info {
    /// Reads a comma list of attributes; an empty list asks for nothing.
    ///
    /// # Errors
    /// Names the attribute that does not exist.
    pub fn parse(list: &str) -> Result<Self, UnknownAttribute> {
        let mut info = Self::default();
        for attribute in list.split(',').map(str::trim).filter(|attribute| !attribute.is_empty()) {
            match attribute {
                "subscription_count" => info.subscription_count = true,
                "user_count" => info.user_count = true,
                "cache" => info.cache = true,
                _ => return Err(UnknownAttribute { attribute: echo(attribute) }),
            }
        }
        Ok(info)
    }

    /// Whether nothing is asked for: the answer then has no list of channels at all.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// What of this applies to a channel of `kind`.
    #[must_use]
    pub fn on(self, kind: ChannelKind) -> Self {
        Self {
            subscription_count: self.subscription_count && kind.is_listed(),
            user_count: self.user_count && kind.is_presence(),
            cache: self.cache && kind.is_cache(),
        }
    }
}

/// Why a publish was refused. All of it is the caller's doing; coming back with the same call changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishRefusal {
    /// The body is not text.
    #[error("The request body is not valid UTF-8")]
    NotUtf8,
    /// The body is text, but not JSON.
    #[error("The request body is not valid JSON (line {line}, column {column})")]
    NotJson {
        /// Where reading stopped, from 1.
        line: usize,
        /// Where reading stopped, from 1.
        column: usize,
    },
    /// The body, or an event of a batch, is some other JSON value.
    #[error("Expected the request body, and each event of a batch, to be a JSON object")]
    NotAnObject,
    /// A parameter is missing or not a string.
    #[error("Expected {0} parameter to be a string")]
    NotText(&'static str),
    /// Neither `channels` nor `channel`, or an empty list.
    #[error("Missing parameter: channels must name at least one channel")]
    NoChannels,
    /// `channels` is something else.
    #[error("Expected channels parameter to be an array of strings")]
    NotChannels,
    /// `batch` is missing or something else.
    #[error("Expected batch parameter to be an array")]
    NotABatch,
    /// `batch` is empty.
    #[error("The batch must hold at least one event")]
    EmptyBatch,
    /// More channels than one call may name.
    #[error("The event names too many channels (at most {max} are allowed)")]
    TooManyChannels {
        /// The limit that applied.
        max: usize,
    },
    /// More events than one batch may carry.
    #[error("The batch has too many events (at most {max} are allowed)")]
    TooManyEvents {
        /// The limit that applied.
        max: usize,
    },
    /// The event's name belongs to the protocol.
    #[error("The 'pusher' namespace is reserved for internal usage")]
    ReservedName,
    /// The event's name breaks another rule.
    #[error("Invalid event name: it {0}")]
    EventName(NameError),
    /// A channel's name breaks a rule.
    #[error("Invalid channel name {name:?}: it {why}")]
    ChannelName {
        /// The name given, cut to a printable length.
        name: String,
        /// The rule.
        why: NameError,
    },
    /// Not the form that every `socket_id` has.
    #[error("Invalid socket_id: it must be two numbers joined by a dot")]
    SocketId,
    /// `info` asks for what does not exist.
    #[error(transparent)]
    Info(#[from] UnknownAttribute),
    /// More data than one event may carry.
    #[error("The data content of this event exceeds the allowed maximum ({max} bytes).")]
    DataTooLarge {
        /// The limit that applied.
        max: usize,
    },
    /// One event of a batch is at fault.
    #[error("{why} (event {number} of the batch)")]
    InBatch {
        /// Its place, from 1.
        number: usize,
        /// What is wrong with it.
        why: Box<PublishRefusal>,
    },
}

impl PublishRefusal {
    /// The HTTP status that says so.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::DataTooLarge { .. } => 413,
            Self::InBatch { why, .. } => why.status(),
            _ => 400,
        }
    }
}

/// Reads a call to `events`. With an empty body the parameters are taken from the query string.
///
/// # Errors
/// Says what is wrong with the call; nothing of it is published then.
pub fn parse_events(request: &Signed<Request<'_>>) -> Result<Publish, PublishRefusal> {
    if request.body.is_empty() {
        return publish(request.app, &Fields::from_query(request.query));
    }
    publish(request.app, &read_json(request.body)?)
}

/// Reads a call to `batch_events`: the events in the order in which they are to be delivered.
///
/// # Errors
/// Says what is wrong with the call; nothing of it is published then.
pub fn parse_batch_events(request: &Signed<Request<'_>>) -> Result<Vec<BatchEvent>, PublishRefusal> {
    publish_batch(request.app, read_json(request.body)?)
}

/// Reads a call of the deprecated form: `channel` from the path, name and `socket_id` from the query, and a body that
/// is the data itself.
///
/// # Errors
/// Says what is wrong with the call; nothing of it is published then.
pub fn parse_channel_event(request: &Signed<Request<'_>>, channel: &str) -> Result<Publish, PublishRefusal> {
    let data = simdutf8::basic::from_utf8(request.body).map_err(|_| PublishRefusal::NotUtf8)?;
    let fields = Fields {
        data: Some(Cow::Owned(to_json(data))),
        channel: Text::Is(Cow::Borrowed(channel)),
        channels: Listed::Absent,
        ..Fields::from_query(request.query)
    };
    publish(request.app, &fields)
}

fn publish(app: &App, fields: &Fields<'_>) -> Result<Publish, PublishRefusal> {
    let event = Event::check(app, fields)?;
    let channels = check_channels(app, fields)?;
    let publications = channels.into_iter().map(|channel| event.on(app, channel)).collect();
    Ok(Publish { publications, info: event.info })
}

fn publish_batch(app: &App, body: BatchBody<'_>) -> Result<Vec<BatchEvent>, PublishRefusal> {
    let Listed::Is { kept, count } = body.batch else { return Err(PublishRefusal::NotABatch) };
    let max = app.limits.batch_events_max.min(BATCH_EVENTS_CEILING);
    if count > max {
        return Err(PublishRefusal::TooManyEvents { max });
    }
    if kept.is_empty() {
        return Err(PublishRefusal::EmptyBatch);
    }
    let of_batch = |fields| {
        let event = Event::check(app, fields)?;
        let channel = check_channel(app, fields.channel.required("channel")?)?;
        Ok((event, channel))
    };
    let number = |index, why| PublishRefusal::InBatch { number: index + 1, why: Box::new(why) };
    let checked: Vec<_> = (kept.iter().enumerate())
        .map(|(index, fields)| of_batch(fields).map_err(|why| number(index, why)))
        .collect::<Result<_, _>>()?;
    let encoded = checked.into_iter().map(|(event, channel)| {
        let info = event.info;
        BatchEvent { publication: event.on(app, channel), info }
    });
    Ok(encoded.collect())
}

/// An event that passed every check but those of its channels.
struct Event<'f> {
    name: &'f str,
    /// A JSON string, quotes included.
    data: &'f str,
    except: Option<SocketId>,
    info: Info,
}

impl<'f> Event<'f> {
    fn check(app: &App, fields: &'f Fields<'_>) -> Result<Self, PublishRefusal> {
        let name = fields.name.required("name")?;
        check_event_name(name, app.limits.event_name_max).map_err(|why| match why {
            NameError::Reserved => PublishRefusal::ReservedName,
            why => PublishRefusal::EventName(why),
        })?;
        let data = fields.data.as_deref().filter(|data| data.starts_with('"'));
        let data = data.ok_or(PublishRefusal::NotText("data"))?;
        let max = app.limits.event_data_bytes_max;
        if data_exceeds(data, max) {
            return Err(PublishRefusal::DataTooLarge { max });
        }
        let except = match fields.socket_id.optional("socket_id")? {
            Some(text) => SocketId::parse(text).map_err(|_| PublishRefusal::SocketId)?,
            None => None,
        };
        let info = Info::parse(fields.info.optional("info")?.unwrap_or_default())?;
        if info.cache {
            return Err(UnknownAttribute { attribute: "cache".to_owned() }.into());
        }
        Ok(Self { name, data, except, info })
    }

    fn on(&self, app: &App, channel: ChannelName) -> Publication {
        let cached = channel.kind().is_cache();
        Publication {
            app: app.id.clone(),
            frame: self.frame(&channel),
            except: self.except,
            cache_for: cached.then(|| Duration::from_secs(app.limits.cache_ttl_s.into())),
            channel,
        }
    }

    fn frame(&self, channel: &ChannelName) -> Frame {
        const PARTS: [&str; 4] = ["{\"event\":", ",\"channel\":\"", "\",\"data\":", "}"];
        // Exact: names hold no control characters, so these two are all that JSON escapes in them.
        let escapes = self.name.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        let name_bytes = "\"\"".len() + self.name.len() + escapes;
        let fixed_bytes: usize = PARTS.iter().map(|part| part.len()).sum();
        Frame::build(fixed_bytes + name_bytes + channel.as_str().len() + self.data.len(), |buffer| {
            buffer.extend_from_slice(PARTS[0].as_bytes());
            serde_json::to_writer(&mut *buffer, self.name).expect("memory takes any text");
            // The alphabet of channel names has nothing to escape.
            for part in [PARTS[1], channel.as_str(), PARTS[2], self.data, PARTS[3]] {
                buffer.extend_from_slice(part.as_bytes());
            }
        })
    }
}

fn check_channels(app: &App, fields: &Fields<'_>) -> Result<Vec<ChannelName>, PublishRefusal> {
    let (names, count) = match &fields.channels {
        Listed::Is { kept, count } => (kept, *count),
        Listed::Other => return Err(PublishRefusal::NotChannels),
        Listed::Absent => {
            let name = fields.channel.optional("channel")?.ok_or(PublishRefusal::NoChannels)?;
            return Ok(vec![check_channel(app, name)?]);
        }
    };
    let max = app.limits.publish_channels_max.min(PUBLISH_CHANNELS_CEILING);
    if count > max {
        return Err(PublishRefusal::TooManyChannels { max });
    }
    if names.is_empty() {
        return Err(PublishRefusal::NoChannels);
    }
    let mut named = HashSet::new();
    let mut channels = Vec::with_capacity(names.len());
    for name in names {
        let Text::Is(name) = name else { return Err(PublishRefusal::NotChannels) };
        // Nearly every call names one channel, which needs no set to be distinct.
        if names.len() == 1 || named.insert(name.as_ref()) {
            channels.push(check_channel(app, name)?);
        }
    }
    Ok(channels)
}

fn check_channel(app: &App, name: &str) -> Result<ChannelName, PublishRefusal> {
    ChannelName::parse(name, app.limits.channel_name_max)
        .map_err(|why| PublishRefusal::ChannelName { name: echo(name), why })
}

fn echo(text: &str) -> String {
    text.chars().take(ECHO_CHARS_MAX).collect()
}

/// Whether valid JSON source text holds more than `max` bytes of data. A string counts by what it decodes to, since
/// some libraries escape everything beyond ASCII; any other value counts as it is written.
#[must_use]
pub fn data_exceeds(data: &str, max: usize) -> bool {
    let bytes = data.as_bytes();
    let written = match bytes {
        [b'"', written @ .., b'"'] => written,
        _ => return bytes.len() > max,
    };
    // Decoding never makes text longer, so that most data need not be looked at.
    written.len() > max && decoded_bytes(written) > max
}

/// Bytes in UTF-8 of what stands between the quotes of a valid JSON string.
fn decoded_bytes(mut written: &[u8]) -> usize {
    let mut bytes = 0;
    loop {
        let (step, width) = match written {
            [] => return bytes,
            [b'\\', b'u', rest @ ..] => match code_unit(rest) {
                0..0x80 => (6, 1),
                0x80..0x800 => (6, 2),
                // Two halves make one character; a half alone is counted as what replaces it.
                0xd800..0xdc00 if is_low_half(rest.get(4..).unwrap_or_default()) => (12, 4),
                _ => (6, 3),
            },
            [b'\\', _, ..] => (2, 1),
            _ => (1, 1),
        };
        bytes += width;
        written = written.get(step..).unwrap_or_default();
    }
}

fn code_unit(digits: &[u8]) -> u32 {
    digits.iter().take(4).fold(0, |unit, digit| unit << 4 | char::from(*digit).to_digit(16).unwrap_or(0))
}

fn is_low_half(written: &[u8]) -> bool {
    matches!(written, [b'\\', b'u', rest @ ..] if (0xdc00..0xe000).contains(&code_unit(rest)))
}

#[cfg(test)]
mod tests;
