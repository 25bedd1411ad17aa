//! The HTTP API as one connection sees it: the connection gets a client's permit by its first request that
//! is answered as a client's. Until then it may ask for the node's health, and upgrade to a peer's. Never
//! executes a request of a connection that gets none.

use bytes::Bytes;
use memkv_proto::ErrorCode;

use crate::admission::{Door, Full};
use crate::backend::Backend;
use crate::http::{Admission, Api, App, Head, PeerUpgrade, Refusal, Response};

/// The API for one connection, which gets a client's permit by its first request that is answered as a
/// client's.
pub(crate) struct Guarded<'a, B> {
    pub(crate) api: &'a Api<B>,
    pub(crate) door: &'a Door,
}

impl<B: Backend> App for Guarded<'_, B> {
    type Upgrade = PeerUpgrade;

    async fn admit(&self, head: &mut Head) -> Admission<PeerUpgrade> {
        let admitted = self.api.admit(head).await;
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

    async fn call(&self, head: Head, body: Bytes) -> Response {
        self.api.call(head, body).await
    }

    fn refuse(&self, head: Option<&Head>, refusal: Refusal) -> Response {
        self.api.refuse(head, refusal)
    }

    fn too_large(&self, head: &Head, limit: usize) -> Refusal {
        self.api.too_large(head, limit)
    }
}
