//! The router's process, plugged into the spaces of a network.

use std::{ffi::OsString, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;

use super::{control::Control, site, spaces::Spaces};
use crate::process::{Command, Process, Ready};

/// Time for the router to make its devices.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for it to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// All ways between the sites. Dropping it ends the router, and with its other owners the spaces.
#[derive(Debug)]
pub struct Wires {
    router: Process,
    control: Control,
    spaces: Arc<Spaces>,
}

impl Wires {
    /// Starts the router and plugs every site in. `program` is `comity-testnet`; the router's
    /// socket and log are in `directory`.
    ///
    /// # Errors
    ///
    /// What the router or the system says; no router is left running.
    pub async fn start(
        spaces: Arc<Spaces>,
        program: &Path,
        directory: &Path,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let control = Control::of(directory);
        let mut command = inside(
            &spaces.name("router"),
            program,
            &directory.join("router.log"),
        )
        .arg("router")
        .arg("--socket")
        .arg(control.socket())
        .args(["--seed".to_owned(), seed.to_string()])
        .args(["--parent".to_owned(), std::process::id().to_string()])
        .ready(Ready::Json, READY_TIMEOUT);
        for (number, site) in spaces.sites().iter().enumerate() {
            let mut addresses = site::outside(number).to_string();
            if site.has_gate() {
                addresses = format!("{addresses},{}", site::firewall(number));
            } else {
                addresses = format!("{addresses},{}", site::outside6(number));
            }
            let device = Spaces::device(number);
            command = command.args([
                "--host".to_owned(),
                format!("{}={device}={addresses}", site.name),
            ]);
        }
        let router = Process::start(command)
            .await
            .context("starting the router")?;
        let plugged = spaces.clone();
        tokio::task::spawn_blocking(move || plugged.plug())
            .await?
            .context("plugging the sites in")?;
        Ok(Self {
            router,
            control,
            spaces,
        })
    }

    /// Sets rules and reads figures.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The namespaces.
    #[must_use]
    pub fn spaces(&self) -> &Arc<Spaces> {
        &self.spaces
    }

    /// Whether the router has not ended.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.router.is_running()?)
    }

    /// Ends the router.
    ///
    /// # Errors
    ///
    /// If it has ended already, or cannot be ended.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let stopped = self.router.stop(STOP_TIMEOUT).await;
        stopped.map(drop).context("stopping the router")
    }
}

/// How `program` is started inside a namespace. Its process is the child: `ip` becomes it.
#[must_use]
pub fn inside(space: &str, program: &Path, log: &Path) -> Command {
    Command::new("ip", log)
        .args(["netns", "exec", space])
        .arg(OsString::from(program))
}
