//! Storage of a home server: the log is the truth, the index answers.
//!
//! A submission becomes frames in an append-only log ([`Record`]), is synced together with
//! whatever else was waiting, turned into index rows by the owner's [`Projection`], and then
//! acknowledged. What a record means is the owner's business. The index may be lost at any time:
//! it is built again from the log. Format and rules: `spec/07-storage.md`.
//!
//! Absent on purpose: transactions, snapshots, a second writer, and any type of the store behind
//! the index.

mod apply;
mod check;
mod committer;
mod compact;
mod config;
mod erase;
mod error;
mod files;
mod guard;
mod index;
mod limits;
mod log;
mod maintenance;
mod open;
mod projection;
mod queue;
mod reader;
mod record;
mod report;
mod savepoint;
mod shared;
mod storage;
mod tx;

pub use config::{Config, IndexKind, boot_id};
pub use error::{ContentError, OpenError, ReadError, SubmitError};
pub use files::{FaultControl, Files, Survive};
pub use limits::{
    CONTENTS_MAX, DAMAGES_MAX, FILE_BYTES_RANGE, GROUP_BYTES_MAX, GROUP_RECORDS_MAX,
    QUEUE_BYTES_MAX, QUEUE_RECORDS_MAX, RECORD_BYTES_MAX, SUBMISSION_BYTES_MAX,
    SUBMISSION_RECORDS_MAX,
};
pub use projection::{Keep, Projection};
pub use reader::{Direction, Reader, Row};
pub use record::{Content, ContentAt, Record, RecordView, StoredRecord};
pub use report::{
    CheckReport, CompactionReport, Damage, DamageKind, Durable, Health, OpenReport, Stats,
};
pub use storage::{Done, Storage};
pub use tx::Tx;
