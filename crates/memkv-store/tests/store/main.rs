//! The store through its public interface: what applying does, against a naive model, and what
//! snapshots hold. Deterministic: every test says its seed or is a plain script.

mod apply;
mod bounds;
mod effects;
mod expiry;
mod key_events;
mod many;
mod model;
mod pieces;
mod random;
mod reference;
mod shared;
mod snapshot;
mod support;
mod views;
