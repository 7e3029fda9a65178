//! Files of this machine: what room there is, and when certificates end.

use std::fs;
use std::path::Path;

use fulmar_control::doctor::facts::Disk;
use rustix::fs::Access;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

/// The disk that a folder is on; `None` when the system does not say.
#[must_use]
pub fn disk(folder: &Path) -> Option<Disk> {
    let said = rustix::fs::statvfs(folder).ok()?;
    Some(Disk {
        folder: folder.display().to_string(),
        free_bytes: said.f_bavail.saturating_mul(said.f_frsize),
        total_bytes: said.f_blocks.saturating_mul(said.f_frsize),
    })
}

/// Why this user could keep nothing in a folder, which need not exist yet.
#[must_use]
pub fn unusable(folder: &Path) -> Option<String> {
    let there = folder.ancestors().find(|part| part.exists())?;
    if !there.is_dir() {
        return Some(format!("{} is no folder", there.display()));
    }
    let wanted = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(there, wanted).err().map(|error| format!("{}: {error}", there.display()))
}

/// When the first of the certificates in a PEM file ends, in seconds since 1970.
///
/// # Errors
/// There is none, or it cannot be read; in words.
pub fn certificate_ends(path: &Path) -> Result<i64, String> {
    let text = fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut ends = None;
    for block in Pem::iter_from_buffer(&text) {
        let block = block.map_err(|error| format!("is not PEM: {error}"))?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let (_, certificate) = X509Certificate::from_der(&block.contents)
            .map_err(|error| format!("holds a certificate that cannot be read: {error}"))?;
        let end = certificate.validity().not_after.timestamp();
        ends = Some(ends.map_or(end, |first: i64| first.min(end)));
    }
    ends.ok_or_else(|| "holds no certificate".to_owned())
}

/// What the program of a process of this machine is called; `None` when there is none.
pub(super) fn name_of_process(pid: u64) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim().to_owned())
}
