//! The random walk with a few seeds; `cargo xtask sim SEED` walks one again.

use fulmar_sim::walk::{STEPS, walk};

/// DEL-1, DEL-2, DEL-3, DEL-4, DEL-5, DEL-11, DEL-13, DEL-14, DEL-15, WS-62, WS-84, WS-85, WS-89
#[test]
fn whatever_people_do_each_of_them_sees_the_truth_in_the_same_order() {
    for seed in 1..=40 {
        println!("seed {seed}");
        walk(seed, STEPS);
    }
}
