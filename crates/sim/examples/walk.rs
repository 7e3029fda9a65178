//! Walks one seed, or seeds from a random one on until something is wrong: `cargo xtask sim [SEED]`.

use std::time::{Duration, Instant};

use fulmar_sim::walk::{STEPS, walk};

/// How long seeds are tried when none is given.
const TRY_FOR: Duration = Duration::from_secs(60);

fn main() {
    if let Some(seed) = std::env::args().nth(1) {
        walk(seed.parse().expect("a seed is a whole number"), STEPS);
        println!("seed {seed}: {STEPS} steps, nothing wrong");
        return;
    }
    let begun = Instant::now();
    let mut walked = 0;
    while begun.elapsed() < TRY_FOR {
        let seed = fastrand::u64(..);
        // Before the walk, so that it is known when the walk ends in a panic.
        println!("seed {seed}");
        walk(seed, STEPS);
        walked += 1;
    }
    println!("{walked} walks, nothing wrong");
}
