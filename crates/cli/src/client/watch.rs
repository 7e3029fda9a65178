//! `fulmar subscribe --app ID`: the same messages, through the admin API.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use serde_json::Value;

use super::connect::connect;
use super::rest::query;
use super::subscribe::{Ended, Listener};
use crate::app::remote::Remote;

/// The node shows life every 25 seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of a head, and of a refusal.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Listens until as many events as were asked for have been printed.
pub(super) fn watch(listener: &mut Listener<'_>, remote: &Remote, app: &str) -> Result<(), Ended> {
    let args = listener.args;
    let mut params = vec![("user_id", args.user_id.as_str())];
    params.extend(args.user_info.as_deref().map(|info| ("user_info", info)));
    params.extend(listener.channels.iter().skip(1).map(|channel| ("also", channel.as_str())));
    let [first, ..] = listener.channels.as_slice() else { return Ok(()) };
    let path = format!("/admin/v1/apps/{app}/channels/{first}/events{}", query(&params));

    let target = remote.target();
    let at = target.authority();
    let lost = |e: std::io::Error| format!("the connection to {at} broke: {e}");
    let mut stream = connect(target)?;
    // In HTTP/1.0 the answer is the stream itself, up to its end.
    let request = format!("GET {path} HTTP/1.0\r\n{}\r\n", remote.head());
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(lost)?;
    stream.set_read_timeout(SILENCE).map_err(lost)?;
    let mut lines = BufReader::new(stream);
    let status = status(&mut lines).map_err(lost)?;
    if status != Some(200) {
        let mut refusal = String::new();
        lines.take(ANSWER_BYTES_MAX).read_to_string(&mut refusal).map_err(lost)?;
        let refusal: Value = serde_json::from_str(&refusal).unwrap_or_default();
        let words = refusal["error"].as_str().map(str::to_owned);
        return Err(Ended::from(words.unwrap_or_else(|| format!("{at} does not answer as an admin API does"))));
    }
    for line in lines.lines() {
        let line = line.map_err(lost)?;
        let message: Value =
            serde_json::from_str(&line).map_err(|e| format!("the node said something that is not JSON: {e}"))?;
        if message["event"] == "fulmar:closed" {
            let code = message["data"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(1005);
            let reason = message["data"]["message"].as_str().unwrap_or_default().to_owned();
            return Err(Ended::Closed { code, reason });
        }
        // Nothing is asked of whoever reads: the node subscribes, and knows by the reading that somebody is there.
        let _ = listener.hear(&message, &at);
        if listener.is_done() {
            return Ok(());
        }
    }
    Err(Ended::from(format!("the connection to {at} ended")))
}

/// Reads the head; `None` when it is none.
fn status(lines: &mut impl BufRead) -> std::io::Result<Option<u16>> {
    let mut head = lines.take(ANSWER_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    while head.read_line(&mut line)? > 2 {}
    Ok(status)
}
