//! Which node leads: `tracker` follows the engine, `failure_detector` notices a leader's death,
//! `handover` gives leadership away before a stop, `diagnosis` says why there is no leader, `rival` ends a
//! lone node beside another cluster.
//!
//! Never elects anything by itself: that is the engine's work.

pub(crate) mod cause;
pub(crate) mod diagnosis;
pub(crate) mod failure_detector;
pub(crate) mod handover;
pub(crate) mod known;
pub(crate) mod leader;
pub(crate) mod rival;
pub(crate) mod suspicion;
pub(crate) mod tracker;
