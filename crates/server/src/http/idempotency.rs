//! Remembers publishing calls by their `Idempotency-Key`, so that a repeat is answered and not published again.
//!
//! Holds answers, not events; knows neither HTTP headers nor the backbone. The invariant: between the moment a key is
//! taken and [`Claim::finish`] or the claim's end there is exactly one call that may publish under that key, and a claim
//! never outlives its call.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fulmar_protocol::app::AppId;
use hashbrown::HashMap;
use hyper::StatusCode;
use tokio::sync::watch;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// How long an accepted call is remembered.
pub const REMEMBERED_MS: u64 = 120_000;

/// Bytes of keys and answers remembered per app; beyond it the oldest go. Most answers are the shared `{}`.
pub const REMEMBERED_BYTES_MAX: usize = 8 << 20;

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// The calls of all apps that carried a key.
#[derive(Debug)]
pub struct Remembered {
    apps: Mutex<HashMap<AppId, Calls>>,
    keys_max: usize,
    forgotten_early: AtomicU64,
}

/// What is known of a key.
#[derive(Debug)]
pub enum Known {
    /// Nothing: the caller now holds the key and must publish.
    New(Claim),
    /// It was published and answered so.
    Before(Answered),
    /// Another call holds it. The receiver closes when that call ends; then ask again.
    InProgress(watch::Receiver<()>),
    /// It was used for a different call.
    Different,
    /// As many calls are in progress as may be remembered.
    Full,
}

#[derive(Debug, Default)]
struct Calls {
    by_key: HashMap<Box<[u8]>, Call>,
    /// Finished calls, oldest first; also in the order they lapse, because all are remembered equally long.
    finished: VecDeque<(u64, Box<[u8]>)>,
    bytes: usize,
}

#[derive(Debug)]
struct Call {
    fingerprint: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    InProgress(watch::Receiver<()>),
    Finished(Answered),
}

impl Remembered {
    /// Remembers at most `keys_max` finished calls per app, and lets as many be in progress.
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        Self { apps: Mutex::default(), keys_max, forgotten_early: AtomicU64::new(0) }
    }

    /// Whether keys are remembered at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.keys_max > 0
    }

    /// Calls forgotten before their time because the memory was full.
    #[must_use]
    pub fn forgotten_early(&self) -> u64 {
        self.forgotten_early.load(Ordering::Relaxed)
    }

    /// Looks `key` up and takes it when it is free. `fingerprint` tells calls apart that share a key by mistake.
    #[must_use]
    pub fn claim(self: &Arc<Self>, app: &AppId, key: &[u8], fingerprint: u64, now_ms: u64) -> Known {
        let mut apps = self.lock();
        let calls = apps.entry(app.clone()).or_default();
        calls.forget_lapsed(now_ms);
        match calls.by_key.get(key) {
            Some(call) if call.fingerprint != fingerprint => return Known::Different,
            Some(Call { state: State::Finished(answered), .. }) => return Known::Before(answered.clone()),
            Some(Call { state: State::InProgress(ended), .. }) => return Known::InProgress(ended.clone()),
            None if calls.by_key.len() - calls.finished.len() >= self.keys_max => return Known::Full,
            None => {}
        }
        let (ends, ended) = watch::channel(());
        calls.by_key.insert(key.into(), Call { fingerprint, state: State::InProgress(ended) });
        Known::New(Claim { memory: Arc::clone(self), app: app.clone(), key: key.into(), finished: false, _ends: ends })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AppId, Calls>> {
        // Nothing inside panics half-way through a change, so what a poisoned lock guards is still whole.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    fn forget_lapsed(&mut self, now_ms: u64) {
        while self.finished.front().is_some_and(|(lapses_ms, _)| *lapses_ms <= now_ms) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.finished.pop_front() else { return };
        if let Some(Call { state: State::Finished(answered), .. }) = self.by_key.remove(&key) {
            self.bytes -= cost(&key, &answered);
        }
    }
}

/// What one remembered call weighs, with a flat allowance for the tables around it.
fn cost(key: &[u8], answered: &Answered) -> usize {
    128 + 2 * key.len() + answered.body.len()
}

/// The right to publish under a key. Dropped without [`Claim::finish`], the key is free again at once.
#[derive(Debug)]
pub struct Claim {
    memory: Arc<Remembered>,
    app: AppId,
    key: Box<[u8]>,
    finished: bool,
    // Dropped last, after the table tells the outcome: whoever waits for it then finds that outcome.
    _ends: watch::Sender<()>,
}

impl Claim {
    /// Remembers the answer of the accepted call.
    pub fn finish(mut self, answered: Answered, now_ms: u64) {
        self.finished = true;
        let mut apps = self.memory.lock();
        let Some(calls) = apps.get_mut(&self.app) else { return };
        let Some(call) = calls.by_key.get_mut(&self.key) else { return };
        calls.bytes += cost(&self.key, &answered);
        call.state = State::Finished(answered);
        calls.finished.push_back((now_ms.saturating_add(REMEMBERED_MS), self.key.clone()));
        while calls.finished.len() > self.memory.keys_max || calls.bytes > REMEMBERED_BYTES_MAX {
            calls.forget_oldest();
            self.memory.forgotten_early.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Some(calls) = self.memory.lock().get_mut(&self.app) {
            calls.by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppId {
        AppId::new("1")
    }

    fn ok(body: &'static str) -> Answered {
        Answered { status: StatusCode::OK, body: Bytes::from_static(body.as_bytes()) }
    }

    fn take(memory: &Arc<Remembered>, app: &AppId, key: &str, now_ms: u64) -> Claim {
        match memory.claim(app, key.as_bytes(), 7, now_ms) {
            Known::New(claim) => claim,
            other => panic!("{key} is not free: {other:?}"),
        }
    }

    /// HTTP-48
    #[test]
    fn a_finished_call_is_remembered_for_120_seconds_with_its_answer() {
        let memory = Arc::new(Remembered::new(10));
        take(&memory, &app(), "k", 1_000).finish(ok("{\"a\":1}"), 1_000);
        let before = memory.claim(&app(), b"k", 7, 1_000 + REMEMBERED_MS - 1);
        assert!(matches!(before, Known::Before(answered) if answered == ok("{\"a\":1}")));
        drop(take(&memory, &app(), "k", 1_000 + REMEMBERED_MS));
    }

    /// HTTP-49
    #[test]
    fn keys_of_different_apps_do_not_meet() {
        let memory = Arc::new(Remembered::new(10));
        take(&memory, &app(), "k", 0).finish(ok("{}"), 0);
        drop(take(&memory, &AppId::new("2"), "k", 0));
    }

    /// HTTP-50
    #[test]
    fn a_call_that_was_not_accepted_frees_its_key_at_once_and_wakes_whoever_waits() {
        let memory = Arc::new(Remembered::new(10));
        let claim = take(&memory, &app(), "k", 0);
        let Known::InProgress(ended) = memory.claim(&app(), b"k", 7, 0) else { panic!("the key is held") };
        assert!(ended.has_changed().is_ok(), "the call goes on");
        drop(claim);
        assert!(ended.has_changed().is_err(), "the call ended");
        drop(take(&memory, &app(), "k", 0));
    }

    /// HTTP-51
    #[test]
    fn a_key_used_for_another_call_is_told_apart_also_while_in_progress() {
        let memory = Arc::new(Remembered::new(10));
        let claim = take(&memory, &app(), "k", 0);
        assert!(matches!(memory.claim(&app(), b"k", 8, 0), Known::Different));
        claim.finish(ok("{}"), 0);
        assert!(matches!(memory.claim(&app(), b"k", 8, 0), Known::Different));
    }

    /// HTTP-52
    #[test]
    fn the_oldest_finished_call_goes_first_and_calls_in_progress_never_do() {
        let memory = Arc::new(Remembered::new(2));
        let held = take(&memory, &app(), "held", 0);
        for key in ["a", "b", "c"] {
            take(&memory, &app(), key, 0).finish(ok("{}"), 0);
        }
        assert_eq!(memory.forgotten_early(), 1);
        assert!(matches!(memory.claim(&app(), b"held", 7, 0), Known::InProgress(_)));
        assert!(matches!(memory.claim(&app(), b"c", 7, 0), Known::Before(_)));
        assert!(matches!(memory.claim(&app(), b"b", 7, 0), Known::Before(_)));
        let again = take(&memory, &app(), "a", 0);
        assert!(matches!(memory.claim(&app(), b"third", 7, 0), Known::Full));
        drop((held, again));
        drop(take(&memory, &app(), "third", 0));
    }

    /// HTTP-52
    #[test]
    fn long_answers_are_bounded_in_bytes() {
        let memory = Arc::new(Remembered::new(1_000));
        let long = Answered { status: StatusCode::OK, body: Bytes::from(vec![b'x'; 1 << 20]) };
        for key in 0..20 {
            take(&memory, &app(), &key.to_string(), 0).finish(long.clone(), 0);
        }
        let bytes = memory.lock()[&app()].bytes;
        assert!(bytes <= REMEMBERED_BYTES_MAX && bytes > REMEMBERED_BYTES_MAX / 2, "{bytes}");
    }
}
