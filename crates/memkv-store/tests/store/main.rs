//! The store through its public interface: applying against scripts and a naive model, and the content
//! of snapshots. Deterministic: every random test names its seed.

mod apply;
mod bounds;
mod effects;
mod expiry;
mod generators;
mod key_events;
mod many;
mod memory;
mod model;
mod pieces;
mod principals;
mod random;
mod reference;
mod refound;
mod script_words;
mod scripts;
mod shared;
mod snapshot;
mod support;
mod users;
mod views;
