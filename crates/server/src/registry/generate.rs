//! New ids, keys and secrets.

use std::io;

/// Bytes of a secret: 160 bits, 40 characters.
const SECRET_BYTES: usize = 20;
/// Bytes of a key, which is public and must only be unlike all others: 20 characters, as hosted keys have.
const KEY_BYTES: usize = 10;
/// Ids are digits alone, since two official SDKs refuse anything else; seven of them, as hosted ids have.
const IDS: std::ops::Range<u64> = 1_000_000..10_000_000;

pub(super) fn secret() -> io::Result<String> {
    hex::<SECRET_BYTES>()
}

pub(super) fn key() -> io::Result<String> {
    hex::<KEY_BYTES>()
}

pub(super) fn id() -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok((IDS.start + u64::from_le_bytes(bytes) % (IDS.end - IDS.start)).to_string())
}

pub(crate) fn hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
