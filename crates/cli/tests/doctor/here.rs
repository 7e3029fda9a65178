//! The machine that looks: configuration, certificates, storage folder, files. Needs no Redis.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::patient::{Patient, says};

/// Writes a certificate that ends so many days from now, and its key.
fn certificate(folder: &Path, name: &str, days: i64) {
    let key = KeyPair::generate().unwrap();
    let made = ending("localhost", days).self_signed(&key).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), made.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// What is to be certified of a host for so many days.
pub fn ending(host: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    let now = i64::try_from(super::patient::unix_ms() / 1_000).unwrap();
    // An hour more, so that the moment of the look decides nothing.
    let since = now + days * 86_400 + 3_600 - params.not_before.unix_timestamp();
    params.not_after = params.not_before + std::time::Duration::from_secs(u64::try_from(since).unwrap());
    params
}

/// DOC-4 DOC-10 DOC-20
#[test]
fn a_node_alone_that_is_as_it_should_be_has_no_finding() {
    let patient = Patient::new("[demo]\nenabled = true\n[storage]\npath = \"STORAGE\"\n");
    let said = patient.run(&[]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.starts_with("nothing is wrong; looked at this machine in "), "{}", said.out);
    assert!(!patient.folder.path().join("storage").exists(), "it makes nothing");
}

/// DOC-4 DOC-5 DOC-10
#[test]
fn what_is_wrong_with_configuration_and_files_is_found_with_its_place() {
    let patient = Patient::new(
        "[demo]\nenabled = true\n[storage]\npath = \"STORAGE\"\n[server]\nprot = 1\n[limits]\nconnections_max = 4000000000\n\
         [tls]\ncert = \"near.pem\"\nkey = \"near.key\"\n[backbone]\nkind = \"redis\"\naddresses = [\"127.0.0.1:1\"]\n\
         tls = true\ntls_ca = \"gone.pem\"\ntls_cert = \"ended.pem\"\ntls_key = \"ended.key\"\n",
    );
    let folder = patient.folder.path();
    certificate(folder, "near", 10);
    certificate(folder, "ended", -2);
    std::fs::create_dir(folder.join("storage")).unwrap();
    let token = folder.join("storage/admin-token");
    std::fs::write(&token, "secret").unwrap();
    std::fs::set_permissions(&token, Permissions::from_mode(0o644)).unwrap();
    let found = patient.await_findings(&[
        "certificate-expiry",
        "certificate-unusable",
        "config",
        "files-few",
        "server-unreachable",
        "storage-unusable",
    ]);
    says(&found, "certificate-expiry", "warning", &["near.pem ends in 10 days", "tls.cert"]);
    says(&found, "certificate-expiry", "grave", &["ended.pem ended 1 days ago", "backbone.tls_cert"]);
    says(&found, "certificate-unusable", "grave", &["gone.pem", "cannot be read"]);
    says(&found, "config", "warning", &["fulmar.toml:6", "did you mean server.port?"]);
    says(&found, "storage-unusable", "grave", &["chmod 600 admin-token"]);
    says(&found, "files-few", "warning", &["4000000000"]);

    let all = ["certificate-expiry", "certificate-unusable", "server-unreachable", "storage-unusable"];
    let ignored: Vec<&str> = all.iter().flat_map(|id| ["--ignore", id]).collect();
    let said = patient.run(&ignored);
    assert_eq!(said.code, 0, "nothing grave is left: {}", said.out);
    assert!(said.out.contains("2 findings: 0 grave, 2 warning, 0 advice, 5 ignored"), "{}", said.out);
    assert_eq!(patient.run(&["--ignore", "expiry"]).code, 2);
}

/// DOC-4 DOC-10
#[test]
fn a_folder_that_is_none_and_a_configuration_that_is_none_are_told_apart() {
    let patient = Patient::new("[demo]\nenabled = true\n[storage]\npath = \"STORAGE\"\n");
    std::fs::write(patient.folder.path().join("storage"), "").unwrap();
    let found = patient.findings();
    says(&found, "storage-unusable", "grave", &["is no folder", "does not start"]);
    assert_eq!(patient.run(&[]).code, 3);

    let said = Patient::new("[server]\nport = 99999\n").run(&[]);
    assert_eq!((said.code, said.out.as_str()), (78, ""));
    assert!(said.err.contains("server.port must be between 0 and 65535"), "{}", said.err);
}
