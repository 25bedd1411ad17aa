//! How a leader gives an empty node a seat in its cluster.
//!
//! Invariants: the id is the index of the log entry that admits the node, so it was never used; a
//! member that answers loses its seat to no node that takes its name.

use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use memkv_store::{Refusal, SystemOp, SystemOutcome};

use crate::Frame;
use crate::membership::form::durability;
use crate::membership::identity::Identity;
use crate::membership::levels;
use crate::node::Inner;
use crate::peer::encoding::{Reader, put_blob};
use crate::peer::message::{self, Envelope, MemberInfo};

type Answer = BoxFuture<'static, Frame>;

/// Answers an empty node that asks for a seat.
pub(crate) fn join(inner: &Arc<Inner>, envelope: Envelope, body: &mut Reader) -> Answer {
    let fields = (|| {
        Ok::<_, crate::peer::encoding::DecodeError>((
            body.text("address")?,
            body.bool("durability")?,
            body.u64("nonce")?,
            body.u32("highest level")?,
        ))
    })();
    let (addr, sync, nonce, highest) = match fields {
        Ok(fields) => fields,
        Err(error) => return Box::pin(ready(message::refused(&error.to_string()))),
    };
    let inner = inner.clone();
    Box::pin(async move {
        match admit(&inner, envelope.name, addr, sync, (nonce, highest)).await {
            Ok(identity) => message::ok(|out| put_blob(out, &identity.encode())),
            Err(why) => message::refused(&why),
        }
    })
}

/// Gives an empty node of a known name and address a new id. Only the leader does; the member that
/// it will replace must have been silent, so that a copied configuration evicts nobody.
async fn admit(
    inner: &Inner,
    name: String,
    addr: String,
    sync: bool,
    (nonce, highest): (u64, u32),
) -> Result<Identity, String> {
    let identity = inner.peers.identity().ok_or("this node is empty itself")?;
    if !inner.leads() {
        return Err("this node does not lead".to_owned());
    }
    if sync != identity.sync {
        return Err(format!(
            "this cluster's durability is \"{}\", {name} is set to \"{}\"",
            durability(identity.sync),
            durability(sync),
        ));
    }
    let level = inner.levels().in_use();
    levels::check(level, highest).map_err(|_| Refusal::TooOld { level, highest }.to_string())?;
    let listed = inner.replica.member_table().by_name(&name).cloned();
    let listed = listed.ok_or_else(|| {
        format!("this cluster has no member named {name}: adding one needs the operator")
    })?;
    if listed.addr != addr {
        return Err(format!(
            "this cluster knows {name} at {}, not at {addr}: a node keeps its address when it is \
             replaced",
            listed.addr,
        ));
    }
    // A newcomer that takes this place already must be silent, too: it may have the vote before the
    // table says so, and a request that comes late must not evict it.
    let newcomer = {
        let table = inner.replica.member_table();
        let pending = table.pending_by_name(&name);
        pending.map(|pending| pending.id)
    };
    let silences = [Some(listed.id), newcomer].into_iter().flatten();
    let silent = silences.map(|id| inner.silent_for(id)).min();
    if let Some(silent) = silent.filter(|silent| *silent < inner.config.replace_after) {
        return Err(format!(
            "the {name} that this cluster knows was heard {} s ago; it is replaced after {} s of \
             silence",
            silent.as_secs(),
            inner.config.replace_after.as_secs(),
        ));
    }
    let op = SystemOp::AdmitNode {
        name: name.clone(),
        addr: addr.clone(),
        nonce,
        highest,
    };
    let outcome = inner.batcher.propose_system(op).await;
    match outcome.map_err(|_| "the node is stopping".to_owned())? {
        Ok(SystemOutcome::NodeAdmitted { id }) => {
            let mut members = inner.peers.members();
            if !members.iter().any(|member| member.id == id) {
                members.push(MemberInfo {
                    id,
                    name: name.clone(),
                    addr,
                });
            }
            if let Some(left_out) = inner.lines.admitted.say() {
                tracing::info!(
                    %name, id, replaces = listed.id, left_out,
                    "admitted a node with an empty directory"
                );
            }
            let cluster = identity.cluster;
            Ok(Identity {
                cluster,
                node_id: id,
                name,
                sync,
                members,
                founder: false,
                level,
            })
        }
        Ok(SystemOutcome::Refused { why }) => Err(why.to_string()),
        Ok(other) => Err(format!("unexpected outcome {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}
