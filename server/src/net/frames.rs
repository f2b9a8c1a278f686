//! The memory of long frames: given as their bytes come, and to every address its part.
//!
//! A frame gets memory in steps, none larger than what has come of it: to announce a frame holds nothing. Frames that have
//! a part and wait for more could wait for each other for ever. So a step is only given if all frames that hold something can
//! be completed afterwards, one after the other, with what is left then (the banker's algorithm).
//!
//! Of the frames that wait, the address that holds the least comes first; of one address, first those that have waited long,
//! then the shortest. A frame that has waited long keeps others of its address from beginning.
//!
//! - `frames.I1`: frames hold no more than there is, one address no more than half of it or one frame, and the longest
//!   frames leave an eighth to shorter ones.
//! - `frames.I2`: frames that hold memory can always be completed, one after the other: none waits for ever for a client
//!   that sends what it announced.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use folio_protocol::limits::FRAME_BYTES_MAX;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is counted.
const PAGE_BYTES: usize = 4096;
/// A frame longer than this leaves some memory to shorter ones.
const SHORT_PAGES: usize = (1 << 20) / PAGE_BYTES;
/// This part of all.
const SHORT_PART: usize = 8;
/// Frames that hold memory at a time: the algorithm looks at each of them.
const HOLDERS_MAX: usize = 256;
/// From then on a frame keeps others of its address from beginning. Frames wait six times as long.
const LONG_WAIT: Duration = Duration::from_secs(5);
/// So often the algorithm runs when memory comes back. Frames that can be completed with what is left need no run of it.
const RUNS_MAX: usize = 32;

/// What all long frames of a node hold.
#[derive(Debug)]
pub(super) struct Frames {
    table: Mutex<Table>,
    pages: usize,
}

#[derive(Debug)]
struct Table {
    limits: Limits,
    held: Held,
    addresses: HashMap<IpAddr, Held>,
    frames: BTreeMap<u64, Entry>,
    next_id: u64,
    waiting: usize,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    pages: usize,
    long_pages: usize,
    address_pages: usize,
}

/// What several frames hold.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    pages: usize,
    /// Of these, what belongs to frames that are not short.
    long_pages: usize,
    frames: usize,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    total: usize,
    held: usize,
    waits: Option<Waits>,
}

#[derive(Debug)]
struct Waits {
    /// To hold so much.
    pages: usize,
    since: Instant,
    given: oneshot::Sender<()>,
}

impl Frames {
    /// Nothing is held of so many bytes.
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let pages = bytes / PAGE_BYTES;
        let longest = FRAME_BYTES_MAX.div_ceil(PAGE_BYTES);
        let limits =
            Limits { pages, long_pages: pages - pages / SHORT_PART, address_pages: longest.max(pages / 2) };
        assert!(limits.long_pages >= longest, "frames.I2: the longest frame fits");
        let table = Table {
            limits,
            held: Held::default(),
            addresses: HashMap::new(),
            frames: BTreeMap::new(),
            next_id: 0,
            waiting: 0,
        };
        Arc::new(Self { table: Mutex::new(table), pages })
    }

    /// A frame of so many bytes has begun; it holds nothing yet.
    pub(super) fn begin(self: &Arc<Self>, address: IpAddr, frame_bytes: usize) -> FrameMemory {
        let mut table = self.table.lock();
        let id = table.next_id;
        table.next_id += 1;
        let total = frame_bytes.div_ceil(PAGE_BYTES);
        table.frames.insert(id, Entry { address, total, held: 0, waits: None });
        FrameMemory { frames: self.clone(), id }
    }

    /// Whether a frame waits for what others hold.
    pub(super) fn is_waiting(&self) -> bool {
        self.table.lock().waiting > 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.lock().held.pages * PAGE_BYTES
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.pages * PAGE_BYTES
    }
}

/// What one frame holds; dropped, it is given back.
#[derive(Debug)]
pub(super) struct FrameMemory {
    frames: Arc<Frames>,
    id: u64,
}

impl FrameMemory {
    /// Holds so much as soon as it may; says whether it had to wait.
    pub(super) async fn grow(&self, bytes: usize) -> bool {
        let Some(given) = self.frames.table.lock().ask(self.id, bytes.div_ceil(PAGE_BYTES)) else {
            return false;
        };
        // The sender is dropped with this frame alone.
        drop(given.await);
        true
    }
}

impl Drop for FrameMemory {
    fn drop(&mut self) {
        self.frames.table.lock().remove(self.id);
    }
}

impl Table {
    /// Gives what is asked for, or says what to wait for.
    fn ask(&mut self, id: u64, pages: usize) -> Option<oneshot::Receiver<()>> {
        let entry = self.frames.get_mut(&id)?;
        let pages = pages.min(entry.total);
        if pages <= entry.held {
            return None;
        }
        if self.waiting == 0 && self.may_hold(id, pages, &mut 1) {
            self.give(id, pages);
            return None;
        }
        let (given, mut receiver) = oneshot::channel();
        let entry = self.frames.get_mut(&id)?;
        entry.waits = Some(Waits { pages, since: Instant::now(), given });
        self.waiting += 1;
        self.share_out();
        receiver.try_recv().is_err().then_some(receiver)
    }

    fn give(&mut self, id: u64, pages: usize) {
        let Some(entry) = self.frames.get_mut(&id) else { return };
        let more = Held {
            pages: pages - entry.held,
            long_pages: if entry.is_short() { 0 } else { pages - entry.held },
            frames: usize::from(entry.held == 0),
        };
        entry.held = pages;
        self.held.add(more);
        self.addresses.entry(entry.address).or_default().add(more);
        assert!(self.held.pages <= self.limits.pages, "frames.I1: more held than there is");
        if let Some(waits) = entry.waits.take() {
            self.waiting -= 1;
            // Its reader may have gone in this moment; then the frame is removed next.
            let _ = waits.given.send(());
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.frames.remove(&id) else { return };
        self.waiting -= usize::from(entry.waits.is_some());
        if entry.held > 0 {
            let long_pages = if entry.is_short() { 0 } else { entry.held };
            let less = Held { pages: entry.held, long_pages, frames: 1 };
            self.held.subtract(less);
            if let Some(held) = self.addresses.get_mut(&entry.address) {
                held.subtract(less);
                if held.frames == 0 {
                    self.addresses.remove(&entry.address);
                }
            }
        }
        self.share_out();
    }

    /// Gives what is left to those that wait.
    fn share_out(&mut self) {
        if self.waiting == 0 {
            return;
        }
        let now = Instant::now();
        let (mut runs, mut closed) = (RUNS_MAX, HashSet::new());
        for (id, pages, is_old) in self.order(now) {
            let Some(entry) = self.frames.get(&id) else { continue };
            // One that holds something is never kept waiting for another one's sake (frames.I2).
            if entry.held == 0 && closed.contains(&entry.address) {
                continue;
            }
            if self.may_hold(id, pages, &mut runs) {
                self.give(id, pages);
            } else if is_old {
                closed.insert(entry.address);
            }
        }
    }

    /// The frames that wait: which, for how much, and whether they have for long.
    fn order(&self, now: Instant) -> Vec<(u64, usize, bool)> {
        let waiting = self.frames.iter().filter_map(|(id, entry)| Some((id, entry, entry.waits.as_ref()?)));
        let mut all: Vec<_> = waiting
            .map(|(id, entry, waits)| {
                let is_old = now - waits.since >= LONG_WAIT;
                (!is_old, entry.total - entry.held, *id, waits.pages, entry)
            })
            .collect();
        all.sort_by_key(|(is_new, missing, id, ..)| (*is_new, *missing, *id));
        // What the address of each would hold if all before it had been served.
        let mut before: HashMap<IpAddr, usize> = HashMap::new();
        let mut ranked: Vec<_> = all
            .into_iter()
            .map(|(is_new, _, id, pages, entry)| {
                let held = || self.addresses.get(&entry.address).map_or(0, |held| held.pages);
                let held = before.entry(entry.address).or_insert_with(held);
                let rank = *held;
                *held += pages - entry.held;
                (rank, (id, pages, !is_new))
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, waiting)| waiting).collect()
    }

    /// Whether a frame may hold so many pages (frames.I1, frames.I2).
    fn may_hold(&self, id: u64, pages: usize, runs: &mut usize) -> bool {
        let Some(entry) = self.frames.get(&id) else { return false };
        let of_address = self.addresses.get(&entry.address).copied().unwrap_or_default();
        if entry.held == 0 && (self.held.frames >= HOLDERS_MAX || of_address.frames >= HOLDERS_MAX / 2) {
            return false;
        }
        let left = self.limits.left(&self.held, &of_address, entry.is_short());
        if pages - entry.held > left {
            return false;
        }
        // It can be completed, and gives back what it holds: all others can as before.
        if entry.total - entry.held <= left {
            return true;
        }
        if *runs == 0 {
            return false;
        }
        *runs -= 1;
        self.can_all_complete(id, pages)
    }

    /// The banker's algorithm: whether all frames that hold something can be completed in some order once this one has `pages`.
    fn can_all_complete(&self, id: u64, pages: usize) -> bool {
        let asks = self.frames.get(&id).map(|entry| Holder { held: pages, ..Holder::of(entry) });
        let others = self.frames.iter().filter(|(other, entry)| **other != id && entry.held > 0);
        let mut open: Vec<Holder> = others.map(|(_, entry)| Holder::of(entry)).chain(asks).collect();
        open.sort_by_key(Holder::missing);
        let (mut held, mut addresses) = (Held::default(), HashMap::<IpAddr, Held>::new());
        for holder in &open {
            held.add(holder.pages());
            addresses.entry(holder.address).or_default().add(holder.pages());
        }
        while !open.is_empty() {
            let before = open.len();
            open.retain(|holder| {
                let of_address = addresses.entry(holder.address).or_default();
                if holder.missing() > self.limits.left(&held, of_address, holder.is_short()) {
                    return true;
                }
                held.subtract(holder.pages());
                of_address.subtract(holder.pages());
                false
            });
            if open.len() == before {
                return false;
            }
        }
        true
    }
}

impl Limits {
    /// What a frame may have more.
    fn left(&self, held: &Held, of_address: &Held, is_short: bool) -> usize {
        let left = self.pages.saturating_sub(held.pages);
        let left = left.min(self.address_pages.saturating_sub(of_address.pages));
        if is_short { left } else { left.min(self.long_pages.saturating_sub(held.long_pages)) }
    }
}

impl Held {
    fn add(&mut self, more: Held) {
        self.pages += more.pages;
        self.long_pages += more.long_pages;
        self.frames += more.frames;
    }

    fn subtract(&mut self, less: Held) {
        self.pages -= less.pages;
        self.long_pages -= less.long_pages;
        self.frames -= less.frames;
    }
}

impl Entry {
    fn is_short(&self) -> bool {
        self.total <= SHORT_PAGES
    }
}

/// A frame that holds something.
struct Holder {
    address: IpAddr,
    total: usize,
    held: usize,
}

impl Holder {
    fn of(entry: &Entry) -> Self {
        Self { address: entry.address, total: entry.total, held: entry.held }
    }

    fn missing(&self) -> usize {
        self.total - self.held
    }

    fn is_short(&self) -> bool {
        self.total <= SHORT_PAGES
    }

    fn pages(&self) -> Held {
        let long_pages = if self.is_short() { 0 } else { self.held };
        Held { pages: self.held, long_pages, frames: 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    use super::*;

    const MIB: usize = 1 << 20;

    fn address(number: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, number as u8))
    }

    /// A frame of so many bytes, of which so many may be held.
    async fn holds(frames: &Arc<Frames>, from: usize, frame_bytes: usize, bytes: usize) -> FrameMemory {
        let memory = frames.begin(address(from), frame_bytes);
        assert!(!memory.grow(bytes).await, "it is left");
        memory
    }

    /// Whether it waits for so much.
    async fn waits(memory: &FrameMemory, bytes: usize) -> bool {
        timeout(Duration::from_millis(1), memory.grow(bytes)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn i2_frames_that_have_a_part_do_not_wait_for_each_other() {
        let frames = Frames::new(20 * MIB);
        let mut tasks = JoinSet::new();
        for number in 0..120 {
            let (frames, length) = (frames.clone(), MIB / 2 + number * 130_000);
            tasks.spawn(async move {
                let memory = frames.begin(address(number % 5), length);
                let mut held = 16 * 1024;
                while held < length {
                    held = length.min(2 * held);
                    memory.grow(held).await;
                    sleep(Duration::from_millis(1)).await;
                }
            });
        }
        let all = async { while tasks.join_next().await.transpose().expect("no panic").is_some() {} };
        timeout(Duration::from_secs(60), all).await.expect("each is completed");
        assert_eq!((frames.bytes(), frames.is_waiting()), (0, false));
        assert!(frames.table.lock().addresses.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn i1_one_address_and_the_longest_frames_leave_something_to_others() {
        let frames = Frames::new(64 * MIB);
        let _two = [holds(&frames, 1, 16 * MIB, 16 * MIB).await, holds(&frames, 1, 16 * MIB, 16 * MIB).await];
        let more = frames.begin(address(1), 300_000);
        assert!(waits(&more, 300_000).await, "half of all is one address's part");
        let _third = holds(&frames, 2, 16 * MIB, 16 * MIB).await;
        let fourth = frames.begin(address(3), 16 * MIB);
        assert!(waits(&fourth, 16 * MIB).await, "an eighth is left to short frames");
        let _short = holds(&frames, 3, MIB, MIB).await;
        assert!(frames.bytes() <= frames.bytes_max());
    }

    /// The honest frame stood behind all that had asked before it, and was closed after 30 s.
    #[tokio::test(start_paused = true)]
    async fn the_address_that_holds_least_is_next_and_then_the_shortest_frame() {
        let frames = Frames::new(20 * MIB);
        let first = holds(&frames, 1, 15 * MIB, 15 * MIB).await;
        let _short = holds(&frames, 2, MIB, MIB).await;
        let (order, mut tasks) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        for (name, from, length) in [("long", 1, 14 * MIB), ("short", 1, 2 * MIB), ("other", 3, 14 * MIB)] {
            let (frames, order) = (frames.clone(), order.clone());
            tasks.spawn(async move {
                let memory = frames.begin(address(from), length);
                assert!(memory.grow(length).await);
                order.lock().push(name);
                sleep(Duration::from_secs(1)).await;
            });
            tokio::task::yield_now().await;
        }
        sleep(Duration::from_millis(1)).await;
        drop(first);
        while tasks.join_next().await.transpose().expect("no panic").is_some() {}
        assert_eq!(*order.lock(), ["short", "other", "long"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_has_waited_long_keeps_others_of_its_address_from_beginning() {
        let frames = Frames::new(20 * MIB);
        let first = holds(&frames, 1, 15 * MIB, 15 * MIB).await;
        let long = frames.begin(address(1), 15 * MIB);
        let mut waiting = std::pin::pin!(long.grow(4 * MIB));
        assert!(timeout(LONG_WAIT, waiting.as_mut()).await.is_err());
        let later = frames.begin(address(1), 400_000);
        assert!(waits(&later, 400_000).await);
        let _other = holds(&frames, 2, 400_000, 400_000).await;
        drop(first);
        assert!(waiting.await);
    }
}
