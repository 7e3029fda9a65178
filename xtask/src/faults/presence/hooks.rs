//! The ledger of webhooks: every edge an app's server was told, by its id, and who is there if all of them are believed.
//!
//! A repeated id is one edge, told again. Two edges of a subject must alternate, beginning with a coming: an edge that came under
//! two ids shows as two of a kind in a row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

/// A channel, or a user on one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Subject {
    channel: String,
    user: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    subject: Subject,
    is_coming: bool,
}

/// See the head of this file.
#[derive(Default)]
pub struct Hooks {
    told: HashMap<String, Edge>,
    /// The last edge of each subject, and its id.
    last: BTreeMap<Subject, (bool, String)>,
    repeats: usize,
    violations: Vec<String>,
}

impl Hooks {
    /// An event that came under this id.
    pub fn take(&mut self, id: &str, event: &Value) {
        let Some(edge) = Edge::read(event) else { return };
        if let Some(known) = self.told.get(id) {
            self.repeats += 1;
            if *known != edge {
                let words = format!("id {id} stands for {known:?} and for {edge:?}");
                self.violations.push(words);
            }
            return;
        }
        let before = self.last.insert(edge.subject.clone(), (edge.is_coming, id.to_owned()));
        if before.as_ref().is_some_and(|(was_coming, _)| *was_coming) == edge.is_coming {
            self.violations.push(format!("{edge:?} under id {id} follows {before:?}"));
        }
        self.told.insert(id.to_owned(), edge);
    }

    /// Something is wrong with a request itself.
    pub fn complain(&mut self, words: String) {
        self.violations.push(words);
    }

    /// What was wrong since this was asked last.
    pub fn take_violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    /// Edges by id, and how many of them came again.
    pub fn count(&self) -> (usize, usize) {
        (self.told.len(), self.repeats)
    }

    /// The first difference between the truth, by channel, and what all edges come to.
    pub fn compare(&self, truths: &BTreeMap<String, BTreeSet<String>>) -> Result<(), String> {
        let true_subjects: BTreeSet<Subject> = truths
            .iter()
            .filter(|(_, users)| !users.is_empty())
            .flat_map(|(channel, users)| {
                let users = users.iter().map(|user| Some(user.clone()));
                users.chain([None]).map(|user| Subject { channel: channel.clone(), user })
            })
            .collect();
        let told = self.last.iter().filter(|(_, (is_coming, _))| *is_coming).map(|(subject, _)| subject.clone());
        let told: BTreeSet<Subject> = told.collect();
        if told == true_subjects {
            return Ok(());
        }
        let some = |of: &BTreeSet<Subject>, without: &BTreeSet<Subject>| {
            let first: Vec<_> = of.difference(without).take(3).map(Subject::name).collect();
            format!("{} ({})", of.difference(without).count(), first.join(", "))
        };
        Err(format!(
            "{} not told to be there, {} not told to be gone",
            some(&true_subjects, &told),
            some(&told, &true_subjects)
        ))
    }
}

impl Subject {
    fn name(&self) -> String {
        let user = self.user.as_deref().unwrap_or("the channel itself");
        format!("{user} of {}", self.channel)
    }
}

impl Edge {
    fn read(event: &Value) -> Option<Self> {
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let is_coming = match event["name"].as_str()? {
            "channel_occupied" | "member_added" => true,
            "channel_vacated" | "member_removed" => false,
            _ => return None,
        };
        Some(Self { subject: Subject { channel: text("channel")?, user: text("user_id") }, is_coming })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hooks(events: &[(&str, &str, &str)]) -> Hooks {
        let mut hooks = Hooks::default();
        for (id, name, user) in events {
            let mut event = json!({ "name": name, "channel": "presence-a" });
            if !user.is_empty() {
                event["user_id"] = (*user).into();
            }
            hooks.take(id, &event);
        }
        hooks
    }

    #[test]
    fn what_all_edges_come_to_is_compared_with_the_truth() {
        let mut hooks = hooks(&[
            ("1", "channel_occupied", ""),
            ("2", "member_added", "ana"),
            ("3", "member_added", "ben"),
            ("4", "member_removed", "ben"),
            ("2", "member_added", "ana"),
            ("5", "subscription_count", ""),
        ]);
        assert_eq!((hooks.take_violations(), hooks.count()), (Vec::new(), (4, 1)));
        let truth = |users: &[&str]| {
            BTreeMap::from([("presence-a".to_owned(), users.iter().map(|user| (*user).to_owned()).collect())])
        };
        assert_eq!(hooks.compare(&truth(&["ana"])), Ok(()));
        assert!(hooks.compare(&truth(&["ana", "ben"])).unwrap_err().starts_with("1 (ben of presence-a) not told"));
        assert!(hooks.compare(&truth(&[])).unwrap_err().contains("2 (the channel itself of presence-a, ana"));
    }

    #[test]
    fn two_ids_of_an_edge_and_two_edges_of_an_id_are_noticed() {
        let twice = [("1", "member_added", "ana"), ("2", "member_added", "ana")];
        assert_eq!(hooks(&twice).take_violations().len(), 1);
        let going_first = [("1", "channel_vacated", "")];
        assert_eq!(hooks(&going_first).take_violations().len(), 1);
        let shared = [("1", "member_added", "ana"), ("1", "member_removed", "ana")];
        assert_eq!(hooks(&shared).take_violations().len(), 1);
    }
}
