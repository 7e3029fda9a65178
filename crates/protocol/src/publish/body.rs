//! What a body says, before anything of it is believed.
//!
//! One pass over the JSON, borrowing from it: strings are copied only when they are escaped, `data` never. Fields take
//! values of any type and remember a wrong one, so that the refusal made later can name the field. What is kept is
//! bounded however long the lists in the body are.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{BATCH_EVENTS_CEILING, PUBLISH_CHANNELS_CEILING, PublishRefusal};
use crate::query::Query;

pub(super) fn to_json(text: &str) -> String {
    serde_json::to_string(text).expect("memory takes any text")
}

pub(super) fn read_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, PublishRefusal> {
    let text = simdutf8::basic::from_utf8(body).map_err(|_| PublishRefusal::NotUtf8)?;
    serde_json::from_str(text).map_err(|error| match error.classify() {
        // Fields take any type, and are refused by name later: only an object can be missing here.
        serde_json::error::Category::Data => PublishRefusal::NotAnObject,
        _ => PublishRefusal::NotJson { line: error.line(), column: error.column() },
    })
}

/// An event as it was written. Of fields given twice the last counts.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) name: Text<'a>,
    /// JSON as it was written, of any type.
    pub(super) data: Option<Cow<'a, str>>,
    pub(super) channel: Text<'a>,
    pub(super) channels: Texts<'a>,
    pub(super) socket_id: Text<'a>,
    pub(super) info: Text<'a>,
}

impl<'a> Fields<'a> {
    pub(super) fn from_query(query: &'a Query<'_>) -> Self {
        let text = |name| query.get(name).map_or(Text::Absent, |value| Text::Is(Cow::Borrowed(value)));
        let channels: Vec<_> = query.all("channels[]").map(|name| Text::Is(Cow::Borrowed(name))).collect();
        Self {
            name: text("name"),
            data: query.get("data").map(|data| Cow::Owned(to_json(data))),
            channel: text("channel"),
            channels: match channels.len() {
                0 => Listed::Absent,
                count => Listed::Is { kept: channels, count },
            },
            socket_id: text("socket_id"),
            info: text("info"),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Name,
    Data,
    Channel,
    Channels,
    SocketId,
    Info,
    #[serde(other)]
    Unknown,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(field) = map.next_key()? {
                    match field {
                        Field::Name => fields.name = map.next_value()?,
                        Field::Data => fields.data = map.next_value::<Option<&RawValue>>()?.map(|d| d.get().into()),
                        Field::Channel => fields.channel = map.next_value()?,
                        Field::Channels => fields.channels = map.next_value()?,
                        Field::SocketId => fields.socket_id = map.next_value()?,
                        Field::Info => fields.info = map.next_value()?,
                        Field::Unknown => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// The body of `batch_events`.
pub(super) struct BatchBody<'a> {
    pub(super) batch: Listed<Fields<'a>, BATCH_EVENTS_CEILING>,
}

impl<'de: 'a, 'a> Deserialize<'de> for BatchBody<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(field_identifier, rename_all = "snake_case")]
        enum Field {
            Batch,
            #[serde(other)]
            Unknown,
        }

        struct BatchVisitor;

        impl<'de> Visitor<'de> for BatchVisitor {
            type Value = BatchBody<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a batch of events")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut body = BatchBody { batch: Listed::Absent };
                while let Some(field) = map.next_key()? {
                    match field {
                        Field::Batch => body.batch = map.next_value()?,
                        Field::Unknown => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                Ok(body)
            }
        }

        deserializer.deserialize_map(BatchVisitor)
    }
}

/// A field that should be a string. `null` is as good as absent; another type is remembered, so that the refusal can
/// say which field it is.
#[derive(Default)]
pub(super) enum Text<'a> {
    #[default]
    Absent,
    Is(Cow<'a, str>),
    Other,
}

impl Text<'_> {
    pub(super) fn optional(&self, parameter: &'static str) -> Result<Option<&str>, PublishRefusal> {
        match self {
            Self::Absent => Ok(None),
            Self::Is(text) => Ok(Some(text)),
            Self::Other => Err(PublishRefusal::NotText(parameter)),
        }
    }

    pub(super) fn required(&self, parameter: &'static str) -> Result<&str, PublishRefusal> {
        self.optional(parameter)?.ok_or(PublishRefusal::NotText(parameter))
    }
}

/// A field that should be a list. Entries beyond `CEILING` are counted and dropped.
#[derive(Default)]
pub(super) enum Listed<T, const CEILING: usize> {
    #[default]
    Absent,
    Is {
        kept: Vec<T>,
        count: usize,
    },
    Other,
}

pub(super) type Texts<'a> = Listed<Text<'a>, PUBLISH_CHANNELS_CEILING>;

/// What both kinds of field do with a value of a type that is not theirs.
macro_rules! visit_the_rest {
    ($null:expr, $other:expr) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok($null)
        }

        fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok($other)
        }

        fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
            Ok($other)
        }

        fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok($other)
        }

        fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok($other)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($other)
        }
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            visit_the_rest!(Text::Absent, Text::Other);

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text::Is(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text::Is(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text::Other)
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de, T: Deserialize<'de>, const CEILING: usize> Deserialize<'de> for Listed<T, CEILING> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const CEILING: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const CEILING: usize> Visitor<'de> for ListVisitor<T, CEILING> {
            type Value = Listed<T, CEILING>;

            visit_the_rest!(Listed::Absent, Listed::Other);

            fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Listed::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < CEILING {
                    match seq.next_element()? {
                        Some(entry) => kept.push(entry),
                        None => return Ok(Listed::Is { count: kept.len(), kept }),
                    }
                }
                let mut count = kept.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Listed::Is { kept, count })
            }
        }

        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}
