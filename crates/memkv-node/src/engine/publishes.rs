//! Tests: the adapter publishes a vote, a change of membership and a commit index before anything that
//! depends on it can leave the node. Reads rely on it (`read/leadership_check.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::sync::lock::Mutex;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{HardState, Layout, Opened, Options};
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::AppendEntriesRequest;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogId};

use super::log_store::LogStore;
use super::network::Network;
use super::{EngineLogId, Entry, Membership, Vote};
use crate::disk::memory::{Memory, Remembered};
use crate::leadership::leader::Leader;
use crate::membership::identity::Identity;
use crate::peer::addresses::Addresses;
use crate::peer::client::Peers;
use crate::peer::message::MemberInfo;
use crate::read::published::Published;
use crate::replica::Replica;
use crate::time::log_clock::LogClock;
use crate::write::session::Session;
use crate::{CallError, Env, Frame, Lane, Peer, Transport};

fn id(index: u64) -> EngineLogId {
    let leader_id = LeaderId {
        term: 3,
        node_id: 1,
    };
    LogId { leader_id, index }
}

/// A log whose disk does nothing: everything that is published was so before it was written.
fn log(vote: Option<HardState>) -> (Opened, LogStore, Arc<Published>) {
    let root = PathBuf::from("/node");
    let layout = Layout {
        log: root.join("log"),
        metadata: root.join("metadata"),
        snapshot: root.join("snapshot"),
    };
    let opened = memkv_disk::open(Arc::new(SimDisk::new(1)), &layout, Options::default());
    let opened = opened.unwrap();
    let published = Arc::<Published>::default();
    let (wal, reader) = (opened.wal.clone(), opened.log.clone());
    let store = LogStore::new(
        wal,
        reader,
        vote,
        None,
        published.clone(),
        Env::real(),
        Arc::default(),
    );
    (opened, store, published)
}

#[tokio::test]
async fn a_vote_is_published_before_it_is_written() {
    let (_opened, mut store, published) = log(None);
    assert_eq!(published.vote(), None);
    let saved = store.save_vote(&Vote::new(4, 2)).now_or_never();
    assert!(saved.is_none(), "nothing has written it");
    assert_eq!(published.vote(), Some(Leader { term: 4, id: 2 }));
}

#[tokio::test]
async fn the_vote_of_an_earlier_process_still_counts() {
    let vote = HardState {
        term: 9,
        voted_for: 3,
        committed: true,
    };
    let (_opened, _store, published) = log(Some(vote));
    assert_eq!(published.vote(), Some(Leader { term: 9, id: 3 }));
}

#[tokio::test]
async fn a_change_of_membership_is_published_with_its_entry_and_goes_with_it() {
    let (_opened, mut store, published) = log(None);
    let voters = Membership::new_with_defaults(vec![[1, 2, 3].into()], []);
    let change = Entry::new(id(1), EntryPayload::Membership(voters));
    let blank = |index| Entry::new(id(index), EntryPayload::Blank);
    store
        .append([blank(0), change, blank(2)], IOFlushed::noop())
        .await
        .unwrap();
    assert_eq!(published.membership(), 1);
    store.truncate_after(Some(id(1))).await.unwrap();
    assert_eq!(published.membership(), 1, "it is still there");
    store.truncate_after(Some(id(0))).await.unwrap();
    assert_eq!(published.membership(), 0);
}

/// Notes what was published as committed when a request leaves, and never answers.
struct Noting {
    published: Arc<Published>,
    seen: Mutex<Vec<(Lane, u64)>>,
}

impl Transport for Noting {
    fn call(
        &self,
        _name: &str,
        _addr: &str,
        lane: Lane,
        _request: Frame,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        self.seen.lock().push((lane, self.published.commit()));
        pending().boxed()
    }
}

#[tokio::test]
async fn a_commit_index_is_published_before_a_peer_is_told() {
    let published = Arc::<Published>::default();
    let transport = Arc::new(Noting {
        published: published.clone(),
        seen: Mutex::default(),
    });
    let env = Env::real();
    let clock = Arc::new(LogClock::resume(env.clone(), None, None));
    let me = Peer {
        name: "n1".to_owned(),
        addr: "1".to_owned(),
    };
    let peers = Arc::new(Peers::new(
        me,
        1,
        transport.clone(),
        Arc::new(Replica::new(Arc::new(Session::new(1, 64 << 20)))),
        clock.clone(),
        Arc::default(),
        Addresses::default(),
    ));
    let identified = peers.set_identity(Identity {
        cluster: [7; 16],
        node_id: 1,
        name: "n1".to_owned(),
        sync: true,
        members: vec![MemberInfo {
            id: 2,
            name: "n2".to_owned(),
            addr: "2".to_owned(),
        }],
        founder: true,
        level: 1,
    });
    assert!(identified);
    let (disk, layout) = (
        Arc::new(SimDisk::new(1)),
        Layout::under(Path::new("/memkv")),
    );
    let opened = memkv_disk::open(disk.clone(), &layout, Options::default()).unwrap();
    let memory = Memory::open(&*disk, &layout, None, Remembered::default()).unwrap();
    let mut network = Network {
        memory: Arc::new(memory),
        wal: opened.wal,
        peers,
        env,
        transfers: Arc::default(),
        clock,
        space: Arc::default(),
        capacity: Arc::default(),
        commit_interest: Arc::default(),
        published,
    };
    let node = openraft::impls::EmptyNode::default();
    let mut link = network.new_client(2, &node).await;
    let mut heartbeats = network.new_heartbeat_client(2, &node).await;
    let request = |commit| AppendEntriesRequest {
        vote: Vote::new_committed(3, 1),
        prev_log_id: Some(id(commit)),
        leader_commit: Some(id(commit)),
        entries: Vec::new(),
    };
    let option = || RPCOption::new(Duration::from_secs(1));
    let sent = link.append_entries(request(5), option()).now_or_never();
    assert!(sent.is_none(), "no node answers");
    let sent = heartbeats
        .append_entries(request(8), option())
        .now_or_never();
    assert!(sent.is_none());
    let sent = link.append_entries(request(6), option()).now_or_never();
    assert!(sent.is_none());
    let seen = [(Lane::Append, 5), (Lane::Control, 8), (Lane::Append, 8)];
    assert_eq!(*transport.seen.lock(), seen);
}
