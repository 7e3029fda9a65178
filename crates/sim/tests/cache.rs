//! What cache channels keep, how long, and in how much memory.

use fulmar_sim::frames::{cache_miss, event, succeeded};
use fulmar_sim::{Setup, World};

/// WS-124
#[test]
fn what_is_kept_beyond_the_limit_costs_the_oldest_a_miss_and_nothing_else() {
    let mut world = World::of(Setup { cache_bytes_max: 20_000, ..Setup::default() });
    let large = "x".repeat(5_000);
    for channel in ["cache-1", "cache-2", "cache-3", "cache-4", "cache-5"] {
        world.publish("app-1", channel, "e", &large);
    }
    let ana = world.connect("app-1");
    world.join(ana, "cache-1");
    world.expect(ana, cache_miss("cache-1"));
    world.join(ana, "cache-5");
    world.expect(ana, event("cache-5", "e", &large));
    world.publish("app-1", "cache-1", "e", "live");
    world.expect(ana, event("cache-1", "e", "live"));
    assert!(world.backbone_figures().cached_bytes <= 20_000);
}

/// WS-93, WS-94, DEL-15: kept without a subscriber, and no longer than that.
#[test]
fn a_kept_event_outlives_its_subscribers_but_not_its_time() {
    let mut world = World::with_app(|app| app.limits.cache_ttl_s = 10);
    let ana = world.connect("app-1");
    world.subscribe(ana, "cache-a");
    world.publish("app-1", "cache-a", "e", "x");
    world.leave(ana);
    assert_eq!(world.channels("app-1"), []);
    world.wait(9_999);
    let bob = world.connect("app-1");
    world.join(bob, "cache-a");
    world.expect(bob, event("cache-a", "e", "x"));
    world.leave(bob);
    world.wait(1);
    let cid = world.connect("app-1");
    world.join(cid, "cache-a");
    world.expect(cid, cache_miss("cache-a"));
    world.leave(cid);
    assert_eq!(world.backbone_figures().channels, 0);
}

/// WS-92
#[test]
fn each_kind_of_cache_channel_repeats_its_last_event_right_behind_the_confirmation() {
    let mut world = World::with_app(|app| app.subscription_counts = true);
    for channel in ["cache-a", "private-cache-a", "private-encrypted-cache-a"] {
        world.publish("app-1", channel, "e", "old");
        world.publish("app-1", channel, "e", "new");
        let ana = world.connect("app-1");
        world.subscribe(ana, channel);
        world.expect(ana, succeeded(channel));
        world.expect(ana, event(channel, "e", "new"));
    }
}
