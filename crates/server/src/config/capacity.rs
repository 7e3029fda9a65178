//! The tables of `backbone.group`: what the machines of a group can bear, with every mistake on its own line.

use std::collections::BTreeMap;

use fulmar_control::observed::Capacity;
use toml::de::{DeTable, DeValue};

use super::file::FileReader;
use super::finding::{Finding, What};
use super::keys::Key;
use super::raw::bad_value;
use super::rules::check_group;
use super::suggest::nearest;
use super::value::out_of_range;

const FIELDS: [&str; 3] = ["link_mbit", "memory_mb", "replicas"];
/// The most each of them may be: nobody has a line of a petabit.
const MAX: u64 = 1_000_000_000;

/// What is written, by name.
pub(super) fn fields(capacity: &Capacity) -> [(&'static str, Option<u64>); 3] {
    let replicas = capacity.replicas.and_then(|replicas| u64::try_from(replicas).ok());
    let [link_mbit, memory_mb, of_replicas] = FIELDS;
    [(link_mbit, capacity.link_mbit), (memory_mb, capacity.memory_mb), (of_replicas, replicas)]
}

/// Reads the tables under the key.
pub(super) struct CapacityReader<'r, 'a> {
    pub file: &'r mut FileReader<'a>,
    pub key: &'static Key,
}

impl CapacityReader<'_, '_> {
    /// What is without a mistake; the mistakes are findings.
    pub fn read(mut self, groups: &DeTable<'_>) -> BTreeMap<String, Capacity> {
        let mut capacities = BTreeMap::new();
        for (name, value) in groups {
            let at = name.span().start;
            let DeValue::Table(table) = value.get_ref() else {
                self.refuse(at, What::Breaks("must be a table for each group, such as [backbone.group.g1]"));
                continue;
            };
            match check_group(name.get_ref()) {
                Ok(()) => {
                    let capacity = self.capacity(table);
                    capacities.insert(name.get_ref().to_string(), capacity);
                }
                Err(rule) => self.refuse(at, What::Breaks(rule)),
            }
        }
        capacities
    }

    fn capacity(&mut self, table: &DeTable<'_>) -> Capacity {
        let mut capacity = Capacity::default();
        for (name, value) in table {
            let at = value.span().start;
            let field = name.get_ref().as_ref();
            if !FIELDS.contains(&field) {
                let path = format!("{}.{field}", self.key.path);
                let meant = nearest(field, FIELDS.into_iter()).map(|field| format!("{}.{field}", self.key.path));
                let finding = Finding::unknown(self.file.place(name.span().start), path, meant);
                self.file.reader.findings.push(finding);
                continue;
            }
            let DeValue::Integer(written) = value.get_ref() else {
                self.refuse(at, What::Breaks("must hold whole numbers: link_mbit, memory_mb, replicas"));
                continue;
            };
            let number = u64::from_str_radix(written.as_str(), written.radix()).ok().filter(|number| *number <= MAX);
            match (field, number) {
                (_, None) => self.refuse(at, out_of_range(0, MAX, written.as_str())),
                ("link_mbit", number) => capacity.link_mbit = number,
                ("memory_mb", number) => capacity.memory_mb = number,
                (_, Some(number)) => capacity.replicas = usize::try_from(number).ok(),
            }
        }
        capacity
    }

    fn refuse(&mut self, at: usize, what: What) {
        let finding = bad_value(self.key, self.file.place(at), self.key.path, what);
        self.file.reader.findings.push(finding);
    }
}
