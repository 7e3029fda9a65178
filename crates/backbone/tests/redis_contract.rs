//! The Redis backbone keeps every promise of the suite: three nodes over one server.
//!
//! Every case gets a deployment of its own on the same server. What needs time to pass waits for it: a server's clock cannot
//! be moved.

mod ears;
mod nodes;

use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fulmar_backbone::Terms;
use fulmar_backbone::contract::{Fixture, Outage, run_clause};
use fulmar_backbone::redis::settings::Topology;
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Join, Publication, Question, Ticket};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::ChannelName;
use fulmar_rig::{Redis, RedisOptions};

use ears::Ears;

/// The server of this process; `None`, said loudly, where there is no program for one.
fn server() -> Option<&'static Redis> {
    static SERVER: OnceLock<Option<Redis>> = OnceLock::new();
    SERVER.get_or_init(start).as_ref()
}

/// One that is stopped now and then, while other tests need the other.
fn server_for_outages() -> Option<&'static Redis> {
    static SERVER: OnceLock<Option<Redis>> = OnceLock::new();
    SERVER.get_or_init(start).as_ref()
}

fn start() -> Option<Redis> {
    if !fulmar_rig::is_available() {
        eprintln!("SKIPPED: no redis-server on this machine; `cargo xtask setup` installs it");
        return None;
    }
    Some(Redis::start(&RedisOptions::default()).expect("a server starts"))
}

fn fixture() -> Fixture {
    let server = server().expect("whoever asks has looked whether there is one");
    let topology = Topology::Single(server.addr().to_string());
    nodes::fixture(&nodes::settings(topology), Outage::never(), |_| true)
}

/// One whose server hangs in an outage: it is the only way there is.
fn fixture_for_outages() -> Fixture {
    let server = server_for_outages().expect("whoever asks has looked whether there is one");
    let set_away = move |is_away| if is_away { server.stop() } else { server.resume() };
    let outage = Outage { set_away: Box::new(set_away), has_detour: false, patience: nodes::PATIENCE_WITH_OUTAGES };
    let topology = Topology::Single(server.addr().to_string());
    nodes::fixture(&nodes::settings_for_outages(topology), outage, |node| nodes::hears_all(node, 1))
}

/// Checks these clauses, if there is a server.
fn check(clauses: &[&str]) {
    if server().is_some() {
        clauses.iter().for_each(|clause| run_clause(clause, fixture));
    }
}

/// Checks clauses about outages, likewise.
fn check_outages(clauses: &[&str]) {
    if server_for_outages().is_some() {
        clauses.iter().for_each(|clause| run_clause(clause, fixture_for_outages));
    }
}

keeps_the_suite!(check, check_outages);

/// RED-15
#[test]
fn what_is_published_under_one_key_through_two_nodes_is_accepted_twice_and_heard_once() {
    if server().is_none() {
        return;
    }
    let nodes = fixture().nodes;
    let (app, room) = (AppId::new("app"), ChannelName::parse("room", 200).expect("a valid name"));
    let (say, heard) = channel();
    let worker = nodes[2].attach(Arc::new(Ears(say)));
    let ticket = Ticket { session: 1, number: 1 };
    let (member, members_max, counted) = (None, 0, false);
    let join = Join { ticket, app: app.clone(), channel: room.clone(), member, members_max, counted };
    assert!(nodes[2].ask(worker, Question::Join(join)).is_none());
    let patience = Duration::from_secs(10);
    assert_eq!(heard.recv_timeout(patience).as_deref(), Ok(""), "it is subscribed");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for (node, once, text) in [(0, Some(7), "first"), (1, Some(7), "again"), (1, None, "last"), (0, None, "end")] {
        let frame = Frame::new(text);
        let (except, cache_for) = (None, None);
        let publication = Publication { app: app.clone(), channel: room.clone(), frame, except, cache_for };
        let terms = Terms { once, ..Terms::default() };
        assert_eq!(runtime.block_on(nodes[node].publish(vec![publication], terms)), Ok(()), "{text}");
    }
    let texts: Vec<String> = std::iter::from_fn(|| heard.recv_timeout(patience).ok().filter(|t| t != "end")).collect();
    assert_eq!(texts, ["first", "last"]);
}
