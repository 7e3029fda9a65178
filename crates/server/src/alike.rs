//! Short digests of what should be alike on every node of a deployment, for its lease. Pure.
//!
//! Nodes of one release write them in the same way; between releases they may differ for that reason alone, which is why the
//! release stands beside them.

use sha2::{Digest, Sha256};

use crate::apps::Snapshot;
use crate::config::Config;

/// Bytes of a digest: enough to see a difference, too few to try secrets against.
const DIGEST_BYTES: usize = 4;

/// Of the apps served, with their secrets.
pub(crate) fn of_apps(apps: &Snapshot) -> String {
    let mut apps: Vec<_> = apps.iter().collect();
    apps.sort_by(|a, b| a.id.cmp(&b.id));
    let mut digest = Sha256::new();
    for app in apps {
        // Its `Debug` leaves out the secrets and nothing else.
        digest.update(format!("{app:?}\n"));
        for secret in [Some(&app.secret), app.previous_secret.as_ref()].into_iter().flatten() {
            digest.update(Sha256::digest(secret.expose()));
        }
    }
    short(digest)
}

/// Of the settings by which nodes treat the same client differently.
pub(crate) fn of_settings(config: &Config) -> String {
    let mut digest = Sha256::new();
    let server = &config.server;
    digest.update(format!("{:?}\n{:?}\n", server.path_prefix, (server.activity_timeout, server.pong_timeout)));
    digest.update(format!("{:?}\n{:?}\n{:?}\n", config.limits, config.shutdown, config.webhooks));
    short(digest)
}

fn short(digest: Sha256) -> String {
    digest.finalize().iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use fulmar_protocol::app::App;

    use super::*;
    use crate::apps::Apps;
    use crate::config::{Sources, load};

    fn digest(apps: &[(&str, &str)]) -> String {
        of_apps(&Apps::new(apps.iter().map(|(id, secret)| App::new(id, id, secret)).collect()).snapshot())
    }

    /// NODE-12
    #[test]
    fn the_order_of_apps_is_no_difference_and_a_secret_is_one() {
        assert_eq!(digest(&[("1", "s"), ("2", "t")]), digest(&[("2", "t"), ("1", "s")]));
        assert_ne!(digest(&[("1", "s")]), digest(&[("1", "other")]));
        assert_ne!(digest(&[("1", "s")]), digest(&[("1", "s"), ("2", "t")]));
        assert_eq!(digest(&[]).len(), 2 * DIGEST_BYTES);
    }

    /// NODE-12
    #[test]
    fn where_a_node_listens_is_no_difference_and_a_limit_is_one() {
        let settings = |set: &str| match load(Sources::new().with_set(vec![set.to_owned()])) {
            Ok(loaded) => of_settings(&loaded.config),
            Err(refused) => panic!("{refused}"),
        };
        assert_eq!(settings("server.port=7001"), settings("server.port=7002"));
        assert_ne!(settings("limits.message_bytes_max=4000"), settings("limits.message_bytes_max=2000"));
    }
}
