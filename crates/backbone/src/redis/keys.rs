//! Names of what is stored, all in one place. Every name begins with the deployment's own, so that several can share servers;
//! in Redis Cluster with a tag of the deployment and the share, so that all keys of a share lie in one slot of the product's.

use super::topic::{Slot, Topic};

/// Makes names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys {
    deployment: std::sync::Arc<str>,
    /// What every name begins with, before a colon.
    prefix: std::sync::Arc<str>,
}

impl Keys {
    /// Names of this deployment.
    #[must_use]
    pub fn new(deployment: &str) -> Self {
        Self { deployment: deployment.into(), prefix: deployment.into() }
    }

    /// Names of one share of this deployment in Redis Cluster: what stands in braces is all that decides where a key lies.
    #[must_use]
    pub fn of_share(deployment: &str, share: &str) -> Self {
        Self { deployment: deployment.into(), prefix: format!("{{{deployment}.{share}}}").into() }
    }

    /// Whether messages stay with the servers of a slot (SPUBLISH, SSUBSCRIBE): in Redis Cluster.
    #[must_use]
    pub fn is_share(&self) -> bool {
        self.prefix.starts_with('{')
    }

    /// What every name begins with, before a colon.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The keys that a script names, the group's hash first. The second there is never anything at: a server that is giving
    /// the slot away refuses whoever names a key that it has not, and so no script ever sees a half of a share.
    #[must_use]
    pub fn declared(&self) -> Vec<String> {
        let mut declared = vec![self.identity()];
        declared.extend(self.is_share().then(|| self.named("nothing")));
        declared
    }

    /// The deployment's name.
    #[must_use]
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    fn named(&self, what: &str) -> String {
        format!("{}:{what}", self.prefix)
    }

    /// Hash: `id` (identity of the group), `epoch`, `run` (run id of the server that owns it), `groups` (names of all
    /// groups, sorted, joined by commas: what the slot map was made of), `head` (id of the log's last entry), `damage` (how
    /// often records were found wrong), `slots` (rises with every change of what the group says of slots), `dropped` (edges
    /// that the outbox had no room for), `cut:PART` (it had none for an edge of this part), `doubts` (deaths, moves and dropped edges,
    /// after which what was told is compared anew).
    #[must_use]
    pub fn identity(&self) -> String {
        self.named("group")
    }

    /// String: which group has which slot; see [`super::map::SlotMap`].
    #[must_use]
    pub fn map(&self) -> String {
        self.named("map")
    }

    /// Hash: slot -> what the group says of it; see [`super::map::Held`]. Slots that never moved are not in it.
    #[must_use]
    pub fn slots(&self) -> String {
        self.named("slots")
    }

    /// String: what lay of a slot that is about to come, until it has; see `scripts/filled.lua`.
    #[must_use]
    pub fn filled(&self, slot: Slot) -> String {
        format!("{}:filled:{}", self.prefix, slot.0)
    }

    /// String with a time to live: who moves slots now.
    #[must_use]
    pub fn mover(&self) -> String {
        self.named("mover")
    }

    /// Pattern that all cached events match, for `SCAN`.
    #[must_use]
    pub fn cached_pattern(&self) -> String {
        self.pattern_of(":cache:*")
    }

    /// The topic whose cached event this key is.
    #[must_use]
    pub fn topic_of_cached<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&*self.deployment)?.strip_prefix(":cache:")
    }

    /// Stream: one entry per script call, with fields `topic, message, topic, message ...`.
    #[must_use]
    pub fn log(&self) -> String {
        self.named("log")
    }

    /// Hash: `ORIGIN.LANE` -> last number in the log; `ORIGIN.LANE.last` -> counter of the origin's last publication there.
    #[must_use]
    pub fn sequences(&self) -> String {
        self.named("seq")
    }

    /// Hash: node -> the last of its calls that left edges in the outbox: what tells a change of primary that lost some.
    #[must_use]
    pub fn calls(&self) -> String {
        self.named("calls")
    }

    /// Hash: node -> JSON of its lease. Who is in it is live as far as readers are concerned; only the reaper takes nodes out.
    #[must_use]
    pub fn nodes(&self) -> String {
        self.named("nodes")
    }

    /// Hash: topic -> subscriptions (or sign-ins) that one node has on it. Fields with 0 are deleted.
    #[must_use]
    pub fn records(&self, slot: Slot, node: &str) -> String {
        format!("{}:rec:{}:{node}", self.prefix, slot.0)
    }

    /// Hash: user -> `SINCE INFO` of one node's members of a presence channel. Counts only where the node's
    /// [`Keys::records`] have the topic.
    #[must_use]
    pub fn members(&self, slot: Slot, node: &str, topic: &Topic) -> String {
        format!("{}:mem:{}:{node}:{}", self.prefix, slot.0, topic.as_str())
    }

    /// String with a time to live: the cached event of a cache channel, as `ID|MESSAGE`.
    #[must_use]
    pub fn cached(&self, topic: &Topic) -> String {
        format!("{}:cache:{}", self.prefix, topic.as_str())
    }

    /// Stream: edges that an app's own server wants to be told, in the order they happened.
    #[must_use]
    pub fn outbox(&self, part: u16) -> String {
        format!("{}:outbox:{part}", self.prefix)
    }

    /// Hash: who works this part of the outbox: `node`, `fence` (rises with each claim), `until` (milliseconds since 1970),
    /// `born` (when it was first seen), `writes` (how often it was written), `compared` (the sight in which what it announced was compared
    /// with the records last), `turn` (in which tens of seconds [`Keys::done`] was written to last).
    #[must_use]
    pub fn claim(&self, part: u16) -> String {
        format!("{}:claim:{part}", self.prefix)
    }

    /// Hash: node -> until when it shares the work on the outbox, in milliseconds since 1970.
    #[must_use]
    pub fn claimants(&self) -> String {
        self.named("claimants")
    }

    /// Hash: identity of a sealed webhook request -> the request.
    #[must_use]
    pub fn sealed(&self, part: u16) -> String {
        format!("{}:sealed:{part}", self.prefix)
    }

    /// List: webhook requests that were given up, newest first.
    #[must_use]
    pub fn given_up(&self, part: u16) -> String {
        format!("{}:givenup:{part}", self.prefix)
    }

    /// Hash: what webhooks announced as come -> its generation.
    #[must_use]
    pub fn announced(&self, part: u16) -> String {
        format!("{}:announced:{part}", self.prefix)
    }

    /// Four hashes that take turns, with a time to live: identities of the events of entries that are done with. What is left again, or
    /// comes back with a store that has gone back, is not told again.
    #[must_use]
    pub fn done(&self, part: u16) -> [String; 4] {
        [0, 1, 2, 3].map(|turn| format!("{}:done:{turn}:{part}", self.prefix))
    }

    /// Hash with a time to live: what a search found on record and was never announced.
    #[must_use]
    pub fn noted(&self, part: u16) -> String {
        format!("{}:noted:{part}", self.prefix)
    }

    /// Hash: id of an outbox entry -> URLs, one per line, that have its event while others do not.
    #[must_use]
    pub fn partly(&self, part: u16) -> String {
        format!("{}:partly:{part}", self.prefix)
    }

    /// Publish-subscribe channel of a topic.
    #[must_use]
    pub fn channel(&self, topic: &Topic) -> String {
        format!("{}:t:{}", self.prefix, topic.as_str())
    }

    /// The topic that a message on this publish-subscribe channel is about.
    #[must_use]
    pub fn topic_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&*self.prefix)?.strip_prefix(":t:")
    }

    /// Publish-subscribe channel of a group's heartbeats, heard over the subscription connection.
    #[must_use]
    pub fn pulse(&self) -> String {
        self.named("pulse")
    }

    /// Publish-subscribe channel of the second path, on one server. Named after the server, because a PUBLISH on a primary
    /// is passed on to its replicas.
    #[must_use]
    pub fn bus(&self, address: &str) -> String {
        format!("{}:bus:{address}", self.deployment)
    }

    /// Hash: node -> number of its connection, or `reaped` and when. Scripts that change a node's records look here first.
    #[must_use]
    pub fn fence(&self) -> String {
        self.named("fence")
    }

    /// Hash: node -> epoch and number of damages after which it has compared all its records with its truth.
    #[must_use]
    pub fn settled(&self) -> String {
        self.named("settled")
    }

    /// String with a time to live: which operator acts on the group, as `FENCE WHO`.
    #[must_use]
    pub fn operator(&self) -> String {
        self.named("operator")
    }

    /// Number: how often that was taken.
    #[must_use]
    pub fn operator_fence(&self) -> String {
        self.named("operator-fence")
    }

    /// Pattern that all records and members match, for `SCAN`.
    #[must_use]
    pub fn pattern(&self) -> String {
        self.pattern_of(":[rm]e[cm]:*")
    }

    fn pattern_of(&self, rest: &str) -> String {
        let mut pattern = String::new();
        for letter in self.prefix.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RED-33
    #[test]
    fn all_names_of_a_share_but_the_bus_begin_with_its_tag() {
        let keys = Keys::of_share("fulmar", "3");
        let topic = Topic::parse("7:presence-room").unwrap();
        for name in keys.declared().into_iter().chain([keys.log(), keys.pulse(), keys.outbox(5), keys.cached(&topic)]) {
            assert!(name.starts_with("{fulmar.3}:"), "{name}");
        }
        assert_eq!(keys.identity(), "{fulmar.3}:group");
        assert_eq!(keys.topic_of(&keys.channel(&topic)), Some(topic.as_str()));
        assert_eq!(keys.topic_of("{fulmar.4}:t:7:room"), None);
        assert_eq!(keys.pattern(), "{fulmar.3}:[rm]e[cm]:*");
        assert_eq!(keys.bus("a:1"), "fulmar:bus:a:1");
        assert_eq!(Keys::new("fulmar").declared(), ["fulmar:group"]);
    }
}
