//! A steady load on several nodes, and its ledger: subscribers, publishers and a watch over the machine, begun and ended together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fulmar_protocol::app::App;

use crate::RigError;
use crate::crowd::{Crowd, Seat};
use crate::lanes::{Done, LaneSpec, Lanes};
use crate::ledger::{Ledger, since};
use crate::stalls::Watch;

const SUBSCRIBED_MAX: Duration = Duration::from_secs(40);
/// After the last answer it is listened on until nothing has come for so long,
const QUIET: Duration = Duration::from_millis(1_500);
/// and no longer than this.
const LISTEN_MAX: Duration = Duration::from_secs(12);

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Channels; each has subscribers on several nodes, and a publisher on every node.
    pub channels: usize,
    /// Subscribers, one channel each.
    pub subscribers: usize,
    /// Publishes per second of all publishers together.
    pub publishes_per_s: u32,
}

impl Size {
    /// What the promises are made for.
    pub const FULL: Self = Self { channels: 200, subscribers: 500, publishes_per_s: 2_000 };
    /// What shows that it works.
    pub const QUICK: Self = Self { channels: 40, subscribers: 100, publishes_per_s: 400 };
}

/// The load.
#[derive(Debug)]
pub struct Load {
    origin: Instant,
    size: Size,
    app: App,
    names: Arc<[String]>,
    crowd: Crowd,
    lanes: Lanes,
    watch: Watch,
}

impl Load {
    /// Subscribes everybody, taking turns over `nodes` (by number in the ledger). Nothing is published yet.
    ///
    /// # Errors
    /// Somebody cannot subscribe.
    pub fn start(app: &App, nodes: &[SocketAddr], size: Size) -> Result<Self, RigError> {
        let load = Self::open(app, size);
        load.subscribe(nodes);
        load.await_subscribed(size.subscribers)?;
        Ok(load)
    }

    /// Nobody is subscribed yet, and nobody publishes.
    pub fn open(app: &App, size: Size) -> Self {
        let origin = Instant::now();
        let names: Arc<[String]> = (0..size.channels).map(|number| format!("faults-{number}")).collect();
        let (crowd, lanes) = (Crowd::start(origin, app, &names), Lanes::start(origin, app, &names));
        Self { origin, size, app: app.clone(), crowd, lanes, watch: Watch::start(origin), names }
    }

    /// Asks for all subscribers.
    pub fn subscribe(&self, nodes: &[SocketAddr]) {
        self.seats(nodes).for_each(|seat| self.crowd.add(seat));
    }

    /// Where a node's subscribers sit, for those who come when it is back.
    pub fn seats_of(&self, node: usize, nodes: &[SocketAddr]) -> Vec<Seat> {
        self.seats(nodes).filter(|seat| seat.node == node).collect()
    }

    fn seats(&self, nodes: &[SocketAddr]) -> impl Iterator<Item = Seat> {
        (0..self.size.subscribers).map(|number| {
            // Each round over the channels begins at another node, so that a channel's subscribers are on several.
            let node = (number + number / self.size.channels) % nodes.len();
            Seat { addr: nodes[node], node, channel: number % self.size.channels }
        })
    }

    /// One more subscriber.
    pub fn add_subscriber(&self, seat: Seat) {
        self.crowd.add(seat);
    }

    /// Waits until so many are subscribed.
    ///
    /// # Errors
    /// They are not in time.
    pub fn await_subscribed(&self, wanted: usize) -> Result<(), RigError> {
        self.crowd.await_live(wanted, SUBSCRIBED_MAX)
    }

    /// One publisher per node and channel begins.
    pub fn publish(&self, nodes: &[SocketAddr]) {
        let count = nodes.len() * self.size.channels;
        let every = Duration::from_secs_f64(count as f64 / f64::from(self.size.publishes_per_s));
        for channel in 0..self.size.channels {
            for (node, addr) in nodes.iter().enumerate() {
                let first = every.mul_f64((channel * nodes.len() + node) as f64 / count as f64);
                let through = vec![(node, *addr)];
                self.lanes.add(LaneSpec { through, node, channel, every, first, tries_again: false });
            }
        }
    }

    /// One more publisher.
    pub fn add_publisher(&self, lane: LaneSpec) {
        self.lanes.add(lane);
    }

    /// The channels by number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// In whose name.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Nanoseconds since the beginning, as in the ledger.
    pub fn now_ns(&self) -> u64 {
        since(self.origin)
    }

    /// Subscribed and connected now.
    pub fn live(&self) -> usize {
        self.crowd.live()
    }

    /// Answers so far.
    pub fn answered(&self) -> usize {
        self.lanes.answered()
    }

    /// Ends publishing, listens until nothing more comes, and answers the ledger.
    ///
    /// # Errors
    /// Publishes are neither answered nor given up.
    pub fn end(self) -> Result<Ledger, RigError> {
        self.lanes.rest()?;
        let begun = Instant::now();
        let (mut before, mut quiet_since) = (self.crowd.receipts(), begun);
        while quiet_since.elapsed() < QUIET && begun.elapsed() < LISTEN_MAX {
            thread::sleep(Duration::from_millis(20));
            let now = self.crowd.receipts();
            if now != before {
                (before, quiet_since) = (now, Instant::now());
            }
        }
        let Done { published, offers, rested_ns } = self.lanes.end();
        let (stood, receipts) = self.crowd.end();
        Ok(Ledger { published, offers, rested_ns, stood, receipts, stalls: self.watch.end() })
    }
}
