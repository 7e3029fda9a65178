//! From text to steps. Says which line it does not understand.

use super::{AppWanted, Step, Transcript};

pub(super) fn read(name: &str, text: &str) -> Result<Transcript, String> {
    let mut lines = (1..).zip(text.lines());
    let title =
        lines.next().and_then(|(_, line)| line.strip_prefix("# ")).ok_or("1: the first line says what it shows")?;
    let mut transcript = Transcript {
        name: name.to_owned(),
        title: title.to_owned(),
        apps: vec![AppWanted { name: "main".to_owned(), settings: Vec::new() }],
        needs_time: false,
        steps: Vec::new(),
    };
    let mut cites = false;
    for (number, line) in lines {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("clauses ") {
            cites = true;
        } else if let Some(app) = line.strip_prefix("app ") {
            add_app(&mut transcript.apps, app).ok_or(format!("{number}: app NAME KEY=VALUE ..."))?;
        } else {
            let step = step(line).ok_or(format!("{number}: no such step: {line}"))?;
            transcript.needs_time |= matches!(step, Step::Wait { .. });
            transcript.steps.push((number, step));
        }
    }
    if cites { Ok(transcript) } else { Err("1: it cites no clauses".to_owned()) }
}

/// `main client_events=false allowed_origins=["a.example"]`
fn add_app(apps: &mut Vec<AppWanted>, text: &str) -> Option<()> {
    let mut words = text.split_whitespace();
    let name = words.next()?;
    let settings: Option<Vec<_>> =
        words.map(|word| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))).collect();
    match apps.iter_mut().find(|app| app.name == name) {
        Some(app) => app.settings.extend(settings?),
        None => apps.push(AppWanted { name: name.to_owned(), settings: settings? }),
    }
    Some(())
}

fn step(line: &str) -> Option<Step> {
    if let Some(rest) = line.strip_prefix("let ") {
        let (name, value) = rest.split_once(" = ")?;
        return Some(Step::Let { name: name.to_owned(), value: value.to_owned() });
    }
    if let Some(rest) = line.strip_prefix("publish ") {
        return publish(rest);
    }
    if let Some(rest) = line.strip_prefix("wait ") {
        return Some(Step::Wait { ms: milliseconds(rest)? });
    }
    if let Some((who, text)) = line.split_once("> ").filter(|(who, _)| is_name(who)) {
        return Some(Step::Say { who: who.to_owned(), text: text.to_owned() });
    }
    if let Some((who, text)) = line.split_once("< ").filter(|(who, _)| is_name(who)) {
        let who = who.to_owned();
        return Some(match text {
            "nothing" => Step::HearNothing { who },
            text => Step::Hear { who, text: text.to_owned() },
        });
    }
    if let Some((who, rest)) = line.split_once(" opens ") {
        let (target, origin) = match rest.split_once(" from ") {
            Some((target, origin)) => (target, Some(origin.to_owned())),
            None => (rest, None),
        };
        return Some(Step::Open { who: who.to_owned(), target: target.to_owned(), origin });
    }
    act(&line.split_whitespace().collect::<Vec<_>>())
}

fn act(words: &[&str]) -> Option<Step> {
    let owned = |word: &str| word.to_owned();
    Some(match words {
        [who, "connects"] => connect(who, "main", "js"),
        [who, "connects", "to", app] => connect(who, app, "js"),
        [who, "connects", "as", client] => connect(who, "main", client),
        [who, "subscribes", channel] => Step::Subscribe { who: owned(who), channel: owned(channel), member: None },
        [who, "subscribes", channel, "as", member] => {
            Step::Subscribe { who: owned(who), channel: owned(channel), member: Some(owned(member)) }
        }
        [who, "joins", channel] => Step::Join { who: owned(who), channel: owned(channel) },
        [who, "unsubscribes", channel] => Step::Say {
            who: owned(who),
            text: format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#),
        },
        [who, "leaves"] => Step::Leave { who: owned(who) },
        [who, "x", code] => Step::Closed { who: owned(who), code: code.parse().ok()? },
        _ => return None,
    })
}

fn connect(who: &str, app: &str, client: &str) -> Step {
    Step::Connect { who: who.to_owned(), app: app.to_owned(), client: client.to_owned() }
}

/// `[on APP] CHANNEL[,CHANNEL] EVENT [except WHO]: DATA`
fn publish(rest: &str) -> Option<Step> {
    let (head, data) = rest.split_once(": ").or_else(|| rest.strip_suffix(':').map(|head| (head, "")))?;
    let words: Vec<_> = head.split_whitespace().collect();
    let (app, words) = match words.as_slice() {
        ["on", app, words @ ..] => (*app, words),
        words => ("main", words),
    };
    let (channels, event, except) = match words {
        [channels, event] => (channels, event, None),
        [channels, event, "except", who] => (channels, event, Some((*who).to_owned())),
        _ => return None,
    };
    Some(Step::Publish {
        app: app.to_owned(),
        // A comma belongs to the alphabet of channel names, so several are joined with a plus.
        channels: channels.split('+').map(str::to_owned).collect(),
        event: (*event).to_owned(),
        except,
        data: data.to_owned(),
    })
}

fn milliseconds(text: &str) -> Option<u64> {
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().ok(),
        None => text.strip_suffix('s')?.parse::<u64>().ok().map(|s| s * 1_000),
    }
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let good = "# Shows.\nclauses WS-1\n\nA connects\nA> x> y\nA< nothing\npublish a+b e except A: x: y\nwait 5s\n";
        let transcript = read("t", good).expect("it is well-formed");
        assert_eq!((transcript.title.as_str(), transcript.needs_time), ("Shows.", true));
        for (bad, line) in [
            ("A connects", "1:"),
            ("# T\nA connects", "1:"),
            ("# T\nclauses WS-1\nA dances", "3:"),
            ("# T\nclauses WS-1\npublish a: x", "3:"),
            ("# T\nclauses WS-1\napp main client_events", "3:"),
        ] {
            assert!(read("t", bad).is_err_and(|why| why.starts_with(line)), "{bad}");
        }
    }
}
