//! Requests in flight on one connection. A request's opaque is its slot's number, so an answer finds its
//! request without a search.

use std::time::Instant;

use super::template::OPAQUE_MIN;

/// A fixed number of places for requests.
pub(super) struct Slots {
    /// When each request was due, and when it was written.
    sent: Vec<Option<(Instant, Instant)>>,
    free: Vec<usize>,
}

impl Slots {
    /// Places for `count` requests.
    pub(super) fn new(count: usize) -> Self {
        Self { sent: vec![None; count], free: (0..count).rev().collect() }
    }

    /// How many requests are in flight.
    pub(super) fn used(&self) -> usize {
        self.sent.len() - self.free.len()
    }

    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a place: the request's opaque, or none if all are taken.
    pub(super) fn take(&mut self, due: Instant, now: Instant) -> Option<i32> {
        let slot = self.free.pop()?;
        self.sent[slot] = Some((due, now));
        i32::try_from(slot).ok().map(|slot| OPAQUE_MIN + slot)
    }

    /// Gives a place back: when its request was due, or none if the opaque is no request's.
    pub(super) fn give(&mut self, opaque: i32) -> Option<Instant> {
        let slot = usize::try_from(opaque.checked_sub(OPAQUE_MIN)?).ok()?;
        let (due, _) = self.sent.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(due)
    }

    /// A second request takes the place of the first: whether there was one. When it was due stays.
    pub(super) fn renew(&mut self, opaque: i32, now: Instant) -> bool {
        let slot = opaque.checked_sub(OPAQUE_MIN).and_then(|slot| usize::try_from(slot).ok());
        match slot.and_then(|slot| self.sent.get_mut(slot)) {
            Some(Some((_, sent))) => {
                *sent = now;
                true
            }
            Some(None) | None => false,
        }
    }

    /// When the longest waiting request was written.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sent.iter().flatten().map(|(_, sent)| *sent).min()
    }

    /// Forgets all requests: how many there were.
    pub(super) fn clear(&mut self) -> usize {
        let used = self.used();
        *self = Self::new(self.sent.len());
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_its_place_back_once() {
        let now = Instant::now();
        let mut slots = Slots::new(2);
        let (a, b) = (slots.take(now, now).unwrap(), slots.take(now, now).unwrap());
        assert_ne!(a, b);
        assert_eq!(slots.take(now, now), None);
        assert_eq!(slots.give(a), Some(now));
        assert_eq!(slots.give(a), None, "a second answer to one request counts nothing");
        assert_eq!((slots.used(), slots.has_room()), (1, true));
        assert_eq!(slots.clear(), 1);
        assert_eq!((slots.used(), slots.oldest()), (0, None));
    }

    #[test]
    fn a_second_request_waits_from_its_own_start_and_is_due_as_the_first() {
        let (now, later) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(1));
        let mut slots = Slots::new(1);
        let opaque = slots.take(now, now).unwrap();
        assert!(slots.renew(opaque, later));
        assert_eq!((slots.oldest(), slots.give(opaque)), (Some(later), Some(now)));
        assert!(!slots.renew(opaque, later) && !slots.renew(0, later) && !slots.renew(OPAQUE_MIN + 1, later));
    }

    #[test]
    fn a_foreign_opaque_is_nobodys() {
        let mut slots = Slots::new(1);
        for opaque in [0, -1, i32::MIN, i32::MAX, OPAQUE_MIN, OPAQUE_MIN + 1] {
            assert_eq!(slots.give(opaque), None);
        }
    }
}
