//! Applies records of a log to a store where no engine runs and no client waits.
//! Never decides which records: the caller vouches for their order.

use memkv_disk::Record;
use memkv_store::{DecodeError, Rejected, Reply, SessionId, Sink, Store, SystemOutcome};
use openraft::EntryPayload;

use super::codec;

/// Applies the record that follows the store's last one; gives back the voters, if it changes them.
///
/// # Errors
///
/// Why the record cannot be read, in words; the store is as it was, and nothing may be applied after it.
pub(crate) fn apply(store: &mut Store, record: Record) -> Result<Option<Vec<u64>>, String> {
    let index = record.id.index;
    let entry = codec::entry(record).map_err(|error| error.to_string())?;
    match entry.payload {
        EntryPayload::Blank => store.mark_applied(index),
        EntryPayload::Membership(membership) => {
            store.mark_applied(index);
            return Ok(Some(membership.voter_ids().collect()));
        }
        EntryPayload::Normal(batch) => {
            let mut malformed = Malformed(None);
            store.apply(index, &batch.0, &mut malformed);
            if let Some(why) = malformed.0 {
                return Err(why);
            }
        }
    }
    Ok(None)
}

/// Drops every effect but the one that ends a replay.
struct Malformed(Option<String>);

impl Sink for Malformed {
    fn reply(&mut self, _: SessionId, _: u64, _: &Reply) {}
    fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {}
    fn rejected(&mut self, _: SessionId, _: u64, _: u64, _: Rejected) {}
    fn system(&mut self, _: usize, _: &SystemOutcome) {}

    fn malformed(&mut self, why: &DecodeError) {
        self.0 = Some(why.to_string());
    }
}
