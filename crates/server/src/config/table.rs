//! The table of keys: the one place that lists what can be written. Data; nothing happens here.

mod apps;
mod backbone;
mod node;

use super::keys::Key;

const PARTS: &[&[Key]] = &[node::KEYS, backbone::KEYS, apps::KEYS];

static ALL: [Key; count()] = joined();

/// Every key, in the order of the documentation.
pub static KEYS: &[Key] = &ALL;

const fn count() -> usize {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].len();
        part += 1;
    }
    count
}

const fn joined() -> [Key; count()] {
    let mut keys = [PARTS[0][0]; count()];
    let (mut part, mut filled) = (0, 0);
    while part < PARTS.len() {
        let mut at = 0;
        while at < PARTS[part].len() {
            keys[filled] = PARTS[part][at];
            filled += 1;
            at += 1;
        }
        part += 1;
    }
    keys
}
