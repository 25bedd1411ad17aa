//! The identity of this node: it lies in its directory besides the log, and never changes once an
//! engine may run under it (`life.rs`).
//!
//! A node id is never used twice in a cluster: 1 to n at formation, later the index of the log
//! entry that admitted the node. A node without a durable identity has none, whatever its
//! configuration says.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::peer::encoding::{DecodeError, Reader, put_blob};
use crate::peer::message::{MemberInfo, put_members, read_members};

/// Version of the encoding.
const VERSION: u8 = 2;

/// A durable identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The cluster's UUID.
    pub(crate) cluster: [u8; 16],
    /// This node's id in it.
    pub(crate) node_id: u64,
    /// The name under which it got the id.
    pub(crate) name: String,
    /// The durability that all agreed on.
    pub(crate) sync: bool,
    /// The members as of that moment: the nodes to talk to until the log says more.
    pub(crate) members: Vec<MemberInfo>,
    /// Set at formation, not by admission to a cluster that exists.
    pub(crate) founder: bool,
    /// The cluster's feature level as of that moment.
    pub(crate) level: u32,
}

impl Identity {
    /// Ids of all members.
    pub(crate) fn ids(&self) -> BTreeSet<u64> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// Whether it is that of the node that proposed the cluster.
    pub(crate) fn proposed(&self) -> bool {
        self.founder && self.node_id == 1
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_slice(&self.cluster);
        out.put_u64_le(self.node_id);
        put_blob(&mut out, self.name.as_bytes());
        out.put_u8(u8::from(self.sync));
        put_members(&mut out, &self.members);
        out.put_u8(u8::from(self.founder));
        out.put_u32_le(self.level);
        out.freeze()
    }

    /// `None` for a directory that has no identity yet.
    pub(crate) fn decode(blob: Bytes) -> Result<Option<Self>, DecodeError> {
        if blob.is_empty() {
            return Ok(None);
        }
        let mut reader = Reader(blob);
        let version = reader.u8("identity version")?;
        if version != VERSION {
            return Err(DecodeError::Bad {
                what: "identity version",
                value: u64::from(version),
            });
        }
        let identity = Self {
            cluster: reader.array("cluster")?,
            node_id: reader.u64("node id")?,
            name: reader.text("name")?,
            sync: reader.bool("durability")?,
            members: read_members(&mut reader)?,
            founder: reader.bool("founder")?,
            level: reader.u32("feature level")?,
        };
        reader.end("identity")?;
        Ok(Some(identity))
    }
}

/// A UUID in its usual form.
pub(crate) fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// A random (version 4) UUID from 128 random bits (RFC 9562, section 5.4).
pub(crate) fn random_uuid(random: u128) -> [u8; 16] {
    let mut uuid = random.to_be_bytes();
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_disk() {
        let identity = Identity {
            cluster: random_uuid(u128::MAX),
            node_id: 2,
            name: "n2".to_owned(),
            sync: true,
            members: vec![MemberInfo {
                id: 2,
                name: "n2".to_owned(),
                addr: "127.0.0.1:1".to_owned(),
            }],
            founder: true,
            level: 7,
        };
        assert_eq!(Identity::decode(identity.encode()), Ok(Some(identity)));
        assert_eq!(Identity::decode(Bytes::new()), Ok(None));
    }

    #[test]
    fn a_uuid_says_its_version() {
        assert_eq!(
            uuid_text(&random_uuid(0)),
            "00000000-0000-4000-8000-000000000000"
        );
    }
}
