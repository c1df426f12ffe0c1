//! The rules of a site's gate, for `nft`.

use crate::netns::site::{Site, Udp};

/// The whole rule set of a gate whose way out is the device `out`.
///
/// Behind NAT nothing comes in that was not asked for: the gate has no rule that hands an inbound
/// packet on, so what is addressed to it is its own, and it listens nowhere. The kernel keeps a
/// source's port where it can, and takes answers from whom was spoken to alone.
pub(super) fn rules(site: &Site, out: &str) -> String {
    let udp = match site.udp {
        Udp::Open => "",
        Udp::Refused => "meta l4proto udp reject",
        Udp::Dropped => "meta l4proto udp drop",
    };
    let (policy, pass, mask) = if site.nat {
        let mask = format!(
            "chain mask {{ type nat hook postrouting priority 100; oifname \"{out}\" masquerade; }}"
        );
        let pass = "ct state established,related accept; iifname \"lan\" accept;";
        ("drop", pass, mask)
    } else {
        ("accept", "", String::new())
    };
    format!(
        "table inet comity {{\n\
         chain pass {{ type filter hook forward priority 0; policy {policy};\n{udp}\n{pass}\n}}\n\
         {mask}\n}}\n"
    )
}
