//! Nodes, clocks, webhooks, this machine; and what holds for every finding.

use super::*;

/// DOC-20
#[test]
fn a_deployment_as_advised_has_no_finding() {
    assert_eq!(found(|_| {}), []);
}

/// DOC-3
#[test]
fn what_several_servers_have_alike_is_said_once_with_a_fix_for_each() {
    let made = found(|d| {
        for server in &mut d.groups[0].servers {
            server.settings.insert("timeout".to_owned(), "60".to_owned());
        }
        set(d, "timeout", "61");
    });
    assert_eq!(made.iter().map(|finding| finding.id).collect::<Vec<_>>(), [Id::IdleTimeout, Id::IdleTimeout]);
    assert!(made[0].what.starts_with("10.0.0.1:6379 closes"), "{made:?}");
    assert!(made[1].what.starts_with("each of 10.0.0.2:6379, 10.0.0.3:6379 closes"), "{made:?}");
    assert_eq!(
        made[1].fix,
        "redis-cli -h 10.0.0.2 -p 6379 CONFIG SET timeout 0\nredis-cli -h 10.0.0.3 -p 6379 CONFIG SET timeout 0"
    );
    let made = found(|d| {
        d.groups[0].servers.iter_mut().for_each(|s| drop(s.settings.insert("timeout".to_owned(), "60".to_owned())));
    });
    assert!(made.len() == 1 && made[0].servers.len() == 3, "{made:?}");
}

/// DOC-17
#[test]
fn nodes_that_differ_are_silent_or_do_not_hear_are_named() {
    use Weight::{Advice, Grave, Warning};
    finds(Id::ReleasesDiffer, Warning, &["0.1.0: n1 (n1:6001); 0.2.0: n2"], |d| {
        d.nodes[1].release = "0.2.0".to_owned()
    });
    finds(Id::AppsDiffer, Grave, &["aa: n1", "cc: n2"], |d| d.nodes[1].apps = "cc".to_owned());
    finds(Id::SettingsDiffer, Warning, &["bb: n1", "cc: n2"], |d| d.nodes[1].settings = "cc".to_owned());
    finds(Id::NodeSilent, Warning, &["n2 (n2:6001)", "5 s"], |d| {
        d.nodes[1] = NodeFacts { silent_for: Duration::from_secs(5), release: "0.0.1".to_owned(), ..node("n2") };
    });
    finds(Id::NodeNotAttached, Grave, &["n2", "in epoch 3", "in epoch 4"], |d| d.nodes[1].attached[0].1 = 3);
    finds(Id::NodeNotAttached, Grave, &["n2", "nothing of it"], |d| d.nodes[1].attached.clear());
    finds(Id::NodeWithoutLease, Grave, &["n9", "webhooks"], |d| {
        d.groups[0].data.as_mut().unwrap().claimants.push("n9".to_owned());
    });
    finds(Id::NodeWithoutLease, Warning, &["3 connections", "2 have a lease"], |d| {
        d.groups[0].data.as_mut().unwrap().bus_listeners = 3;
    });
    finds(Id::NodeFilesFew, Warning, &["1024 files"], |d| d.nodes[0].open_files = 1_024);
    finds(Id::NodeFilesFew, Grave, &["(91%)"], |d| d.nodes[0].connections = 60_000);
    finds(Id::NodeNotReachable, Advice, &["n1", "backbone.advertise"], |d| d.nodes[0].advertise = None);
    finds(Id::RoleMissing, Grave, &["rest", "503"], |d| {
        d.nodes.iter_mut().for_each(|node| node.roles.retain(|role| *role != "rest"));
    });
    finds(Id::NoNodes, Advice, &["fulmar serve"], |d| {
        d.nodes.clear();
        let data = d.groups[0].data.as_mut().unwrap();
        data.claimants.clear();
        data.bus_listeners = 0;
    });
}

/// DOC-17
#[test]
fn a_metrics_sink_that_is_away_is_said_once_however_many_nodes_miss_it() {
    let trouble = "statsd:8125: nothing listens there";
    let made = found(|d| d.nodes.iter_mut().for_each(|node| node.metrics_trouble = Some(trouble.to_owned())));
    let [only] = made.as_slice() else { panic!("one finding, not {made:?}") };
    assert_eq!((only.id, only.weight), (Id::MetricsSinkUnreachable, Weight::Warning));
    assert!(only.what.contains(trouble) && only.what.contains(", "), "{}", only.what);
    let here = Some(trouble.to_owned());
    finds(Id::MetricsSinkUnreachable, Weight::Warning, &["that runs here"], |d| d.local.metrics_trouble = here);
}

/// DOC-18
#[test]
fn a_clock_that_is_not_like_most_is_named_whoever_has_it() {
    use Weight::{Grave, Warning};
    let clock = |ahead_ms| Some(ClockFact { ahead_ms, error_ms: 700 });
    finds(Id::ClockSkew, Warning, &["node n1", "3.2 s behind"], |d| d.nodes[0].clock = clock(-3_200));
    assert_eq!(found(|d| d.nodes[0].clock = clock(-1_600)), [], "within what a lease's age explains");
    finds(Id::ClockSkew, Grave, &["the server 10.0.0.3:6379", "3600.0 s ahead"], |d| {
        d.groups[0].servers[2].clock = clock(3_600_003);
    });
    let made = found(|d| {
        d.nodes.iter_mut().for_each(|node| node.clock = clock(120_000));
        d.groups[0].servers.iter_mut().for_each(|server| server.clock = clock(120_000));
    });
    assert!(made.len() == 1 && made[0].what.contains("this machine"), "{made:?}");
}

/// DOC-19
#[test]
fn webhooks_that_wait_or_were_given_up_are_counted() {
    use Weight::{Advice, Grave, Warning};
    for (oldest, weight) in [(61, Warning), (601, Grave)] {
        finds(Id::WebhookBacklog, weight, &["12 webhook", &format!("{oldest} s")], |d| {
            let outbox = OutboxFacts { waiting: 12, oldest: Duration::from_secs(oldest), ..OutboxFacts::default() };
            d.groups[0].data.as_mut().unwrap().outbox = outbox;
        });
    }
    finds(Id::WebhooksDropped, Warning, &["3 edges", "outbox_entries_max"], |d| {
        d.groups[0].data.as_mut().unwrap().outbox.dropped = 3;
    });
    finds(Id::WebhooksGivenUp, Advice, &["4 webhook requests", "replay"], |d| {
        d.groups[0].data.as_mut().unwrap().outbox.given_up = 4;
    });
}

/// DOC-10
#[test]
fn this_machine_is_judged_with_or_without_redis() {
    use Weight::{Grave, Warning};
    let certificate = |ends: Result<i64, &str>| CertificateFact {
        key: "tls.cert",
        path: "/cert.pem".to_owned(),
        ends: ends.map_err(str::to_owned),
    };
    let now = healthy().local.unix_s;
    for (days, weight, words) in
        [(10, Warning, "ends in 10 days"), (1, Grave, "ends in 24 hours"), (-2, Grave, "ended 2 days ago")]
    {
        finds(Id::CertificateExpiry, weight, &[words, "/cert.pem"], |d| {
            d.local.certificates.push(certificate(Ok(now + days * 86_400)));
        });
    }
    assert_eq!(found(|d| d.local.certificates.push(certificate(Ok(now + 15 * 86_400)))), []);
    finds(Id::CertificateUnusable, Grave, &["no PEM"], |d| d.local.certificates.push(certificate(Err("no PEM"))));
    finds(Id::Config, Warning, &["port"], |d| {
        d.local.config.push(ConfigFact { text: "server.port is wrong".to_owned(), is_ignored: true });
    });
    let storage = |change: fn(&mut StorageFact)| {
        move |d: &mut Deployment| {
            let mut storage = StorageFact { folder: "/s".to_owned(), ..StorageFact::default() };
            change(&mut storage);
            d.arrangement = Arrangement::Embedded;
            d.groups.clear();
            d.nodes.clear();
            d.local.storage = Some(storage);
        }
    };
    finds(Id::StorageUnusable, Warning, &["denied", "outlive"], storage(|s| s.trouble = Some("denied".to_owned())));
    finds(
        Id::StorageUnusable,
        Grave,
        &["does not start"],
        storage(|s| (s.is_configured, s.trouble) = (true, Some("no".to_owned()))),
    );
    finds(
        Id::StorageUnusable,
        Grave,
        &["chmod 600 admin-token"],
        storage(|s| s.open_to_others.push("admin-token".to_owned())),
    );
    finds(
        Id::StorageSpace,
        Warning,
        &["10.4 MB are free"],
        storage(|s| {
            s.disk = Some(Disk { folder: "/s".to_owned(), free_bytes: 10 * MB, total_bytes: 100 * MB });
        }),
    );
    finds(Id::FilesFew, Warning, &["needs 10320", "may open 1024"], |d| {
        (d.local.connections_max, d.local.open_files) = (Some((10_000, 10_320)), Some(1_024));
    });
}

/// DOC-3
#[test]
fn every_kind_has_a_name_of_its_own_that_is_written_alike_everywhere() {
    let mut names: Vec<&str> = Id::ALL.iter().map(|id| id.name()).collect();
    for name in &names {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
        assert_eq!(Id::parse(name).map(Id::name), Some(*name));
    }
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert_eq!(Id::parse("unheard-of"), None);
}

/// DOC-3
#[test]
fn every_kind_is_written_down_with_its_thresholds() {
    let table = include_str!("../../../../../spec/doctor.md");
    for id in Id::ALL {
        assert!(table.contains(&format!("\n| `{}` | ", id.name())), "{} is not in spec/doctor.md", id.name());
        assert!(id.about().ends_with('.'), "{id:?}");
    }
    let rows = table.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, Id::ALL.len(), "and nothing else is");
}

/// DOC-2
#[test]
fn nothing_is_concluded_from_what_was_not_seen() {
    let made = found(|d| {
        for group in &mut d.groups {
            group.servers.clear();
            group.data = None;
            for server in &mut group.seen.servers {
                (server.state, server.trouble) = (None, Some("silent".to_owned()));
            }
        }
        d.nodes.clear();
    });
    let mut ids: Vec<_> = made.iter().map(|finding| finding.id).collect();
    ids.dedup();
    assert_eq!(ids, [Id::ServerUnreachable, Id::NoPrimary, Id::ServerUnreachable], "{made:#?}");
}
