//! Groups as somebody saw them, for tests of judgement and of plans: whole at first, then with whatever a test does to them.

#![allow(dead_code)] // Each file of tests uses its part.

use std::time::Duration;

use fulmar_control::observed::{
    Attached, Buffers, Capacity, Fact, Figures, GroupSeen, NamedReplica, ReplicaLink, Role, SentinelSeen, SentinelView,
    ServerState,
};

/// The moment of all that is seen, unless a test says otherwise.
pub const NOW: Duration = Duration::from_secs(100);
pub const PRIMARY: &str = "10.0.0.1:6379";

/// The address of the replica of this number.
pub fn replica(number: usize) -> String {
    format!("10.0.0.{}:6379", number + 2)
}

/// A group that is whole: a primary, so many replicas, three Sentinels, watched for ten quiet seconds.
pub fn whole(replicas: usize) -> GroupSeen {
    let mut group = GroupSeen {
        name: "g1".to_owned(),
        identity: "fulmar/g1".to_owned(),
        capacity: Capacity { link_mbit: Some(1_000), replicas: Some(replicas), memory_mb: Some(4_096) },
        ..GroupSeen::default()
    };
    let addresses: Vec<String> = (0..replicas).map(replica).collect();
    let attached = addresses.iter().map(|address| Attached { address: address.clone(), is_online: true }).collect();
    for back in (0..=10).rev() {
        let seen_at = NOW - Duration::from_secs(back);
        let offset = 1_000_000 - back * 1_000;
        let primary = state(Role::Primary(Vec::clone(&attached)), offset);
        group.server_mut(PRIMARY).note(seen_at, primary);
        for address in &addresses {
            let role = Role::Replica { of: PRIMARY.to_owned(), link: ReplicaLink::Connected };
            group.server_mut(address).note(seen_at, state(role, offset));
        }
    }
    group.sentinels = (1..=3).map(|number| sentinel(&format!("10.0.1.{number}:26379"), &addresses)).collect();
    group
}

pub fn state(role: Role, offset: u64) -> ServerState {
    ServerState {
        run: "a".to_owned(),
        version: "7.0.15".to_owned(),
        role,
        offset,
        identity: Some("fulmar/g1".to_owned()),
        keys: 10,
        priority: 100,
        figures: Figures {
            used_bytes: 50_000_000,
            max_bytes: 0,
            dataset_bytes: 20_000_000,
            waiting_bytes: 0,
            sent_bytes: offset * 2,
            full_syncs: 2,
            refused_partials: 0,
        },
        buffers: Buffers { backlog_bytes: 64 << 20, output_bytes_max: 256 << 20 },
    }
}

fn sentinel(address: &str, replicas: &[String]) -> SentinelSeen {
    let named = |address: &String| NamedReplica { address: address.clone(), priority: 100, is_up: true };
    let view = SentinelView {
        primary: PRIMARY.to_owned(),
        epoch: 1,
        replicas: replicas.iter().map(named).collect(),
        others: 2,
        quorum: 2,
        is_primary_up: true,
        is_failing_over: false,
        tilted_for: None,
        down_after: Duration::from_millis(1_250),
        failover_timeout: Duration::from_secs(10),
        parallel_syncs: 1,
    };
    SentinelSeen { address: address.to_owned(), view: Some(Fact { value: view, seen_at: NOW }), trouble: None }
}

/// Changes what a server says of itself.
pub fn change(group: &mut GroupSeen, address: &str, change: impl FnOnce(&mut ServerState)) {
    let server = group.server_mut(address);
    change(&mut server.state.as_mut().expect("the server was seen").value);
}

/// Makes a replica one that is connected and has nothing.
pub fn unsync(group: &mut GroupSeen, address: &str) {
    change(group, PRIMARY, |state| {
        let Role::Primary(attached) = &mut state.role else { panic!("it is the primary") };
        attached.iter_mut().filter(|replica| replica.address == address).for_each(|replica| replica.is_online = false);
    });
    change(group, address, |state| {
        state.role = Role::Replica { of: PRIMARY.to_owned(), link: ReplicaLink::Syncing };
        state.offset = 0;
    });
}

/// Adds a server that holds nothing and is nobody's.
pub fn newcomer(group: &mut GroupSeen, address: &str) {
    let mut empty = state(Role::Primary(Vec::new()), 0);
    (empty.identity, empty.keys) = (None, 0);
    group.server_mut(address).note(NOW, empty);
}

/// Changes the last sample of the primary, as if it had been so.
pub fn last_sample(group: &mut GroupSeen, change: impl FnOnce(&mut fulmar_control::observed::Sample)) {
    let sample = group.server_mut(PRIMARY).trail.last_mut().expect("it was watched");
    change(&mut sample.value);
}
