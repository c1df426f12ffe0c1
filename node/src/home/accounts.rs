//! Accounts: made by token, entered by password or token. Every change is a record first.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use comity_protocol::{
    identity::{Genesis, IdentityError, IdentityLog, Op, Signer, home_key},
    ids::{Blob, DeviceKey, Nonce, UserId},
    name::Handle,
    session::{Code, WireError},
    time::Timestamp,
};
use comity_storage::Record;
use tokio::sync::oneshot;

use super::{HomeServer, unreadable};
use crate::{
    accounts::{Taken, Token, TokenHash, TokenKind, TokenSecret, canonical},
    engine::{now, submit_error},
    gateway::home::{Enroll, SignIn, SignUp, SignedIn},
    identities,
    records::{AccountRecord, TokenRecord, kind, record},
};

/// A token as it is shown, once.
pub(crate) struct NewToken {
    pub(crate) text: String,
    pub(crate) expires_at: Timestamp,
}

pub(super) fn token_of(row: &TokenRecord) -> Option<(TokenHash, Token)> {
    let hash = TokenHash(row.hash.0.as_slice().try_into().ok()?);
    let kind = row.user.map_or(TokenKind::SignUp, TokenKind::Device);
    Some((
        hash,
        Token {
            kind,
            uses_left: row.uses_left,
            expires_at: row.expires_at,
        },
    ))
}

fn token_record(hash: &TokenHash, token: &Token) -> Record {
    let user = match token.kind {
        TokenKind::Device(user) => Some(user),
        TokenKind::SignUp => None,
    };
    let body = TokenRecord {
        hash: Blob(hash.0.to_vec()),
        user,
        uses_left: token.uses_left,
        expires_at: token.expires_at,
    };
    record(kind::TOKEN, &body, Vec::new())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn random<const N: usize>() -> Result<[u8; N], WireError> {
    let mut bytes = [0; N];
    let failed = |_| WireError::new(Code::Internal, "no random bytes could be had");
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn identity_error(error: &IdentityError) -> WireError {
    let code = match error {
        IdentityError::DeviceAgain => Code::UnknownDevice,
        _ => Code::Conflict,
    };
    WireError::new(code, error.to_string())
}

impl HomeServer {
    async fn store(&self, records: Vec<Record>) -> Result<(), WireError> {
        let (done, stored) = oneshot::channel();
        let done = move |result: Result<_, _>| {
            let _ = done.send(result.map(drop));
        };
        self.0.engine.shared.storage.submit(records, Box::new(done));
        match stored.await {
            Ok(result) => result.map_err(|error| submit_error(&error)),
            Err(_) => Err(WireError::new(Code::Stopping, "the server is stopping")),
        }
    }

    fn signed_in(&self, user: UserId, handle: String) -> SignedIn {
        SignedIn {
            user,
            handle,
            server: self.0.info.server,
        }
    }

    pub(super) async fn make_account_by_token(
        &self,
        sign_up: SignUp,
        remote: IpAddr,
    ) -> Result<SignedIn, WireError> {
        lock(&self.0.throttle)
            .check(&sign_up.handle, remote, now().0)
            .map_err(WireError::from)?;
        let taken = lock(&self.0.tokens).take_sign_up(&sign_up.token, now())?;
        let made = self.sign_up_with(&sign_up, &taken).await;
        if made.is_err() {
            lock(&self.0.tokens).give_back(&taken);
        }
        made
    }

    async fn sign_up_with(&self, sign_up: &SignUp, taken: &Taken) -> Result<SignedIn, WireError> {
        let password = self.0.passwords.hash(&sign_up.password, random()?).await?;
        let device = Some((sign_up.device, sign_up.device_name.clone()));
        let used = token_record(&taken.hash, &taken.after);
        self.make_account(&sign_up.handle, Some(password), device, false, vec![used])
            .await
    }

    /// Makes an account; `records` become durable with it.
    async fn make_account(
        &self,
        handle: &str,
        password: Option<String>,
        device: Option<(DeviceKey, String)>,
        as_admin: bool,
        mut records: Vec<Record>,
    ) -> Result<SignedIn, WireError> {
        let shared = &self.0.engine.shared;
        let wanted = canonical(handle).map_err(|e| WireError::new(e.code(), e.to_string()))?;
        let nonce = Nonce::from_bytes(random()?);
        let key = home_key(&self.0.users_key, &nonce);
        let genesis = Genesis {
            handle: wanted,
            home: shared.me,
            home_key: key.public(),
            recovery: None,
            nonce,
        };
        let mut log = IdentityLog::genesis(genesis, now(), &key);
        if let Some((device, name)) = device {
            let add = Op::AddDevice { device, name };
            let entry = log
                .next(add, now(), Signer::Home, &key)
                .map_err(|e| identity_error(&e))?;
            log.extend(&entry).map_err(|e| identity_error(&e))?;
        }
        let user = log.user();
        let handle = self.claim(handle, user, as_admin)?;
        let account = AccountRecord {
            user,
            handle: handle.as_str().to_owned(),
            password,
            created_at: now(),
        };
        records.push(identities::record_of(&log));
        records.push(record(kind::ACCOUNT, &account, Vec::new()));
        if let Err(error) = self.store(records).await {
            lock(&self.0.registry).release(&handle, user);
            return Err(error);
        }
        shared.identities.keep(log);
        Ok(self.signed_in(user, account.handle))
    }

    fn claim(&self, typed: &str, user: UserId, as_admin: bool) -> Result<Handle, WireError> {
        let mut registry = lock(&self.0.registry);
        let claimed = if as_admin {
            registry.claim_as_admin(typed, user)
        } else {
            registry.claim(typed, user)
        };
        claimed.map_err(|error| WireError::new(error.code(), error.to_string()))
    }

    /// Adds a device to a user's identity log; one that is there already is left as it is.
    async fn add_device(
        &self,
        user: UserId,
        device: DeviceKey,
        name: &str,
        mut records: Vec<Record>,
    ) -> Result<(), WireError> {
        let shared = &self.0.engine.shared;
        let held = shared
            .identities
            .get(&user)
            .map_err(|error| unreadable(&error))?;
        let log: Arc<IdentityLog> =
            held.ok_or_else(|| WireError::new(Code::NotFound, "no such user"))?;
        if log.is_current(&device) {
            return Ok(());
        }
        let mut log = (*log).clone();
        let key = home_key(&self.0.users_key, log.nonce());
        let add = Op::AddDevice {
            device,
            name: name.to_owned(),
        };
        let entry = log
            .next(add, now(), Signer::Home, &key)
            .map_err(|e| identity_error(&e))?;
        log.extend(&entry).map_err(|e| identity_error(&e))?;
        records.push(identities::record_of(&log));
        self.store(records).await?;
        shared.identities.keep(log);
        Ok(())
    }

    pub(super) async fn sign_in_by_password(
        &self,
        sign_in: SignIn,
        remote: IpAddr,
    ) -> Result<SignedIn, WireError> {
        let wrong = || WireError::new(Code::Unauthenticated, "wrong handle or password");
        let handle = canonical(&sign_in.handle).ok();
        let name = handle
            .as_ref()
            .map_or(sign_in.handle.as_str(), Handle::as_str)
            .to_owned();
        lock(&self.0.throttle)
            .check(&name, remote, now().0)
            .map_err(WireError::from)?;
        let account = match &handle {
            Some(handle) => {
                let rows = &self.0.engine.shared.rows;
                rows.account(handle.as_str())
                    .map_err(|error| unreadable(&error))?
            }
            None => None,
        };
        let stored = account
            .as_ref()
            .and_then(|account| account.password.as_deref());
        let right = self.0.passwords.verify(&sign_in.password, stored).await?;
        let account = account.filter(|_| right).ok_or_else(wrong)?;
        lock(&self.0.throttle).succeeded(&name, remote, now().0);
        self.add_device(
            account.user,
            sign_in.device,
            &sign_in.device_name,
            Vec::new(),
        )
        .await?;
        Ok(self.signed_in(account.user, account.handle))
    }

    pub(super) async fn enroll_by_token(
        &self,
        enroll: Enroll,
        remote: IpAddr,
    ) -> Result<SignedIn, WireError> {
        // Not limited by address: 256 random bits are guessed by nobody, and a whole fleet of bots
        // may enrol from one address.
        tracing::debug!(%remote, "a device enrols");
        let (taken, user) = lock(&self.0.tokens).take_device(&enroll.token, now())?;
        let used = vec![token_record(&taken.hash, &taken.after)];
        let added = self
            .add_device(user, enroll.device, &enroll.device_name, used)
            .await;
        let account = self
            .0
            .engine
            .shared
            .rows
            .account_of(&user)
            .map_err(|e| unreadable(&e));
        match added.and(account) {
            Ok(Some(account)) => Ok(self.signed_in(user, account.handle)),
            other => {
                lock(&self.0.tokens).give_back(&taken);
                Err(other
                    .err()
                    .unwrap_or_else(|| WireError::new(Code::NotFound, "no such user")))
            }
        }
    }

    /// Makes an account without a token, for the operator.
    ///
    /// # Errors
    ///
    /// As for sign-up.
    pub(crate) async fn add_user(
        &self,
        handle: &str,
        password: Option<&str>,
    ) -> Result<SignedIn, WireError> {
        let password = match password {
            Some(password) => Some(self.0.passwords.hash(password, random()?).await?),
            None => None,
        };
        self.make_account(handle, password, None, true, Vec::new())
            .await
    }

    /// A user's devices: key, name and whether it may still sign.
    ///
    /// # Errors
    ///
    /// If the user is not here.
    pub(crate) fn devices(&self, handle: &str) -> Result<serde_json::Value, WireError> {
        let (_, log) = self.account_log(handle)?;
        let device = |device: comity_protocol::identity::Device| serde_json::json!({ "device": device.key, "name": device.name });
        Ok(log.devices().map(device).collect())
    }

    /// Takes a device's right to sign away and ends its sessions at once.
    ///
    /// # Errors
    ///
    /// If the user or the device is not here.
    pub(crate) async fn revoke(&self, handle: &str, device: DeviceKey) -> Result<(), WireError> {
        let (user, log) = self.account_log(handle)?;
        let mut log = (*log).clone();
        let key = home_key(&self.0.users_key, log.nonce());
        let revoke = Op::RevokeDevice { device };
        let entry = log
            .next(revoke, now(), Signer::Home, &key)
            .map_err(|e| identity_error(&e))?;
        log.extend(&entry).map_err(|e| identity_error(&e))?;
        self.store(vec![identities::record_of(&log)]).await?;
        let shared = &self.0.engine.shared;
        shared.identities.keep(log);
        let revoked = WireError::new(Code::UnknownDevice, "this device was signed out");
        shared.hub.end(&user, Some(&device), &revoked);
        Ok(())
    }

    fn account_log(&self, handle: &str) -> Result<(UserId, Arc<IdentityLog>), WireError> {
        let missing = || WireError::new(Code::NotFound, format!("no user {handle} here"));
        let shared = &self.0.engine.shared;
        let name = canonical(handle).map_err(|e| WireError::new(e.code(), e.to_string()))?;
        let account = shared
            .rows
            .account(name.as_str())
            .map_err(|e| unreadable(&e))?;
        let user = account.ok_or_else(missing)?.user;
        let log = shared.identities.get(&user).map_err(|e| unreadable(&e))?;
        Ok((user, log.ok_or_else(missing)?))
    }

    /// Makes a token: for sign-up, or for devices of a user.
    ///
    /// # Errors
    ///
    /// If the user is not here, or too many tokens are good.
    pub(crate) async fn make_token(
        &self,
        user: Option<&str>,
        uses: u32,
        valid_ms: u64,
    ) -> Result<NewToken, WireError> {
        let kind = match user {
            None => TokenKind::SignUp,
            Some(handle) => TokenKind::Device(self.account_log(handle)?.0),
        };
        let secret = TokenSecret::from_random(random()?);
        let expires_at = now().plus_ms(valid_ms);
        let token = Token {
            kind,
            uses_left: uses,
            expires_at,
        };
        let added = lock(&self.0.tokens).add(secret.hash(), token, now());
        added.map_err(|error| WireError::new(Code::Busy, error.to_string()))?;
        if let Err(error) = self.store(vec![token_record(&secret.hash(), &token)]).await {
            lock(&self.0.tokens).revoke(&secret.hash());
            return Err(error);
        }
        Ok(NewToken {
            text: secret.to_text(),
            expires_at,
        })
    }
}
