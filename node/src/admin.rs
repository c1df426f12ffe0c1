//! Administration over a socket in the data directory: whoever may open it is the operator. One
//! JSON object a line each way. It works when nobody can sign in.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use comity_protocol::session::{Code, WireError};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use crate::{home::HomeServer, server::View};

/// Bytes of a request or answer.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What an operator asks.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminRequest {
    /// How the server is.
    Status,
    /// Makes an account.
    AddUser {
        /// Its handle.
        handle: String,
        /// Its password; without one, devices enrol by token.
        password: Option<String>,
    },
    /// Lists the devices of an account.
    Devices {
        /// Its handle.
        handle: String,
    },
    /// Signs a device out for good.
    Revoke {
        /// The account's handle.
        handle: String,
        /// The device's key.
        device: comity_protocol::ids::DeviceKey,
    },
    /// Makes a token.
    Token {
        /// For devices of this user; without, for making accounts.
        user: Option<String>,
        /// How often it can be used.
        uses: u32,
        /// For how long.
        valid_ms: u64,
    },
}

/// The answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminReply {
    /// It was done.
    Done(serde_json::Value),
    /// It was not.
    Refused(WireError),
}

fn path(data: &Path) -> PathBuf {
    data.join("admin.sock")
}

/// Listens until the task is aborted.
pub(crate) fn serve(data: &Path, home: HomeServer, view: Arc<View>) -> io::Result<JoinHandle<()>> {
    let path = path(data);
    // The store's lock says that no other server runs here, so what is there is left over.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(tokio::spawn(async move {
        // An operator or two: one connection at a time is served at once, more wait their turn.
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: not at once again.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            if let Err(error) = talk(stream, &home, &view).await {
                tracing::debug!(%error, "an admin connection ended");
            }
        }
    }))
}

async fn talk(stream: UnixStream, home: &HomeServer, view: &View) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let limited = read.take(LINE_BYTES_MAX);
    let patience = std::time::Duration::from_secs(5);
    let mut reader = BufReader::new(limited);
    tokio::time::timeout(patience, reader.read_line(&mut line)).await??;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => match answer(request, home, view).await {
            Ok(done) => AdminReply::Done(done),
            Err(error) => AdminReply::Refused(error),
        },
        Err(error) => AdminReply::Refused(WireError::new(Code::Malformed, error.to_string())),
    };
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

async fn answer(
    request: AdminRequest,
    home: &HomeServer,
    view: &View,
) -> Result<serde_json::Value, WireError> {
    let json = |value: serde_json::Result<serde_json::Value>| {
        value.map_err(|error| WireError::new(Code::Internal, error.to_string()))
    };
    match request {
        AdminRequest::Status => json(serde_json::to_value(view.status())),
        AdminRequest::AddUser { handle, password } => {
            let made = home.add_user(&handle, password.as_deref()).await?;
            json(serde_json::to_value(made))
        }
        AdminRequest::Devices { handle } => home.devices(&handle),
        AdminRequest::Revoke { handle, device } => {
            home.revoke(&handle, device).await?;
            Ok(serde_json::json!({ "revoked": device }))
        }
        AdminRequest::Token {
            user,
            uses,
            valid_ms,
        } => {
            let token = home.make_token(user.as_deref(), uses, valid_ms).await?;
            Ok(serde_json::json!({ "token": token.text, "expires_at": token.expires_at.0 }))
        }
    }
}

/// Asks the server that runs on a data directory.
///
/// # Errors
///
/// If none runs there, or it breaks off.
pub async fn ask(data: &Path, request: &AdminRequest) -> io::Result<AdminReply> {
    let path = path(data);
    let mut stream = UnixStream::connect(&path).await.map_err(|error| {
        let text = format!(
            "no server answers at {} ({error}); is it running?",
            path.display()
        );
        io::Error::new(error.kind(), text)
    })?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    stream
        .take(LINE_BYTES_MAX)
        .read_to_string(&mut answer)
        .await?;
    serde_json::from_str(&answer).map_err(io::Error::from)
}
