//! TUN devices: what a host sends comes out of a file, and what is written to it the host receives.
//! Source: the kernel's documentation of `tuntap`, and tun's part of ioctl(2).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::fd::AsRawFd as _,
};

/// Bytes of the largest packet: the devices keep the kernel's MTU of 1,500.
const PACKET_BYTES_MAX: usize = 2_048;

/// The file behind a device. It stays with the device when that moves to another namespace, and
/// the device goes away when it is closed.
#[derive(Debug)]
pub(super) struct Tun {
    file: File,
}

impl Tun {
    /// Makes a device in this thread's namespace, down and without an address.
    ///
    /// # Errors
    ///
    /// What the system says; no device is left behind.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let file = attach(name)?;
        Ok(Self { file })
    }

    /// The next packet that the host sends. Blocks the thread until there is one.
    ///
    /// # Errors
    ///
    /// What the system says: then the device is gone.
    pub(super) fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        let len = (&self.file).read(&mut buffer)?;
        Ok(buffer[..len].to_vec())
    }

    /// Hands the host a packet. A device takes it at once or never: there is nothing to wait for.
    ///
    /// # Errors
    ///
    /// What the system says, such as that the device is down; the packet is lost.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(drop)
    }
}

/// Opens the file of a new device.
///
/// # Errors
///
/// As [`Tun::open`], which this is for all but the probe.
pub(super) fn attach(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || !name.is_ascii() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        // ASCII is the same in both.
        *to = from as libc::c_char;
    }
    // Packets as they are, without a header of the device's own.
    let flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI)
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
    };
    #[expect(unsafe_code, reason = "the standard library makes no devices")]
    // SAFETY: the descriptor is open, and the call reads and writes one `ifreq`,
    // which outlives it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
