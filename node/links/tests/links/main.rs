//! Links between real swarms over loopback, on ports the system chooses.

mod faults;
mod frames;
mod peers;
mod support;
