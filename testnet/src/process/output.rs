//! A child's output: read to the end, so that the child never waits for us, and kept in its log.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Ready;

/// Bytes of one line of output; longer lines are kept in pieces of this size.
pub const OUTPUT_LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes kept of each of a child's two outputs; what follows is read and dropped.
pub const LOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a log's end shown in an error.
const LOG_END_BYTES: u64 = 2_048;

/// A child's outputs, which are read until they close, also when this is dropped.
pub(super) struct Followed {
    told: oneshot::Receiver<String>,
    tasks: [JoinHandle<()>; 2],
}

impl Followed {
    /// The line by which the child says that it is ready, or `None` if its standard output closes
    /// before.
    pub(super) async fn ready(&mut self) -> Option<String> {
        (&mut self.told).await.ok()
    }

    /// Waits until both outputs are closed and in the log.
    pub(super) async fn closed(self) {
        for task in self.tasks {
            // A task that panicked has nothing more to write either.
            let _ = task.await;
        }
    }
}

/// Follows both outputs of `child`.
///
/// # Errors
///
/// What the system says to a second handle of the log.
pub(super) fn follow(child: &mut Child, log: File, ready: Ready) -> io::Result<Followed> {
    let (tell, told) = oneshot::channel();
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    // Appended lines of two writers to one file do not overwrite each other.
    let second = log.try_clone()?;
    let tasks = [
        tokio::spawn(async move {
            if let Some(output) = output {
                copy(output, log, Some((ready, tell))).await;
            }
        }),
        tokio::spawn(async move {
            if let Some(errors) = errors {
                copy(errors, second, None).await;
            }
        }),
    ];
    Ok(Followed { told, tasks })
}

async fn copy(
    output: impl AsyncRead + Unpin,
    mut log: File,
    mut waiting: Option<(Ready, oneshot::Sender<String>)>,
) {
    let mut output = BufReader::new(output);
    let mut kept = 0;
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut output).take(OUTPUT_LINE_BYTES_MAX as u64);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if kept < LOG_BYTES_MAX {
            kept += line.len();
            // A log that cannot be written must not stop the child; its lines are lost.
            let _ = log.write_all(&line);
            if kept >= LOG_BYTES_MAX {
                let _ = log.write_all(b"\n[the rest is not kept]\n");
            }
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if let Some((_, tell)) = waiting.take_if(|(ready, _)| ready.is(text)) {
            // Nobody listens any more if the time was up.
            let _ = tell.send(text.to_owned());
        }
    }
}

/// The last lines of a log, or nothing if it cannot be read.
pub(super) fn end_of(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(LOG_END_BYTES)))?;
        let mut end = Vec::new();
        file.take(LOG_END_BYTES).read_to_end(&mut end)?;
        Ok(end)
    };
    let end = read().unwrap_or_default();
    String::from_utf8_lossy(&end).trim_end().to_owned()
}
