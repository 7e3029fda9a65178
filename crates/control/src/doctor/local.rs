//! The machine that looks: its configuration, certificates, storage folder and open files.

use super::facts::{self, CertificateFact, Deployment, Disk, GroupFacts, StorageFact};
use super::{Area, Finding, Findings, Id, Weight};
use crate::health::bytes;

/// Days before its end at which a certificate is said, and at which it is grave.
const DAYS: [i64; 2] = [14, 3];
/// Room for the storage folder below which it is said.
const SPACE_MIN: u64 = 256 << 20;

pub(super) fn examine(deployment: &Deployment, made: &mut Vec<Finding>) {
    let local = &deployment.local;
    let mut findings = Findings { area: Area::Here, server: None, made };
    for said in &local.config {
        let weight = if said.is_ignored { Weight::Warning } else { Weight::Advice };
        findings.add(Id::Config, weight, said.text.clone(), "mend that line; fulmar check --strict says the same");
    }
    for certificate in &local.certificates {
        of_certificate(local.unix_s, certificate, &mut findings);
    }
    if let Some(storage) = &local.storage {
        of_storage(storage, &mut findings);
    }
    if let Some(trouble) = &local.metrics_trouble {
        super::nodes::no_sink("the node that runs here", trouble, &mut findings);
    }
    if let (Some((connections, needed)), Some(files)) = (local.connections_max, local.open_files)
        && needed > files
    {
        findings.warn(
            Id::FilesFew,
            format!("limits.connections_max is {connections}, which needs {needed} open files, and here a process may open {files}"),
            "raise it (LimitNOFILE= in the unit, ulimit -Hn), or lower limits.connections_max",
        );
    }
}

fn of_certificate(now: i64, certificate: &CertificateFact, findings: &mut Findings<'_>) {
    let CertificateFact { key, path, ends } = certificate;
    let ends = match ends {
        Ok(ends) => *ends,
        Err(why) => {
            return findings.grave(
                Id::CertificateUnusable,
                format!("{key}: {path}: {why}"),
                "put a PEM file there that this user may read",
            );
        }
    };
    let Some((weight, when)) = ending(now, ends) else { return };
    let fix = if *key == "tls.cert" {
        "put a new one in its place; nodes take it over when the file changes, without a restart"
    } else {
        "put a new one in its place, and restart the nodes one after the other"
    };
    findings.add(Id::CertificateExpiry, weight, format!("{key}: a certificate in {path} {when}"), fix);
}

/// How grave the end of a certificate is, and when it is; nothing while there is time.
fn ending(now: i64, ends: i64) -> Option<(Weight, String)> {
    let (left, [warn, grave]) = (ends - now, DAYS.map(|days| days * 86_400));
    let when = match left {
        _ if left >= warn => return None,
        ..0 => format!("ended {} days ago", -left / 86_400),
        0..172_800 => format!("ends in {} hours", left / 3_600),
        _ => format!("ends in {} days", left / 86_400),
    };
    Some((if left < grave { Weight::Grave } else { Weight::Warning }, when))
}

/// The certificates that servers and Sentinels of a group show: once one has ended, no node connects to that one any more.
pub(super) fn shown(now: i64, group: &GroupFacts, findings: &mut Findings<'_>) {
    for (address, ends) in &group.certificates {
        let Some((weight, when)) = ending(now, *ends) else { continue };
        findings.server = Some(address.clone());
        findings.add(
            Id::CertificateExpiry,
            weight,
            format!("{address} shows a certificate that {when}: no node connects anew to one that has ended"),
            format!(
                "put a new one in its place, then {} CONFIG SET tls-cert-file FILE tls-key-file FILE",
                facts::tool(address)
            ),
        );
    }
    findings.server = None;
}

fn of_storage(storage: &StorageFact, findings: &mut Findings<'_>) {
    let folder = &storage.folder;
    if let Some(why) = &storage.trouble {
        let (weight, so) = if storage.is_configured {
            (Weight::Grave, "a node does not start")
        } else {
            (Weight::Warning, "apps that are added, and webhooks that wait, do not outlive a node")
        };
        findings.add(
            Id::StorageUnusable,
            weight,
            format!("the storage folder {folder} cannot be used by this user ({why}): {so}"),
            "name another with storage.path, or mend who may write there",
        );
    }
    if !storage.open_to_others.is_empty() {
        let files = storage.open_to_others.join(" ");
        findings.grave(
            Id::StorageUnusable,
            format!("others than their owner may read files with secrets in {folder}: {files}"),
            format!("cd {folder} && chmod 600 {files}"),
        );
    }
    if let Some(Disk { free_bytes, total_bytes, .. }) = &storage.disk
        && *total_bytes > 0
        && *free_bytes < SPACE_MIN
    {
        findings.warn(
            Id::StorageSpace,
            format!(
                "{} are free where the storage folder {folder} is: webhooks that wait are kept there",
                bytes(*free_bytes)
            ),
            "make room, or move it with storage.path",
        );
    }
}
