//! The node's addresses: accepts connections, bounds their number, and detects the protocol on the
//! shared address by the first byte, and inside TLS by the first byte again. Peers' connections move to
//! the consensus runtime, except those of reads. `redis_addr` serves RESP alone, inline commands included.
//!
//! Each connection has a door (`admission`): clients can never take the permits of peers, and what has
//! not proved itself can take few permits of any kind. A handshake of TLS proves nothing by itself, so a
//! connection is unproven during it.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use memkv_node::Lane;
use memkv_node::contain::contained;
use memkv_node::seldom::Seldom;
use memkv_proto::decode_key_path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::admission::{self, Door, Full};
use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::client_socket;
use crate::guarded::{Guarded, NEEDS_TLS, Refused};
use crate::http::{self, Api, End, Limits, PeerUpgrade};
use crate::peer::{self, HandshakeError, PeerHandler};
use crate::resp::Resp;
use crate::tls::{self, Facts, Lease, Parked, Stream, Tls, during};

/// After a failed accept, such as for lack of file descriptors, some connections may end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A peer's proof follows its upgrade by one round trip.
const PROOF_MAX: Duration = Duration::from_secs(5);

/// Connections that are accepted in one turn. Then others have theirs: each new connection has some tens of
/// microseconds of work to do, and clients that are being served wait for all of it.
const AT_ONCE: usize = 8;

/// A turn that takes longer, with that of the others behind it, shows that the thread or the machine is busy: ten times
/// what it takes on an idle one. Where connections come one by one a turn is long too; the pause behind it costs nothing
/// then.
const BUSY: Duration = Duration::from_micros(500);

/// The next turn comes so much later while the thread is busy, so that clients that are being served are not slowed
/// down by those that come; and while many connections are unproven, so that a client that is slower than the node is to
/// prove itself before it loses its permit to the next one.
const TURN: Duration = Duration::from_millis(1);

/// First read: enough for most requests.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// While descriptors are short, both happen again and again.
static NOT_ACCEPTED: Seldom = Seldom::new();
static NOT_TAKEN: Seldom = Seldom::new();

/// The state that all connections share.
pub struct Listener<B> {
    api: Arc<Api<B>>,
    resp: Arc<Resp<B>>,
    limits: Arc<Limits>,
    /// Limits of a connection that has no client's permit.
    crowded_limits: Arc<Limits>,
    admission: Arc<admission::Admission>,
    strangers: Seldom,
    tls: Option<Arc<Tls>>,
    /// The consensus runtime, where peers are served.
    consensus: Handle,
}

/// The protocol of a connection, by its first byte.
#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    /// An array, as every RESP client starts.
    Resp,
    Tls,
}

impl Protocol {
    fn of(first: u8) -> Self {
        match first {
            b'*' => Self::Resp,
            tls::FIRST_BYTE => Self::Tls,
            _ => Self::Http,
        }
    }
}

impl<B: Backend> Listener<B> {
    /// A listener that lets in what `admission` does; peers are served on `consensus`.
    pub fn new(
        api: Arc<Api<B>>,
        resp: Arc<Resp<B>>,
        limits: Limits,
        admission: Arc<admission::Admission>,
        consensus: Handle,
    ) -> Self {
        // Idle time is for clients; a connection that is none's must show at once what it is.
        let mut crowded_limits = limits.clone();
        crowded_limits.idle_time = limits.header_time;
        Self {
            api,
            resp,
            limits: Arc::new(limits),
            crowded_limits: Arc::new(crowded_limits),
            admission,
            strangers: Seldom::new(),
            tls: None,
            consensus,
        }
    }

    /// The same, which also speaks TLS.
    #[must_use]
    pub(crate) fn with_tls(mut self, tls: Option<Arc<Tls>>) -> Self {
        self.tls = tls;
        self
    }

    /// Accepts clients and peers until the drain is closed.
    pub async fn accept(self: Arc<Self>, socket: TcpListener) {
        let serve = |stream, addrs| {
            #[cfg(memkv_bugs)]
            memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Accept);
            let listener = self.clone();
            self.spawn(move || listener.connection(stream, addrs));
        };
        self.accept_all(socket, serve).await;
    }

    /// Accepts RESP clients until the drain is closed.
    pub async fn accept_resp(self: Arc<Self>, socket: TcpListener) {
        let serve = |stream, addrs| {
            let listener = self.clone();
            self.spawn(move || listener.resp_connection(stream, addrs));
        };
        self.accept_all(socket, serve).await;
    }

    /// Starts the task of a connection, which is open from now on.
    fn spawn<F>(&self, connection: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let open = self.limits.drain.enter();
        tokio::spawn(async move {
            contained(connection).await;
            drop(open);
        });
    }

    async fn accept_all(&self, socket: TcpListener, serve: impl Fn(TcpStream, Addrs)) {
        'open: loop {
            let mut began = None;
            for _ in 0..AT_ONCE {
                tokio::select! {
                    biased;
                    (stream, addrs) = accept(&socket) => {
                        began.get_or_insert_with(Instant::now);
                        serve(stream, addrs);
                    }
                    () = self.limits.drain.closed() => break 'open,
                }
            }
            tokio::task::yield_now().await;
            let is_busy = began.is_some_and(|began| began.elapsed() >= BUSY);
            if is_busy || self.admission.is_crowded() {
                tokio::time::sleep(TURN).await;
            }
        }
        // The system resets connections that have come and are not accepted, of which the runtime may not know yet.
        let Ok(socket) = socket.into_std() else {
            return;
        };
        let rest = (0..client_socket::BACKLOG).map_while(|_| socket.accept().ok());
        for (stream, client) in rest {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            if let Ok((stream, addrs)) = stream.and_then(|stream| tuned(stream, client)) {
                serve(stream, addrs);
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, addrs: Addrs) {
        let Some(door) = self.admission.enter(addrs.client.ip()) else {
            return tracing::debug!("closed a connection: too many are open");
        };
        let serve = pin!(self.serve(stream, addrs, &door));
        door.watch(serve).await;
    }

    async fn resp_connection(self: Arc<Self>, stream: TcpStream, addrs: Addrs) {
        let Some(door) = self.admission.enter(addrs.client.ip()) else {
            return tracing::debug!("closed a connection: too many are open");
        };
        let serve = pin!(self.serve_redis(stream, addrs, &door));
        door.watch(serve).await;
    }

    async fn serve_redis(&self, stream: TcpStream, addrs: Addrs, door: &Door) {
        // A connection that is not admitted is told so before it has said anything, as Redis does, unless
        // it may be about to speak TLS.
        let is_plain = !self.tls.as_ref().is_some_and(|tls| tls.serves_clients());
        if is_plain
            && self.resp.is_open()
            && let Err(full) = door.admit_client()
        {
            return Box::pin(self.refuse_resp(stream.into(), full)).await;
        }
        // The connection itself detects HTTP by its first line.
        if let Some((stream, input)) = self.open(stream).await
            && !stream.is_of_peer()
        {
            self.serve_resp(stream, input, addrs, door).await;
        }
    }

    /// The stream inside TLS, if the other side begins with that, and its first bytes.
    async fn open(&self, mut stream: TcpStream) -> Option<(Stream, BytesMut)> {
        let mut input = BytesMut::with_capacity(FIRST_READ_BYTES);
        if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
            return None;
        }
        if Protocol::of(input[0]) != Protocol::Tls {
            return Some((stream.into(), input));
        }
        let Some(tls) = &self.tls else {
            tracing::debug!("closed a connection: TLS is not spoken here");
            return None;
        };
        // Most of a connection's memory would be that of a handshake.
        let mut stream = Box::pin(tls.accept(stream, input)).await?;
        stream.charge(&self.limits.ledger);
        let mut input = BytesMut::with_capacity(FIRST_READ_BYTES);
        let is_open = matches!(stream.read_buf(&mut input).await, Ok(1..))
            && Protocol::of(input[0]) != Protocol::Tls;
        is_open.then_some((stream, input))
    }

    /// Whether a client on this connection is told to use TLS.
    fn lacks_tls(&self, stream: &Stream) -> bool {
        let required = self.tls.as_ref().is_some_and(|tls| tls.requires_clients());
        required && matches!(stream, Stream::Plain(_))
    }

    /// Serves a Redis client, or tells it why not.
    async fn serve_resp(&self, mut stream: Stream, input: BytesMut, addrs: Addrs, door: &Door) {
        if self.lacks_tls(&stream) {
            let refusal = format!("-ERR {NEEDS_TLS}\r\n");
            return Box::pin(tell(stream, refusal.as_bytes())).await;
        }
        // Of its own size: most connections are of no certificate's user.
        if stream.is_certified()
            && let Err(why) = Box::pin(self.admit_certified(stream.facts(), addrs.client)).await
        {
            return Box::pin(tell(stream, why.as_bytes())).await;
        }
        if (stream.is_certified() || self.resp.is_open())
            && let Err(full) = door.admit_client()
        {
            return Box::pin(self.refuse_resp(stream, full)).await;
        }
        let (lease, addrs) = (stream.take_lease(), (addrs.client, addrs.local));
        let client = self.resp.add_client(addrs, stream.facts().as_deref());
        let serving = || self.resp.serve_through(door, stream, input, client);
        during(lease, serving).await;
    }

    /// Whether the user for whom the client's certificate stands is there; the words for the client if not.
    async fn admit_certified(
        &self,
        facts: Option<Arc<Facts>>,
        client: SocketAddr,
    ) -> Result<(), String> {
        let user = facts.as_ref().and_then(|facts| facts.user.as_ref());
        let Some(user) = user else { return Ok(()) };
        let admitted = self.resp.admit_certified(user, client).await;
        admitted.map_err(|why| format!("-WRONGPASS {why}\r\n"))
    }

    /// Tells the client about the limit, if that costs nothing.
    async fn refuse_resp(&self, stream: Stream, full: Full) {
        tell(stream, &self.resp.refusal(full)).await;
    }

    /// Serves the protocol that the first byte shows.
    async fn serve(&self, stream: TcpStream, addrs: Addrs, door: &Door) {
        let limits = match door.is_proven() {
            true => &self.limits,
            false => &self.crowded_limits,
        };
        // Silence shows no protocol, so no protocol's time limit applies yet.
        let opened = timeout(limits.idle_time, self.open(stream)).await;
        let Ok(Some((stream, input))) = opened else {
            return;
        };
        match Protocol::of(input[0]) {
            // Never the protocol of clients inside that of peers.
            Protocol::Resp if stream.is_of_peer() => {}
            Protocol::Resp => self.serve_resp(stream, input, addrs, door).await,
            // Of its own size, as RESP's.
            _ => Box::pin(self.serve_http(stream, input, addrs.client, door)).await,
        }
    }

    /// Serves an HTTP client, or a peer, which upgrades.
    async fn serve_http(
        &self,
        mut stream: Stream,
        input: BytesMut,
        client: SocketAddr,
        door: &Door,
    ) {
        let refused = match stream.is_of_peer() {
            true => Some(Refused::OfPeer),
            false => self.lacks_tls(&stream).then_some(Refused::NeedsTls),
        };
        let (facts, mut lease) = (stream.facts(), stream.take_lease());
        let app = Guarded {
            api: &self.api,
            door,
            facts,
            refused,
            is_late: self.limits.drain.has_begun(),
        };
        let limits = self.limits.clone();
        let serving = || http::serve_through(door, stream, client, input, &app, limits);
        let served = during(lease.as_deref_mut(), serving).await;
        if let Some(End::Upgraded(stream, leftover, upgrade)) = served {
            // Most connections are none of a peer.
            let connection = (stream, leftover, lease);
            Box::pin(self.serve_peer(connection, upgrade, client, door)).await;
        }
    }

    /// Admits a peer once it has proved itself, where it must; until then it holds the permit that it came
    /// in by. Its connection moves to the consensus runtime, unless it is for reads.
    async fn serve_peer(
        &self,
        (mut stream, mut leftover, lease): (Stream, BytesMut, Option<Box<Lease>>),
        upgrade: PeerUpgrade,
        client: SocketAddr,
        door: &Door,
    ) {
        let PeerUpgrade {
            lane,
            peer,
            challenge,
            is_proven,
        } = upgrade;
        if let Some(challenge) = challenge {
            let settled = timeout(PROOF_MAX, challenge.settle(&mut stream, &mut leftover)).await;
            if let Err(why) = settled.unwrap_or(Err(HandshakeError::Unproven)) {
                return self.refused(&peer, client, &why);
            }
        }
        let name = match is_proven {
            true => match decode_key_path(&peer).map(String::from_utf8) {
                Ok(Ok(name)) => Some(name),
                _ => return tracing::debug!("closed a peer's connection: its name is no text"),
            },
            false => None,
        };
        let permit = door.admit_peer(&peer);
        // Upgrades are admitted only while there is a node.
        let Some(backend) = self.api.backend().cloned() else {
            return;
        };
        let handler: PeerHandler =
            Arc::new(move |lane, request| backend.handle(lane, name.as_deref(), request));
        let runtime = match lane {
            Lane::Read => &Handle::current(),
            _ => &self.consensus,
        };
        let moved = stream.park();
        runtime.spawn(async move {
            match moved.and_then(Parked::resume) {
                Ok(stream) => tokio::select! {
                    _ = during(lease, || peer::serve(stream, leftover, lane, peer, handler)) => {}
                    () = permit.ended() => tracing::debug!("closed a peer's connection: it has too many"),
                },
                Err(error) => {
                    if let Some(left_out) = NOT_TAKEN.say() {
                        tracing::warn!(%error, left_out, "cannot take over a peer's connection");
                    }
                }
            }
        });
    }

    /// Logs that a peer was rejected, at a bounded rate: anyone who reaches the node can cause it.
    fn refused(&self, peer: &str, client: SocketAddr, why: &HandshakeError) {
        audit::record(&Event {
            kind: audit::Kind::Peer,
            allowed: false,
            user: peer,
            origin: Some(client),
            detail: &why.to_string(),
        });
        let Some(left_out) = self.strangers.say() else {
            return;
        };
        // A name is believed only with a proof.
        let peer = match why {
            HandshakeError::Refused(_) => peer,
            _ => "unknown",
        };
        tracing::warn!(peer, %why, left_out, "closed a peer's connection");
    }
}

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
struct Addrs {
    client: SocketAddr,
    local: SocketAddr,
}

/// Tells a client why it is not served, if that costs nothing.
async fn tell(mut stream: Stream, refusal: &[u8]) {
    // A new connection's buffer takes this at once; a client that has gone needs no answer.
    let told = async {
        stream.write_all(refusal).await?;
        stream.flush().await
    };
    let _ = timeout(ACCEPT_PAUSE, told).await;
}

/// The next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, Addrs) {
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, client)| tuned(stream, client)) {
            Ok(accepted) => return accepted,
            // Also a connection that ended before it could be served.
            Err(error) => {
                if let Some(left_out) = NOT_ACCEPTED.say() {
                    tracing::warn!(%error, left_out, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn tuned(stream: TcpStream, client: SocketAddr) -> io::Result<(TcpStream, Addrs)> {
    client_socket::tune(&stream)?;
    let local = stream.local_addr()?;
    Ok((stream, Addrs { client, local }))
}

#[cfg(test)]
mod tests;
