//! What is seen of this machine: what the configuration says, and the files that it names. Nothing is written or made.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_control::doctor::facts::{CertificateFact, ConfigFact, Local, StorageFact};
use fulmar_operate::doctor::files::{certificate_ends, disk, unusable};
use fulmar_server::config::{Backbone, Config, Loaded, Weight};
use fulmar_server::storage::{ADMIN_TOKEN, folder};
use fulmar_server::tls::Certificate;
use fulmar_server::{DESCRIPTORS_RESERVED, open_file_limit};

use crate::app::remote::Remote;
use crate::args::AdminArgs;

/// How long a node that runs here is waited for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Looks.
pub fn look(loaded: &Loaded) -> Local {
    let config = &loaded.config;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let said = loaded
        .findings
        .iter()
        .map(|finding| ConfigFact { text: finding.to_string(), is_ignored: finding.weight > Weight::Advice });
    let connections_max = config.limits.connections_max.map(u64::from);
    Local {
        unix_s: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        config: said.collect(),
        certificates: certificates(config),
        storage: storage(config),
        connections_max: connections_max.map(|wanted| (wanted, wanted + DESCRIPTORS_RESERVED)),
        open_files: open_file_limit().ok(),
        metrics_trouble: metrics_trouble(loaded),
    }
}

/// What a node alone says of its metrics sink, where one runs that has this storage folder; others say it in their leases. Who does
/// not answer has said nothing.
fn metrics_trouble(loaded: &Loaded) -> Option<String> {
    let config = &loaded.config;
    config.metrics.statsd.as_ref().filter(|_| config.backbone == Backbone::Embedded)?;
    let (file, storage) = (loaded.file().map(Path::to_owned), config.storage.clone());
    let args = AdminArgs { config: file, storage, admin: None, token_file: None, ca: None, json: false };
    let (said, answer) = mpsc::channel();
    thread::spawn(move || {
        let status = Remote::of(&args).and_then(|remote| remote.call("GET", "/admin/v1/status", None, None));
        // Whoever asked may have gone on without it.
        let _: Result<(), _> = said.send(status.ok());
    });
    let status = answer.recv_timeout(ANSWERS_WITHIN).ok()??;
    status["metrics_problem"].as_str().map(str::to_owned)
}

fn certificates(config: &Config) -> Vec<CertificateFact> {
    let mut found = Vec::new();
    let mut note = |key, path: &Path, ends| {
        found.push(CertificateFact { key, path: path.display().to_string(), ends });
    };
    if let Some(tls) = &config.tls {
        let pair = Certificate::load(&tls.cert, &tls.key).map_err(|error| error.to_string());
        note("tls.cert", &tls.cert, pair.and_then(|_| certificate_ends(&tls.cert)));
    }
    if let Backbone::Redis(settings) = &config.backbone
        && let Some(tls) = &settings.tls
    {
        if let Some(ca) = &tls.ca {
            note("backbone.tls_ca", ca, certificate_ends(ca));
        }
        if let Some((cert, key)) = &tls.shown {
            let pair = Certificate::load(cert, key).map_err(|error| error.to_string());
            note("backbone.tls_cert", cert, pair.and_then(|_| certificate_ends(cert)));
        }
    }
    found
}

fn storage(config: &Config) -> Option<StorageFact> {
    let path = folder(config.storage.as_deref(), |name| std::env::var_os(name))?;
    Some(StorageFact {
        folder: path.display().to_string(),
        is_configured: config.storage.is_some(),
        trouble: unusable(&path),
        open_to_others: open_to_others(&path),
        disk: disk(&path),
    })
}

/// The files that hold secrets and may be read by others than their owner.
fn open_to_others(folder: &Path) -> Vec<String> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let is_secret = |name: &str| name == ADMIN_TOKEN || name.ends_with(".redb");
    let mut open: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o077 != 0))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_secret(name))
        .collect();
    open.sort_unstable();
    open
}
