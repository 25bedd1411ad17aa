//! Who sends a request, and whether that user may have it executed. Never decides itself; `crate::rights` does.
//! Never executes anything.

use bytes::Bytes;
use memkv_proto::ErrorCode;
use memkv_store::Principal;

use super::app::Api;
use super::head::{Head, Refusal};
use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::commands::find;
use crate::password::Authorization;
use crate::rights::{Attempt, AuthError, CERTIFIED_GONE, Denied, Identity, Touches, decide};

/// What is missing, for a client that has shown nothing.
const NOTHING_SHOWN: &str = "this cluster has users: send `Authorization: Bearer TOKEN`, or with curl: -u USER:PASSWORD; the password of the user default goes as a token too";

/// What is wrong by a table that may be old.
const NOT_KNOWN_YET: &str = "the users of the cluster are not known here yet";

impl<B: Backend> Api<B> {
    /// Finds out who sends a request; may wait for a password's hash.
    pub(super) async fn identify(&self, head: &Head) -> Result<Identity, Refusal> {
        let rights = self.service().rights();
        let unauthorized = |detail: &str| Refusal::new(ErrorCode::Unauthorized, detail);
        let client = head
            .client
            .ok_or(unauthorized("the client has no address"))?;
        let addr = client.ip();
        let certified = head.facts.as_ref().and_then(|facts| facts.user.as_ref());
        if let (Some(user), None) = (certified, &head.authorization) {
            return rights.certified(user).ok_or_else(|| {
                audit::record(&Event {
                    kind: audit::Kind::Authentication,
                    allowed: false,
                    user: &String::from_utf8_lossy(user),
                    origin: Some(client),
                    detail: "certificate over HTTP",
                });
                unauthorized(CERTIFIED_GONE)
            });
        }
        let stranger = rights.stranger(addr);
        let field = match (&head.authorization, &stranger) {
            // Where nobody needs a password, what is shown means nothing.
            (_, Some(_)) if !rights.table().is_replicated() => None,
            (field, _) => field.as_deref(),
        };
        let Some(field) = field else {
            return stranger.ok_or(unauthorized(NOTHING_SHOWN));
        };
        let shown = Authorization::parse(field).ok_or(unauthorized(NOTHING_SHOWN))?;
        let now_ms = self.service().log_time_ms();
        let is_event = rights.is_known();
        // One that is wrong on the same connection later waits as any other.
        let identity = match head.proven == Some(rights.mark(field)) {
            true => {
                rights
                    .authenticate_at_once(addr, &shown.shown(), now_ms)
                    .await
            }
            false => rights.authenticate(addr, &shown.shown(), now_ms).await,
        };
        let user = shown.shown().user.unwrap_or_default();
        // Each request shows it again, so only failures are events.
        if identity.is_err() && is_event {
            audit::record(&Event {
                kind: audit::Kind::Authentication,
                allowed: false,
                user: &String::from_utf8_lossy(user),
                origin: Some(client),
                detail: "password or token over HTTP",
            });
        }
        identity.map_err(|error| match error {
            AuthError::Wrong if !is_event => unauthorized(NOT_KNOWN_YET),
            AuthError::Wrong => {
                let client = || format!("addr={client}").into_bytes();
                rights.log.add("auth", "http", b"AUTH", user, client);
                unauthorized("wrong user or password, or a token that is unknown or has expired")
            }
            AuthError::Exposed => unauthorized(
                "this user has no password, so only clients of the node's own machine may be this user; \
                 give it one, or say --nopass-from everywhere if the network is trusted",
            ),
            AuthError::Busy => Refusal::new(
                ErrorCode::Overloaded,
                "too many clients authenticate at once; try again",
            ),
        })
    }

    /// Whether the sender of a request may have a command executed that touches this, and for whom it is
    /// executed then.
    pub(super) fn judge<'a>(
        &self,
        head: &Head,
        command: &'static str,
        touches: Touches<'a, '_>,
    ) -> Result<Option<Principal>, Refusal> {
        let rights = self.service().rights();
        let table = rights.table();
        let identity = head
            .identity
            .as_ref()
            .and_then(|identity| identity.renewed(&table));
        let Some(identity) = identity else {
            let detail = "the user is gone, or what was shown of it counts no more";
            return Err(Refusal::new(ErrorCode::Unauthorized, detail));
        };
        let principal = Some(identity.principal(table.revision));
        let user = &identity.user;
        if user.is_all {
            return Ok(principal);
        }
        let decided = match find(command.as_bytes()) {
            Some(spec) => decide(&user.rules, &Attempt::command(spec), touches),
            None => Err(Denied::Command(command)),
        };
        decided.map(|()| principal).map_err(|denied| {
            rights.denied();
            audit::record(&Event {
                kind: audit::Kind::Denial,
                allowed: false,
                user: &String::from_utf8_lossy(&user.name),
                origin: head.client,
                detail: denied.reason(),
            });
            let client = || match head.client {
                Some(addr) => format!("addr={addr}").into_bytes(),
                None => Vec::new(),
            };
            rights
                .log
                .add(denied.reason(), "http", denied.object(), &user.name, client);
            Refusal::new(ErrorCode::NoPermission, detail(&user.name, &denied))
        })
    }

    /// Whether the users are still as they were when a read was judged. A read sees what it sees at some
    /// moment before this, so that it may be answered then.
    pub(super) fn check_read(&self, principal: Option<Principal>) -> Result<(), Refusal> {
        match self.service().is_unchanged(principal) {
            true => Ok(()),
            false => Err(Refusal::new(
                ErrorCode::Overloaded,
                "the user was changed while this was read; try again",
            )),
        }
    }
}

fn detail(user: &Bytes, denied: &Denied) -> String {
    let user = user.escape_ascii();
    match denied {
        Denied::Command(name) => format!("the user {user} may not run the command {name:?}"),
        Denied::Key(key) if key.is_empty() => {
            format!("the user {user} may not list these keys: a pattern must hold the whole prefix")
        }
        Denied::Key(_) => format!("the user {user} may not do this with one of the keys"),
        Denied::Channel(_) => format!("the user {user} may not use one of the channels"),
    }
}
