//! How the log reaches its files: the real file system, or one that loses power on purpose.

mod lossy;
pub(crate) mod real;

use std::{fmt, io, path::Path, sync::Arc};

pub(crate) use lossy::HIDDEN;
pub use lossy::{FaultControl, Survive};

/// A way to reach files. The default is the real one; the other is a value that only tests and
/// chaos runs construct: it is never chosen by an environment or a file.
#[derive(Clone)]
pub struct Files(pub(crate) Arc<dyn FileSystem>);

impl Files {
    /// The operating system's files.
    #[must_use]
    pub fn real() -> Self {
        Self(Arc::new(real::RealFiles))
    }

    /// Files whose unsynced bytes and names live in this process's memory only, so that killing
    /// the process is a power cut. The control injects further faults.
    #[must_use]
    pub fn lossy() -> (Self, FaultControl) {
        let (files, control) = lossy::LossyFiles::new();
        (Self(Arc::new(files)), control)
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::real()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.name())
    }
}

/// What storage asks of a file system. Names are durable only after `sync_dir`, bytes only after
/// `sync`.
pub(crate) trait FileSystem: Send + Sync {
    fn name(&self) -> &'static str;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;
    /// Creates a file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes free for this process.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file; shared between threads.
pub(crate) trait FileHandle: Send + Sync {
    /// Fills the buffer from `offset`; fewer bytes only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    /// Reserves `len` bytes on the disk and fills them with zeros, durably. On a full disk this
    /// fails, and nothing after it does.
    fn preallocate(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
}
