mod convergence;
mod failures;
mod hostile;
mod laws;
mod limits;
mod snapshots;
mod world;
