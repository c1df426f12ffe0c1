//! Which handles are taken, and by whom.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{ids::UserId, name::Handle};

use super::handle::{HandleError, Look, canonical, check_scripts};

/// Handles of this home, with those that their users gave up: nobody inherits another's name.
#[derive(Debug, Default)]
pub struct Registry {
    users: BTreeMap<Handle, UserId>,
    looks: BTreeSet<(Look, UserId)>,
}

impl Registry {
    /// The registry of these rows. Of two rows for one handle the first counts.
    pub fn new(rows: impl IntoIterator<Item = (Handle, UserId)>) -> Self {
        let mut registry = Self::default();
        for (handle, user) in rows {
            registry.insert(handle, user);
        }
        registry
    }

    /// Handles taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether no handle is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The user who has or had this handle.
    #[must_use]
    pub fn user(&self, handle: &Handle) -> Option<UserId> {
        self.users.get(handle).copied()
    }

    /// Takes a handle, as typed, for a new or an existing user, and gives its one form. A user may
    /// go back to an own former handle, or to one that looks like it.
    ///
    /// To be called before the account is written, and [`Self::release`] if that fails.
    ///
    /// # Errors
    ///
    /// [`HandleError`]; nothing was taken.
    pub fn claim(&mut self, typed: &str, user: UserId) -> Result<Handle, HandleError> {
        let handle = canonical(typed)?;
        check_scripts(&handle)?;
        self.claim_checked(handle, user, true)
    }

    /// As [`Self::claim`], by the word of an admin: a handle may look like another one or mix
    /// scripts, but not be taken.
    ///
    /// # Errors
    ///
    /// [`HandleError`]; nothing was taken.
    pub fn claim_as_admin(&mut self, typed: &str, user: UserId) -> Result<Handle, HandleError> {
        let handle = canonical(typed)?;
        self.claim_checked(handle, user, false)
    }

    fn claim_checked(
        &mut self,
        handle: Handle,
        user: UserId,
        looks: bool,
    ) -> Result<Handle, HandleError> {
        match self.users.get(&handle) {
            Some(holder) if *holder == user => return Ok(handle),
            Some(_) => return Err(HandleError::Taken),
            None => {}
        }
        if looks && self.looked_like_by_others(Look::of(handle.as_str()), user) {
            return Err(HandleError::Confusable);
        }
        self.insert(handle.clone(), user);
        Ok(handle)
    }

    fn looked_like_by_others(&self, look: Look, user: UserId) -> bool {
        let least = UserId::from_bytes([0; UserId::LEN]);
        let most = UserId::from_bytes([0xff; UserId::LEN]);
        self.looks
            .range((look, least)..=(look, most))
            .any(|(_, holder)| *holder != user)
    }

    fn insert(&mut self, handle: Handle, user: UserId) {
        let look = Look::of(handle.as_str());
        if *self.users.entry(handle).or_insert(user) == user {
            self.looks.insert((look, user));
        }
    }

    /// Gives back a handle whose claim could not be written; only if this user holds it.
    pub fn release(&mut self, handle: &Handle, user: UserId) {
        if self.users.get(handle) != Some(&user) {
            return;
        }
        self.users.remove(handle);
        let look = Look::of(handle.as_str());
        // Another handle of the same user may have this look.
        let still = self
            .users
            .iter()
            .any(|(other, holder)| *holder == user && Look::of(other.as_str()) == look);
        if !still {
            self.looks.remove(&(look, user));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u8) -> UserId {
        UserId::from_bytes([n; 32])
    }

    #[test]
    fn handle_equal_up_to_form_is_taken() {
        let mut registry = Registry::default();
        assert_eq!(
            registry.claim("Jos\u{e9}", user(1)).unwrap().as_str(),
            "jos\u{e9}"
        );
        for typed in ["jos\u{e9}", "jose\u{301}", "JOSE\u{301}"] {
            assert_eq!(
                registry.claim(typed, user(2)),
                Err(HandleError::Taken),
                "{typed:?}"
            );
        }
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn imitation_of_a_taken_handle_is_refused_and_so_is_one_made_first() {
        let mut registry = Registry::default();
        registry.claim("user", user(1)).unwrap();
        registry.claim("coco", user(2)).unwrap();
        let mut claim = |typed| registry.claim(typed, user(3));
        assert_eq!(claim("us\u{435}r"), Err(HandleError::Mixed));
        assert_eq!(
            claim("\u{441}\u{43e}\u{441}\u{43e}"),
            Err(HandleError::Confusable)
        );
        assert_eq!(claim("u5er"), Ok("u5er".parse().unwrap()));
        assert_eq!(claim("c0c0"), Err(HandleError::Confusable));
    }

    #[test]
    fn admin_may_give_out_what_only_looks_alike() {
        let mut registry = Registry::default();
        registry.claim("com", user(1)).unwrap();
        assert_eq!(
            registry.claim("corn", user(2)),
            Err(HandleError::Confusable)
        );
        assert!(registry.claim_as_admin("corn", user(2)).is_ok());
        assert_eq!(
            registry.claim_as_admin("COM", user(2)),
            Err(HandleError::Taken)
        );
    }

    #[test]
    fn former_handle_stays_its_users() {
        let mut registry = Registry::default();
        registry.claim("alice", user(1)).unwrap();
        registry.claim("bob", user(1)).unwrap();
        assert_eq!(registry.claim("alice", user(2)), Err(HandleError::Taken));
        assert!(registry.claim("Alice", user(1)).is_ok());
        assert!(registry.claim("a1ice", user(1)).is_ok(), "like an own one");
    }

    #[test]
    fn released_handle_is_free_with_its_look() {
        let mut registry = Registry::default();
        let handle = registry.claim("bob", user(1)).unwrap();
        registry.release(&handle, user(2));
        assert_eq!(registry.user(&handle), Some(user(1)), "not his to release");
        registry.release(&handle, user(1));
        assert!(registry.is_empty());
        assert!(registry.claim("b0b", user(2)).is_ok());
    }

    #[test]
    fn registry_of_rows_is_the_registry_that_wrote_them() {
        let mut registry = Registry::default();
        registry.claim("alice", user(1)).unwrap();
        registry.claim_as_admin("a1ice", user(2)).unwrap();
        let rows = registry.users.clone();
        let again = Registry::new(rows);
        assert_eq!((again.users, again.looks), (registry.users, registry.looks));
    }
}
