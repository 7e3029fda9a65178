//! `fulmar redis status`.

use fulmar_rig::eventually;

use super::stage::{PATIENCE, Stage};

/// OP-2 OP-4
#[test]
fn a_whole_group_is_drawn_with_the_age_of_each_fact_and_a_hurt_one_with_what_is_wrong() {
    let Some(stage) = Stage::set(2, "[backbone.group.g1]\nreplicas = 2\n") else { return };
    // Replication of the identity, and a restless machine, may take a moment.
    eventually("the group is in sync", PATIENCE, || {
        let whole = stage.run(&["redis", "status", "--json"]);
        (whole.code == 0).then_some(())
    })
    .unwrap();
    let whole = stage.run(&["redis", "status"]);
    let primary = stage.primary();
    for part in ["group g1", "in sync: 3 complete copies", "2 of 2 replicas online", &primary, " ms old", "Sentinel"] {
        assert!(whole.out.contains(part), "{part} is not in:\n{}", whole.out);
    }
    let facts = stage.run(&["redis", "status", "--json"]).json();
    let group = &facts["groups"][0];
    assert_eq!(group["primary"], primary.as_str());
    assert_eq!((group["copies"].as_u64(), group["servers"].as_array().unwrap().len()), (Some(3), 3));
    assert_eq!(group["sentinels"].as_array().unwrap().len(), 3);
    assert!(group["servers"].as_array().unwrap().iter().all(|server| server["age_ms"].as_u64().is_some()));

    stage.redis.replicas_of("g1").unwrap()[0].redis.kill();
    stage.redis.sentinels()[0].redis.kill();
    let mut hurt = stage.run(&["redis", "status", "--json"]);
    eventually("the loss is seen", PATIENCE, || {
        hurt = stage.run(&["redis", "status", "--json"]);
        hurt.out.contains("replica-missing").then_some(())
    })
    .unwrap();
    assert_eq!(hurt.code, 1);
    let states = hurt.json()["groups"][0]["states"].to_string();
    assert!(states.contains("replica-missing") && states.contains("unseen"), "{states}");
    let drawn = stage.run(&["redis", "status"]).out;
    assert!(drawn.contains("GRAVE     1 of 2 replicas are online") && drawn.contains("not seen: "), "{drawn}");
}

/// OP-4
#[test]
fn a_deployment_that_is_not_described_is_a_mistake_of_usage() {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_fulmar")).env_clear().args(["redis", "status"]).output();
    let done = done.unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("no Redis is configured"));
}
