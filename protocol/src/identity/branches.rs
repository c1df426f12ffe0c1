//! Which of several branches of a signed chain stands. Source: `spec/08-identity.md`, section 3.
//!
//! Identity logs and server cards are chains whose entries name the one before. An ordinary key
//! signs most of them; a recovery key, kept offline, outranks it. Two entries on one are a fork:
//! the branch that the recovery key signed first stands; without such a branch none does, and the
//! chain ends, *contested*, where it forked. The verdict is a function of the set of entries, never
//! of the order in which they came.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::EntryId;

#[derive(Clone, Debug, Eq, PartialEq)]
struct Link {
    n: u64,
    prev: Option<EntryId>,
    /// Entries that name this one, in order of id.
    next: BTreeSet<EntryId>,
    /// The least number of an entry above, this one included, that the recovery key signed: such
    /// an entry vouches for all below it.
    vouched: Option<u64>,
}

/// What one more entry changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// Nothing: it was held already.
    Known,
    /// It is the new end of the chain that stands.
    Advanced,
    /// It is kept, on a branch that does not stand.
    Aside,
    /// It proves a fork: the chain now ends before it. To be shown to an admin.
    Contested,
    /// It decides a fork: its branch stands now. To be shown to an admin.
    Settled,
}

/// All entries of one chain by their links, and the branch that stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Branches {
    links: BTreeMap<EntryId, Link>,
    standing: Vec<EntryId>,
    contested: bool,
}

impl Branches {
    /// A chain of its first entry alone.
    pub(crate) fn new(genesis: EntryId) -> Self {
        let link = Link {
            n: 0,
            prev: None,
            next: BTreeSet::new(),
            vouched: None,
        };
        Self {
            links: BTreeMap::from([(genesis, link)]),
            standing: vec![genesis],
            contested: false,
        }
    }

    pub(crate) fn contains(&self, id: &EntryId) -> bool {
        self.links.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    pub(crate) const fn is_contested(&self) -> bool {
        self.contested
    }

    /// The branch that stands, from the first entry on; never empty.
    pub(crate) fn standing(&self) -> &[EntryId] {
        &self.standing
    }

    pub(crate) fn tip(&self) -> EntryId {
        *self.standing.last().expect("the first entry always stands")
    }

    pub(crate) fn number(&self, id: &EntryId) -> Option<u64> {
        self.links.get(id).map(|link| link.n)
    }

    /// The entries from the first one to `id`; empty if `id` is not held.
    pub(crate) fn path(&self, id: EntryId) -> Vec<EntryId> {
        let mut path = Vec::new();
        let mut at = Some(id);
        while let Some((id, link)) = at.and_then(|id| Some((id, self.links.get(&id)?))) {
            path.push(id);
            at = link.prev;
        }
        path.reverse();
        path
    }

    /// Every entry, each after the one it names.
    pub(crate) fn in_order(&self) -> Vec<EntryId> {
        let mut order: Vec<_> = self.links.iter().map(|(id, link)| (link.n, *id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }

    /// Adds an entry on `prev`, which must be held.
    pub(crate) fn insert(&mut self, id: EntryId, prev: EntryId, outranks: bool) -> Effect {
        if self.contains(&id) {
            return Effect::Known;
        }
        let Some(n) = self.number(&prev) else {
            debug_assert!(false, "an entry is added after the one it names");
            return Effect::Known;
        };
        let n = n + 1;
        let link = Link {
            n,
            prev: Some(prev),
            next: BTreeSet::new(),
            vouched: None,
        };
        self.links.insert(id, link);
        if let Some(link) = self.links.get_mut(&prev) {
            link.next.insert(id);
        }
        if outranks {
            self.vouch(id, n);
        }
        let before = self.tip();
        // The usual case, without looking at the whole: a chain that has never forked here.
        if prev == before && !self.contested {
            self.standing.push(id);
            return Effect::Advanced;
        }
        let was_contested = self.contested;
        self.settle();
        match (self.tip() == id, self.contested) {
            (_, true) if !was_contested || self.tip() != before => Effect::Contested,
            (true, _) => Effect::Settled,
            _ => Effect::Aside,
        }
    }

    fn vouch(&mut self, id: EntryId, n: u64) {
        let mut at = Some(id);
        while let Some(link) = at.and_then(|id| self.links.get_mut(&id)) {
            link.vouched = Some(link.vouched.map_or(n, |least| least.min(n)));
            at = link.prev;
        }
    }

    fn settle(&mut self) {
        self.standing.truncate(1);
        self.contested = false;
        loop {
            let next = &self.links[&self.tip()].next;
            let rank = |id: &EntryId| self.links[id].vouched.unwrap_or(u64::MAX);
            let Some(best) = next.iter().map(rank).min() else {
                return;
            };
            let mut first = next.iter().filter(|id| rank(id) == best);
            let (Some(stands), None) = (first.next(), first.next()) else {
                self.contested = true;
                return;
            };
            let stands = *stands;
            self.standing.push(stands);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(byte: u8) -> EntryId {
        EntryId::from_bytes([byte; 32])
    }

    /// Entries as `(id, prev, outranks)` on the first one, 0.
    fn branches(entries: &[(u8, u8, bool)]) -> Branches {
        let mut branches = Branches::new(id(0));
        for (own, prev, outranks) in entries {
            branches.insert(id(*own), id(*prev), *outranks);
        }
        branches
    }

    fn standing(entries: &[(u8, u8, bool)]) -> (Vec<u8>, bool) {
        let branches = branches(entries);
        let ids = branches.standing().iter().map(|id| id.as_bytes()[0]);
        (ids.collect(), branches.is_contested())
    }

    #[test]
    fn chain_without_forks_stands_whole() {
        assert_eq!(
            standing(&[(1, 0, false), (2, 1, true), (3, 2, false)]),
            (vec![0, 1, 2, 3], false)
        );
    }

    #[test]
    fn fork_of_the_ordinary_key_ends_the_chain_before_it() {
        assert_eq!(
            standing(&[(1, 0, false), (2, 1, false), (3, 0, false)]),
            (vec![0], true)
        );
        assert_eq!(
            standing(&[(1, 0, false), (2, 1, false), (3, 1, false), (4, 2, false)]),
            (vec![0, 1], true)
        );
    }

    #[test]
    fn recovery_key_decides_a_fork_from_its_first_entry_or_from_above() {
        let fork = [(1, 0, false), (2, 0, false), (3, 1, false)];
        assert_eq!(
            standing(&[&fork[..], &[(4, 0, true)]].concat()),
            (vec![0, 4], false)
        );
        assert_eq!(
            standing(&[&fork[..], &[(4, 3, true)]].concat()),
            (vec![0, 1, 3, 4], false)
        );
    }

    #[test]
    fn earlier_entry_of_the_recovery_key_outranks_a_later_one() {
        let both = [(1, 0, false), (2, 1, true), (3, 0, true)];
        assert_eq!(standing(&both), (vec![0, 3], false));
    }

    #[test]
    fn twins_of_the_recovery_key_are_decided_by_an_earlier_one_only() {
        let twins = [(1, 0, false), (2, 1, true), (3, 1, true), (4, 2, true)];
        assert_eq!(standing(&twins), (vec![0, 1], true));
        assert_eq!(
            standing(&[&twins[..], &[(5, 0, true)]].concat()),
            (vec![0, 5], false)
        );
    }

    #[test]
    fn each_entry_tells_what_it_changed() {
        let mut b = branches(&[(1, 0, false), (2, 1, false)]);
        assert_eq!(b.insert(id(2), id(1), false), Effect::Known);
        assert_eq!(b.insert(id(3), id(2), false), Effect::Advanced);
        assert_eq!(b.insert(id(4), id(1), false), Effect::Contested);
        assert_eq!(b.insert(id(5), id(4), false), Effect::Aside);
        assert_eq!(b.insert(id(6), id(0), false), Effect::Contested);
        assert_eq!(b.insert(id(7), id(0), true), Effect::Settled);
        assert_eq!(b.insert(id(8), id(7), false), Effect::Advanced);
        assert_eq!(b.insert(id(9), id(3), false), Effect::Aside);
        assert_eq!(b.path(id(9)), [id(0), id(1), id(2), id(3), id(9)]);
    }

    proptest! {
        #[test]
        fn verdict_does_not_depend_on_the_order(
            parents in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..24),
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 24),
        ) {
            let mut entries: Vec<(u8, u8, bool)> = Vec::new();
            for (i, (parent, outranks)) in parents.iter().enumerate() {
                let own = u8::try_from(i + 1).unwrap();
                let prev = u8::try_from(parent.index(i + 1)).unwrap();
                // One in two of the recovery key would leave few forks of the ordinary one.
                entries.push((own, prev, *outranks && own % 3 == 0));
            }
            let first = branches(&entries);
            let mut shuffled = Branches::new(id(0));
            let mut waiting = entries;
            for pick in picks {
                let ready: Vec<usize> = (0..waiting.len())
                    .filter(|i| shuffled.contains(&id(waiting[*i].1)))
                    .collect();
                if ready.is_empty() {
                    break;
                }
                let (own, prev, outranks) = waiting.remove(ready[pick.index(ready.len())]);
                shuffled.insert(id(own), id(prev), outranks);
            }
            prop_assert!(waiting.is_empty());
            prop_assert_eq!(first, shuffled);
        }
    }
}
