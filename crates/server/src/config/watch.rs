//! Takes over a changed configuration file while the node runs.
//!
//! Looking reads files and nothing else: when to look, and what to do with a new configuration, is the node's. Whatever
//! is wrong with the new file, the running configuration stays whole: nothing is taken over in part.

use super::finding::{Finding, Place, Refused, Weight, What};
use super::keys::{KEYS, Key};
use super::meaning::{Effective, mean};
use super::raw::{Sources, fingerprint, read};
use super::{Config, Loaded, sorted};

use std::path::PathBuf;

/// Watches the files of a configuration by their content: symbolic links that move and mounts that notify nobody are
/// noticed as well.
#[derive(Debug)]
pub struct ConfigWatch {
    sources: Sources,
    running: Effective,
    /// Whether apps are served that do not stand in these files.
    has_other_apps: bool,
    files: Vec<PathBuf>,
    /// Content last acted upon.
    seen: u64,
    /// Changed content seen once.
    pending: Option<u64>,
}

/// A changed configuration to take over.
#[derive(Debug)]
pub struct Reload {
    /// As it now applies: what can be changed while the node runs is new, everything else as it was at start.
    pub config: Config,
    /// The apps as they are written now, without their secrets.
    pub shown_apps: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Keys with a new value that applies from now on; `apps` stands for all of them.
    pub changed: Vec<&'static str>,
    /// Keys with a new value that waits for a restart.
    pub needs_restart: Vec<&'static str>,
    /// What else there is to say; nothing here is fatal.
    pub findings: Vec<Finding>,
}

impl ConfigWatch {
    /// Watches the files that `loaded` came from.
    #[must_use]
    pub fn new(loaded: &Loaded) -> Self {
        Self {
            sources: loaded.sources.clone(),
            running: loaded.effective.clone(),
            has_other_apps: false,
            files: loaded.files.clone(),
            seen: loaded.fingerprint,
            pending: None,
        }
    }

    /// Says whether apps are served that do not stand in these files: then an emptied file leaves some.
    pub fn set_other_apps(&mut self, there_are: bool) {
        self.has_other_apps = there_are;
    }

    /// Reads the files again if their content has changed. `None`: nothing to do.
    ///
    /// Changed content counts only once two looks in a row have seen the same: a file that is just being written must
    /// not be taken for a short one. Content that was refused is not reported again until it changes.
    pub fn look(&mut self) -> Option<Result<Reload, Refused>> {
        let now = fingerprint(&self.files);
        if now == self.seen {
            self.pending = None;
            return None;
        }
        if self.pending.replace(now) != Some(now) {
            return None;
        }
        Some(self.reload())
    }

    /// Reads the files again whatever their content (SIGHUP).
    ///
    /// # Errors
    /// When the new configuration cannot be used; then nothing has changed.
    pub fn reload(&mut self) -> Result<Reload, Refused> {
        let reading = read(&self.sources);
        (self.files, self.seen, self.pending) = (reading.files, reading.fingerprint, None);
        let mut findings = reading.findings;
        let written = Effective::of(reading.raw);
        // First as it would mean after a restart, so that every mistake is reported and not only the reloadable ones.
        mean(&written, &mut findings);
        if written.apps.is_empty()
            && !self.has_other_apps
            && !self.running.apps.is_empty()
            && self.demo_is_by_default(&written)
        {
            let place = self.sources.file().map_or(Place::Default, |f| Place::File { path: f.into(), line: 0 });
            findings.push(Finding::refuses(place, "", What::AppsVanished));
        }
        let findings = sorted(findings);
        if findings.iter().any(|f| f.weight == Weight::Refuses) {
            return Err(Refused { findings });
        }
        self.take_over(written, findings)
    }

    /// Losing all apps to an emptied file would also put the demo app, whose secret is public, in their place.
    fn demo_is_by_default(&self, written: &Effective) -> bool {
        written.settings["demo.enabled"].place == Place::Default
    }

    fn take_over(&mut self, written: Effective, findings: Vec<Finding>) -> Result<Reload, Refused> {
        let differs = |key: &&Key| written.settings[key.path].value != self.running.settings[key.path].value;
        let (reloadable, fixed): (Vec<&Key>, Vec<&Key>) =
            KEYS.iter().filter(|k| k.section() != "apps").filter(differs).partition(|k| k.reloadable);
        let values = |apps: &Effective| {
            apps.apps.iter().map(|a| a.settings.values().map(|w| w.value.clone()).collect()).collect::<Vec<Vec<_>>>()
        };
        let mut changed: Vec<&'static str> = reloadable.iter().map(|k| k.path).collect();
        if values(&written) != values(&self.running) {
            changed.push("apps");
        }
        let mut merged = self.running.clone();
        merged.apps = written.apps;
        for key in reloadable {
            merged.settings.insert(key.path, written.settings[key.path].clone());
        }
        let mut merge_findings = Vec::new();
        let config = mean(&merged, &mut merge_findings);
        if merge_findings.iter().any(|f| f.weight == Weight::Refuses) {
            return Err(Refused { findings: sorted(merge_findings) });
        }
        let shown_apps = merged.apps.iter().map(super::app::shown).collect();
        self.running = merged;
        Ok(Reload { config, shown_apps, changed, needs_restart: fixed.iter().map(|k| k.path).collect(), findings })
    }
}
