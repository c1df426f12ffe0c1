//! The digest of a root record: a Merkle tree over the members at its frontier, so that one member
//! is proven without the others. Source: `spec/04-authority.md`, section 6; the tree is that of
//! RFC 9162, section 2.1, with BLAKE3.

use serde::{Deserialize, Serialize};

use crate::{
    encoding,
    ids::{Digest, ServerId, UserId},
    role::Role,
};

/// Hashes in the longest proof: a tree of 2^32 members.
const PATH_MAX: usize = 32;

/// One member as the digest has him.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MemberLeaf {
    /// Who.
    pub user: UserId,
    /// His role.
    pub role: Role,
    /// The home that speaks for him.
    pub home: ServerId,
    /// The event that gives the role, or the record that does.
    pub grant: Digest,
}

/// All members at a frontier, by user.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Members(Vec<MemberLeaf>);

/// That a member is among those of a digest: what is beside the way up from his leaf.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// His place, from 0.
    pub index: u64,
    /// Of how many.
    pub count: u64,
    /// Sibling hashes from the leaf up; at most 32.
    pub path: Vec<Digest>,
}

impl Members {
    /// From members in any order; of one user the last counts.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = MemberLeaf>) -> Self {
        let sorted: std::collections::BTreeMap<UserId, MemberLeaf> =
            members.into_iter().map(|m| (m.user, m)).collect();
        Self(sorted.into_values().collect())
    }

    /// From members in order of users, each once.
    pub(crate) const fn sorted(members: Vec<MemberLeaf>) -> Self {
        Self(members)
    }

    /// In order of users.
    #[must_use]
    pub fn leaves(&self) -> &[MemberLeaf] {
        &self.0
    }

    /// The root of the tree.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hashes: Vec<Digest> = self.0.iter().map(leaf).collect();
        while hashes.len() > 1 {
            hashes = above(&hashes);
        }
        hashes.first().copied().unwrap_or_else(empty)
    }

    /// The whole tree, for who gives many proofs: it costs a hash for each member once, and a proof
    /// as many steps as the tree is high.
    #[must_use]
    pub fn tree(&self) -> Tree<'_> {
        let mut levels = vec![self.0.iter().map(leaf).collect::<Vec<_>>()];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let next = above(last);
            levels.push(next);
        }
        Tree {
            members: self,
            levels,
        }
    }
}

/// The tree over members with all its hashes: 64 bytes for each member.
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    members: &'a Members,
    /// From the leaves up, each half as long as the one below; the last has at most one hash.
    levels: Vec<Vec<Digest>>,
}

impl Tree<'_> {
    /// The root.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let top = self.levels.last().and_then(|top| top.first());
        top.copied().unwrap_or_else(empty)
    }

    /// The proof for one user; none if he is no member.
    #[must_use]
    pub fn prove(&self, user: &UserId) -> Option<Proof> {
        let members = &self.members.0;
        let index = members.binary_search_by_key(user, |m| m.user).ok()?;
        let mut path = Vec::new();
        let mut at = index;
        for level in &self.levels {
            // The last of an odd number has nobody beside it and goes up as it is.
            path.extend(level.get(at ^ 1));
            at /= 2;
        }
        Some(Proof {
            index: index as u64,
            count: members.len() as u64,
            path,
        })
    }
}

impl Proof {
    /// Whether this proves `member` under `digest`. Never more than 32 hashes, whatever it says.
    #[must_use]
    pub fn holds(&self, member: &MemberLeaf, digest: &Digest) -> bool {
        if self.index >= self.count || self.path.len() > PATH_MAX {
            return false;
        }
        let mut path = self.path.iter();
        let Some(found) = climb(leaf(member), self.index, self.count, &mut path) else {
            return false;
        };
        path.next().is_none() && found == *digest
    }
}

fn leaf(member: &MemberLeaf) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[0]);
    hasher.update(&encoding::encode(member));
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[1]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// The largest power of two below `count`, which is at least 2.
const fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// The digest of nobody.
fn empty() -> Digest {
    Digest::from_bytes(*blake3::hash(b"").as_bytes())
}

/// The level above one of at least two: two by two, the last of an odd number as it is. This is the
/// tree that halves at powers of two, from below.
fn above(hashes: &[Digest]) -> Vec<Digest> {
    let pairs = hashes.chunks(2).map(|pair| match pair {
        [left, right] => node(left, right),
        rest => rest.first().copied().unwrap_or_else(empty),
    });
    pairs.collect()
}

/// The root that follows from a leaf and what is beside its way; none if the way is too short.
/// Every step takes a hash of the path, so a made-up count costs no more than the path is long.
fn climb<'a>(
    hash: Digest,
    index: u64,
    count: u64,
    path: &mut impl Iterator<Item = &'a Digest>,
) -> Option<Digest> {
    // From the root down, the sides on which the leaf lies; at most 64 halvings.
    let (mut at, mut of, mut sides) = (index, count, Vec::new());
    while of >= 2 {
        let middle = split(of);
        sides.push(at >= middle);
        (at, of) = if at < middle {
            (at, middle)
        } else {
            (at - middle, of - middle)
        };
    }
    sides.into_iter().rev().try_fold(hash, |below, right| {
        let beside = path.next()?;
        Some(if right {
            node(beside, &below)
        } else {
            node(&below, beside)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as RFC 9162 defines it, from above.
    fn root(hashes: &[Digest]) -> Digest {
        match hashes {
            [] => Digest::from_bytes(*blake3::hash(b"").as_bytes()),
            [one] => *one,
            more => {
                let middle = usize::try_from(split(more.len() as u64)).unwrap();
                let (left, right) = more.split_at(middle);
                node(&root(left), &root(right))
            }
        }
    }

    #[test]
    fn the_digest_is_that_of_the_tree_that_halves_at_powers_of_two() {
        for count in 0..70 {
            let members = Members::new((0..count).map(member));
            let leaves: Vec<Digest> = members.leaves().iter().map(leaf).collect();
            assert_eq!(members.digest(), root(&leaves), "{count}");
            assert_eq!(members.tree().digest(), root(&leaves), "{count}");
        }
    }

    fn member(n: u8) -> MemberLeaf {
        MemberLeaf {
            user: UserId::from_bytes([n; 32]),
            role: Role::Member,
            home: ServerId::from_bytes([n / 2; 32]),
            grant: Digest::from_bytes([n; 32]),
        }
    }

    #[test]
    fn every_member_is_proven_and_nobody_else_with_any_proof() {
        for count in 0..40 {
            let members = Members::new((0..count).map(member));
            let digest = members.digest();
            for n in 0..count {
                let proof = members.tree().prove(&member(n).user).unwrap();
                assert!(proof.holds(&member(n), &digest), "{n} of {count}");
                assert!(!proof.holds(&member(n + 1), &digest));
                let promoted = MemberLeaf {
                    role: Role::Admin,
                    ..member(n)
                };
                assert!(!proof.holds(&promoted, &digest));
                let longer = Proof {
                    path: [proof.path.clone(), vec![digest]].concat(),
                    ..proof.clone()
                };
                assert!(!longer.holds(&member(n), &digest));
                let moved = Proof {
                    index: proof.index + 1,
                    ..proof.clone()
                };
                assert!(!moved.holds(&member(n), &digest));
            }
            assert!(members.tree().prove(&member(count).user).is_none());
        }
    }

    #[test]
    fn order_of_arrival_does_not_matter_and_any_change_does() {
        let forward = Members::new((0..20).map(member));
        let backward = Members::new((0..20).rev().map(member));
        assert_eq!(forward.digest(), backward.digest());
        assert_ne!(forward.digest(), Members::new((0..19).map(member)).digest());
        assert_ne!(
            Members::default().digest(),
            Members::new([member(0)]).digest()
        );
    }

    #[test]
    fn a_proof_that_claims_a_huge_tree_is_refused() {
        let proof = Proof {
            index: u64::MAX - 1,
            count: u64::MAX,
            path: vec![Digest::from_bytes([0; 32]); PATH_MAX],
        };
        assert!(!proof.holds(&member(1), &Digest::from_bytes([0; 32])));
    }
}
