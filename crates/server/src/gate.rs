//! How many may come in: over the node, from one address, for one app.
//!
//! Counting is by guards: whoever holds a [`Seat`] is counted, and dropping it is the only way out, so that no path can
//! forget. Refusals are decided here, spoken by the engine.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulmar_protocol::app::{App, AppId};
use hashbrown::HashMap;

/// Connections beyond the limit that are let in far enough to be told so. Clients that are refused at TCP wait 15 s and
/// more before they come back; those that are told 4100 come back after one.
pub const TURNED_AWAY_MAX: usize = 256;

/// The limits that the gate holds.
#[derive(Debug, Clone, Copy)]
pub struct GateLimits {
    /// Connections of the node.
    pub connections_max: usize,
    /// Connections from one IPv4 address or IPv6 /64.
    pub connections_per_ip_max: Option<u32>,
    /// WebSocket handshakes per second.
    pub handshakes_per_s_max: Option<u32>,
}

/// Counts what is open.
#[derive(Debug)]
pub struct Gate {
    limits: GateLimits,
    open: AtomicUsize,
    per_ip: Mutex<HashMap<IpAddr, u32>>,
    per_app: Mutex<HashMap<AppId, Arc<AppCounts>>>,
    /// Second and handshakes within it, packed.
    handshakes: AtomicU64,
}

/// What the gate says to a newcomer.
#[derive(Debug)]
pub enum Verdict {
    /// Come in.
    Welcome(Seat),
    /// The node, or this address, has as many as it may: come in far enough to be told.
    Full(Seat),
    /// Not even that: close at once.
    Gone,
}

/// One counted connection.
#[derive(Debug)]
pub struct Seat {
    gate: Arc<Gate>,
    ip: Option<IpAddr>,
}

/// One counted connection of an app: towards its quota, or among those that are yet to show an authorization.
#[derive(Debug)]
pub struct AppSeat {
    counts: Arc<AppCounts>,
    is_seated: bool,
}

/// Connections of an app.
#[derive(Debug, Default)]
struct AppCounts {
    /// Those that count towards its quota.
    seated: AtomicU32,
    /// Those that are yet to show an authorization.
    standing: AtomicU32,
}

impl Gate {
    /// A gate with nobody inside.
    #[must_use]
    pub fn new(limits: GateLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: AtomicUsize::new(0),
            per_ip: Mutex::new(HashMap::new()),
            per_app: Mutex::new(HashMap::new()),
            handshakes: AtomicU64::new(0),
        })
    }

    /// Counts a connection that was accepted from `ip`.
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Verdict {
        self.enter_at(Some(ip))
    }

    /// Counts a connection of one of our proxies: at no address, because it speaks for more people than one.
    pub fn enter_for_others(self: &Arc<Self>) -> Verdict {
        self.enter_at(None)
    }

    fn enter_at(self: &Arc<Self>, ip: Option<IpAddr>) -> Verdict {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let mut seat = Seat { gate: self.clone(), ip: None };
        if open >= self.limits.connections_max.saturating_add(TURNED_AWAY_MAX) {
            return Verdict::Gone;
        }
        if open >= self.limits.connections_max || !ip.is_none_or(|ip| seat.sit_at(ip)) {
            Verdict::Full(seat)
        } else {
            Verdict::Welcome(seat)
        }
    }

    /// Whether one more handshake fits into this second.
    pub fn admits_handshake(&self, now_ms: u64) -> bool {
        let Some(max) = self.limits.handshakes_per_s_max else { return true };
        let second = (now_ms / 1_000) << 32;
        let counted_before = |packed: u64| if packed >> 32 == second >> 32 { packed & 0xffff_ffff } else { 0 };
        let count_one = |packed: u64| Some(second | (counted_before(packed) + 1).min(0xffff_ffff));
        let before = self.handshakes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_one);
        counted_before(before.unwrap_or_else(|unchanged| unchanged)) < u64::from(max)
    }

    /// Counts a connection of `app`, or answers `None` when it has as many as it may.
    pub fn enter_app(&self, app: &App) -> Option<AppSeat> {
        let counts = self.counts_of(app);
        let before = counts.seated.fetch_add(1, Ordering::Relaxed);
        let seat = AppSeat { counts, is_seated: true };
        app.limits.max_connections.is_none_or(|max| before < max).then_some(seat)
    }

    /// Counts a connection of `app` that is yet to show an authorization, and until then takes no seat of the quota. `None`
    /// when there are as many as there may be.
    pub fn stand_in_app(&self, app: &App) -> Option<AppSeat> {
        let counts = self.counts_of(app);
        let before = counts.standing.fetch_add(1, Ordering::Relaxed);
        let seat = AppSeat { counts, is_seated: false };
        (before < app.limits.unauthorized_connections_max).then_some(seat)
    }

    fn counts_of(&self, app: &App) -> Arc<AppCounts> {
        locked(&self.per_app).entry(app.id.clone()).or_default().clone()
    }

    /// Connections open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Seat {
    /// Counts the connection at another address than the one it was accepted from, because a trusted proxy said so.
    /// Answers whether that address may have one more.
    pub fn move_to(&mut self, ip: IpAddr) -> bool {
        self.stand_up();
        self.sit_at(ip)
    }

    fn sit_at(&mut self, ip: IpAddr) -> bool {
        let Some(max) = self.gate.limits.connections_per_ip_max else { return true };
        let ip = network_of(ip);
        let mut per_ip = locked(&self.gate.per_ip);
        let count = per_ip.entry(ip).or_insert(0);
        if *count >= max {
            return false;
        }
        *count += 1;
        drop(per_ip);
        self.ip = Some(ip);
        true
    }

    fn stand_up(&mut self) {
        let Some(ip) = self.ip.take() else { return };
        let mut per_ip = locked(&self.gate.per_ip);
        if let Some(count) = per_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&ip);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stand_up();
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AppSeat {
    /// Counts the connection towards the quota from now on, if that has a place.
    pub fn sit_down(&mut self, max: Option<u32>) -> bool {
        if self.is_seated {
            return true;
        }
        let before = self.counts.seated.fetch_add(1, Ordering::Relaxed);
        if max.is_none_or(|max| before < max) {
            self.counts.standing.fetch_sub(1, Ordering::Relaxed);
            self.is_seated = true;
        } else {
            self.counts.seated.fetch_sub(1, Ordering::Relaxed);
        }
        self.is_seated
    }
}

impl Drop for AppSeat {
    fn drop(&mut self) {
        let counter = if self.is_seated { &self.counts.seated } else { &self.counts.standing };
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What counts as one address: an IPv6 host has a /64 to itself.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections_max: usize, per_ip: Option<u32>, per_s: Option<u32>) -> Arc<Gate> {
        Gate::new(GateLimits { connections_max, connections_per_ip_max: per_ip, handshakes_per_s_max: per_s })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn beyond_the_limit_newcomers_are_told_and_far_beyond_it_they_are_not() {
        let gate = gate(2, None, None);
        let seats: Vec<_> = (0..2).map(|_| gate.enter(ip("127.0.0.1"))).collect();
        assert!(seats.iter().all(|v| matches!(v, Verdict::Welcome(_))));
        let told: Vec<_> = (0..TURNED_AWAY_MAX).map(|_| gate.enter(ip("127.0.0.1"))).collect();
        assert!(told.iter().all(|v| matches!(v, Verdict::Full(_))));
        assert!(matches!(gate.enter(ip("127.0.0.1")), Verdict::Gone));
        drop((seats, told));
        assert_eq!(gate.open(), 0);
        assert!(matches!(gate.enter(ip("127.0.0.1")), Verdict::Welcome(_)));
    }

    #[test]
    fn one_address_cannot_take_all_and_an_ipv6_host_is_its_64() {
        let gate = gate(100, Some(2), None);
        let mut held = vec![gate.enter(ip("2001:db8::1")), gate.enter(ip("2001:db8::2"))];
        assert!(matches!(gate.enter(ip("2001:db8::3")), Verdict::Full(_)));
        assert!(matches!(gate.enter(ip("2001:db8:0:1::3")), Verdict::Welcome(_)));
        assert!(matches!(gate.enter(ip("192.0.2.1")), Verdict::Welcome(_)));
        held.pop();
        assert!(matches!(gate.enter(ip("2001:db8::9")), Verdict::Welcome(_)));
    }

    #[test]
    fn a_connection_moved_by_a_proxy_s_word_counts_at_its_real_address() {
        let gate = gate(100, Some(1), None);
        let Verdict::Welcome(mut first) = gate.enter_for_others() else { panic!("the gate is empty") };
        assert!(first.move_to(ip("198.51.100.1")));
        let Verdict::Welcome(mut second) = gate.enter_for_others() else { panic!("the proxy holds no seat") };
        assert!(!second.move_to(ip("198.51.100.1")));
    }

    #[test]
    fn an_app_has_its_quota_and_gets_seats_back() {
        let gate = gate(100, None, None);
        let mut app = App::new("1", "k", "s");
        app.limits.max_connections = Some(1);
        let seat = gate.enter_app(&app);
        assert!(seat.is_some());
        assert!(gate.enter_app(&app).is_none());
        assert!(gate.enter_app(&App::new("2", "k2", "s")).is_some());
        drop(seat);
        assert!(gate.enter_app(&app).is_some());
    }

    /// WS-137
    #[test]
    fn who_is_yet_to_show_an_authorization_takes_no_seat_and_has_a_bound_of_its_own() {
        let gate = gate(100, None, None);
        let mut app = App::new("1", "k", "s");
        (app.limits.max_connections, app.limits.unauthorized_connections_max) = (Some(1), 2);
        let mut standing =
            vec![gate.stand_in_app(&app).expect("the first"), gate.stand_in_app(&app).expect("the second")];
        assert!(gate.stand_in_app(&app).is_none());
        assert!(gate.enter_app(&app).is_some(), "nobody sits yet, and who entered has gone again");
        assert!(standing[0].sit_down(Some(1)));
        assert!(standing[0].sit_down(Some(0)), "who sits stays");
        assert!(!standing[1].sit_down(Some(1)) && gate.enter_app(&app).is_none());
        assert!(gate.stand_in_app(&app).is_some(), "who sat down stands no more");
        standing.remove(0);
        assert!(standing[0].sit_down(Some(1)));
        drop(standing);
        let counts = gate.counts_of(&app);
        assert_eq!((counts.seated.load(Ordering::Relaxed), counts.standing.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn handshakes_are_limited_second_by_second() {
        let gate = gate(100, None, Some(3));
        assert_eq!((0..9).filter(|_| gate.admits_handshake(1_000)).count(), 3);
        assert_eq!((0..9).filter(|_| gate.admits_handshake(2_500)).count(), 3);
    }
}
