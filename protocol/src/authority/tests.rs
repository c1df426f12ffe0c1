//! The rules held against a plain port of them ([`oracle`]), in named examples and in searches.

mod differential;
mod direct;
mod examples;
mod oracle;
mod records;
mod rules;
mod settle;
mod sight;
mod wander;
mod world;
