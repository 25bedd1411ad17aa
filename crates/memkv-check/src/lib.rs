//! Checks what clients saw: was this history linearizable, and was no acknowledged write lost?
//!
//! Development only: the simulator and the black-box tests record every operation in a
//! [`Recorder`] and hand the history to one or more of four checkers.
//!
//! | checker | needs | finds | cost |
//! |---|---|---|---|
//! | [`wgl::check`] | nothing but the history | every violation of linearizability | search, bounded by a [`Budget`] |
//! | [`revision::check`] | the store's revision in every reply | the same, and revisions that lie | O(n log n) |
//! | [`order::check`] | the log, and revisions | the same for many keys, transactions and deadlines | O(n log n) |
//! | [`ledger::Ledger`] | revisions and the final state | lost, doubled and invented writes | O(n log n), 16 bytes per write |
//!
//! A checker never repairs or guesses: a history that it could not decide within its budget is a
//! [`Failure`] like any other, so that a test cannot pass by being too hard to check.
//!
//! ```
//! use memkv_check::{Budget, KeyValue, Op, Recorder, Reply, Value, wgl};
//!
//! let recorder = Recorder::monotonic();
//! let write = recorder.invoke(1, "key", Op::Set(7));
//! let read = recorder.invoke(2, "key", Op::Get);
//! read.ok(Reply::Value(Some(Value::new(7))), None);
//! write.unknown();
//! let coverage = wgl::check(&KeyValue, &recorder.history(), &Budget::default())?;
//! assert_eq!((coverage.answered, coverage.unknown), (1, 1));
//! # Ok::<(), memkv_check::Failure>(())
//! ```
//!
//! Invariants: a checker that answers `Err` other than `Undecided` has a proof (it is sound: no
//! valid history is rejected); times are compared strictly, so that equal stamps mean
//! "concurrent"; nothing here depends on hash order or on the wall clock, except a budget that
//! asks for a time limit.

pub mod chance;
mod failure;
pub mod generate;
pub mod history;
pub mod ledger;
mod lookahead;
mod model;
pub mod order;
mod recorder;
pub mod revision;
mod search;
pub mod space;
mod timeline;
pub mod wgl;
mod zones;

pub use failure::{Coverage, Failure, Witness};
pub use history::{Operation, Outcome};
pub use model::{KeyValue, Model, Op, Refutation, Reply, Value};
pub use recorder::{InFlight, Recorder};
pub use search::Budget;
