//! The storage as its owner sees it.

mod basics;
mod compaction;
mod damage;
mod faults;
mod index_loss;
mod power;
mod support;
