//! The content of a batch, one by one, for the simulator, which reads logs. Nothing here executes anything.

use bytes::Bytes;

use super::{Batch, Part};
use crate::encoding::DecodeError;
use crate::{SessionId, SystemOp};

/// A command as it lies in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its session.
    pub session: SessionId,
    /// Its number there.
    pub seq: u64,
    /// Its encoding.
    pub command: Bytes,
}

/// The stamp of a batch and its commands, for the simulator, which reads logs. It does not tell which of
/// them are executed.
///
/// # Errors
///
/// [`DecodeError`] if the bytes are no batch.
pub fn read_batch(batch: &Bytes) -> Result<(u64, Vec<Logged>), DecodeError> {
    let checked = Batch::check(batch)?;
    let mut logged = Vec::new();
    for part in checked.parts() {
        let Part::Group(mut group) = part else {
            continue;
        };
        for seq in (group.first_seq..).take(group.count) {
            logged.push(Logged {
                session: group.session,
                seq,
                command: batch.slice_ref(group.commands.prefixed("group command")?),
            });
        }
    }
    Ok((checked.stamp_ms, logged))
}

/// The system operations of a batch, for the simulator.
///
/// # Errors
///
/// [`DecodeError`] if the bytes are no batch.
pub fn read_system(batch: &[u8]) -> Result<Vec<SystemOp>, DecodeError> {
    let parts = Batch::check(batch)?.parts();
    let system = |part| match part {
        Part::System(op) => Some(op),
        Part::Group(_) => None,
    };
    Ok(parts.filter_map(system).collect())
}
