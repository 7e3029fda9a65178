//! Folders that are gone after the test, even after one that was killed.
//!
//! A folder's name holds the process that made it. Whoever makes the first one removes those whose maker is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::RigError;

const PREFIX: &str = "fulmar-rig-";

/// A folder of its own, removed when dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes one.
    ///
    /// # Errors
    /// The system's folder for temporary files is not writable.
    pub fn make(purpose: &str) -> Result<Self, RigError> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_leftovers);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{number}-{purpose}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| RigError::io(format!("making {}", path.display()), e))?;
        Ok(Self { path })
    }

    /// Removes all that this process has made: for an end that runs no destructors.
    pub fn remove_all() {
        let own = format!("{PREFIX}{}-", std::process::id());
        for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&own) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next process that makes a folder.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
