//! `fulmar channels`: what is occupied, and how things stand on one channel.

use serde_json::Value;

use super::{Door, Failure, print};
use crate::args::ChannelsArgs;

pub fn channels(args: &ChannelsArgs) -> Result<(), Failure> {
    let door = Door::of(&args.target)?;
    let mut params = Vec::new();
    params.extend(args.info.as_deref().map(|info| ("info", info)));
    params.extend(args.prefix.as_deref().map(|prefix| ("filter_by_prefix", prefix)));
    let path = match &args.name {
        None => "/channels".to_owned(),
        // The characters of channel names may all stand in a path as they are.
        Some(name) if name.bytes().any(|b| !is_plain(b)) => {
            return Err(Failure::usage(format!("{name:?} is not a channel name")));
        }
        Some(name) if args.users => format!("/channels/{name}/users"),
        Some(name) => format!("/channels/{name}"),
    };
    let answer = door.call("GET", &path, &params, "")?;
    let text = match (args.json, &args.name) {
        (true, _) => format!("{answer}\n"),
        (false, None) => listing(&answer),
        (false, Some(_)) if args.users => users(&answer),
        (false, Some(name)) => format!("{}\n", line(name, &answer)),
    };
    print(&text);
    if !args.json && args.name.is_none() && text.is_empty() {
        eprintln!("no channel is occupied");
    }
    Ok(())
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_-=@,.;".contains(&b)
}

/// One line per channel of an answer with `channels`.
pub fn listing(answer: &Value) -> String {
    let channels = answer.get("channels").and_then(Value::as_object);
    channels.into_iter().flatten().map(|(name, attributes)| format!("{}\n", line(name, attributes))).collect()
}

fn line(name: &str, attributes: &Value) -> String {
    let attributes = attributes.as_object().into_iter().flatten();
    attributes.fold(name.to_owned(), |line, (attribute, value)| format!("{line}\t{attribute}={value}"))
}

fn users(answer: &Value) -> String {
    let users = answer.get("users").and_then(Value::as_array);
    users.into_iter().flatten().filter_map(|u| u.get("id")?.as_str()).map(|id| format!("{id}\n")).collect()
}
