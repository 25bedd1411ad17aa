//! Asks peers for their identity. Needs no common cluster, and changes nothing at either end.

use std::time::Duration;

use futures_util::future::join_all;

use crate::peer::client::{PeerError, Peers};
use crate::peer::encoding::Reader;
use crate::peer::message::{HelloReply, Kind, MemberInfo};
use crate::{Frame, Lane, Peer};

/// How long a peer may take to introduce itself.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// A node that was asked, and its answer.
pub(crate) type Greeting = (Peer, Result<HelloReply, String>);

/// Sends a request that needs no common cluster.
pub(crate) async fn call_peer(
    peers: &Peers,
    peer: &Peer,
    kind: Kind,
    timeout: Duration,
    put: impl FnOnce(&mut bytes::BytesMut),
) -> Result<Reader, PeerError> {
    let mut request = peers.envelope(kind, 0);
    put(&mut request);
    let request = Frame(vec![request.freeze()]);
    peers
        .call_addr(&peer.name, &peer.addr, Lane::Control, request, timeout)
        .await
}

/// Asks nodes for their identity; the answers have the order of `nodes`.
pub(crate) async fn greet(peers: &Peers, nodes: Vec<Peer>) -> Vec<Greeting> {
    let asked = nodes.into_iter().map(|peer| async move {
        let reply = call_peer(peers, &peer, Kind::Hello, HELLO_TIMEOUT, |_| {}).await;
        let reply = reply
            .map_err(|error| error.to_string())
            .and_then(|mut body| HelloReply::read(&mut body).map_err(|error| error.to_string()));
        let reply = reply.and_then(|reply| {
            if reply.name == peer.name {
                Ok(reply)
            } else {
                Err(format!(
                    "{} answers there: check the list of nodes",
                    reply.name
                ))
            }
        });
        (peer, reply)
    });
    join_all(asked).await
}

/// Asks the nodes at these addresses for their identity, under whatever names. One without an answer has its
/// address for a name.
pub(crate) async fn greet_addresses(peers: &Peers, addrs: &[String]) -> Vec<Greeting> {
    let asked = addrs.iter().map(|addr| async move {
        let mut peer = Peer {
            name: String::new(),
            addr: addr.clone(),
        };
        let reply = call_peer(peers, &peer, Kind::Hello, HELLO_TIMEOUT, |_| {}).await;
        let reply = reply.map_err(|error| error.to_string());
        let reply = reply
            .and_then(|mut body| HelloReply::read(&mut body).map_err(|error| error.to_string()));
        peer.name = match &reply {
            Ok(reply) => reply.name.clone(),
            Err(_) => addr.clone(),
        };
        (peer, reply)
    });
    join_all(asked).await
}

/// Whether a peer belongs to a cluster that exists.
pub(crate) fn formed(peers: &[Greeting]) -> bool {
    peers
        .iter()
        .any(|(_, reply)| reply.as_ref().is_ok_and(HelloReply::is_formed))
}

/// Where a member is.
pub(crate) fn peer_of(member: &MemberInfo) -> Peer {
    Peer {
        name: member.name.clone(),
        addr: member.addr.clone(),
    }
}

/// Those that did not answer, and why.
pub(crate) fn absent<'a, T: 'a, E: std::fmt::Display + 'a>(
    peers: impl IntoIterator<Item = &'a (Peer, Result<T, E>)>,
) -> String {
    let absent: Vec<String> = peers
        .into_iter()
        .filter_map(|(peer, reply)| {
            reply
                .as_ref()
                .err()
                .map(|why| format!("{} at {} ({why})", peer.name, peer.addr))
        })
        .collect();
    absent.join(", ")
}
