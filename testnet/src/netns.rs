//! Servers as hosts of their own: each in a network namespace, with a router of ours between them.
//!
//! | module | what it holds |
//! |---|---|
//! | `probe` | whether this machine can do it, and why not |
//! | `site` | what a host is like, and its addresses |
//! | `spaces` | namespaces, cables and firewalls: made, found again, removed |
//! | `rule`, `router` | what becomes of each packet: a state machine without clock or device |
//! | `tun`, `serve` | the router's edge: devices, timer, its socket |
//! | `control` | the words of that socket, and who speaks them |
//! | `wires` | the router's process, plugged into the spaces |
//! | `args` | the options of `up --netns`, and the command `wire` |
//!
//! ```text
//!  people ──desk── eu ──wan0──┐                     hosts see a default route and nothing else
//!     │                       ├── router            (one TUN device for each, all rules here)
//!     ├────desk── us ──wan1───┤
//!     └────desk── ap ─lan─ gate ──wan2               behind NAT: a namespace more
//! ```
//!
//! Clients live in the space `people`, which has a cable to each server that no rule slows: they
//! are users in their organisation's own network, also when that is behind NAT or lets no UDP out.
//! All addresses are private ones that exist only inside these namespaces: nothing is routed to
//! the machine's own network, and the router forwards between its hosts alone.

pub mod args;
pub mod control;
pub mod probe;
pub mod router;
pub mod rule;
pub mod serve;
pub mod site;
pub mod spaces;
mod tun;
pub mod wires;
