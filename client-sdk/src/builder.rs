//! From an address to a connected client, in one call.

use std::{fmt, path::PathBuf, sync::Arc};

use comity_protocol::name::UserAddress;
use tokio::sync::mpsc;

use crate::{
    account::{self, Credential, Web},
    address,
    client::{Client, Me, Shared, Stop},
    conversation::name_stewards,
    driver::Driver,
    error::{Error, ErrorKind, Result},
    events::ConnectionState,
    intake::Intake,
    limits::CALLS_QUEUED_MAX,
    outbox::Outbox,
    store::{Account, Store},
    tls::{self, Ca},
    transport::{Dial, Network, Transport},
    verified::Verified,
};

/// What a client needs to know before it connects.
///
/// ```no_run
/// # async fn example() -> comity_sdk::Result<()> {
/// use comity_sdk::Client;
/// let client = Client::builder("echo-bot@eu.example")
///     .token(std::env::var("COMITY_TOKEN")?)
///     .store("./echo-bot")
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "ends with `.connect()`"]
pub struct ClientBuilder {
    address: String,
    credential: Option<Credential>,
    store: Option<PathBuf>,
    server: Option<String>,
    ca: Vec<Ca>,
    transport: Transport,
    device_name: String,
    offline_ok: bool,
    verified: Verified,
}

impl ClientBuilder {
    pub(crate) fn new(address: String) -> Self {
        Self {
            address,
            credential: None,
            store: None,
            server: None,
            ca: vec![],
            transport: Transport::Auto,
            device_name: concat!("comity-sdk ", env!("CARGO_PKG_VERSION")).to_owned(),
            offline_ok: false,
            verified: Verified::of_one_client(),
        }
    }

    /// Signs in with the user's password, unless the store holds a device already.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.credential = Some(Credential::Password(password.into()));
        self
    }

    /// Signs in with a token for a device, unless the store holds a device already.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.credential = Some(Credential::Token(token.into()));
        self
    }

    /// Makes a new user with an invitation's token, unless the store holds a device already. The
    /// address gives the handle.
    pub fn sign_up(mut self, password: impl Into<String>, token: impl Into<String>) -> Self {
        self.credential = Some(Credential::SignUp {
            password: password.into(),
            token: token.into(),
        });
        self
    }

    /// Directory for the device's key, the outbox and how far events were read. It is made if
    /// missing, readable by its owner only, and used by one process at a time. Without it nothing
    /// outlives this client.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store = Some(path.into());
        self
    }

    /// Where the home server is, instead of `https://` and the address's second half: `host:port`
    /// or a URL. It must still bear the address's name. `http://` is for this machine only.
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// Trusts one more root certificate, as PEM bytes or a path; so does the environment variable
    /// `COMITY_CA`. Verification cannot be turned off.
    pub fn ca(mut self, ca: impl Into<Ca>) -> Self {
        self.ca.push(ca.into());
        self
    }

    /// Which transport to use.
    pub const fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// What the user's list of devices calls this one.
    pub fn device_name(mut self, name: impl Into<String>) -> Self {
        self.device_name = name.into();
        self
    }

    /// Shares verified signatures with other clients of this process.
    pub fn verified(mut self, verified: &Verified) -> Self {
        self.verified = verified.clone();
        self
    }

    /// With a store that holds a device: [`connect`](Self::connect) returns at once and the client
    /// connects when it can.
    pub const fn offline_ok(mut self, ok: bool) -> Self {
        self.offline_ok = ok;
        self
    }

    /// Connects: finds the home server, signs in if the store holds no device yet, and opens the
    /// first session. From then on the client reconnects by itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for arguments that cannot work, [`ErrorKind::Auth`] for missing or
    /// refused credentials, [`ErrorKind::Untrusted`] for a server that is another than the address
    /// names, [`ErrorKind::Offline`] or [`ErrorKind::Timeout`] where it cannot be reached,
    /// [`ErrorKind::Storage`]. A device that was made is kept in the store: trying again with the
    /// same credentials is safe.
    pub async fn connect(self) -> Result<Client> {
        let address = address::parse(&self.address)?;
        let server_name = address.server.to_string();
        let store = match &self.store {
            Some(path) => Store::open(path)?,
            None => Store::memory(),
        };
        let server = self.server.as_deref().unwrap_or(&server_name);
        let web = Web::new(account::base_url(server)?, tls::config(&self.ca, &[])?)?;
        let remember = store.file("transport");
        let name = address.server.clone();
        let mut network = Network::new(web, name, self.transport, self.ca.clone(), remember);
        let mut account = match store.account(&self.address)? {
            Some(account) => account,
            None => Account::new(&self.address)?,
        };
        let stored = account.signed_in.is_some();
        if !stored {
            self.sign_in(&address, &store, &mut account, &mut network)
                .await?;
        }
        let Some(signed_in) = &account.signed_in else {
            return Err(Error::new(ErrorKind::Auth, "not signed in"));
        };
        network.expect(signed_in.server);
        let me = Me {
            address: self.address.clone(),
            user: signed_in.user,
            server: signed_in.server,
            key: account.key()?,
        };
        let client = start(me, store, Box::new(network), self.verified)?;
        if !(stored && self.offline_ok) {
            first_session(&client).await?;
        }
        Ok(client)
    }

    async fn sign_in(
        &self,
        address: &UserAddress,
        store: &Store,
        account: &mut Account,
        network: &mut Network,
    ) -> Result<()> {
        let Some(credential) = &self.credential else {
            let text = "no device is stored: a password or a token is needed";
            return Err(Error::new(ErrorKind::Auth, text));
        };
        network.discover().await?;
        // The key is stored before the server learns of it: if the answer is lost, the next try
        // is for the same device and the token is not spent twice.
        store.save_account(account)?;
        let device = account.key()?.public();
        let web = network.web();
        let signed_in = web.sign_in(
            address.handle.as_str(),
            credential,
            device,
            &self.device_name,
        );
        account.signed_in = Some(signed_in.await?);
        store.save_account(account)
    }
}

/// Starts the tasks of a client.
pub(crate) fn start(
    me: Me,
    store: Store,
    dial: Box<dyn Dial>,
    verified: Verified,
) -> Result<Client> {
    let outbox = Outbox::open(store.file("outbox"))?;
    let notebook = store.notebook()?;
    let cursor = notebook.cursor.clone();
    let (calls, calls_out) = mpsc::channel(CALLS_QUEUED_MAX);
    let shared = Arc::new(Shared::new(me, outbox, notebook, verified, calls));
    let intake = Intake::new(Arc::clone(&shared));
    let driver = Driver::new(Arc::clone(&shared), store, dial, calls_out, cursor);
    let naming = name_stewards(Arc::clone(&shared));
    let client = Client::from_shared(shared);
    tokio::spawn(intake.run());
    tokio::spawn(driver.run());
    tokio::spawn(naming);
    Ok(client)
}

/// Waits for the first session, or the first failure.
pub(crate) async fn first_session(client: &Client) -> Result<()> {
    let mut changes = client.shared().state_changes();
    let tried = |state: &ConnectionState| !matches!(state, ConnectionState::Connecting);
    let state = changes.wait_for(tried).await.map(|state| state.clone());
    let error = match state {
        Ok(ConnectionState::Online { .. }) => return Ok(()),
        Ok(ConnectionState::Offline { cause, .. } | ConnectionState::LoggedOut { cause }) => cause,
        _ => Error::closed(),
    };
    client.shared().stop(Stop::Now);
    client.shared().wait_closed().await;
    Err(error)
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("address", &self.address)
            .field("store", &self.store)
            .field("server", &self.server)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}
