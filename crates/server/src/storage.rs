//! The folder in which a node keeps what must outlive it.
//!
//! Says where it is and writes small files that only their owner may read. What stands in them is their writers'
//! business.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The token of the admin API, where none is configured.
pub const ADMIN_TOKEN: &str = "admin-token";
/// Where the admin API listens, for commands on the same machine.
pub const ADMIN_ADDRESS: &str = "admin-address";

/// The folder that is configured, or the one this machine keeps such things in: that of the systemd unit, or the user's.
/// `None` when nothing says where: then nothing is kept.
#[must_use]
pub fn folder(configured: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd separates several with colons; the first is the unit's own.
    let of_unit = || set("STATE_DIRECTORY").and_then(|d| Some(PathBuf::from(d.to_str()?.split(':').next()?)));
    let of_user = || set("XDG_STATE_HOME").filter(|d| d.is_absolute()).map(|d| d.join("fulmar"));
    let of_home = || set("HOME").filter(|d| d.is_absolute()).map(|d| d.join(".local/state/fulmar"));
    configured.map(Path::to_owned).or_else(of_unit).or_else(of_user).or_else(of_home)
}

/// Makes sure that the folder exists; a new one is its owner's alone.
///
/// # Errors
/// When it cannot be made.
pub fn prepare(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Puts a file in place as a whole, readable to its owner only.
///
/// # Errors
/// When it cannot be written; then the file from before is still there.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // One left behind by a node that was killed could have other permissions.
    let _: io::Result<()> = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path))
}

/// Opens a file for reading and writing that only its owner may read, and makes it if there is none.
///
/// # Errors
/// When it cannot be opened.
pub fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    // One that came from elsewhere, such as a backup, may be open to others.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-26
    #[test]
    fn the_folder_is_the_configured_one_or_that_of_the_unit_or_of_the_user() {
        let at = |configured: Option<&str>, variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            folder(configured.map(Path::new), find).map(|p| p.display().to_string())
        };
        let all = [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/users/ann")];
        assert_eq!(at(Some("/data"), &all).as_deref(), Some("/data"));
        assert_eq!(at(None, &all).as_deref(), Some("/var/lib/a"));
        assert_eq!(at(None, &all[1..]).as_deref(), Some("/x/fulmar"));
        assert_eq!(at(None, &all[2..]).as_deref(), Some("/users/ann/.local/state/fulmar"));
        assert_eq!(at(None, &[("HOME", ""), ("XDG_STATE_HOME", "relative")]), None);
    }
}
