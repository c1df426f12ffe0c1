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
mod records;
mod restarts;
mod waits;
mod world;
