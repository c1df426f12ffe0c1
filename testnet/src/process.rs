//! Servers as child processes: started, waited for, paused, killed, measured and started again.
//!
//! Only children of this process are ever signalled: a [`Process`] holds its child unreaped, so its
//! pid cannot have become another process's. Children stay in our process group: whoever ends the
//! group, a test runner or Ctrl-C, ends them too. A dropped `Process` kills its child.

mod output;
mod usage;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Child;
use tokio::time::timeout;

pub use output::{LOG_BYTES_MAX, OUTPUT_LINE_BYTES_MAX};
pub use usage::Usage;

/// Time within which a child must say that it is ready, unless its command says otherwise.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time in which the system must end a process after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which the last words of an ended child must be in its log.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a child prints on its standard output when it is ready.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ready {
    /// The first line that contains this text.
    Line(String),
    /// The first line that is a JSON object.
    Json,
}

impl Ready {
    fn is(&self, line: &str) -> bool {
        match self {
            Self::Line(text) => line.contains(text),
            Self::Json => {
                line.starts_with('{') && serde_json::from_str::<serde_json::Map<_, _>>(line).is_ok()
            }
        }
    }
}

/// How to start a child; kept, so that it can be started again in the same way.
#[derive(Clone, Debug)]
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    log: PathBuf,
    ready: Ready,
    ready_timeout: Duration,
}

impl Command {
    /// Runs `program`, whose output is appended to `log`; ready when it prints a JSON object.
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
            log: log.into(),
            ready: Ready::Json,
            ready_timeout: READY_TIMEOUT,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment, which is otherwise ours.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs in `directory` instead of ours.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// What tells that the child is ready, and within which time.
    #[must_use]
    pub fn ready(mut self, ready: Ready, within: Duration) -> Self {
        self.ready = ready;
        self.ready_timeout = within;
        self
    }
}

/// Why a child is not as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program or its log cannot be opened; nothing runs.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The child ended before it was ready.
    #[error("{} ended ({status}) before it was ready; its log ends with:\n{log_end}", program.display())]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log_end: String,
    },
    /// The child was not ready in time and was killed.
    #[error("{} was not ready within {within:?}; its log ends with:\n{log_end}", program.display())]
    NotReady {
        /// The program.
        program: PathBuf,
        /// The time it had.
        within: Duration,
        /// The last lines of its log.
        log_end: String,
    },
    /// The child has ended already.
    #[error("the process has ended")]
    NotRunning,
    /// The child must be stopped or killed first.
    #[error("the process still runs")]
    StillRunning,
    /// A call to the system failed; the child is as it was.
    #[error("the system refused")]
    System(#[from] io::Error),
}

/// How a child was stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stopped {
    /// It ended by itself after SIGTERM, within the deadline.
    InTime(ExitStatus),
    /// The deadline passed and it was killed.
    Killed,
}

/// A child process.
#[derive(Debug)]
pub struct Process {
    command: Command,
    child: Child,
    ready_line: String,
    paused: bool,
}

impl Process {
    /// Starts a child and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Start`], [`Error::Ended`] or [`Error::NotReady`]; no child is left running.
    pub async fn start(command: Command) -> Result<Self, Error> {
        let (child, ready_line) = spawn(&command).await?;
        Ok(Self {
            command,
            child,
            ready_line,
            paused: false,
        })
    }

    /// Starts the child again, with the same arguments, after it was stopped, killed or ended.
    ///
    /// # Errors
    ///
    /// [`Error::StillRunning`], or as [`Process::start`], which leaves the process ended.
    pub async fn restart(&mut self) -> Result<(), Error> {
        if self.is_running()? {
            return Err(Error::StillRunning);
        }
        let (child, ready_line) = spawn(&self.command).await?;
        self.child = child;
        self.ready_line = ready_line;
        self.paused = false;
        Ok(())
    }

    /// Adds arguments, from the next [`Process::restart`] on.
    pub fn add_args<A: Into<OsString>>(&mut self, args: impl IntoIterator<Item = A>) {
        self.command.args.extend(args.into_iter().map(Into::into));
    }

    /// The line by which the child said that it is ready.
    #[must_use]
    pub fn ready_line(&self) -> &str {
        &self.ready_line
    }

    /// The log that the child's output goes to.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.command.log
    }

    /// The child's pid, or `None` once its end was seen.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether the child has not ended.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn is_running(&mut self) -> Result<bool, Error> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for the child to end by itself.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        Ok(self.child.wait().await?)
    }

    /// Asks the child to end (SIGTERM) and kills it when `deadline` has passed. A paused child is
    /// resumed, since it could not hear the question.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] or [`Error::System`].
    pub async fn stop(&mut self, deadline: Duration) -> Result<Stopped, Error> {
        self.signal(libc::SIGTERM)?;
        if self.paused {
            self.resume()?;
        }
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(Stopped::InTime(status?)),
            Err(_) => {
                self.kill().await?;
                Ok(Stopped::Killed)
            }
        }
    }

    /// Kills the child (SIGKILL), as a crash does, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] or [`Error::System`].
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.signal(libc::SIGKILL)?;
        match timeout(KILL_TIMEOUT, self.child.wait()).await {
            Ok(status) => {
                status?;
                Ok(())
            }
            Err(_) => Err(Error::System(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Stops the child in its tracks (SIGSTOP): it is there, and silent.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] or [`Error::System`].
    pub fn pause(&mut self) -> Result<(), Error> {
        self.signal(libc::SIGSTOP)?;
        self.paused = true;
        Ok(())
    }

    /// Lets a paused child go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] or [`Error::System`].
    pub fn resume(&mut self) -> Result<(), Error> {
        self.signal(libc::SIGCONT)?;
        self.paused = false;
        Ok(())
    }

    /// Processor time and memory that the child has used so far.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] or [`Error::System`].
    pub fn usage(&self) -> Result<Usage, Error> {
        let pid = self.child.id().ok_or(Error::NotRunning)?;
        Ok(usage::read(pid)?)
    }

    fn signal(&self, signal: i32) -> Result<(), Error> {
        let pid = self.child.id().ok_or(Error::NotRunning)?;
        let pid = i32::try_from(pid).map_err(|_| Error::NotRunning)?;
        #[expect(unsafe_code, reason = "no safe call sends a chosen signal")]
        // SAFETY: kill reads nothing but its two numbers.
        let result = unsafe { libc::kill(pid, signal) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error().into())
        }
    }
}

async fn spawn(command: &Command) -> Result<(Child, String), Error> {
    let cannot_start = |source| Error::Start {
        program: command.program.clone(),
        source,
    };
    let log = File::options()
        .create(true)
        .append(true)
        .open(&command.log)
        .map_err(cannot_start)?;
    let mut builder = tokio::process::Command::new(&command.program);
    builder
        .args(&command.args)
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(directory) = &command.directory {
        builder.current_dir(directory);
    }
    let mut child = builder.spawn().map_err(cannot_start)?;
    let mut followed =
        output::follow(&mut child, log, command.ready.clone()).map_err(cannot_start)?;
    match timeout(command.ready_timeout, followed.ready()).await {
        Ok(Some(line)) => Ok((child, line)),
        Ok(None) => {
            // It closed its output: as a rule it is ending, and what it says of the reason is on
            // its way to the log.
            let Ok(status) = timeout(command.ready_timeout, child.wait()).await else {
                return Err(not_ready(command));
            };
            // A child of the child may hold the output open.
            let _ = timeout(OUTPUT_TIMEOUT, followed.closed()).await;
            Err(Error::Ended {
                program: command.program.clone(),
                status: status?,
                log_end: output::end_of(&command.log),
            })
        }
        Err(_) => Err(not_ready(command)),
    }
}

fn not_ready(command: &Command) -> Error {
    Error::NotReady {
        program: command.program.clone(),
        within: command.ready_timeout,
        log_end: output::end_of(&command.log),
    }
}

#[cfg(test)]
mod tests;
