//! A whole Comity network on one machine: run it, play logs on it, break it, measure it, and prove
//! what is claimed of it. Everything runs on real processes and through the SDK.

pub mod bench;
pub mod ca;
pub mod chaos;
pub mod claims;
pub mod cli;
pub mod compare;
mod hostile;
pub mod logs;
pub mod machine;
pub mod netns;
pub mod network;
pub mod process;
pub mod prove;
pub mod proxy;
pub mod replay;
pub mod sim;
pub mod up;
