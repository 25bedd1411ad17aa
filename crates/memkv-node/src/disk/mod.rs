//! The care of a node for its data directory: it opens it at a start, watches its space, compacts its log,
//! and remembers of its peers what shows that a disk went back in time.
//!
//! Opens no file itself: `memkv-disk` does.

pub(crate) mod compaction;
pub(crate) mod memory;
pub(crate) mod space;
pub(crate) mod space_meter;
pub(crate) mod startup;
pub(crate) mod storage;
