//! Links between real swarms over loopback, on ports the system chooses.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod cable;
mod faults;
mod frames;
mod hostile;
mod peers;
mod process;
mod support;
