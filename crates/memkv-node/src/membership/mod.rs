//! Which nodes belong to the cluster, and under which ids: `form` founds a cluster, `join` and `admit`
//! give an empty node a seat in one that exists, `verbs` writes down what an operator wants, `reconcile` brings
//! the engine's membership to what the log says, `levels` raises what all builds can read.
//!
//! Invariant: an id is given once (`identity`), and an engine runs in one state of a node's `life` only.

pub(crate) mod admit;
pub(crate) mod backoff;
pub(crate) mod form;
pub(crate) mod greet;
pub(crate) mod identity;
pub(crate) mod introduce;
pub(crate) mod join;
pub(crate) mod levels;
pub(crate) mod life;
pub(crate) mod list;
pub(crate) mod members;
pub(crate) mod moves;
pub(crate) mod plan;
pub(crate) mod raise;
pub(crate) mod reconcile;
pub(crate) mod record;
pub(crate) mod seats;
pub(crate) mod verb_wire;
pub(crate) mod verbs;
pub(crate) mod view;
