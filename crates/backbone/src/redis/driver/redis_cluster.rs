//! Asking the servers of a Redis Cluster who has which share, and following whom they name once the server itself has shown role
//! and identity.

use std::time::Duration;

use redis::Value;

use super::bus::{Server, VIEW_EVERY};
use super::complaints;
use super::{Driver, Purpose};
use crate::redis::belief::{self, Claim, FRESH, ServerView, Verdict};
use crate::redis::link::{Ask, Lost};
use crate::redis::redis_cluster::{self, Sight};
use crate::redis::settings::Topology;

/// The group of servers that are no group's own.
const NO_GROUP: usize = usize::MAX;
/// However many servers there are, each is asked this often.
const ASK_EVERY_MAX: Duration = Duration::from_millis(1_500);
/// Servers up to which each is asked every [`VIEW_EVERY`].
const FEW: usize = 16;
/// However urgent it is, no server is asked again sooner.
const ASK_SOONEST: Duration = Duration::from_millis(40);

/// What a server of a Redis Cluster says beside its role; nothing in other topologies.
#[derive(Default)]
pub(super) struct Member {
    /// It was configured: it stays, whoever names it.
    pub(super) is_seed: bool,
    /// Others know it by another address, which is used instead; it is only asked.
    pub(super) is_alias: bool,
    sight: Option<Sight>,
    /// What it has of each group that somebody says it owns.
    shares: Vec<Option<ServerView>>,
}

impl Member {
    /// Whose replica it is.
    pub(super) fn primary(&self) -> Option<&str> {
        self.sight.as_ref()?.of.as_deref()
    }
}

/// What a member was asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum MemberAsked {
    /// Who all are, and what they own.
    Sight,
    /// A group's identity.
    Share(usize),
    /// Whether a lost part stops the rest.
    Coverage,
}

impl Driver {
    pub(super) fn is_redis_cluster(&self) -> bool {
        matches!(self.settings.topology, Topology::RedisCluster { .. })
    }

    pub(super) fn meet_seeds(&mut self, seeds: &[String]) {
        for seed in seeds {
            self.serve(NO_GROUP, seed);
            for server in self.servers.iter_mut().filter(|server| server.address == *seed) {
                server.member.is_seed = true;
            }
        }
    }

    /// Its connection is new.
    pub(super) fn member_up(&mut self, at: usize) {
        let mut coverage = redis::cmd("CONFIG");
        coverage.arg("GET").arg("cluster-require-full-coverage");
        self.ask_member(at, MemberAsked::Coverage, coverage);
    }

    fn ask_member(&mut self, at: usize, asked: MemberAsked, command: redis::Cmd) {
        let link = self.servers[at].link;
        // Without a connection there is nobody to ask; the next one begins anew.
        let _: bool = self.ask(link, Purpose::Member(at, asked), Ask::Command(command));
    }

    /// How often each server is asked: all together not much more often than a few.
    pub(super) fn view_every(&self) -> Duration {
        let times = u32::try_from(self.servers.len() / FEW).unwrap_or(u32::MAX).saturating_add(1);
        VIEW_EVERY.saturating_mul(times).min(ASK_EVERY_MAX)
    }

    /// Asks a server who all are, and what it has of the groups that it is said to own.
    pub(super) fn ask_view(&mut self, at: usize) {
        let mut sight = redis::cmd("CLUSTER");
        sight.arg("NODES");
        self.ask_member(at, MemberAsked::Sight, sight);
        for group in 0..self.groups.len() {
            let address = &self.servers[at].address;
            let is_named = self.groups[group].address.as_ref() == Some(address)
                || self.claims(group).iter().flatten().any(|claim| claim.primary == *address);
            if is_named {
                let mut identity = redis::cmd("HMGET");
                identity.arg(self.groups[group].keys.identity()).arg("id").arg("epoch");
                self.ask_member(at, MemberAsked::Share(group), identity);
            }
        }
    }

    /// Something is not where it was: all are asked at once.
    pub(super) fn ask_around(&mut self) {
        if self.is_redis_cluster() {
            (0..self.servers.len()).for_each(|at| self.ask_soon(at));
        }
    }

    fn ask_soon(&mut self, at: usize) {
        let now = self.now();
        let server = &mut self.servers[at];
        if server.view_asked_at.is_some_and(|asked| now >= asked + ASK_SOONEST) {
            server.view_asked_at = None;
        }
    }

    pub(super) fn member_answered(&mut self, at: usize, asked: MemberAsked, outcome: Result<Value, Lost>) {
        match asked {
            MemberAsked::Sight => self.saw_sight(at, outcome),
            MemberAsked::Share(group) => self.saw_share(at, group, outcome),
            MemberAsked::Coverage => self.saw_coverage(at, outcome),
        }
    }

    fn saw_sight(&mut self, at: usize, outcome: Result<Value, Lost>) {
        let now = self.now();
        let text = match &outcome {
            Ok(Value::BulkString(text)) => std::str::from_utf8(text).ok(),
            Ok(Value::VerbatimString { text, .. }) => Some(text.as_str()),
            Ok(Value::ServerError(error)) => {
                self.complain_of(at, &complaints::unusable(error.code(), error.details().unwrap_or_default()));
                None
            }
            _ => None,
        };
        let slots: Vec<u16> = self.groups.iter().map(|group| group.redis_cluster_slot()).collect();
        let address = self.servers[at].address.clone();
        let sight = text.and_then(|text| redis_cluster::read(text, &address, &slots, now));
        let server = &mut self.servers[at];
        server.view =
            sight.is_some().then_some(ServerView { is_primary: server.is_primary, identity: None, seen_at: now });
        server.member.is_alias = sight.as_ref().is_some_and(|sight| sight.own != address);
        server.member.sight.clone_from(&sight);
        let Some(sight) = sight else { return };
        for address in &sight.servers {
            self.serve(NO_GROUP, address);
        }
        for (group, owner) in sight.owners.iter().enumerate() {
            let Some(owner) = owner else { continue };
            if self.groups[group].address.as_ref() != Some(&owner.address)
                && let Some(named) = self.servers.iter().position(|server| server.address == owner.address)
            {
                self.ask_soon(named);
            }
        }
    }

    fn saw_share(&mut self, at: usize, group: usize, outcome: Result<Value, Lost>) {
        let now = self.now();
        let server = &mut self.servers[at];
        server.member.shares.resize(self.groups.len(), None);
        let view = match outcome {
            Ok(Value::Array(parts)) => {
                Some(ServerView { is_primary: server.is_primary, identity: super::bus::identity(&parts), seen_at: now })
            }
            Ok(Value::ServerError(error)) => {
                // MOVED, or on the way to another: it is not the owner, whoever says so. What loads says so for a while.
                if !matches!(error.code(), "MOVED" | "ASK" | "TRYAGAIN" | "LOADING" | "MASTERDOWN") {
                    let what = complaints::unusable(error.code(), error.details().unwrap_or_default());
                    let problem = format!("{}: {what}", server.address);
                    self.groups[group].show_problem(&problem);
                    self.complain_of(at, &what);
                }
                None
            }
            _ => None,
        };
        self.servers[at].member.shares[group] = view;
    }

    fn saw_coverage(&mut self, at: usize, outcome: Result<Value, Lost>) {
        // A user may be forbidden to ask; then nothing is known.
        let says_yes = match outcome {
            Ok(Value::Map(pairs)) => pairs.iter().any(|(_, value)| *value == Value::BulkString(b"yes".to_vec())),
            Ok(Value::Array(parts)) => parts.contains(&Value::BulkString(b"yes".to_vec())),
            _ => false,
        };
        if says_yes {
            tracing::warn!(
                address = self.servers[at].address,
                "cluster-require-full-coverage is yes: while any part of Redis Cluster is lost, all of it stops; \
                 run `CONFIG SET cluster-require-full-coverage no` on every server"
            );
        }
    }

    /// Servers whose word counts.
    fn members(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.link.is_some() && !server.member.is_alias)
    }

    /// Whether one of them said a moment ago who owns what.
    pub(super) fn has_sight(&self, now: Duration) -> bool {
        let mut sights = self.members().filter_map(|server| server.member.sight.as_ref());
        sights.any(|sight| now < sight.seen_at + FRESH)
    }

    /// What every server says of the owner of a group's slot.
    fn claims(&self, group: usize) -> Vec<Option<Claim>> {
        let claim = |sight: &Sight| {
            let owner = sight.owners.get(group)?.as_ref()?;
            Some(Claim { primary: owner.address.clone(), epoch: owner.epoch, seen_at: sight.seen_at })
        };
        self.members().map(|server| server.member.sight.as_ref().and_then(claim)).collect()
    }

    /// No server names anybody for a group.
    fn complain_of_nobody(&mut self, now: Duration, group: usize) {
        let this = &self.groups[group];
        if self.has_sight(now) {
            let what = format!(
                "no server of Redis Cluster has slot {}, in which everything of this share lies; bring back the one that had \
                 it, or give it to another (`redis-cli --cluster fix`)",
                this.redis_cluster_slot()
            );
            self.groups[group].complain(now, &what);
        } else if this.problem.is_none() && now >= FRESH {
            // Where a server says why it does not answer, that is the reason.
            self.groups[group].complain(now, "no server of Redis Cluster says who has what");
        }
    }

    /// The server that they name for a group cannot be seen. One that answers has said itself why it is of no use.
    fn complain_of_unseen(&mut self, now: Duration, group: usize, owner: &str) {
        let link = self.servers.iter().find(|server| server.address == owner).and_then(|server| server.link);
        if self.groups[group].address.is_none() && !self.is_up(link) && now >= FRESH {
            let what = format!("Redis Cluster names {owner} for this share, and it does not answer; bring it back");
            self.groups[group].complain(now, &what);
        }
    }

    /// Follows whom they name.
    pub(super) fn judge_owners(&mut self, now: Duration) {
        if self.is_redis_cluster() {
            for group in 0..self.groups.len() {
                self.judge_share(now, group);
            }
        }
    }

    fn judge_share(&mut self, now: Duration, group: usize) {
        let owners = belief::owners(now, &self.claims(group), self.groups[group].address.is_some());
        if owners.is_empty() && self.groups[group].address.is_none() {
            self.complain_of_nobody(now, group);
        }
        for named in owners {
            if self.groups[group].address.as_ref() == Some(&named.address) {
                // Nobody with a higher epoch has shown itself.
                self.groups[group].may_claim = named.is_undisputed;
                return;
            }
            let server = self.servers.iter().find(|server| server.address == named.address);
            let view = server.and_then(|server| server.member.shares.get(group)?.as_ref());
            match belief::judge(now, view, &self.groups[group].identity, named.is_undisputed) {
                Verdict::Follow => return self.follow(group, &named.address, named.is_undisputed),
                // Whoever is attached and has the data is not left for a server that has none.
                Verdict::Claim if self.groups[group].attached.is_none() => {
                    return self.follow(group, &named.address, true);
                }
                Verdict::Unseen => self.complain_of_unseen(now, group, &named.address),
                Verdict::Claim | Verdict::IsReplica => {}
                Verdict::WrongGroup { identity } => {
                    let what = format!("REFUSED: {} has the data of {identity} under this share's name", named.address);
                    self.groups[group].complain(now, &what);
                }
            }
        }
    }
}
