//! The router: one thread that carries packets between the TUN devices of hosts.
//!
//! Owns the devices, the links between each two hosts, counts, and packets on their way. Bound: `WAY_MAX` packets on
//! their way, more are lost as on any full link. Ends when dropped.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::SyncDevice;

use super::packet::{Packet, Side, TCP, UDP, translate};
use super::rules::Link;
use crate::sim::rng::Rng;

/// Most packets on their way.
const WAY_MAX: usize = 100_000;
/// Most packets taken from one device before the others have their turn.
const TURN: usize = 64;
/// Longest sleep: new devices and the end are seen after this.
const LOOK: Duration = Duration::from_millis(10);

/// What passed, or did not, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets that were sent.
    pub packets: u64,
    /// Their bytes, IP header included.
    pub bytes: u64,
    /// Of them, packets that did not pass.
    pub lost: u64,
    /// Longest packet, bytes.
    pub longest: usize,
    /// Parts of larger packets.
    pub fragments: u64,
}

#[derive(Default)]
struct State {
    devices: BTreeMap<usize, Arc<SyncDevice>>,
    homes: BTreeMap<IpAddr, usize>,
    /// Outside addresses of hosts behind a translating gateway.
    outside: BTreeMap<usize, Ipv4Addr>,
    links: BTreeMap<(usize, usize), Link>,
    /// By from, to, protocol and destination port.
    counts: BTreeMap<(usize, usize, u8, u16), Count>,
    taps: Vec<Tap>,
}

struct Tap {
    to: usize,
    port: u16,
    room: usize,
    kept: Vec<Vec<u8>>,
}

/// A running router.
pub struct Router {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Router {
    /// Starts one without hosts; `seed` decides which packets are lost.
    pub fn start(seed: u64) -> Self {
        let (state, stop) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let work = Carrier {
            state: state.clone(),
            stop: stop.clone(),
            rng: Rng::new(seed),
            way: BinaryHeap::new(),
            sent: 0,
        };
        let thread = std::thread::Builder::new().name("router".into()).spawn(|| work.run());
        Self { state, stop, thread: Some(thread.expect("a thread")) }
    }

    /// Connects a host's device; its addresses follow from its number.
    pub fn attach(&self, id: usize, device: SyncDevice) {
        let mut s = locked(&self.state);
        s.devices.insert(id, Arc::new(device));
        s.homes.insert(super::v4(id), id);
        let v6 = std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, id as u16 + 1);
        s.homes.insert(v6.into(), id);
    }

    /// Puts a host behind a gateway: others see it as `outside`, and nothing reaches its own address any more.
    pub fn translate(&self, id: usize, outside: Ipv4Addr) {
        let mut s = locked(&self.state);
        s.homes.remove(&super::v4(id));
        s.homes.insert(outside.into(), id);
        s.outside.insert(id, outside);
    }

    /// Sets one direction.
    pub fn one_way(&self, from: usize, to: usize, link: &Link) {
        locked(&self.state).links.insert((from, to), link.clone());
    }

    /// Sets both directions between each of `these` and each of `those`.
    pub fn between(&self, these: &[usize], those: &[usize], link: &Link) {
        for (a, b) in these.iter().flat_map(|a| those.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b) {
            self.one_way(a, b, link);
            self.one_way(b, a, link);
        }
    }

    /// Opens all links.
    pub fn heal(&self) {
        locked(&self.state).links.clear();
    }

    /// What was sent from `from` to `to`, by one protocol, or by TCP and UDP together for `None`; `port` is that of the
    /// destination.
    pub fn count(&self, from: usize, to: usize, protocol: Option<u8>, port: Option<u16>) -> Count {
        let s = locked(&self.state);
        let mut sum = Count::default();
        for ((f, t, proto, p), c) in &s.counts {
            let fits = protocol.map_or(*proto == TCP || *proto == UDP, |want| want == *proto);
            if (*f, *t) == (from, to) && fits && port.is_none_or(|want| want == *p) {
                sum.packets += c.packets;
                sum.bytes += c.bytes;
                sum.lost += c.lost;
                sum.longest = sum.longest.max(c.longest);
                sum.fragments += c.fragments;
            }
        }
        sum
    }

    /// Keeps the next `room` packets to a UDP port of a host; `tapped` gives them.
    pub fn tap(&self, to: usize, port: u16, room: usize) {
        locked(&self.state).taps.push(Tap { to, port, room, kept: Vec::new() });
    }

    /// Packets that taps have kept so far.
    pub fn tapped(&self) -> Vec<Vec<u8>> {
        locked(&self.state).taps.iter().flat_map(|t| t.kept.clone()).collect()
    }

    /// Puts a packet into a host's device, whoever it says that it is from. False when the host takes no more now.
    pub fn inject(&self, to: usize, packet: &[u8]) -> bool {
        let device = locked(&self.state).devices.get(&to).cloned();
        device.is_some_and(|d| d.send(packet).is_ok())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A packet on its way. The first to arrive is the greatest.
struct Due {
    at: Instant,
    order: u64,
    to: Arc<SyncDevice>,
    bytes: Vec<u8>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

struct Carrier {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    rng: Rng,
    way: BinaryHeap<Due>,
    sent: u64,
}

impl Carrier {
    fn run(mut self) {
        let mut buf = vec![0u8; 65_536];
        while !self.stop.load(Ordering::Relaxed) {
            let devices: Vec<(usize, Arc<SyncDevice>)> =
                locked(&self.state).devices.iter().map(|(id, d)| (*id, d.clone())).collect();
            let mut fds: Vec<PollFd<'_>> =
                devices.iter().map(|(_, d)| PollFd::new(&**d, PollFlags::IN)).collect();
            let next = self.way.peek().map_or(LOOK, |d| d.at.saturating_duration_since(Instant::now()));
            let wait = next.min(LOOK);
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            let _ = poll(&mut fds, Some(&wait));
            let readable: VecDeque<usize> =
                (0..fds.len()).filter(|i| fds[*i].revents().contains(PollFlags::IN)).collect();
            for i in readable {
                let (id, device) = &devices[i];
                for _ in 0..TURN {
                    let Ok(len) = device.recv(&mut buf) else { break };
                    self.take(*id, &buf[..len]);
                }
            }
            self.deliver();
        }
    }

    /// Judges one packet and sends it on its way.
    fn take(&mut self, from: usize, bytes: &[u8]) {
        let Some(packet) = Packet::read(bytes) else { return };
        let mut s = locked(&self.state);
        let Some(to) = s.homes.get(&packet.dst).copied() else { return };
        let link = s.links.get(&(from, to)).cloned().unwrap_or_default();
        let arrivals = link.arrivals(&packet, bytes.len(), &mut self.rng);
        let count = s.counts.entry((from, to, packet.protocol, packet.port)).or_default();
        count.packets += 1;
        count.bytes += bytes.len() as u64;
        count.lost += u64::from(arrivals[0].is_none());
        count.longest = count.longest.max(bytes.len());
        count.fragments += u64::from(packet.is_fragment);
        for tap in s.taps.iter_mut() {
            let wanted = (tap.to, tap.port, UDP) == (to, packet.port, packet.protocol);
            if wanted && tap.kept.len() < tap.room {
                tap.kept.push(bytes.to_vec());
            }
        }
        let Some(device) = s.devices.get(&to).cloned() else { return };
        let mut bytes = bytes.to_vec();
        if let (Some(outside), true) = (s.outside.get(&from), packet.src == super::v4(from)) {
            translate(&mut bytes, Side::From, *outside);
        }
        if let (true, IpAddr::V4(inside)) = (s.outside.contains_key(&to), super::v4(to)) {
            translate(&mut bytes, Side::To, inside);
        }
        drop(s);
        for after in arrivals.into_iter().flatten() {
            if self.way.len() < WAY_MAX {
                self.sent += 1;
                let at = Instant::now() + after;
                self.way.push(Due { at, order: self.sent, to: device.clone(), bytes: bytes.clone() });
            }
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.way.peek().is_some_and(|d| d.at <= now) {
            if let Some(due) = self.way.pop() {
                let _ = due.to.send(&due.bytes);
            }
        }
    }
}
