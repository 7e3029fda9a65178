//! How many may come in: over the node, from one address, for one app.
//!
//! Counting is by guards: whoever holds a [`Seat`] is counted, and dropping it is the only way out, so that no path can
//! forget. Refusals are decided here, spoken by the engine.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use fulmar_protocol::app::{App, AppId};
use hashbrown::HashMap;

use crate::quota::{NoSeat, Sight, admit};

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
    /// What is known of the other nodes.
    sight: Arc<ArcSwap<Sight>>,
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
    app: AppId,
    counts: Arc<AppCounts>,
    sight: Arc<ArcSwap<Sight>>,
    is_seated: bool,
}

/// Connections of an app on this node.
#[derive(Debug, Default)]
struct AppCounts {
    /// Those that count towards its quota.
    seated: AtomicU32,
    /// Those that are yet to show an authorization.
    standing: AtomicU32,
    /// Since when the app has been full on all nodes together; 0 while it is not.
    full_since_ms: AtomicU64,
}

impl AppCounts {
    /// Counts one more connection towards the quota; it stays counted only if it has a place.
    fn sit_down(&self, app: &AppId, max: Option<u32>, sight: &Sight, now_ms: u64) -> Result<(), NoSeat> {
        let own = self.seated.fetch_add(1, Ordering::Relaxed);
        let Some(max) = max else { return Ok(()) };
        let is_full = u64::from(own).saturating_add(sight.others(app)) >= u64::from(max);
        admit(sight.facts(app, max, own, self.full_since_ms(is_full, now_ms))).inspect_err(|_| {
            self.seated.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// Notes whether the app is full, and answers since when.
    fn full_since_ms(&self, is_full: bool, now_ms: u64) -> u64 {
        if !is_full {
            self.full_since_ms.store(0, Ordering::Relaxed);
            return now_ms;
        }
        let now_ms = now_ms.max(1);
        let before = self.full_since_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed);
        before.map_or_else(|since_ms| since_ms, |_| now_ms)
    }
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
            sight: Arc::new(ArcSwap::from_pointee(Sight::alone())),
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

    /// Counts a connection of `app`.
    ///
    /// # Errors
    /// When it has, or seems to have, as many as it may, all nodes together.
    pub fn enter_app(&self, app: &App, now_ms: u64) -> Result<AppSeat, NoSeat> {
        let counts = self.counts_of(app);
        counts.sit_down(&app.id, app.limits.max_connections, &self.sight.load(), now_ms)?;
        Ok(AppSeat { app: app.id.clone(), counts, sight: self.sight.clone(), is_seated: true })
    }

    /// Takes what is known of the other nodes now. `limit` is the quota of an app, where it has one.
    pub fn see(&self, sight: Sight, limit: impl Fn(&AppId) -> Option<u32>) {
        for (app, counts) in &*locked(&self.per_app) {
            let all = u64::from(counts.seated.load(Ordering::Relaxed)).saturating_add(sight.others(app));
            // Nobody may have come since there was room again.
            if limit(app).is_none_or(|max| all < u64::from(max)) {
                counts.full_since_ms.store(0, Ordering::Relaxed);
            }
        }
        self.sight.store(Arc::new(sight));
    }

    /// Connections by app on this node, as far as they count towards quotas.
    #[must_use]
    pub fn connections(&self) -> HashMap<String, u64> {
        let per_app = locked(&self.per_app);
        let open = per_app.iter().map(|(app, counts)| (app, counts.seated.load(Ordering::Relaxed)));
        open.filter(|(_, open)| *open > 0).map(|(app, open)| (app.to_string(), open.into())).collect()
    }

    /// Counts a connection of `app` that is yet to show an authorization, and until then takes no seat of the quota. `None`
    /// when there are as many as there may be.
    pub fn stand_in_app(&self, app: &App) -> Option<AppSeat> {
        let counts = self.counts_of(app);
        let before = counts.standing.fetch_add(1, Ordering::Relaxed);
        let seat = AppSeat { app: app.id.clone(), counts, sight: self.sight.clone(), is_seated: false };
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
    ///
    /// # Errors
    /// When it has, or seems to have, none.
    pub fn sit_down(&mut self, max: Option<u32>, now_ms: u64) -> Result<(), NoSeat> {
        if !self.is_seated {
            self.counts.sit_down(&self.app, max, &self.sight.load(), now_ms)?;
            self.counts.standing.fetch_sub(1, Ordering::Relaxed);
            self.is_seated = true;
        }
        Ok(())
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
    use fulmar_backbone::redis::lease::Lease;

    use super::*;
    use crate::quota::Census;

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
        let seat = gate.enter_app(&app, 0);
        assert!(seat.is_ok());
        assert_eq!(gate.enter_app(&app, 0).err(), Some(NoSeat::OverQuota));
        assert!(gate.enter_app(&App::new("2", "k2", "s"), 0).is_ok());
        assert_eq!(gate.connections(), HashMap::from_iter([("1".to_owned(), 1)]));
        drop(seat);
        assert!(gate.enter_app(&app, 0).is_ok());
    }

    /// NODE-21
    #[test]
    fn how_long_an_app_has_been_full_is_counted_anew_once_there_was_room() {
        let gate = gate(100, None, None);
        let mut app = App::new("1", "k", "s");
        app.limits.max_connections = Some(2);
        let mut census = Census::new("own", 0);
        let leases = |counter: u64| ["own", "b"].map(|node| lease(node, counter));
        let mut see = |now_ms: u64| gate.see(census.look(now_ms, &leases(now_ms)), |_| Some(2));
        (0..=20_000).step_by(500).for_each(&mut see);
        let seat = gate.enter_app(&app, 20_000).expect("one is elsewhere, and one has room");
        assert_eq!(gate.enter_app(&app, 20_100).err(), Some(NoSeat::Later), "the other may be dead by now");
        (20_500..=22_000).step_by(500).for_each(&mut see);
        assert_eq!(gate.enter_app(&app, 22_000).err(), Some(NoSeat::OverQuota), "it has spoken since");
        drop(seat);
        see(22_500);
        let _seat = gate.enter_app(&app, 22_500).expect("there was room");
        assert_eq!(gate.enter_app(&app, 22_600).err(), Some(NoSeat::Later));
    }

    fn lease(node: &str, counter: u64) -> Lease {
        Lease { node: node.into(), counter, connections: vec![("1".into(), 1)], ..Lease::default() }
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
        assert!(gate.enter_app(&app, 0).is_ok(), "nobody sits yet, and who entered has gone again");
        assert_eq!(standing[0].sit_down(Some(1), 0), Ok(()));
        assert_eq!(standing[0].sit_down(Some(0), 0), Ok(()), "who sits stays");
        assert_eq!(standing[1].sit_down(Some(1), 0), Err(NoSeat::OverQuota));
        assert!(gate.enter_app(&app, 0).is_err());
        assert!(gate.stand_in_app(&app).is_some(), "who sat down stands no more");
        standing.remove(0);
        assert_eq!(standing[0].sit_down(Some(1), 0), Ok(()));
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
