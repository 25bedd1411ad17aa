//! The HTTP API as one connection sees it: the connection gets a client's permit by its first request that
//! is answered as a client's. Until then it may ask for the node's health, and upgrade to a peer's. Where
//! clients are refused, the API is for peers alone. Never executes a request of a connection that gets
//! no permit, and never judges a password that came where clients are refused.

use std::sync::Arc;

use bytes::Bytes;
use memkv_proto::ErrorCode;

use crate::admission::{Door, Full};
use crate::backend::Backend;
use crate::drain::STOPPING;
use crate::http::{Admission, Answer, Api, App, Head, PeerUpgrade, Refusal, Response};
use crate::tls::Facts;

/// The words for clients that come without TLS where it is required.
pub(crate) const NEEDS_TLS: &str = "this node serves clients over TLS only: connect with TLS (https://, \
    redis-cli --tls --cacert FILE, memkv_client --tls --cacert FILE)";

/// Why a connection serves no client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refused {
    /// It is a peer's.
    OfPeer,
    NeedsTls,
}

impl Refused {
    fn words(self) -> &'static str {
        match self {
            Self::OfPeer => {
                "this connection is a peer's, as its ALPN says: a client offers http/1.1 or nothing"
            }
            Self::NeedsTls => NEEDS_TLS,
        }
    }
}

/// The API for one connection, which gets a client's permit by its first request that is answered as a
/// client's.
pub(crate) struct Guarded<'a, B> {
    pub(crate) api: &'a Api<B>,
    pub(crate) door: &'a Door,
    /// What is known of the connection, with TLS.
    pub(crate) facts: Option<Arc<Facts>>,
    /// Why it serves no client, if it does not.
    pub(crate) refused: Option<Refused>,
    /// It came when the node was about to stop.
    pub(crate) is_late: bool,
}

impl<B: Backend> App for Guarded<'_, B> {
    type Upgrade = PeerUpgrade;

    async fn admit(&self, head: &mut Head) -> Admission<PeerUpgrade> {
        let facts = self.facts.as_deref();
        if let Some(refused) = self.refused {
            let refuse = || {
                let refusal = Refusal::new(ErrorCode::BadRequest, refused.words());
                Admission::Close(self.api.refuse(Some(head), refusal))
            };
            return self.api.admit_only_peer(head, facts).unwrap_or_else(refuse);
        }
        if self.is_late && self.api.is_for_clients(head) {
            let refusal = Refusal::new(ErrorCode::Loading, STOPPING);
            return Admission::Close(self.api.refuse(Some(head), refusal));
        }
        head.facts.clone_from(&self.facts);
        let judging = self.door.judging();
        let admitted = self.api.admit_on(head, facts).await;
        drop(judging);
        let is_client = match &admitted {
            Admission::Upgrade(..) => false,
            Admission::Body(_) => self.api.shows_password(head),
            Admission::Refuse(_) | Admission::Close(_) => !self.door.clients_prove(),
        };
        if self.door.is_proven() || !is_client {
            return admitted;
        }
        let Err(full) = self.door.admit_client() else {
            return admitted;
        };
        let detail = match full {
            Full::Clients => "max_connections are open; close idle ones, try again later, ask \
                              another node, or raise max_connections"
                .to_owned(),
            Full::Address(most) => format!(
                "{most} connections from this address are open; close idle ones, or raise \
                 max_connections_per_address"
            ),
        };
        let refusal = Refusal::new(ErrorCode::TooManyConnections, detail);
        Admission::Close(self.api.refuse(Some(head), refusal))
    }

    async fn call(&self, head: Head, body: Bytes) -> Answer {
        self.api.call(head, body).await
    }

    fn refuse(&self, head: Option<&Head>, refusal: Refusal) -> Response {
        self.api.refuse(head, refusal)
    }

    fn too_large(&self, head: &Head, limit: usize) -> Refusal {
        self.api.too_large(head, limit)
    }
}
