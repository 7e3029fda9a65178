//! The audit log of the operator's verbs: lines of JSON, appended to the file in which the node keeps its own, never changed.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde_json::Value;

/// The file, within the storage folder; the one before it has `.1` at its end.
const FILE: &str = "audit.jsonl";
/// Size at which the next file is begun.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Appends an entry.
///
/// # Errors
/// When it cannot be written.
pub fn append(folder: &Path, entry: &Value) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(FILE);
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= FILE_BYTES_MAX) {
        std::fs::rename(&path, path.with_extension("jsonl.1"))?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    // One write per line: a line is there whole or not at all, whoever else appends.
    file.write_all(format!("{entry}\n").as_bytes())?;
    file.sync_data()
}
