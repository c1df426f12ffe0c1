//! Passwords: argon2id, a few at a time. Hashing is slow and large on purpose, so an open door to
//! it would be the cheapest way to bring a server down.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use comity_protocol::session::{Code, WireError};
use precis_profiles::{OpaqueString, precis_core::profile::Profile};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory of one hash in KiB: 19 MiB (OWASP's first choice for argon2id).
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Lanes, computed one after the other.
const LANES: u32 = 1;
/// Memory that a stored hash may ask for, in KiB: rows may come from another program.
const STORED_MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Passes that a stored hash may ask for.
const STORED_PASSES_MAX: u32 = 16;
/// Characters that a new password has at least.
const PASSWORD_CHARS_MIN: usize = 8;
/// Bytes of a password.
const PASSWORD_BYTES_MAX: usize = 1024;
/// Requests that wait for a hash.
const QUEUE_MAX: usize = 64;
/// Wait told to whom the queue has no room for, in milliseconds: about what a full queue takes.
const RETRY_AFTER_MS: u64 = 2_000;

/// Verified in place of an account's hash where there is none, so that the answer takes as long.
/// No password has it: its output is not a hash.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a password was not hashed or verified.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Too short to set.
    #[error("a password has at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// Too long to set.
    #[error("a password has at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// A character that not every keyboard gives alike, such as a control.
    #[error("the password has a character that passwords cannot have")]
    Character,
    /// Too many at once; nothing was done.
    #[error("too many sign-ins at once")]
    Busy,
    /// Memory for the hash is lacking, or the stored hash is not one of ours; nothing was done.
    #[error("the password could not be hashed")]
    Failed,
}

impl From<PasswordError> for WireError {
    fn from(error: PasswordError) -> Self {
        let (code, retry_after_ms) = match error {
            PasswordError::TooShort | PasswordError::TooLong | PasswordError::Character => {
                (Code::InvalidName, None)
            }
            PasswordError::Busy => (Code::Busy, Some(RETRY_AFTER_MS)),
            PasswordError::Failed => (Code::Internal, None),
        };
        Self {
            retry_after_ms,
            ..Self::new(code, error.to_string())
        }
    }
}

/// Hashes and verifies, at most so many at a time; cheap to clone.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// Room for those who hash and those who wait.
    room: Arc<Semaphore>,
    /// Room for those who hash.
    running: Arc<Semaphore>,
}

impl Passwords {
    /// Up to `at_once` hashes at a time, at least 1, each taking 19 MiB and a core.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self::with_queue(at_once.max(1), QUEUE_MAX)
    }

    fn with_queue(at_once: usize, queue: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(at_once + queue)),
            running: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// Hashes a new password with a random salt, as a PHC string to be stored.
    ///
    /// # Errors
    ///
    /// [`PasswordError`].
    pub async fn hash(&self, typed: &str, salt: [u8; 16]) -> Result<String, PasswordError> {
        if typed.chars().count() < PASSWORD_CHARS_MIN {
            return Err(PasswordError::TooShort);
        }
        let password = prepared(typed)?;
        self.run(move || {
            hasher()
                .hash_password_with_salt(password.as_bytes(), &salt)
                .map(|hash| hash.to_string())
                .map_err(|_| PasswordError::Failed)
        })
        .await
    }

    /// Whether `typed` is the password of `stored`. Without a stored hash, as of a handle that
    /// nobody has, the same work is done and the answer is no.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Busy`] and [`PasswordError::Failed`].
    pub async fn verify(&self, typed: &str, stored: Option<&str>) -> Result<bool, PasswordError> {
        // What nobody could have set is no password, and takes as long as a wrong one.
        let password = prepared(typed);
        let stored = stored.filter(|_| password.is_ok()).unwrap_or(NOBODY);
        let password = password.unwrap_or_default();
        let stored = stored.to_owned();
        self.run(move || verify(&password, &stored)).await
    }

    /// Runs `job` on a thread that may block, when there is room. The room is the job's until it
    /// ends, also if the caller goes away: hanging up frees nothing.
    async fn run<T, F>(&self, job: F) -> Result<T, PasswordError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, PasswordError> + Send + 'static,
    {
        let room = Arc::clone(&self.room)
            .try_acquire_owned()
            .map_err(|_| PasswordError::Busy)?;
        let running = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_| PasswordError::Busy)?;
        let held: (OwnedSemaphorePermit, OwnedSemaphorePermit) = (room, running);
        tokio::task::spawn_blocking(move || {
            let done = job();
            drop(held);
            done
        })
        .await
        .unwrap_or(Err(PasswordError::Failed))
    }
}

/// The form in which a password is hashed (PRECIS OpaqueString): the same on every keyboard.
fn prepared(typed: &str) -> Result<String, PasswordError> {
    if typed.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    OpaqueString::new()
        .enforce(typed)
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| PasswordError::Character)
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn verify(password: &str, stored: &str) -> Result<bool, PasswordError> {
    let stored = PasswordHash::new(stored).map_err(|_| PasswordError::Failed)?;
    let asked = Params::try_from(&stored).map_err(|_| PasswordError::Failed)?;
    if asked.m_cost() > STORED_MEMORY_KIB_MAX || asked.t_cost() > STORED_PASSES_MAX {
        return Err(PasswordError::Failed);
    }
    match hasher().verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(PasswordError::Failed),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(2)
    }

    #[tokio::test]
    async fn password_set_is_the_only_one_that_verifies() {
        let all = passwords();
        let stored = all.hash("correct horse", [1; 16]).await.unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        assert_eq!(all.verify("correct horse", Some(&stored)).await, Ok(true));
        assert_eq!(all.verify("Correct horse", Some(&stored)).await, Ok(false));
        assert_eq!(all.verify("", Some(&stored)).await, Ok(false));
        let other = all.hash("correct horse", [2; 16]).await.unwrap();
        assert_ne!(stored, other, "salted");
    }

    #[tokio::test]
    async fn password_typed_on_another_keyboard_verifies() {
        let all = passwords();
        let stored = all.hash("caf\u{e9}\u{a0}noir", [1; 16]).await.unwrap();
        assert_eq!(
            all.verify("cafe\u{301} noir", Some(&stored)).await,
            Ok(true)
        );
    }

    #[tokio::test]
    async fn unknown_handle_gets_the_answer_of_a_wrong_password_for_the_same_work() {
        let all = passwords();
        assert_eq!(all.verify("correct horse", None).await, Ok(false));
        let too_long = "a".repeat(PASSWORD_BYTES_MAX + 1);
        assert_eq!(all.verify(&too_long, None).await, Ok(false));
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let params = Params::try_from(&nobody).unwrap();
        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (MEMORY_KIB, PASSES, LANES)
        );
        assert_eq!(
            nobody.hash.map(|hash| hash.as_ref().len()),
            Some(Params::DEFAULT_OUTPUT_LEN)
        );
    }

    #[tokio::test]
    async fn passwords_outside_the_limits_are_not_set() {
        let all = passwords();
        let refused = |typed: String| {
            let all = all.clone();
            async move { all.hash(&typed, [1; 16]).await.unwrap_err() }
        };
        assert_eq!(refused("seven77".into()).await, PasswordError::TooShort);
        assert_eq!(refused("a".repeat(1_025)).await, PasswordError::TooLong);
        assert_eq!(
            refused("line\nbreak".into()).await,
            PasswordError::Character
        );
    }

    #[tokio::test]
    async fn stored_hash_that_is_none_or_asks_for_too_much_fails() {
        let all = passwords();
        for stored in ["", "plain", &NOBODY.replace("m=19456", "m=4000000000")] {
            assert_eq!(
                all.verify("correct horse", Some(stored)).await,
                Err(PasswordError::Failed)
            );
        }
    }

    #[tokio::test]
    async fn full_queue_answers_busy_and_hanging_up_frees_nothing_early() {
        let all = Passwords::with_queue(1, 1);
        let (started, is_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let (first, second) = (all.clone(), all.clone());
        let running = tokio::spawn(async move {
            first
                .run(move || {
                    started.send(()).map_err(|_| PasswordError::Failed)?;
                    may_go.recv().map_err(|_| PasswordError::Failed)
                })
                .await
        });
        tokio::task::spawn_blocking(move || is_started.recv().unwrap())
            .await
            .unwrap();
        // The caller of the first job goes away; the job goes on and keeps its place.
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        let waiting = tokio::spawn(async move { second.run(|| Ok(7)).await });
        while all.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(all.run(|| Ok(())).await, Err(PasswordError::Busy));
        let wire = WireError::from(PasswordError::Busy);
        assert_eq!(
            (wire.code, wire.retry_after_ms),
            (Code::Busy, Some(RETRY_AFTER_MS))
        );

        go.send(()).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
        assert_eq!(all.run(|| Ok(8)).await, Ok(8));
    }

    #[tokio::test]
    async fn panicking_job_gives_its_place_back() {
        let all = Passwords::with_queue(1, 0);
        let failed: Result<(), _> = all.run(|| panic!("as if memory ran out")).await;
        assert_eq!(failed, Err(PasswordError::Failed));
        assert_eq!(all.run(|| Ok(1)).await, Ok(1));
    }
}
