//! `fulmar trigger`: publishes one event.

use serde_json::{Map, Value, json};

use super::{Door, Failure, channels, print};
use crate::args::TriggerArgs;

pub fn trigger(args: &TriggerArgs) -> Result<(), Failure> {
    let door = Door::of(&args.target)?;
    let channels: Vec<&String> = std::iter::once(&args.channel).chain(&args.also).collect();
    let mut body = Map::from_iter([
        ("name".to_owned(), json!(args.event)),
        ("channels".to_owned(), json!(channels)),
        ("data".to_owned(), json!(args.data)),
    ]);
    for (name, value) in [("socket_id", &args.socket_id), ("info", &args.info)] {
        body.extend(value.as_ref().map(|v| (name.to_owned(), json!(v))));
    }
    let answer = door.call("POST", "/events", &[], &Value::Object(body).to_string())?;
    if args.json {
        print(&format!("{answer}\n"));
    } else if answer.get("channels").is_some() {
        print(&channels::listing(&answer));
    } else {
        let names: Vec<&str> = channels.iter().map(|c| c.as_str()).collect();
        print(&format!("published {} on {}\n", args.event, names.join(" and ")));
    }
    Ok(())
}
