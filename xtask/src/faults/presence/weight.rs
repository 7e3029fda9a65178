//! What a deployment's groups hold in memory.
//!
//! The log is left out of the sum of keys: it is as long as a minute's load makes it, whatever was damaged. So is what webhooks were done
//! with in the last half minute. What servers say of themselves has both.

use std::collections::BTreeMap;

use fulmar_rig::{Redis, RigError, Value};

/// Of all primaries together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of all keys but those, each as the server itself reckons it.
    pub keys_bytes: u64,
    /// `used_memory_dataset`: what data takes, logs with it.
    pub dataset_bytes: u64,
    /// The first, by kind: what stands behind the deployment's name.
    kinds: BTreeMap<String, u64>,
}

impl Weight {
    /// Asks every primary.
    pub fn of(primaries: &[&Redis]) -> Result<Self, RigError> {
        let mut weight = Self::default();
        for redis in primaries {
            let mut connection = redis.connect()?;
            for key in connection.call(&["KEYS", "*"])?.list().iter().map(Value::text) {
                let kind = key.split(':').nth(1).unwrap_or_default();
                if ["log", "done"].contains(&kind) {
                    continue;
                }
                // It may have gone meanwhile, and then weighs nothing.
                let bytes = connection.call(&["MEMORY", "USAGE", &key, "SAMPLES", "0"])?.number();
                let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
                weight.keys_bytes += bytes;
                *weight.kinds.entry(kind.to_owned()).or_default() += bytes;
            }
            let dataset = redis.info("memory", "used_memory_dataset")?;
            weight.dataset_bytes += dataset.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        }
        Ok(weight)
    }

    /// Whether both are within a tenth of what they were. Of what servers say only more counts: a log that ages makes it less.
    pub fn is_near(&self, before: &Self) -> bool {
        let tenth = |bytes: u64| bytes / 10;
        self.keys_bytes.abs_diff(before.keys_bytes) <= tenth(before.keys_bytes)
            && self.dataset_bytes <= before.dataset_bytes + tenth(before.dataset_bytes)
    }

    /// Which kinds of keys weigh more than before, in words.
    pub fn growth(&self, before: &Self) -> String {
        let was = |kind: &String| before.kinds.get(kind).copied().unwrap_or(0);
        let grown = self.kinds.iter().filter(|(kind, bytes)| **bytes > was(kind));
        let grown: Vec<_> = grown.map(|(kind, bytes)| format!("{kind} {} -> {bytes}", was(kind))).collect();
        grown.join(", ")
    }
}

impl std::fmt::Display for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} KiB of keys, {} KiB of data", self.keys_bytes / 1024, self.dataset_bytes / 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_or_less_is_near_and_a_shorter_log_too() {
        let weigh = |keys_bytes, dataset_bytes| Weight { keys_bytes, dataset_bytes, ..Weight::default() };
        let before = weigh(1_000, 5_000);
        assert!([weigh(1_100, 5_500), weigh(900, 1_000)].iter().all(|weight| weight.is_near(&before)));
        let far = [weigh(1_101, 5_000), weigh(899, 5_000), weigh(1_000, 5_501)];
        assert!(far.iter().all(|weight| !weight.is_near(&before)));
    }
}
