//! The section `[backbone]`: which topology is meant, and what is wrong with it.

use fulmar_backbone::redis::settings::{Roles, Topology};
use fulmar_server::config::{Backbone, Sources, Weight, load};

use crate::{defaults, environment, findings, load_text};

/// What there is to say about a `[backbone]` of these lines, and what it means.
fn backbone(test: &str, lines: &str) -> (Option<Backbone>, Vec<String>) {
    let text = format!("[backbone]\n{lines}\n");
    (load_text(test, &text).ok().map(|loaded| loaded.config.backbone), findings(test, &text))
}

/// NODE-1
#[test]
fn a_node_is_alone_unless_it_is_told_of_redis() {
    assert_eq!(defaults().backbone, Backbone::Embedded);
    let (found, said) = backbone("redis", "kind = \"redis\"");
    let Some(Backbone::Redis(settings)) = found else { panic!("{said:?}") };
    assert_eq!(settings.topology, Topology::Single("127.0.0.1:6379".to_owned()));
    assert_eq!((settings.deployment.as_str(), settings.roles, settings.tls), ("fulmar", Roles::default(), None));
    let (found, said) = backbone("unused", "sentinels = [\"a:1\"]\npassword = \"hush\"");
    assert_eq!(found, Some(Backbone::Embedded));
    assert_eq!(said, ["fulmar.toml:2: backbone.sentinels has no effect: backbone.kind is embedded"]);
}

/// NODE-1
#[test]
fn whoever_names_sentinels_means_the_topology_of_sentinels() {
    let flags = Sources::new()
        .with_flag("backbone.kind", Some("redis".to_owned()))
        .with_flag("backbone.sentinels", Some("a:1,b:2".to_owned()))
        .with_flag("backbone.groups", Some("g1, g2".to_owned()))
        .with_flag("server.roles", Some("rest".to_owned()))
        .with_environment(environment(&[("FULMAR_BACKBONE__PASSWORD", "hush-hush")]));
    let loaded = load(flags).unwrap();
    let shown = loaded.show();
    assert!(!shown.contains("hush-hush") && shown.contains("password = \"(not shown)\""), "{shown}");
    assert!(!format!("{:?}", loaded.config).contains("hush-hush"));
    let Backbone::Redis(settings) = loaded.config.backbone else { panic!("redis was asked for") };
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let expected = Topology::Sentinel { sentinels: texts(&["a:1", "b:2"]), groups: texts(&["g1", "g2"]) };
    assert_eq!(settings.topology, expected);
    assert_eq!(settings.credentials.password.as_deref(), Some("hush-hush"));
    assert_eq!(settings.roles, Roles { websocket: false, rest: true, webhooks: false });
}

/// NODE-1, RED-33
#[test]
fn redis_cluster_is_a_topology_of_some_addresses_and_a_number_of_shares() {
    let (found, said) = backbone("cluster", "kind = \"redis\"\ntopology = \"cluster\"\naddresses = [\"a:1\", \"b:1\"]");
    let Some(Backbone::Redis(settings)) = found else { panic!("{said:?}") };
    let seeds = vec!["a:1".to_owned(), "b:1".to_owned()];
    assert_eq!(settings.topology, Topology::RedisCluster { seeds, shares: 8 });
    assert_eq!(settings.topology.groups(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

/// NODE-2
#[test]
fn every_mistake_about_redis_is_named_where_it_stands() {
    let table: &[(&str, &[&str])] = &[
        ("topology = \"cluster\"\ndatabase = 1", &["database must be 0 with topology = cluster"]),
        ("topology = \"cluster\"\naddresses = []", &["addresses must hold at least one address"]),
        ("topology = \"cluster\"\nsentinels = [\"a:1\"]", &["sentinels belongs to topology = sentinel"]),
        ("topology = \"cluster\"\nshares = 0", &["shares must be between 1 and 128, not 0"]),
        ("shares = 4", &["shares belongs to topology = cluster"]),
        ("topology = \"ring\"", &["topology must be single, sentinel or cluster"]),
        ("addresses = [\"a:1\", \"b:1\"]", &["addresses must hold exactly one address"]),
        ("addresses = [\"redis://a\"]", &["addresses must be host:port", "addresses must hold exactly one address"]),
        ("groups = [\"g1\"]", &["groups belongs to topology = sentinel"]),
        ("sentinels = [\"a:1\"]", &["sentinels needs the names in backbone.groups as well"]),
        ("topology = \"sentinel\"", &["topology needs the addresses", "topology needs the names"]),
        (
            "sentinels = [\"a:1\"]\ngroups = [\"g\", \"g\"]\naddresses = [\"b:1\"]",
            &["groups must not name one group twice", "addresses belongs to topology = single"],
        ),
        ("topology = \"single\"\nsentinels = [\"a:1\"]", &["sentinels belongs to topology = sentinel"]),
        ("deployment = \"a:b\"", &["deployment must be 1 to 64 small letters"]),
        ("tls_ca = \"ca.pem\"", &["tls_ca needs backbone.tls = true as well"]),
        ("tls = true\ntls_cert = \"c\"", &["tls_cert needs backbone.tls_key as well"]),
        ("tls = true\ntls_key = \"k\"", &["tls_key needs backbone.tls_cert as well"]),
        ("password_file = \"no-such\"", &["password_file cannot be read"]),
        ("password_file = \"f\"\npassword = \"p\"", &["password_file cannot be given together with password"]),
        ("publish_timeout_ms = 4000", &["publish_timeout_ms must be between 100 and 3450, not 4000"]),
        ("advertise = \"http://a\"", &["advertise must be host:port"]),
    ];
    for (lines, expected) in table {
        let (found, said) = backbone("backbone-mistakes", &format!("kind = \"redis\"\n{lines}"));
        assert_eq!(found, None, "{lines}");
        assert_eq!(said.len(), expected.len(), "{lines}: {said:#?}");
        for expected in *expected {
            assert!(said.iter().any(|said| said.contains(&format!("backbone.{expected}"))), "{lines}: {said:#?}");
        }
    }
    for (roles, expected) in [
        ("[]", "must hold at least one role"),
        ("[\"rest\"]", "must be all three"),
        ("[\"resst\", \"rest\", \"websocket\", \"webhooks\"]", "must hold roles"),
    ] {
        let said = findings("roles", &format!("[server]\nroles = {roles}\n"));
        assert!(said.len() == 1 && said[0].starts_with(&format!("fulmar.toml:2: server.roles {expected}")), "{said:?}");
    }
}

/// OP-4
#[test]
fn what_is_wrong_with_a_group_s_capacity_is_named_where_it_stands_and_stops_no_node() {
    let lines = "[backbone]\nkind = \"redis\"\nsentinels = [\"a:1\"]\ngroups = [\"g1\"]\n[backbone.group.g1]\nlink_mbit = -1\n\
                 memory = 5\nreplicas = 2\n[backbone.group.g3]\nmemory_mb = \"much\"\n";
    let loaded = load_text("capacity", lines).unwrap();
    let said: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    for (part, line) in [
        ("between 0 and 1000000000, not -1", ":6"),
        ("backbone.group.memory", ":7"),
        ("whole numbers", ":10"),
        ("backbone.group.g3", ""),
    ] {
        assert!(said.iter().any(|said| said.contains(part) && said.contains(line)), "{part}{line} is not in {said:#?}");
    }
    assert_eq!((loaded.config.capacities["g1"].link_mbit, loaded.config.capacities["g1"].replicas), (None, Some(2)));
    assert!(loaded.findings.iter().all(|finding| finding.weight != Weight::Refuses));
}
