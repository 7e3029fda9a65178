//! A planted panic that chance alone would not reach, but for which coverage shows the way: if this target does not fail
//! within a minute, the fuzzer is blind and the other targets' silence means nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Letter by letter: a comparison of whole words is one call or one instruction, which coverage does not see into.
    if let [b'c', b'a', b'n', b'a', b'r', b'y', ..] = bytes {
        panic!("the canary sings: the fuzzer finds what was planted");
    }
});
