//! The suite of every backbone, for one hub over the pretend store. Nothing here waits: whatever is asked comes to its end,
//! in a random order, before the call returns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Publication, Question};
use fulmar_protocol::name::UserId;

use super::world::World;
use crate::contract::{self, Fixture, Outage};
use crate::redis::hub::{Hub, Moment, Out};
use crate::redis::records::Token;
use crate::redis::topic::Topic;
use crate::{Backbone, Inbox, Pending, PublishError, Query, Reply, Terms, Unavailable, WorkerId};

/// One of the nodes of a world.
struct Pretend {
    world: Arc<Mutex<(World, u8)>>,
    node: usize,
}

impl Pretend {
    fn nodes(count: usize) -> Vec<Arc<Self>> {
        let world = Arc::new(Mutex::new((World::new(1, count, 0), 0)));
        (0..count).map(|node| Arc::new(Self { world: Arc::clone(&world), node })).collect()
    }

    fn world(&self) -> MutexGuard<'_, (World, u8)> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something and lets it come to its end. Answers what was done with this token.
    fn whole(&self, act: impl FnOnce(&mut Hub, Moment, &mut Vec<Out>) -> Token) -> Option<Out> {
        let world = &mut self.world().0;
        let token = world.on(self.node, act);
        world.drain();
        let is_it = |out: &Out| matches!(out, Out::Terminated(of) | Out::Reply(of, _) if *of == token);
        let done = &mut world.nodes[self.node].done;
        done.iter().position(is_it).map(|at| done.remove(at))
    }
}

fn publish(world: &mut World, publication: Publication) {
    let Publication { app, channel, frame, except, cache_for } = publication;
    world.publish(&Topic::channel(&app, &channel), frame, except, cache_for);
}

impl Backbone for Pretend {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> WorkerId {
        let (world, workers) = &mut *self.world();
        let id = WorkerId(*workers);
        *workers += 1;
        world.nodes[self.node].hub.attach(id, inbox);
        id
    }

    fn ask(&self, from: WorkerId, question: Question) -> Option<Answer> {
        let world = &mut self.world().0;
        // Who comes later came later: rosters are ordered by the microsecond.
        world.now.wall_us += 1;
        world.ask(self.node, from.0, question);
        for done in std::mem::take(&mut world.nodes[self.node].done) {
            match done {
                Out::Publish(publication) => publish(world, publication),
                other => world.nodes[self.node].done.push(other),
            }
        }
        world.drain();
        None
    }

    fn publish(&self, publications: Vec<Publication>, _terms: Terms) -> Pending<'_, Result<(), PublishError>> {
        let world = &mut self.world().0;
        let has_room =
            |p: &Publication| world.nodes[self.node].hub.has_room(Topic::channel(&p.app, &p.channel).as_str());
        if !publications.iter().all(has_room) {
            return Box::pin(std::future::ready(Err(PublishError::NotAccepted)));
        }
        publications.into_iter().for_each(|publication| publish(world, publication));
        world.drain();
        Box::pin(std::future::ready(Ok(())))
    }

    fn terminate(&self, app: AppId, user_id: UserId) -> Pending<'_, Result<(), Unavailable>> {
        let done = self.whole(|hub, now, outs| hub.terminate(now, &app, &user_id, outs));
        Box::pin(std::future::ready(done.map(drop).ok_or(Unavailable)))
    }

    fn query(&self, query: Query) -> Pending<'_, Result<Reply, Unavailable>> {
        let reply = match self.whole(|hub, now, outs| hub.query(now, query, outs)) {
            Some(Out::Reply(_, reply)) => reply,
            _ => Err(Unavailable),
        };
        Box::pin(std::future::ready(reply))
    }
}

fn fixture(nodes: usize) -> Fixture {
    let nodes = Pretend::nodes(nodes);
    let clock = Arc::clone(&nodes[0]);
    let pass = move |time: Duration| {
        let ms = u64::try_from(time.as_millis()).expect("a short time");
        clock.world().0.live(ms);
    };
    Fixture {
        nodes: nodes.into_iter().map(|node| node as Arc<dyn Backbone>).collect(),
        pass: Box::new(pass),
        waits: false,
        outage: Outage::never(),
    }
}

/// RED-17, DEL-1: every promise that any backbone makes.
#[test]
fn a_hub_keeps_every_promise_of_a_backbone() {
    contract::run(|| fixture(1));
}

/// Cases of these clauses compare places that different nodes gave; a place is a hub's own.
const OF_ONE_NODE: [&str; 3] = ["DEL-3", "DEL-5", "WS-93"];

/// RED-27
#[test]
fn three_hubs_keep_every_promise_that_compares_no_places_of_different_nodes() {
    for case in contract::CASES.iter().filter(|case| !OF_ONE_NODE.contains(&case.clause)) {
        eprintln!("{} {}", case.clause, case.promise);
        (case.check)(&fixture(3));
    }
}
