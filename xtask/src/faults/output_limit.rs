//! A server that ends its subscribers because they do not read as fast as it writes: its own deed, by its own limit.
//!
//! The limit is lowered to next to nothing, and the app's own servers publish in batches that are larger than what a server keeps for
//! a connection beside the limit. Nothing is killed by hand, and whether the server did it is read from its log.

use std::time::{Duration, Instant};

use fulmar_rig::http::Rest;
use fulmar_rig::{Redis, Value};

use super::deeds::server_at;
use super::stage::{Done, Stage, app, failure};
use crate::project::Failure;

const LIMIT: &str = "client-output-buffer-limit";
/// What a server writes for each connection that it ends.
const WORDS: &str = "overcoming of output buffer limits";
const ROUNDS: usize = 5;
/// An app's limits: events of a batch, and bytes of one.
const BATCH: usize = 10;
const EVENT_BYTES: usize = 10_000;
/// Batches come until the server has ended somebody, and no longer than this.
const ROUND_MAX: Duration = Duration::from_secs(5);

/// Five times, on one primary.
pub fn drop_subscribers(stage: &mut Stage) -> Done {
    stage.settle()?;
    let group = stage.any_group();
    let port = stage.primary(group)?.redis.port();
    let before = endings(server_at(stage, port)?);
    for _ in 0..ROUNDS {
        if !drop_some(stage, port)? {
            stage.wrong(format!("the primary of {group} ended no subscriber: nothing was tried"));
            break;
        }
        let pause = stage.chance.u64(300..1_000);
        stage.wait(Duration::from_millis(pause))?;
    }
    let ended = endings(server_at(stage, port)?) - before;
    stage.note(format!("the primary of {group} ended {ended} subscribers by its output limit, in {ROUNDS} rounds"));
    stage.go_on(8, 4)
}

/// Lowers the limit until a subscriber was ended, and puts it back. Whether one was.
fn drop_some(stage: &Stage, port: u16) -> Result<bool, Failure> {
    let redis = server_at(stage, port)?;
    let before = endings(redis);
    let limits = redis.call(&["CONFIG", "GET", LIMIT]).map_err(failure)?.list().get(1).map(Value::text);
    let limits = limits.ok_or_else(|| Failure("a server does not know its limits".to_owned()))?;
    redis.call(&["CONFIG", "SET", LIMIT, "pubsub 1 0 0"]).map_err(failure)?;
    let ended = publish_until(stage, || endings(redis) > before);
    redis.call(&["CONFIG", "SET", LIMIT, &limits]).map_err(failure)?;
    ended
}

/// Batches over all channels, so that some pass through whatever server is meant.
fn publish_until(stage: &Stage, is_over: impl Fn() -> bool) -> Result<bool, Failure> {
    let mut rest = Rest::new(stage.nodes[0].addr(), &app());
    let begun = Instant::now();
    for channels in stage.load().names().chunks(BATCH).cycle() {
        if is_over() {
            return Ok(true);
        }
        if begun.elapsed() > ROUND_MAX {
            return Ok(false);
        }
        let answer = rest.post("batch_events", &batch(channels), None).map_err(failure)?;
        if answer.status != 200 {
            return Err(Failure(format!("a batch was answered {answer:?}")));
        }
        stage.wait(Duration::from_millis(20))?;
    }
    Ok(false)
}

/// The body that publishes a large event on each of these channels. Subscribers of the load see that it is none of its own.
fn batch(channels: &[String]) -> String {
    let data = "x".repeat(EVENT_BYTES);
    let event = |channel: &String| format!(r#"{{"name":"e","channel":"{channel}","data":"{data}"}}"#);
    let events: Vec<_> = channels.iter().map(event).collect();
    format!(r#"{{"batch":[{}]}}"#, events.join(","))
}

/// How many connections a server says it has ended so.
fn endings(redis: &Redis) -> usize {
    redis.log().matches(WORDS).count()
}

#[cfg(test)]
mod tests {
    use fulmar_rig::{RedisOptions, Resp, RigError};

    use super::*;

    #[test]
    fn a_server_that_ends_a_subscriber_by_its_limit_says_so() -> Result<(), RigError> {
        if !fulmar_rig::is_available() {
            return Ok(());
        }
        let redis = Redis::start(&RedisOptions::default())?;
        let mut subscriber = Resp::connect(redis.addr(), Duration::from_secs(3))?;
        subscriber.call(&["SUBSCRIBE", "c"])?;
        redis.call(&["PUBLISH", "c", &"x".repeat(EVENT_BYTES * BATCH)])?;
        assert_eq!(endings(&redis), 0);
        redis.call(&["CONFIG", "SET", LIMIT, "pubsub 1 0 0"])?;
        redis.call(&["PUBLISH", "c", &"x".repeat(EVENT_BYTES * BATCH)])?;
        fulmar_rig::eventually("it is written", Duration::from_secs(3), || (endings(&redis) == 1).then_some(()))
    }

    #[test]
    fn a_batch_is_what_an_app_may_send() {
        let body: serde_json::Value = serde_json::from_str(&batch(&["a".to_owned(), "b".to_owned()])).unwrap();
        assert_eq!(body["batch"][1]["channel"], "b");
        assert_eq!(body["batch"][0]["data"].as_str().unwrap().len(), EVENT_BYTES);
    }
}
