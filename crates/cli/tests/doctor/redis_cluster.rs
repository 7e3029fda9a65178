//! A Redis Cluster: its servers are found, and what only it has is judged.

use fulmar_rig::{Redis, RedisCluster, RedisOptions, is_available};

use super::patient::{Patient, says};

/// A node that is configured for a Redis Cluster with these servers among it.
fn patient(of: &[Redis]) -> Patient {
    let seeds: Vec<String> = of.iter().map(|server| format!("{:?}", server.addr().to_string())).collect();
    Patient::new(&format!(
        "[demo]\nenabled = true\n[storage]\npath = \"STORAGE\"\n[backbone]\nkind = \"redis\"\ntopology = \"cluster\"\n\
         addresses = [{}]\n",
        seeds.join(", ")
    ))
}

/// DOC-16
#[test]
fn a_redis_cluster_that_stops_as_a_whole_is_found_before_and_when_it_does() {
    if !is_available() {
        return;
    }
    let options = RedisOptions::default().line("maxmemory 4gb").line("client-output-buffer-limit pubsub 16mb 8mb 10");
    let redis = RedisCluster::start(3, 0, &options).unwrap();
    let patient = patient(redis.servers());
    let found = patient.await_findings(&["no-nodes", "no-replica"]);
    says(&found, "no-replica", "grave", &["only copy"]);
    for server in redis.servers() {
        server.call(&["CONFIG", "SET", "cluster-require-full-coverage", "yes"]).unwrap();
    }
    redis.servers()[1].call(&["CONFIG", "SET", "cluster-node-timeout", "15000"]).unwrap();
    let found =
        patient.await_findings(&["cluster-node-timeout", "cluster-require-full-coverage", "no-nodes", "no-replica"]);
    says(&found, "cluster-node-timeout", "warning", &[&redis.servers()[1].addr().to_string(), "15000 ms"]);

    redis.servers()[1].kill();
    // What stands in a server that serves nobody is not known, so that nothing is said of nodes.
    let found =
        patient.await_findings(&["cluster-require-full-coverage", "cluster-state", "no-replica", "server-unreachable"]);
    says(&found, "cluster-state", "grave", &["state fail"]);
    says(&found, "server-unreachable", "grave", &[&redis.servers()[1].addr().to_string()]);
}

/// DOC-16
#[test]
fn a_share_that_lies_with_nobody_is_found_and_so_is_a_server_that_is_none_of_a_redis_cluster() {
    if !is_available() {
        return;
    }
    let redis = RedisCluster::start(3, 0, &RedisOptions::default()).unwrap();
    let slot = redis.servers()[0].call(&["CLUSTER", "KEYSLOT", "{fulmar.0}"]).unwrap().number().unwrap();
    redis.lose_slot(slot).unwrap();
    let found = patient(redis.servers()).await_some(&["cluster-slots"]);
    says(&found, "cluster-slots", "grave", &[&format!("slot {slot} (share 0)"), "redis-cli --cluster fix"]);

    let alone = [Redis::start(&RedisOptions::default()).unwrap()];
    let found = patient(&alone).await_some(&["cluster-disabled"]);
    says(&found, "cluster-disabled", "grave", &[&alone[0].addr().to_string(), "backbone.addresses"]);
}
