//! Which servers of a Redis Cluster have shares of the deployment, by what the configured ones say.

use std::collections::BTreeMap;
use std::time::Duration;

use fulmar_backbone::redis::redis_cluster::{Owner, read, slot_of};
use fulmar_backbone::redis::settings::Settings;
use futures_util::future::join_all;
use redis::cmd;

use crate::doors::{Doors, Kind};
use crate::read::text;

/// Who has the shares.
pub(super) struct Owners {
    /// Each primary with the shares that lie there; where nobody says, each configured server without any.
    pub(super) shares: BTreeMap<String, Vec<String>>,
    /// Shares whose slot nobody has, each with that slot.
    pub(super) of_nobody: Vec<(String, u16)>,
}

/// Asks the configured servers.
pub(super) async fn owners(settings: &Settings, seeds: &[String], shares: u16) -> Owners {
    let doors = Doors::new(settings);
    let slots: Vec<u16> = (0..shares).map(|share| slot_of(&format!("{}.{share}", settings.deployment))).collect();
    let sights = join_all(seeds.iter().map(|seed| {
        let (doors, slots) = (&doors, &slots);
        async move {
            let mut command = cmd("CLUSTER");
            command.arg("NODES");
            let said = doors.ask(Kind::Server, seed, &command).await.ok()?;
            read(&text(&said), seed, slots, Duration::ZERO)
        }
    }))
    .await;
    let has_sight = sights.iter().any(Option::is_some);
    let (mut found, mut of_nobody): (BTreeMap<String, Vec<String>>, _) = (BTreeMap::new(), Vec::new());
    for (share, slot) in (0..shares).zip(&slots) {
        let said = sights.iter().flatten().filter_map(|sight| sight.owners.get(usize::from(share))?.as_ref());
        if let Some(owner) = said.max_by_key(|owner: &&Owner| owner.epoch) {
            found.entry(owner.address.clone()).or_default().push(share.to_string());
        } else if has_sight {
            of_nobody.push((share.to_string(), *slot));
        }
    }
    if found.is_empty() {
        found = seeds.iter().map(|seed| (seed.clone(), Vec::new())).collect();
    }
    Owners { shares: found, of_nobody }
}
