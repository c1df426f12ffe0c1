//! Servers as hosts of their own, with a router of ours between them.
//!
//! | module | what it holds |
//! |---|---|
//! | `rule`, `router` | what becomes of each packet: a state machine without clock or device |

pub mod router;
pub mod rule;
