//! Links between real swarms over loopback, on ports the system chooses.

mod cable;
mod faults;
mod frames;
mod hostile;
mod peers;
mod process;
mod support;
