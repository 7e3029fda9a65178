//! The conversations of `tests/transcripts`, played in memory.
//!
//! The same are played against the real binary elsewhere; what the two disagree on, the driver or the engine gets wrong.

use std::path::Path;

use fulmar_sim::transcript::{read_all, rehearse};

/// Every transcript is played, and all that fail are named.
#[test]
fn every_conversation_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/transcripts");
    let transcripts = read_all(&folder);
    assert!(transcripts.len() > 30, "the transcripts are found");
    let failed = transcripts.iter().filter(|t| std::panic::catch_unwind(|| rehearse(t)).is_err());
    let failed: Vec<_> = failed.map(|transcript| format!("{}: {}", transcript.name, transcript.title)).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), transcripts.len());
}
