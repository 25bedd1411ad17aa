//! Tests: peers that answer as a test says, without a network.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use memkv_store::{Member, SystemOp};

use crate::membership::identity::Identity;
use crate::peer::addresses::Addresses;
use crate::peer::client::Peers;
use crate::peer::message::{self, MemberInfo};
use crate::replica::Replica;
use crate::sync::lock::Mutex;
use crate::time::log_clock::LogClock;
use crate::write::session::Session;
use crate::{CallError, Env, Frame, Lane, NodeConfig, Peer, Transport};

/// The answer of a fake peer to every request.
#[derive(Clone)]
pub(crate) enum Script {
    /// An answer with this body.
    Body(Vec<u8>),
    /// A refusal for this reason.
    Refuse(&'static str),
    /// No process listens.
    NoListener,
    /// The connection breaks after the request was sent.
    Lost,
    /// Nothing, ever.
    Silence,
}

/// Answers as scripted, and keeps the names of the nodes that were called.
pub(crate) struct Fake {
    script: Script,
    pub(crate) called: Mutex<Vec<String>>,
}

impl Transport for Fake {
    fn call(
        &self,
        name: &str,
        _addr: &str,
        _lane: Lane,
        _request: Frame,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        self.called.lock().push(name.to_owned());
        let answer = match &self.script {
            Script::Body(body) => Ok(message::ok(|out| out.extend_from_slice(body)).into_bytes()),
            Script::Refuse(why) => Ok(message::refused(why).into_bytes()),
            Script::NoListener => Err(CallError::NoListener("connection refused".to_owned())),
            Script::Lost => Err(CallError::Lost("connection reset".to_owned())),
            Script::Silence => return std::future::pending().boxed(),
        };
        std::future::ready(answer).boxed()
    }
}

/// Node n1, id 1, of the cluster n1, n2, n3, whose other nodes answer as scripted. Must be called within a
/// tokio runtime.
pub(crate) struct Fakes {
    pub(crate) peers: Arc<Peers>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) session: Arc<Session>,
    pub(crate) transport: Arc<Fake>,
}

/// The identity of n1.
pub(crate) fn identity() -> Identity {
    let member = |id: u64| MemberInfo {
        id,
        name: format!("n{id}"),
        addr: format!("h:{id}"),
    };
    Identity {
        cluster: [7; 16],
        node_id: 1,
        name: "n1".to_owned(),
        sync: true,
        members: (1..=3).map(member).collect(),
        founder: true,
        level: 1,
    }
}

impl Fakes {
    pub(crate) fn new(script: Script) -> Self {
        let transport = Arc::new(Fake {
            script,
            called: Mutex::default(),
        });
        let session = Arc::new(Session::new(1, 64 << 20));
        let replica = Arc::new(Replica::new(session.clone()));
        let clock = Arc::new(LogClock::resume(Env::real(), None, None));
        let (levels, boot) = (Arc::default(), 1);
        let peers = Peers::new(
            peer(1),
            boot,
            transport.clone(),
            replica.clone(),
            clock,
            levels,
            Addresses::default(),
        );
        assert!(peers.set_identity(identity()));
        Self {
            peers: Arc::new(peers),
            replica,
            session,
            transport,
        }
    }
}

/// The first entry of the cluster's log, with so many of its nodes.
pub(crate) fn form(nodes: u64) -> SystemOp {
    form_at(nodes, 1)
}

/// The same at a feature level.
pub(crate) fn form_at(nodes: u64, level: u32) -> SystemOp {
    let member = |id: u64| Member {
        id,
        name: format!("n{id}"),
        addr: format!("h:{id}"),
        pending: false,
    };
    SystemOp::Form {
        cluster: [7; 16],
        durability_sync: true,
        level,
        members: (1..=nodes).map(member).collect(),
        users: Vec::new(),
    }
}

fn peer(id: u64) -> Peer {
    Peer {
        name: format!("n{id}"),
        addr: format!("h:{id}"),
    }
}

/// The configuration of n1.
pub(crate) fn config() -> NodeConfig {
    let layout = memkv_disk::Layout::under(std::path::Path::new("/node"));
    let mut config = NodeConfig::new(peer(1), layout);
    config.peers = vec![peer(2), peer(3)];
    config
}
