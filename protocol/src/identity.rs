//! Who a user is: a log of entries, one chain, signed. Source: `spec/08-identity.md`.
//!
//! The log tells which devices may sign for the user, what the user is called and where the user's
//! home is. Two questions are asked of it and must not be confused: whether a device *ever* was the
//! user's ([`IdentityLog::had_device`], the same answer on every server, by which commits are
//! judged), and whether it is *now* ([`IdentityLog::is_current`], asked by the home alone when an
//! event comes in).

mod branches;
mod entry;
mod state;
#[cfg(test)]
mod tests;
mod travel;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

pub(crate) use branches::Branches;
pub use branches::Effect;
pub use entry::{Entry, Genesis, Op, RawEntry, Signer};
pub use state::Device;

use crate::{
    encoding::DecodeError,
    ids::{DeviceKey, EntryId, Nonce, PublicKey, ServerId, UserId},
    limits::IDENTITY_ENTRIES_MAX,
    name::Handle,
    signing::{self, Domain, SecretKey, WrongSignature},
    time::Timestamp,
};
use state::State;

/// Entries of a log that only the recovery key can use: whoever holds the home's key cannot fill
/// the log and so keep the user from recovering it.
pub const RECOVERY_RESERVE: usize = 16;

/// Why an entry was refused. The log is left as it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The bytes are no entry.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The signature is not of the key that the entry says.
    #[error(transparent)]
    Signature(#[from] WrongSignature),
    /// A log begins with its genesis.
    #[error("the first entry is not a genesis")]
    NotGenesis,
    /// A genesis of another identity.
    #[error("a second genesis")]
    OtherGenesis,
    /// The entry before is not held: it is to be fetched first.
    #[error("the entry before, {0}, is not held")]
    MissingPrev(EntryId),
    /// Not one more than the number of the entry before.
    #[error("entry {found} where {expected} follows")]
    WrongNumber {
        /// The entry's number.
        found: u64,
        /// One more than its `prev`'s.
        expected: u64,
    },
    /// Signed by the recovery key of an identity that has none.
    #[error("the identity has no recovery key")]
    NoRecoveryKey,
    /// A device that the chain below the entry has already, current or revoked.
    #[error("the device was added before")]
    DeviceAgain,
    /// A device that is not current below the entry.
    #[error("the device is not current")]
    NoSuchDevice,
    /// No room: [`IDENTITY_ENTRIES_MAX`], less [`RECOVERY_RESERVE`] for the home's key.
    #[error("the identity log is full")]
    Full,
    /// The home's key cannot extend a contested log; only the recovery key can.
    #[error("the identity is contested")]
    Contested,
}

/// What [`IdentityLog::extend`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extended {
    /// The entry.
    pub id: EntryId,
    /// What it changed.
    pub effect: Effect,
}

/// The key that a home holds for the user whose genesis has `nonce`.
///
/// `home` must be a key that the home keeps through every change of its operational key.
#[must_use]
pub fn home_key(home: &SecretKey, nonce: &Nonce) -> SecretKey {
    home.derive("comity user key v1", nonce.as_bytes())
}

/// An identity log whose every entry was checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdentityLog {
    user: UserId,
    genesis: Genesis,
    entries: BTreeMap<EntryId, (Entry, RawEntry)>,
    branches: Branches,
    /// After the last standing entry.
    state: State,
    /// Devices added by any entry.
    devices: BTreeSet<DeviceKey>,
}

impl IdentityLog {
    /// Makes an identity, signed by its home's key.
    ///
    /// # Panics
    ///
    /// In debug builds, if `key` is not the key of `genesis.home_key`.
    #[must_use]
    pub fn genesis(genesis: Genesis, created_at: Timestamp, key: &SecretKey) -> Self {
        debug_assert_eq!(key.public(), genesis.home_key, "the home signs the genesis");
        let entry = Entry {
            n: 0,
            prev: None,
            by: Signer::Home,
            op: Op::Genesis(genesis.clone()),
            created_at,
        };
        let raw = entry.sign(key);
        Self::begin(genesis, entry, raw)
    }

    /// Checks a whole log from outside: the genesis first, then each entry after its `prev`.
    /// The caller compares [`Self::user`] with the user that it asked for.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] of the first entry that is wrong; nothing is kept.
    pub fn verify(entries: &[RawEntry]) -> Result<Self, IdentityError> {
        Self::read(entries, Trust::Nobody)
    }

    /// Reads a log that this program verified before it stored it: no signature is checked.
    ///
    /// # Errors
    ///
    /// [`IdentityError`], as after damage to a disk.
    pub fn from_trusted(entries: &[RawEntry]) -> Result<Self, IdentityError> {
        Self::read(entries, Trust::Verified)
    }

    fn read(entries: &[RawEntry], trust: Trust) -> Result<Self, IdentityError> {
        if entries.len() > IDENTITY_ENTRIES_MAX {
            return Err(IdentityError::Full);
        }
        let (first, rest) = entries.split_first().ok_or(IdentityError::NotGenesis)?;
        let entry = Entry::decode(first.entry.as_ref())?;
        let Op::Genesis(genesis) = &entry.op else {
            return Err(IdentityError::NotGenesis);
        };
        let genesis = genesis.clone();
        trust.check(&genesis.home_key, first)?;
        let mut log = Self::begin(genesis, entry, first.clone());
        for raw in rest {
            log.take(raw, trust)?;
        }
        Ok(log)
    }

    fn begin(genesis: Genesis, entry: Entry, raw: RawEntry) -> Self {
        let id = raw.id();
        Self {
            user: UserId::from_bytes(*id.as_bytes()),
            entries: BTreeMap::from([(id, (entry, raw))]),
            branches: Branches::new(id),
            state: State::new(&genesis),
            genesis,
            devices: BTreeSet::new(),
        }
    }

    /// Adds one entry from outside. Taking one that is held already changes nothing.
    ///
    /// Entries on a branch that does not stand are taken as well: [`Self::had_device`] must answer
    /// alike on every server, in whatever order the entries came.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]; the log is left as it was. After [`IdentityError::MissingPrev`] the same
    /// entry may be tried again.
    pub fn extend(&mut self, raw: &RawEntry) -> Result<Extended, IdentityError> {
        self.take(raw, Trust::Nobody)
    }

    fn take(&mut self, raw: &RawEntry, trust: Trust) -> Result<Extended, IdentityError> {
        let id = raw.id();
        if self.branches.contains(&id) {
            let effect = Effect::Known;
            return Ok(Extended { id, effect });
        }
        let entry = Entry::decode(raw.entry.as_ref())?;
        let prev = entry.prev.ok_or(IdentityError::OtherGenesis)?;
        self.check(&entry, prev, raw, trust)?;

        let effect = self.branches.insert(id, prev, entry.by == Signer::Recovery);
        if let Op::AddDevice { device, .. } = &entry.op {
            self.devices.insert(*device);
        }
        if effect == Effect::Advanced {
            self.state.apply(id, &entry.op);
        }
        self.entries.insert(id, (entry, raw.clone()));
        if matches!(effect, Effect::Contested | Effect::Settled) {
            self.state = self.state_at(self.branches.tip());
        }
        Ok(Extended { id, effect })
    }

    /// Checks an entry against what it stands on.
    fn check(
        &self,
        entry: &Entry,
        prev: EntryId,
        raw: &RawEntry,
        trust: Trust,
    ) -> Result<(), IdentityError> {
        let room = match entry.by {
            Signer::Home => IDENTITY_ENTRIES_MAX - RECOVERY_RESERVE,
            Signer::Recovery => IDENTITY_ENTRIES_MAX,
        };
        if self.len() >= room {
            return Err(IdentityError::Full);
        }
        let below = self
            .branches
            .number(&prev)
            .ok_or(IdentityError::MissingPrev(prev))?;
        if entry.n != below + 1 {
            return Err(IdentityError::WrongNumber {
                found: entry.n,
                expected: below + 1,
            });
        }
        // Walking a side branch costs its length, bounded by the limit on entries.
        let state = if prev == self.branches.tip() {
            Cow::Borrowed(&self.state)
        } else {
            Cow::Owned(self.state_at(prev))
        };
        let key = match entry.by {
            Signer::Home => state.home_key,
            Signer::Recovery => state.recovery.ok_or(IdentityError::NoRecoveryKey)?,
        };
        trust.check(&key, raw)?;
        state.check(&entry.op)
    }

    /// The state after a held entry.
    fn state_at(&self, id: EntryId) -> State {
        let mut state = State::new(&self.genesis);
        for id in self.branches.path(id) {
            if let Some((entry, _)) = self.entries.get(&id) {
                state.apply(id, &entry.op);
            }
        }
        state
    }

    /// Signs the next entry on the standing tip. The log does not change: the caller makes the
    /// entry durable, then gives it to [`Self::extend`].
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if the entry would be refused; also [`IdentityError::Signature`] for a
    /// key that is not the signer's, and [`IdentityError::Contested`] for the home's key on a
    /// contested log.
    pub fn next(
        &self,
        op: Op,
        created_at: Timestamp,
        by: Signer,
        key: &SecretKey,
    ) -> Result<RawEntry, IdentityError> {
        if by == Signer::Home && self.is_contested() {
            return Err(IdentityError::Contested);
        }
        self.entry_on(self.tip(), op, created_at, by, key)
    }

    /// Signs an entry on any held one: so the recovery key goes back to before a theft.
    ///
    /// # Errors
    ///
    /// As [`Self::next`], but a fork is not refused.
    pub fn entry_on(
        &self,
        prev: EntryId,
        op: Op,
        created_at: Timestamp,
        by: Signer,
        key: &SecretKey,
    ) -> Result<RawEntry, IdentityError> {
        let below = self
            .branches
            .number(&prev)
            .ok_or(IdentityError::MissingPrev(prev))?;
        let entry = Entry {
            n: below + 1,
            prev: Some(prev),
            by,
            op,
            created_at,
        };
        let raw = entry.sign(key);
        // What is written is read back: the shape is checked by the one check there is.
        let entry = Entry::decode(raw.entry.as_ref())?;
        self.check(&entry, prev, &raw, Trust::Nobody)?;
        Ok(raw)
    }

    /// BLAKE3 of the genesis.
    #[must_use]
    pub const fn user(&self) -> UserId {
        self.user
    }

    /// The name at the home.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.state.handle
    }

    /// The home server.
    #[must_use]
    pub const fn home(&self) -> ServerId {
        self.state.home
    }

    /// The key that the home holds for this user.
    #[must_use]
    pub const fn home_key(&self) -> PublicKey {
        self.state.home_key
    }

    /// The key that outranks it.
    #[must_use]
    pub const fn recovery(&self) -> Option<PublicKey> {
        self.state.recovery
    }

    /// The genesis' random bytes, from which the home derives its key for this user.
    #[must_use]
    pub const fn nonce(&self) -> &Nonce {
        &self.genesis.nonce
    }

    /// Devices that may sign now, by key.
    pub fn devices(&self) -> impl Iterator<Item = Device> {
        self.state.current().filter_map(|id| {
            let (entry, _) = self.entries.get(&id)?;
            let Op::AddDevice { device, name } = &entry.op else {
                return None;
            };
            Some(Device {
                key: *device,
                name: name.clone(),
                added_at: entry.created_at,
            })
        })
    }

    /// Whether the device may sign now. Asked by the home when an event comes in.
    #[must_use]
    pub fn is_current(&self, device: &DeviceKey) -> bool {
        self.state.is_current(device)
    }

    /// Whether any entry ever added the device, losing and contested branches included. By this an
    /// event in a commit is judged: the answer turns from no to yes, never back.
    #[must_use]
    pub fn had_device(&self, device: &DeviceKey) -> bool {
        self.devices.contains(device)
    }

    /// Whether any entry ever named this key as the one by which a home speaks for the user.
    #[must_use]
    pub fn had_home_key(&self, key: &PublicKey) -> bool {
        self.genesis.home_key == *key || self.state.home_key == *key
    }

    /// Whether the device was the user's and is no longer: revoked, or added only on a branch that
    /// does not stand. Asked by the home when an event comes in.
    #[must_use]
    pub fn is_revoked(&self, device: &DeviceKey) -> bool {
        self.had_device(device) && !self.is_current(device)
    }

    /// Whether the chain ends at a fork that only the recovery key can settle.
    #[must_use]
    pub const fn is_contested(&self) -> bool {
        self.branches.is_contested()
    }

    /// The last standing entry.
    #[must_use]
    pub fn tip(&self) -> EntryId {
        self.branches.tip()
    }

    /// Entries held, side branches included; at least 1.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a log has its genesis at least"
    )]
    pub fn len(&self) -> usize {
        self.branches.len()
    }

    /// Whether the entry is held.
    #[must_use]
    pub fn contains(&self, id: &EntryId) -> bool {
        self.branches.contains(id)
    }

    /// An entry that is held.
    #[must_use]
    pub fn entry(&self, id: &EntryId) -> Option<&Entry> {
        self.entries.get(id).map(|(entry, _)| entry)
    }

    /// The standing chain, from the genesis to the tip.
    #[must_use]
    pub fn standing(&self) -> &[EntryId] {
        self.branches.standing()
    }

    /// Every entry as it travels, in an order that [`Self::verify`] takes.
    pub fn entries(&self) -> impl Iterator<Item = &RawEntry> {
        self.branches
            .in_order()
            .into_iter()
            .filter_map(|id| self.entries.get(&id).map(|(_, raw)| raw))
    }
}

/// Whether signatures are still to be checked.
#[derive(Clone, Copy)]
enum Trust {
    Nobody,
    Verified,
}

impl Trust {
    fn check(self, key: &PublicKey, raw: &RawEntry) -> Result<(), WrongSignature> {
        match self {
            Self::Nobody => {
                signing::verify(key, Domain::Identity, raw.id().as_bytes(), &raw.signature)
            }
            Self::Verified => Ok(()),
        }
    }
}
