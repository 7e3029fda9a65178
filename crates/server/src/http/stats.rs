//! Answers the statistics that old SDKs and `enableStats` send, and keeps none of it.
//!
//! The receiver of the JSONP form ends up in JavaScript, so only a plain word or number is echoed.

use bytes::Bytes;

use super::refusal::Refusal;
use super::reply::Reply;

const RECEIVER_BYTES_MAX: usize = 64;

/// JavaScript that tells the SDK's receiver that all went well.
///
/// # Errors
/// The receiver is not a plain word or number.
pub(super) fn jsonp(receiver: &str) -> Result<Reply, Refusal> {
    let plain = receiver.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if receiver.is_empty() || receiver.len() > RECEIVER_BYTES_MAX || !plain {
        return Err(Refusal::Receiver);
    }
    // Brackets and quotes: a number is no valid property after a dot, a word is no valid bare index.
    let script = format!("Pusher.ScriptReceivers[\"{receiver}\"](null, {{}});\n");
    Ok(Reply::script(Bytes::from(script)))
}
