//! Calls to peers: finds a peer's address, puts the call in an envelope, bounds the waiting.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::lock::RwLock;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use memkv_store::Member;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::membership::identity::Identity;
use crate::membership::levels::Levels;
use crate::peer::addresses::{Addresses, Located};
use crate::peer::contacts::Contacts;
use crate::peer::encoding::Reader;
use crate::peer::message::{self, Envelope, Kind, MemberInfo};
use crate::replica::Replica;
use crate::time::log_clock::LogClock;
use crate::{CallError, Frame, Lane, Peer, Transport};

/// Why a peer gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerError {
    /// It certainly did not get the request.
    #[error("{0}")]
    Unreachable(String),
    /// The same, because no process listens on its address.
    #[error("{0}")]
    NoListener(String),
    /// It may have acted on the request.
    #[error("{0}")]
    Lost(String),
    /// It got the request and did nothing.
    #[error("refused: {0}")]
    Refused(String),
}

impl PeerError {
    /// Whether no connection came about, perhaps because the address is that of another node.
    pub(crate) fn is_undelivered(&self) -> bool {
        matches!(self, PeerError::Unreachable(_) | PeerError::NoListener(_))
    }
}

/// This node's side of all its peer links.
pub(crate) struct Peers {
    pub(crate) me: Peer,
    pub(crate) boot: u64,
    transport: Arc<dyn Transport>,
    replica: Arc<Replica>,
    clock: Arc<LogClock>,
    pub(crate) levels: Arc<Levels>,
    /// The identity of this node, from the moment on from which it cannot change.
    identity: RwLock<Option<Identity>>,
    /// The member at whose address no process listened last.
    refused: Arc<watch::Sender<u64>>,
    /// Where members are that are not where the member table says.
    pub(crate) addresses: Arc<Addresses>,
    /// When each member was heard.
    pub(crate) contacts: Arc<Contacts>,
}

impl Peers {
    pub(crate) fn new(
        me: Peer,
        boot: u64,
        transport: Arc<dyn Transport>,
        replica: Arc<Replica>,
        clock: Arc<LogClock>,
        levels: Arc<Levels>,
        addresses: Addresses,
    ) -> Self {
        Self {
            me,
            boot,
            transport,
            replica,
            clock,
            levels,
            identity: RwLock::new(None),
            refused: Arc::new(watch::Sender::new(0)),
            addresses: Arc::new(addresses),
            contacts: Arc::default(),
        }
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity.read().clone()
    }

    /// Called before the engine starts. Whether this node has this identity now: the first one
    /// stays for as long as the process lives, because an engine may run under it.
    #[must_use]
    pub(crate) fn set_identity(&self, identity: Identity) -> bool {
        self.levels.persisted(identity.level);
        let mut current = self.identity.write();
        *current.get_or_insert_with(|| identity.clone()) == identity
    }

    /// Never happens but as a deliberate bug.
    #[cfg(memkv_bugs)]
    pub(crate) fn change_identity(&self, identity: Identity) {
        *self.identity.write() = Some(identity);
    }

    /// This node's id, 0 while it has none.
    pub(crate) fn my_id(&self) -> u64 {
        self.identity
            .read()
            .as_ref()
            .map_or(0, |identity| identity.node_id)
    }

    pub(crate) fn cluster(&self) -> Option<[u8; 16]> {
        self.identity
            .read()
            .as_ref()
            .map(|identity| identity.cluster)
    }

    /// All members as this node knows them: the replicated member table, and before that exists,
    /// what was agreed on when the node got its id.
    pub(crate) fn members(&self) -> Vec<MemberInfo> {
        let table = self.replica.member_table();
        if table.cluster().is_some() {
            return table
                .members()
                .map(|member| self.find(info(member)).0)
                .collect();
        }
        self.identity
            .read()
            .as_ref()
            .map_or_else(Vec::new, |identity| identity.members.clone())
    }

    /// A member, and the address at which to dial it. An admitted node that is not in this node's table yet is
    /// found in its identity's list.
    pub(crate) fn member(&self, id: u64) -> Option<MemberInfo> {
        self.locate(id).map(|(member, _)| member)
    }

    /// The same, with what is needed to try another address after this one.
    pub(crate) fn locate(&self, id: u64) -> Option<Located> {
        if let Some(member) = self.replica.member_table().member(id) {
            return Some(self.find(info(member)));
        }
        let members = self.identity()?.members;
        let member = members.into_iter().find(|member| member.id == id)?;
        Some(self.find(member))
    }

    /// Where to find a member. This node knows best where it is itself.
    fn find(&self, mut member: MemberInfo) -> Located {
        if member.name == self.me.name && member.id == self.my_id() {
            member.addr.clone_from(&self.me.addr);
        }
        self.addresses.locate(member)
    }

    /// A member's name, for messages.
    pub(crate) fn name_of(&self, id: u64) -> String {
        self.member(id)
            .map_or_else(|| format!("node {id}"), |member| member.name)
    }

    /// Starts a request of this kind for `to`.
    pub(crate) fn envelope(&self, kind: Kind, to: u64) -> BytesMut {
        let identity = self.identity.read();
        Envelope {
            kind,
            cluster: identity
                .as_ref()
                .map_or([0; 16], |identity| identity.cluster),
            from: identity.as_ref().map_or(0, |identity| identity.node_id),
            boot: self.boot,
            to,
            clock: self.clock.read(),
            level: self.levels.in_use(),
            name: self.me.name.clone(),
        }
        .encode()
    }

    /// Tells, from now on, of members at whose address no process listens, on any lane.
    pub(crate) fn refusals(&self) -> watch::Receiver<u64> {
        self.refused.subscribe()
    }

    /// Sends a request to a member. It takes its place on the lane at once.
    pub(crate) fn call(
        &self,
        to: u64,
        lane: Lane,
        request: Frame,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Reader, PeerError>> {
        match self.locate(to) {
            Some(located) => {
                let (member, _) = &located;
                let (contacts, began) = (self.contacts.clone(), Instant::now());
                contacts.sent(to, request.len());
                let sent = self
                    .transport
                    .call(&member.name, &member.addr, lane, request);
                let (refused, addresses) = (self.refused.clone(), self.addresses.clone());
                Box::pin(async move {
                    let answer = wait(sent, timeout).await;
                    let bytes = answer.as_ref().ok().map(|answer| answer.0.len());
                    contacts.ended(to, began, bytes);
                    if matches!(answer, Err(PeerError::NoListener(_))) {
                        refused.send_replace(to);
                    }
                    if answer.as_ref().is_err_and(PeerError::is_undelivered) {
                        addresses.failed(&located);
                    }
                    answer
                })
            }
            None => Box::pin(async move {
                Err(PeerError::Unreachable(format!(
                    "the address of node {to} is not known yet"
                )))
            }),
        }
    }

    /// Sends a request to the node at an address.
    pub(crate) fn call_addr(
        &self,
        name: &str,
        addr: &str,
        lane: Lane,
        request: Frame,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Reader, PeerError>> {
        Box::pin(wait(
            self.transport.call(name, addr, lane, request),
            timeout,
        ))
    }
}

fn info(member: &Member) -> MemberInfo {
    MemberInfo {
        id: member.id,
        name: member.name.clone(),
        addr: member.addr.clone(),
    }
}

/// Waits for a peer's answer, within bounds.
async fn wait(
    call: BoxFuture<'static, Result<Bytes, CallError>>,
    timeout: Duration,
) -> Result<Reader, PeerError> {
    let response = match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => response,
        Ok(Err(CallError::Unreachable(why))) => return Err(PeerError::Unreachable(why)),
        Ok(Err(CallError::NoListener(why))) => return Err(PeerError::NoListener(why)),
        Ok(Err(CallError::Lost(why))) => return Err(PeerError::Lost(why)),
        Err(_) => {
            return Err(PeerError::Lost(format!("no answer within {timeout:?}")));
        }
    };
    match message::response(response) {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(why)) => Err(PeerError::Refused(why)),
        Err(error) => Err(PeerError::Lost(format!("unreadable answer: {error}"))),
    }
}
