//! Whether this machine can run a network of namespaces, and if not, why and what to do.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

use super::{
    site::{Site, Udp},
    spaces::{self, Spaces},
    tun,
};

/// Bits of the two capabilities that are needed (capabilities(7)).
const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// Why there are no namespaces here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The process may not.
    #[error("this process lacks {0}: run it as root")]
    NotRoot(&'static str),
    /// A program is missing.
    #[error("the program {program} is missing: install {package}")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// Debian's name of what has it.
        package: &'static str,
    },
    /// There is no device to make devices with.
    #[error(
        "no device can be made by /dev/net/tun ({0}): `modprobe tun`, or hand it to the container"
    )]
    NoTun(std::io::Error),
    /// The system refuses namespaces, cables or firewall rules.
    #[error("{0}: the kernel or the container does not allow it")]
    Refused(spaces::Error),
}

/// Tries all that a network needs, once, in namespaces that are removed again.
///
/// # Errors
///
/// [`Unavailable`], for the first thing that is missing.
pub fn available() -> Result<(), Unavailable> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(missing) = missing_capability(&status) {
        return Err(Unavailable::NotRoot(missing));
    }
    for (program, version, package) in [("ip", "-V", "iproute2"), ("nft", "-v", "nftables")] {
        let runs = Command::new(program)
            .arg(version)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if runs.is_err() {
            return Err(Unavailable::NoProgram { program, package });
        }
    }
    // With NAT and a firewall, so that these are tried too.
    let site = Site {
        nat: true,
        udp: Udp::Refused,
        ..Site::open("probe")
    };
    let spaces = Spaces::create(&[site]).map_err(Unavailable::Refused)?;
    // The device is made inside a namespace, by a thread that ends there.
    let tried = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            spaces.enter("router").map_err(Unavailable::Refused)?;
            tun::attach("probe").map(drop).map_err(Unavailable::NoTun)
        });
        inside.join()
    });
    tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The first capability that a process with this `/proc/PID/status` lacks.
fn missing_capability(status: &str) -> Option<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let effective = effective.unwrap_or_default();
    let lacks = |(_, bit): &&(&str, u32)| effective >> bit & 1 == 0;
    CAPABILITIES.iter().find(lacks).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named() {
        let status = |caps: &str| format!("Name:\tx\nCapPrm:\tffffffff\nCapEff:\t{caps}\n");
        assert_eq!(missing_capability(&status("000001ffffffffff")), None);
        assert_eq!(missing_capability(&status("0000000000201000")), None);
        assert_eq!(
            missing_capability(&status("0000000000200000")),
            Some("CAP_NET_ADMIN")
        );
        assert_eq!(
            missing_capability(&status("0000000000001000")),
            Some("CAP_SYS_ADMIN")
        );
        assert_eq!(missing_capability(""), Some("CAP_NET_ADMIN"));
    }
}
