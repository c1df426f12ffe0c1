//! Several homes of one conversation, in memory: bundles go from one to the other by hand, in any
//! order, with hostile ones among them.

mod again;
mod converge;
mod direct;
mod documents;
mod erase;
mod hostile;
mod local;
mod preferences;
mod rate;
mod records;
mod restarts;
mod retention;
mod waits;
mod world;
