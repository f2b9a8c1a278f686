//! Which entries begin a term: kept while records are applied, and saved with each checkpoint.
//!
//! openraft asks at a start for the last entry of each term. Without this the log would be searched for them: each look at
//! an old segment reads its headers one after the other, up to a gigabyte of pages.
//!
//! It is derived: without it, or where it does not go back far enough, the log is searched.
//!
//! Invariant `terms.I1`: of the entries from the first one noted on, every one that begins a term is noted, up to the last
//! one applied.

use folio_engine::record::EntryId;

/// More terms than this are not saved, the oldest are left out: a start that needs them searches the log.
pub(crate) const TERMS_MAX: usize = 1 << 16;

/// The first entry of each term, ascending; of the oldest one perhaps a later entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    firsts: Vec<EntryId>,
}

impl Terms {
    /// What is known after `last`, when nothing of before is.
    pub(crate) fn after(last: Option<EntryId>) -> Terms {
        Terms { firsts: last.into_iter().collect() }
    }

    /// What [`Terms::firsts`] had; `None` if that cannot be.
    pub(crate) fn restore(firsts: Vec<EntryId>) -> Option<Terms> {
        let ascending = firsts.is_sorted_by(|a, b| a.term < b.term && a.index < b.index);
        ascending.then_some(Terms { firsts })
    }

    pub(crate) fn firsts(&self) -> &[EntryId] {
        &self.firsts
    }

    /// Notes an entry that follows all noted before (`terms.I1`).
    pub(crate) fn note(&mut self, id: EntryId) {
        if self.firsts.last().is_none_or(|last| last.term < id.term && last.index < id.index) {
            self.firsts.push(id);
        }
    }

    /// Forgets terms that ended before the entry of `index`, and more of the oldest if there are too many.
    pub(crate) fn forget_before(&mut self, index: u64) {
        let ended = self.firsts.partition_point(|first| first.index <= index).saturating_sub(1);
        let over = self.firsts.len().saturating_sub(TERMS_MAX);
        self.firsts.drain(..ended.max(over));
    }

    /// The term of an entry that is applied; `None` if it is older than what is known here.
    pub(crate) fn of(&self, index: u64) -> Option<u64> {
        let at = self.firsts.partition_point(|begin| begin.index <= index).checked_sub(1)?;
        Some(self.firsts[at].term)
    }

    /// The first entries of the terms that the entries from `first` to `upto` have, beginning with `first` itself; `None`
    /// if that is not known here. `upto` is applied.
    pub(crate) fn between(&self, first: EntryId, upto: EntryId) -> Option<Vec<EntryId>> {
        let at = self.firsts.partition_point(|begin| begin.index <= first.index).checked_sub(1)?;
        if self.firsts[at].term != first.term {
            return None;
        }
        let later = self.firsts[at + 1..].iter().take_while(|begin| begin.index <= upto.index);
        let found: Vec<EntryId> = [first].into_iter().chain(later.copied()).collect();
        found.last().is_some_and(|last| last.term == upto.term).then_some(found)
    }
}

/// The last entries of terms whose first entries are `firsts`; the log ends with `last`.
pub(crate) fn lasts(firsts: &[EntryId], last: EntryId) -> Vec<EntryId> {
    let ends = firsts.iter().skip(1).map(|next| next.index - 1).chain([last.index]);
    firsts.iter().zip(ends).map(|(first, index)| EntryId { term: first.term, index }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term, index }
    }

    proptest! {
        /// The model is the list of all entries.
        #[test]
        fn terms_i1_every_term_is_known_from_the_first_entry_noted_on(
            lengths in prop::collection::vec((1_u64..4, 1_u64..6), 1..12),
            begin in 0_u64..20,
            cut in 0_u64..40,
            from in 0_u64..40,
            upto in 0_u64..40,
        ) {
            let (mut all, mut term) = (Vec::new(), 0);
            for (later, length) in lengths {
                term += later;
                (0..length).for_each(|_| all.push(id(term, all.len() as u64)));
            }
            let noted = &all[(begin as usize).min(all.len() - 1)..];
            let mut terms = Terms::after(noted.first().copied());
            noted.iter().for_each(|id| terms.note(*id));
            terms.forget_before(cut);
            prop_assert_eq!(Terms::restore(terms.firsts().to_vec()), Some(terms.clone()));
            let (from, upto) = (from.min(all.len() as u64 - 1), upto.min(all.len() as u64 - 1));
            prop_assume!(from <= upto);
            let (first, last) = (all[from as usize], all[upto as usize]);
            match terms.of(first.index) {
                Some(term) => prop_assert_eq!(term, first.term),
                None => prop_assert!(from < begin || from < cut),
            }
            let known = terms.between(first, last).map(|firsts| lasts(&firsts, last));
            let mut expected: Vec<EntryId> = Vec::new();
            for id in &all[from as usize..=upto as usize] {
                expected.pop_if(|last| last.term == id.term);
                expected.push(*id);
            }
            match known {
                Some(known) => prop_assert_eq!(known, expected),
                None => prop_assert!(from < begin || from < cut, "{} is behind {} and {}", from, begin, cut),
            }
        }
    }

    #[test]
    fn of_too_many_terms_the_oldest_are_left_out() {
        let mut terms = Terms::default();
        (0..TERMS_MAX as u64 + 5).for_each(|number| terms.note(id(number + 1, 2 * number)));
        terms.forget_before(0);
        assert_eq!((terms.firsts().len(), terms.firsts()[0]), (TERMS_MAX, id(6, 10)));
        assert_eq!(terms.between(id(1, 0), id(6, 11)), None);
    }

    #[test]
    fn what_cannot_be_is_not_restored_and_what_is_not_known_not_answered() {
        assert_eq!(Terms::restore(vec![id(2, 5), id(2, 9)]), None);
        assert_eq!(Terms::restore(vec![id(2, 5), id(3, 5)]), None);
        let terms = Terms::restore(vec![id(2, 5), id(4, 9)]).unwrap();
        assert_eq!(terms.between(id(2, 4), id(4, 9)), None, "older than what is known");
        assert_eq!(terms.between(id(3, 6), id(4, 9)), None, "another term than the log has");
        assert_eq!(terms.between(id(2, 6), id(5, 12)), None, "a later term than any known");
        assert_eq!(terms.between(id(2, 6), id(2, 8)), Some(vec![id(2, 6)]));
    }
}
