//! How many connections there are, and of whom.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::limits::{Bucket, LimitReached, Limits};
use crate::metrics::Metrics;

/// Connections above a limit that are served all the same, to tell their callers so; more are closed without a word.
const MAX_TOLD: u32 = 64;

/// How many of them there may be a second in the long run: being told is a courtesy, and costs what a call costs.
const TOLD_PER_SECOND: f64 = 16.0;

/// A connection that sent so much within so short a time and had no call whose answer went on for a while was a flood of
/// calls that were reset before anybody looked at them ("rapid reset"), which ends the connection. It counts as so many
/// calls.
const FLOOD_BYTES: u64 = 8 << 10;
const FLOOD_TIME: Duration = Duration::from_secs(2);
const FLOOD_CALLS: f64 = 64.0;

/// When a caller whose connections are too many is asked to come again.
const WAIT: Duration = Duration::from_secs(10);

/// Every connection passes here.
#[derive(Debug)]
pub(super) struct Doors {
    max_connections: u32,
    max_per_address: u32,
    max_given_up_per_second: u32,
    /// Calls that may be given up at once: all of two connections.
    given_up_burst: f64,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    in_all: u32,
    told: u32,
    /// `None` before the first.
    told_lately: Option<Bucket>,
    by_address: HashMap<IpAddr, Address>,
}

#[derive(Debug, Default)]
struct Address {
    connections: u32,
    /// Present while calls were given up lately.
    given_up: Option<Bucket>,
}

/// One connection's place; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    doors: Arc<Doors>,
    address: IpAddr,
    /// It is only there to be told this.
    refused: Option<Arc<LimitReached>>,
}

/// What the two ends of a connection's service know of each other: the transport below and the guard above.
#[derive(Debug)]
pub(crate) struct Line {
    place: Place,
    is_cut: AtomicBool,
    waker: AtomicWaker,
    calls: AtomicU32,
    /// Bytes that came since there was a call.
    idle_bytes: AtomicU64,
    /// Bytes that came in all.
    all_bytes: AtomicU64,
    /// A call of it was answered to its end, or for a while.
    is_conversation: AtomicBool,
    since: Instant,
}

/// A call on a connection, from its begin to the end of its answer.
#[derive(Debug)]
pub(crate) struct OnLine {
    line: Arc<Line>,
    is_complete: bool,
}

impl Doors {
    pub(super) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            max_connections: limits.max_connections,
            max_per_address: limits.max_connections_per_address,
            max_given_up_per_second: limits.max_given_up_calls_per_second,
            given_up_burst: f64::from(limits.max_calls_per_connection) * 2.0,
            open: Mutex::default(),
        })
    }

    /// A place for one more connection; `None`: it is to be closed. `make_room`: closes one that is silent, and says
    /// whether there was one.
    pub(super) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        make_room: impl FnOnce() -> bool,
    ) -> Option<Place> {
        let address = network(address);
        let now = Instant::now();
        let mut open = self.lock();
        let reached = self.reached(&mut open, address, now, make_room);
        if reached.is_some() {
            self.metrics.limits_reached_total.add(1);
            let told_lately = open
                .told_lately
                .get_or_insert_with(|| Bucket::new(TOLD_PER_SECOND, MAX_TOLD.into(), now));
            let is_courteous = told_lately.in_debt(now).is_none();
            if open.told >= MAX_TOLD || !is_courteous {
                return None;
            }
            if let Some(told_lately) = &mut open.told_lately {
                told_lately.take(1.0, now);
            }
            open.told += 1;
        } else {
            open.in_all += 1;
            self.metrics.connections.add(1);
            open.by_address.entry(address).or_default().connections += 1;
        }
        Some(Place {
            doors: Arc::clone(self),
            address,
            refused: reached.map(Arc::new),
        })
    }

    fn reached(
        &self,
        open: &mut Open,
        address: IpAddr,
        now: Instant,
        make_room: impl FnOnce() -> bool,
    ) -> Option<LimitReached> {
        let of_address = open.by_address.get_mut(&address);
        let connections = of_address.as_ref().map_or(0, |of_address| of_address.connections);
        let debt = of_address
            .and_then(|of_address| of_address.given_up.as_mut())
            .and_then(|given_up| given_up.in_debt(now));
        if let Some(wait) = debt {
            return Some(self.too_hasty(address, wait));
        }
        if self.max_per_address > 0 && connections >= self.max_per_address {
            return Some(LimitReached {
                what: format!(
                    "{connections} connections of {address} are open, as many as one address may have"
                ),
                key: "max_connections_per_address",
                value: self.max_per_address.into(),
                wait: WAIT,
            });
        }
        if open.in_all >= self.max_connections && !make_room() {
            return Some(LimitReached {
                what: format!(
                    "{} connections are open, as many as this relay serves",
                    open.in_all
                ),
                key: "max_connections",
                value: self.max_connections.into(),
                wait: WAIT,
            });
        }
        None
    }

    fn too_hasty(&self, address: IpAddr, wait: Duration) -> LimitReached {
        LimitReached {
            what: format!("callers at {address} begin calls and give them up too often"),
            key: "max_given_up_calls_per_second",
            value: self.max_given_up_per_second.into(),
            wait,
        }
    }

    /// Calls were given up; true: there were too many lately.
    fn given_up(&self, address: IpAddr, calls: f64) -> bool {
        if self.max_given_up_per_second == 0 {
            return false;
        }
        let now = Instant::now();
        let mut open = self.lock();
        let Some(address) = open.by_address.get_mut(&address) else {
            return false;
        };
        let bucket = address.given_up.get_or_insert_with(|| {
            Bucket::new(self.max_given_up_per_second.into(), self.given_up_burst, now)
        });
        bucket.take(calls, now).is_some()
    }

    fn leave(&self, place: &Place) {
        let now = Instant::now();
        let mut open = self.lock();
        if place.refused.is_some() {
            open.told -= 1;
            return;
        }
        open.in_all -= 1;
        self.metrics.connections.subtract(1);
        if let Some(address) = open.by_address.get_mut(&place.address) {
            address.connections -= 1;
            // Who is in debt is remembered; one sweep forgets those who were long ago.
            let is_forgiven = address
                .given_up
                .as_mut()
                .is_none_or(|given_up| given_up.is_full(now));
            if address.connections == 0 && is_forgiven {
                open.by_address.remove(&place.address);
            }
        }
    }

    /// Forgets addresses without connections that owe nothing any more.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.lock().by_address.retain(|_, address| {
            let owes = address
                .given_up
                .as_mut()
                .is_some_and(|given_up| !given_up.is_full(now));
            address.connections > 0 || owes
        });
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The limit that its caller is only to be told of.
    pub(super) fn refused(&self) -> Option<&Arc<LimitReached>> {
        self.refused.as_ref()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doors.leave(self);
    }
}

impl Line {
    pub(super) fn new(place: Place) -> Arc<Self> {
        Arc::new(Self {
            place,
            is_cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            calls: AtomicU32::new(0),
            idle_bytes: AtomicU64::new(0),
            all_bytes: AtomicU64::new(0),
            is_conversation: AtomicBool::new(false),
            since: Instant::now(),
        })
    }

    /// The limit that every call on it is answered with.
    pub(crate) fn refused(&self) -> Option<&LimitReached> {
        self.place.refused().map(|reached| &**reached)
    }

    /// A call begins.
    pub(crate) fn begin(self: &Arc<Self>) -> OnLine {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.idle_bytes.store(0, Ordering::Relaxed);
        OnLine {
            line: Arc::clone(self),
            is_complete: false,
        }
    }

    /// Bytes came; false: more than a caller without a call has to say.
    pub(super) fn came(&self, bytes: usize, most: u64) -> bool {
        if !self.is_conversation.load(Ordering::Relaxed) {
            self.all_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        if self.calls.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let bytes = bytes as u64;
        self.idle_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= most
    }

    /// Closes the connection at the next look of its transport.
    fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it was cut; otherwise the waker is woken when it is.
    pub(super) fn is_cut(&self, waker: &std::task::Waker) -> bool {
        if self.is_cut.load(Ordering::Acquire) {
            return true;
        }
        self.waker.register(waker);
        self.is_cut.load(Ordering::Acquire)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Who was only told of a limit has not been let in: what it sends makes nothing worse for those who wait.
        let is_flood = self.place.refused().is_none()
            && !self.is_conversation.load(Ordering::Relaxed)
            && self.all_bytes.load(Ordering::Relaxed) >= FLOOD_BYTES
            && self.since.elapsed() < FLOOD_TIME;
        if is_flood {
            self.place.doors.given_up(self.place.address, FLOOD_CALLS);
        }
    }
}

impl OnLine {
    /// The answer was sent to its end.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
        self.goes_on();
    }

    /// A further message of the answer is sent: whoever calls is no flood. An agent whose build was short ends its calls when
    /// all is acknowledged, without a wait for their end.
    pub(crate) fn goes_on(&mut self) {
        // It is asked for every message: what stays as it is is only read.
        if !self.line.is_conversation.load(Ordering::Relaxed) {
            self.line.is_conversation.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for OnLine {
    fn drop(&mut self) {
        self.line.calls.fetch_sub(1, Ordering::Relaxed);
        self.line.idle_bytes.store(0, Ordering::Relaxed);
        if !self.is_complete && self.line.place.doors.given_up(self.line.place.address, 1.0) {
            self.line.cut();
        }
    }
}

/// Who is counted as one: an IPv4 address, or the /64 network of an IPv6 address, which one host has all of.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) if address.is_loopback() => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(max_connections: u32, max_per_address: u32) -> Arc<Doors> {
        let limits = Limits {
            max_connections,
            max_connections_per_address: max_per_address,
            max_calls_per_connection: 4,
            max_given_up_calls_per_second: 1,
            ..Limits::default()
        };
        Doors::new(&limits, Arc::default())
    }

    fn at(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let doors = doors(100, 2);
        let enter = |last| doors.enter(at(last), || false).unwrap();
        let places = [enter(1), enter(1), enter(1), enter(2)];
        let refused = places
            .each_ref()
            .map(|place| place.refused().map(|reached| reached.key));
        assert_eq!(refused, [None, None, Some("max_connections_per_address"), None]);
        assert_eq!(doors.metrics.connections.get(), 3);
        drop(places);
        assert_eq!(doors.metrics.connections.get(), 0);
        assert!(enter(1).refused().is_none());
        assert!(doors.lock().by_address.is_empty(), "nobody is remembered");
    }

    #[test]
    fn only_so_many_are_told_and_the_rest_is_closed() {
        let doors = doors(1, 0);
        let held = doors.enter(at(1), || false).unwrap();
        let told: Vec<_> = (0..MAX_TOLD)
            .map(|_| doors.enter(at(2), || false).unwrap())
            .collect();
        assert!(told.iter().all(|place| place.refused().is_some()));
        assert!(doors.enter(at(2), || false).is_none());
        drop(told);
        assert!(
            doors.enter(at(2), || true).unwrap().refused().is_none(),
            "somebody silent made room"
        );
        drop(held);
    }

    #[test]
    fn who_begins_and_gives_up_too_often_is_cut_and_waits_and_others_do_not() {
        let doors = doors(100, 0);
        let line = Line::new(doors.enter(at(1), || false).unwrap());
        for _ in 0..8 {
            drop(line.begin());
        }
        let waker = futures_util::task::noop_waker();
        assert!(!line.is_cut(&waker));
        let mut complete = line.begin();
        complete.complete();
        drop(complete);
        assert!(
            !line.is_cut(&waker),
            "a call that was answered to its end is none that was given up"
        );
        for _ in 0..2 {
            drop(line.begin());
        }
        assert!(line.is_cut(&waker));
        drop(line);
        let again = doors.enter(at(1), || false).unwrap();
        let reached = again.refused().unwrap();
        assert_eq!(reached.key, "max_given_up_calls_per_second");
        assert!(doors.enter(at(2), || false).unwrap().refused().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_floods_a_connection_until_it_ends_waits_before_the_next_and_is_told_only_so_often() {
        let doors = doors(1000, 0);
        let flood = || {
            let line = Line::new(doors.enter(at(1), || false)?);
            line.came(20 << 10, 1 << 20);
            Some(line.refused().map(|reached| reached.key))
        };
        assert_eq!(flood(), Some(None), "the first is let in");
        // What it did counts as 64 calls, and it may give up eight.
        assert_eq!(flood(), Some(Some("max_given_up_calls_per_second")));
        let told = std::iter::from_fn(flood).take(1000).count();
        assert!(told < 100, "most are closed without a word: {told}");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(flood(), Some(None));
        // Somebody who sends as much and is answered is none of these.
        let line = Line::new(doors.enter(at(2), || false).unwrap());
        line.came(20 << 10, 1 << 20);
        line.begin().complete();
        drop(line);
        // Nor is somebody whose call was answered for a while and given up then; it counts as the one call that it is.
        let line = Line::new(doors.enter(at(2), || false).unwrap());
        line.came(20 << 10, 1 << 20);
        line.begin().goes_on();
        drop(line);
        assert!(doors.enter(at(2), || false).unwrap().refused().is_none());
    }

    #[test]
    fn a_caller_without_a_call_has_little_to_say() {
        let line = Line::new(doors(1, 0).enter(at(1), || false).unwrap());
        assert!(line.came(60 << 10, 64 << 10));
        let call = line.begin();
        assert!(line.came(10 << 20, 64 << 10), "a call's bytes are its own affair");
        drop(call);
        assert!(line.came(60 << 10, 64 << 10));
        assert!(!line.came(10 << 10, 64 << 10));
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1:2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), at(1));
    }
}
