//! Routes: path and method to a route, and the limits of each route's body. Never reads a body
//! itself.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use memkv_node::Lane;
use memkv_proto::compat::CompatOp;
use memkv_proto::limits::{MAX_KEY_BYTES, MAX_NODE_ID_BYTES};
use memkv_proto::{
    BACKUP_PATH, CLUSTER_PATH, EVENTS_PATH, ErrorCode, KV_PREFIX, LISTING_PATH, STATUS_PATH,
    TRANSACTION_PATH,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::conn::{Admission, App};
use super::head::{Head, Method, Refusal};
use super::response::{Answer, Response};
use super::{backup, cluster, compat, events, health, kv, listing, site, status, txn};
use crate::aside::Aside;
use crate::backend::Backend;
use crate::failure;
use crate::peer::{self, Challenge, Trust};
use crate::service::Service;
use crate::tls::Facts;

/// A JSON string may escape each byte as six (`\u0041`), and the object around it is short.
const JSON_GROWTH: usize = 6;
const JSON_AROUND_BYTES: usize = 4 * 1024;

/// The metrics.
const METRICS_PATH: &str = "/metrics";
/// Largest transaction in JSON: it is parsed as a whole, which takes several times its size.
const MAX_TRANSACTION_BYTES: usize = 16 * 1024 * 1024;

/// The part of the configuration that the API needs.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// This node's name.
    pub name: String,
    /// Names of all nodes in the configuration: any of them is accepted in the original's paths.
    pub names: Vec<String>,
    /// Largest value in bytes.
    pub max_value_bytes: usize,
    /// Which peers are admitted.
    pub trust: Trust,
    /// Whether the metrics are shown to everybody.
    pub metrics_public: bool,
    /// Whether peers are admitted over TLS alone.
    pub peers_need_tls: bool,
    /// While there is no password, the names that the host of a URL may have besides `localhost`.
    pub allowed_hosts: Vec<String>,
}

/// The HTTP API of a node.
pub struct Api<B> {
    service: Arc<Service<B>>,
    settings: ApiSettings,
    /// The text of `/metrics`.
    metrics: OnceLock<Metrics>,
    /// The turn of the one backup that is streamed at a time.
    backup: Arc<Semaphore>,
}

/// Nothing while the node loads its data.
type Metrics = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// A connection that a peer has asked to upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerUpgrade {
    /// The kind of requests that it will carry.
    pub lane: Lane,
    /// The peer's name, percent-encoded. It is believed only if `is_proven`.
    pub peer: String,
    /// The proof to exchange before the first frame, if peers must prove themselves.
    pub challenge: Option<Box<Challenge>>,
    /// Whether the name is that of the peer's certificate, or will be proved by the challenge.
    pub is_proven: bool,
}

/// The meaning of a path.
#[derive(Clone, Copy)]
enum Route<'a> {
    Key(&'a str),
    Listing,
    Transaction,
    Compat(CompatOp),
    Status,
    Metrics,
    Events,
    Backup,
    Cluster,
    Live,
    Ready,
}

/// The paths without a variable part.
const ROUTES: [(&str, Route<'static>); 9] = [
    (LISTING_PATH, Route::Listing),
    (TRANSACTION_PATH, Route::Transaction),
    (STATUS_PATH, Route::Status),
    (METRICS_PATH, Route::Metrics),
    (EVENTS_PATH, Route::Events),
    (BACKUP_PATH, Route::Backup),
    (CLUSTER_PATH, Route::Cluster),
    ("/livez", Route::Live),
    ("/readyz", Route::Ready),
];

impl<B: Backend> Api<B> {
    /// An API that answers "loading" until the service has its node.
    pub fn new(service: Arc<Service<B>>, mut settings: ApiSettings) -> Self {
        // A dot at the end says that the name is complete, which all of these are.
        for name in &mut settings.allowed_hosts {
            name.truncate(name.strip_suffix('.').unwrap_or(name).len());
        }
        Self {
            service,
            settings,
            metrics: OnceLock::new(),
            backup: Arc::new(Semaphore::new(1)),
        }
    }

    /// From now on there are metrics. A second call has no effect.
    pub(crate) fn show_metrics_with(&self, metrics: Metrics) {
        let _ = self.metrics.set(metrics);
    }

    /// The metrics, once there are any.
    pub(super) fn metrics(&self) -> Option<String> {
        self.metrics.get().and_then(|metrics| metrics())
    }

    pub(super) fn service(&self) -> &Service<B> {
        &self.service
    }

    pub(super) fn aside(&self) -> &Aside {
        self.service.aside()
    }

    /// The turn of a backup; none while another one is streamed.
    pub(super) fn backup_turn(&self) -> Option<OwnedSemaphorePermit> {
        self.backup.clone().try_acquire_owned().ok()
    }

    pub(super) fn settings(&self) -> &ApiSettings {
        &self.settings
    }

    /// The node, once there is one.
    pub(crate) fn backend(&self) -> Option<&B> {
        self.service.backend()
    }

    fn route<'a>(&self, path: &'a str) -> Result<Route<'a>, String> {
        if let Some(rest) = path.strip_prefix(KV_PREFIX) {
            return Ok(Route::Key(rest));
        }
        if let Some((_, route)) = ROUTES.iter().find(|(known, _)| *known == path) {
            return Ok(*route);
        }
        let Some((id, op)) = CompatOp::from_path(compat::single_slash(path)) else {
            let fixed: Vec<_> = ROUTES.iter().map(|(path, _)| *path).collect();
            return Err(format!(
                "no such path; there are {KV_PREFIX}{{key}}, {} and /memkv{}/store/{{get,set,del,exist}}",
                fixed.join(", "),
                self.settings.name
            ));
        };
        if path.ends_with("/store/") || !self.knows(id, path) {
            return Err(format!(
                "no node of this cluster has the id {id:?}; this one is {:?}",
                self.settings.name
            ));
        }
        Ok(Route::Compat(op))
    }

    /// Whether `id` names a node, or the path is the short form without one.
    fn knows(&self, id: &str, path: &str) -> bool {
        if id.is_empty() {
            return compat::single_slash(path).starts_with("/store/");
        }
        let is_member = |backend: &B| backend.status().members.iter().any(|m| m.name == id);
        self.settings.names.iter().any(|name| name == id) || self.backend().is_some_and(is_member)
    }

    /// Whether a request asks for more than how the node is: for clients' data, or for what does not exist.
    pub(crate) fn is_for_clients(&self, head: &Head) -> bool {
        match self.route(&head.path).map(|route| route.kind()) {
            Ok(RouteKind::Health | RouteKind::Metrics | RouteKind::Status) => false,
            Ok(RouteKind::Compat(_) | RouteKind::Other) => true,
            // That may be a peer's.
            Err(_) => false,
        }
    }

    /// Whether a request that was admitted comes from a client, and not from one that asks for health only.
    pub(crate) fn shows_password(&self, head: &Head) -> bool {
        let needs_secret = !self.service.rights().table().default_user().nopass;
        head.identity.is_some() || !needs_secret
    }

    /// Notes who sends a request. Health needs no user: balancers that ask for it seldom have one, and learn
    /// nothing else.
    async fn authorize(&self, head: &mut Head, route: Option<RouteKind>) -> Result<(), Response> {
        let is_public = match route {
            Some(RouteKind::Health) => true,
            Some(RouteKind::Metrics) => self.settings.metrics_public,
            _ => false,
        };
        if is_public {
            return Ok(());
        }
        // A node that starts tells of itself to clients with the password of its own configuration.
        let is_about_node = matches!(route, Some(RouteKind::Metrics | RouteKind::Status));
        if !is_about_node {
            self.know_users(route).await?;
        }
        let was_known = self.service.rights().is_known();
        let mut identified = self.identify(head).await;
        if identified.is_err() && !was_known && head.authorization.is_some() {
            // It may be a user's that this node does not know yet.
            self.know_users(route).await?;
            identified = self.identify(head).await;
        }
        let shown = head.authorization.as_deref().filter(|_| identified.is_ok());
        head.proven = shown.map(|shown| self.service.rights().mark(shown));
        match identified {
            Ok(identity) => {
                head.identity = Some(identity);
                Ok(())
            }
            Err(refusal) => {
                let response = match route {
                    Some(RouteKind::Compat(_)) => compat::refused(refusal.code, &refusal.detail),
                    _ => Response::error(refusal.code, refusal.detail),
                };
                Err(response.with("WWW-Authenticate", "Basic realm=\"memkv\", Bearer"))
            }
        }
    }

    /// Waits until the users of the cluster are known.
    async fn know_users(&self, route: Option<RouteKind>) -> Result<(), Response> {
        let known = self.service.know_users().await;
        known.map_err(|error| match route {
            Some(RouteKind::Compat(op)) => compat::failed(op, &error),
            _ => Response::problem(&failure::problem(&error)),
        })
    }

    /// The text for a peer that was looking for the node `id` and has reached this one.
    fn is_another(&self, id: &str) -> String {
        let me = &self.settings.name;
        let id: String = id.chars().take(MAX_NODE_ID_BYTES).collect();
        format!(
            "this node is {me:?}, not {id:?}: the address of {id:?} in the peer's configuration, or \
             in the cluster's member table, leads here; correct it"
        )
    }

    /// The checks that hold on every path and come first.
    fn check_sender(&self, head: &Head) -> Result<(), Refusal> {
        // Versions of the original's client send HTTP/1.1 without Host.
        if head.lacks_host && CompatOp::from_path(compat::single_slash(&head.path)).is_none() {
            let detail = "HTTP/1.1 needs a Host header field (RFC 9112, section 3.2)";
            return Err(Refusal::new(ErrorCode::BadRequest, detail));
        }
        site::check_page(head)?;
        // A peer, of any version, comes under any name that the cluster's member table has. No browser
        // can be made to send such an upgrade.
        let is_peer = |protocol: &str| protocol.starts_with("memkv-peer/");
        let rights = self.service.rights();
        let needs_secret = !rights.table().default_user().nopass;
        if needs_secret || head.upgrade.as_deref().is_some_and(is_peer) {
            return Ok(());
        }
        site::check_host(head, &self.settings.allowed_hosts)
    }

    /// What becomes of a request whose sender may be here.
    fn admit_route(&self, head: &Head) -> Admission<PeerUpgrade> {
        let route = match self.route(&head.path) {
            Ok(route) => route,
            // Only if a member left meanwhile.
            Err(detail) => return Admission::Refuse(Response::error(ErrorCode::BadPath, detail)),
        };
        let allow = match route {
            Route::Key(_) => "GET, HEAD, PUT, DELETE, POST",
            Route::Compat(_) => "GET, POST",
            Route::Transaction => "POST",
            Route::Cluster => "GET, HEAD, POST",
            Route::Backup => "GET",
            Route::Listing
            | Route::Status
            | Route::Metrics
            | Route::Events
            | Route::Live
            | Route::Ready => "GET, HEAD",
        };
        match (&route, head.method) {
            (Route::Key(_), Method::Put) => Admission::Body(self.settings.max_value_bytes),
            (Route::Compat(_), Method::Post | Method::Get) => match compat::check_type(head) {
                Ok(()) => {
                    let strings = MAX_KEY_BYTES + self.settings.max_value_bytes;
                    Admission::Body(JSON_GROWTH * strings + JSON_AROUND_BYTES)
                }
                Err(response) => Admission::Refuse(response),
            },
            (Route::Transaction, Method::Post) => Admission::Body(MAX_TRANSACTION_BYTES),
            (Route::Cluster, Method::Post) => Admission::Body(cluster::MAX_BODY_BYTES),
            (Route::Key(_), Method::Get | Method::Head | Method::Delete | Method::Post)
            | (Route::Backup, Method::Get)
            | (
                Route::Listing
                | Route::Status
                | Route::Metrics
                | Route::Events
                | Route::Cluster
                | Route::Live
                | Route::Ready,
                Method::Get | Method::Head,
            ) => Admission::Body(super::limits::MAX_IGNORED_BODY_BYTES),
            _ => Admission::Refuse(method_not_allowed(head, &route, allow)),
        }
    }

    fn admit_peer(&self, head: &Head, facts: Option<&Facts>) -> Option<Admission<PeerUpgrade>> {
        let rest = head.path.strip_prefix("/memkv")?;
        let (id, lane) = rest.split_once("/raft/")?;
        let refuse = |status, line: String| Some(Admission::Refuse(Response::text(status, line)));
        let Some(lane) = peer::lane_from_name(lane) else {
            return refuse(404, format!("this version of memkv has no lane {lane:?}"));
        };
        if head.upgrade.as_deref() != Some(peer::PROTOCOL) {
            let protocol = peer::PROTOCOL;
            let line = format!("this path is for peers; they upgrade to {protocol}");
            let response = Response::text(426, line).with("Upgrade", protocol);
            return Some(Admission::Refuse(response));
        }
        if self.backend().is_none() {
            return refuse(503, "this node is loading its data; try again".to_owned());
        }
        // A node that is to join knows no name yet. On the other lanes each message is for one node.
        let is_meant = id == self.settings.name || (id.is_empty() && lane == Lane::Control);
        let from = head.from.clone().unwrap_or_default();
        let is_certified = facts.is_some_and(|facts| facts.node.is_some());
        if let Err(why) = self.check_certificate(facts, &from) {
            return refuse(403, why);
        }
        let (mut fields, mut challenge) = (Vec::new(), None);
        match &self.settings.trust {
            // Its certificate is as good as a secret.
            Trust::Nobody if is_certified && is_meant => {}
            Trust::Nobody if is_certified => return refuse(421, self.is_another(id)),
            Trust::Nobody => {
                let why = "this node admits only peers that prove that they know the cluster secret, and \
                           has none: give all nodes the same cluster_secret_file";
                return refuse(403, why.to_owned());
            }
            Trust::Everybody if !is_meant => {
                return refuse(421, self.is_another(id));
            }
            Trust::Everybody => {}
            // A peer that does not know the secret learns nothing, not even that the name is wrong.
            Trust::Secret(secret) => {
                let verdict = match is_meant {
                    true => String::new(),
                    false => self.is_another(id),
                };
                let asked = head.nonce.as_deref().unwrap_or_default();
                let names = (from.as_str(), id);
                let channel = facts.map_or("", |facts| &facts.channel);
                let nonce = (asked, channel);
                let made =
                    Challenge::new(secret.clone(), names, peer::lane_name(lane), nonce, verdict);
                let Some(made) = made else {
                    return refuse(400, "X-Memkv-Nonce is not 64 hexadecimal digits".to_owned());
                };
                fields.push(("X-Memkv-Nonce", made.nonce().to_owned()));
                challenge = Some(Box::new(made));
            }
        }
        let upgrade = PeerUpgrade {
            lane,
            peer: from,
            is_proven: is_certified || challenge.is_some(),
            challenge,
        };
        Some(Admission::Upgrade(peer::PROTOCOL, fields, upgrade))
    }
}

impl<B: Backend> Api<B> {
    /// A peer comes under the name of its certificate, and inside TLS where that is required.
    fn check_certificate(&self, facts: Option<&Facts>, from: &str) -> Result<(), String> {
        match facts.map(|facts| &facts.node) {
            Some(None) => Err("a peer offers the peers' protocol by ALPN, as nodes do".to_owned()),
            None if self.settings.peers_need_tls => Err("this node speaks to peers over TLS only \
                (tls_peers is require): set tls_peers to dial or require on the node that calls"
                .to_owned()),
            Some(Some(node)) if memkv_proto::encode_key_path(node.as_bytes()) != from => {
                Err(format!(
                    "the certificate is that of the node {node:?}, and the request comes as {from:?}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// [`App::admit`] for a connection of which this is known.
    pub(crate) async fn admit_on(
        &self,
        head: &mut Head,
        facts: Option<&Facts>,
    ) -> Admission<PeerUpgrade> {
        if let Err(refusal) = self.check_sender(head) {
            return Admission::Close(self.refuse(Some(head), refusal));
        }
        #[cfg(memkv_bugs)]
        if let Some(name) = head.path.strip_prefix("/deliberate-panic/") {
            let status = if memkv_disk::bugs::order_panic(name) {
                200
            } else {
                404
            };
            return Admission::Refuse(Response::text(status, name));
        }
        #[cfg(memkv_bugs)]
        if let Some(name) = head.path.strip_prefix("/deliberate-difference/") {
            let is_known = memkv_store::bugs::order_difference(name);
            return Admission::Refuse(Response::text(if is_known { 200 } else { 404 }, name));
        }
        let kind = match self.route(&head.path) {
            Ok(route) => route.kind(),
            Err(detail) => {
                if let Some(admission) = self.admit_peer(head, facts) {
                    return admission;
                }
                // The text names this node, which only a user may learn.
                let refusal = self.authorize(head, None).await;
                let bad_path = || Response::error(ErrorCode::BadPath, detail);
                return Admission::Refuse(refusal.err().unwrap_or_else(bad_path));
            }
        };
        if let Err(response) = self.authorize(head, Some(kind)).await {
            return Admission::Refuse(response);
        }
        self.admit_route(head)
    }

    /// The same where clients are refused: nothing for a request that is no peer's, of which nothing else
    /// is judged.
    pub(crate) fn admit_only_peer(
        &self,
        head: &Head,
        facts: Option<&Facts>,
    ) -> Option<Admission<PeerUpgrade>> {
        self.check_sender(head).ok()?;
        self.admit_peer(head, facts)
    }
}

fn method_not_allowed(head: &Head, route: &Route<'_>, allow: &'static str) -> Response {
    let detail = format!("{} does not have this method; it has {allow}", head.path);
    let response = match route {
        Route::Compat(_) => compat::refused(ErrorCode::MethodNotAllowed, &detail),
        _ => Response::error(ErrorCode::MethodNotAllowed, detail),
    };
    response.with("Allow", allow)
}

/// What counts of a route for who may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteKind {
    Health,
    Metrics,
    Status,
    Compat(CompatOp),
    Other,
}

impl Route<'_> {
    fn kind(&self) -> RouteKind {
        match self {
            Route::Live | Route::Ready => RouteKind::Health,
            Route::Metrics => RouteKind::Metrics,
            Route::Compat(op) => RouteKind::Compat(*op),
            // A node without a leader has most to tell.
            Route::Status | Route::Events => RouteKind::Status,
            Route::Key(_)
            | Route::Listing
            | Route::Transaction
            | Route::Backup
            | Route::Cluster => RouteKind::Other,
        }
    }
}

/// The class of a request in the latency metrics.
enum Class {
    Read,
    Write,
}

fn class(route: &Route<'_>, method: Method) -> Option<Class> {
    match (route, method) {
        (Route::Key(_), Method::Get | Method::Head)
        | (Route::Listing, _)
        | (Route::Compat(CompatOp::Get | CompatOp::Exist), _) => Some(Class::Read),
        (Route::Key(_) | Route::Transaction | Route::Compat(_), _) => Some(Class::Write),
        _ => None,
    }
}

impl<B: Backend> App for Api<B> {
    type Upgrade = PeerUpgrade;

    async fn admit(&self, head: &mut Head) -> Admission<PeerUpgrade> {
        self.admit_on(head, None).await
    }

    async fn call(&self, head: Head, body: Bytes) -> Answer {
        #[cfg(memkv_bugs)]
        memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Request);
        let route = self.route(&head.path);
        let started = Instant::now();
        let class = route
            .as_ref()
            .ok()
            .and_then(|route| class(route, head.method));
        let response = match route {
            Ok(Route::Key(rest)) => kv::answer(self, &head, rest, body).await,
            Ok(Route::Listing) => listing::answer(self, &head).await,
            Ok(Route::Transaction) => txn::answer(self, &head, &body).await,
            Ok(Route::Compat(op)) => compat::answer(self, &head, op, &body).await,
            Ok(Route::Status) => status::status(self, &head),
            Ok(Route::Metrics) => status::metrics(self, &head),
            Ok(Route::Events) => events::answer(self, &head),
            Ok(Route::Backup) => return backup::answer(self, &head).await,
            Ok(Route::Cluster) => cluster::answer(self, &head, &body).await,
            Ok(Route::Live) => health::live(self, &head),
            Ok(Route::Ready) => health::ready(self, &head).await,
            // Only if a member left between the two checks of the path.
            Err(detail) => Response::error(ErrorCode::BadPath, detail),
        };
        match class {
            Some(Class::Read) => self.service.latency().read(started.elapsed(), 1),
            Some(Class::Write) => self.service.latency().wrote(started.elapsed(), 1),
            None => {}
        }
        response.into()
    }

    fn refuse(&self, head: Option<&Head>, refusal: Refusal) -> Response {
        match head.map(|head| self.route(&head.path)) {
            Some(Ok(Route::Compat(_))) => compat::refused(refusal.code, &refusal.detail),
            _ => Response::error(refusal.code, refusal.detail),
        }
    }

    fn too_large(&self, head: &Head, limit: usize) -> Refusal {
        let max_value_bytes = self.settings.max_value_bytes;
        let detail = match self.route(&head.path) {
            Ok(Route::Key(_)) if head.method == Method::Put => format!(
                "the value is longer than {max_value_bytes} bytes, the limit; raise \
                 max_value_bytes on every node"
            ),
            Ok(Route::Compat(_)) => format!(
                "the body is longer than {limit} bytes, so its value is longer than \
                 {max_value_bytes} bytes, the limit; raise max_value_bytes on every node"
            ),
            Ok(Route::Cluster) if head.method == Method::Post => {
                let detail = format!("the body is longer than {limit} bytes; it has one verb");
                return Refusal::new(ErrorCode::BodyTooLarge, detail);
            }
            Ok(Route::Transaction) => {
                let detail = format!(
                    "the body is longer than {limit} bytes, the limit of a transaction in JSON, \
                     whatever max_value_bytes is; send it in several transactions, or large values \
                     as they are with PUT {KV_PREFIX}{{key}} and If-Match"
                );
                return Refusal::new(ErrorCode::BodyTooLarge, detail);
            }
            _ => {
                let detail =
                    format!("the body is longer than {limit} bytes, and this path needs none");
                return Refusal::new(ErrorCode::BadRequest, detail);
            }
        };
        Refusal::new(ErrorCode::ValueTooLarge, detail)
    }
}
