//! Memory of peers: the state of its own disk that each peer has told this node, so that a disk which went
//! back in time is found before its node votes with it.
//!
//! A node that starts again asks its peers for their memory of it, before its engine exists: until
//! then it neither votes nor stands for election nor acknowledges anything. If its disk holds less than
//! it has told, it is an old copy: the node condemns the directory, ends, sets it aside at its next
//! start as it does with damage, and is replaced under a new id.
//!
//! Per node id, the highest boot is remembered, and the highest *mark* (term, index): under the
//! leader of this term the peer had made its log durable up to this index, and had said so. A follower
//! says it with a successful answer to its leader's entries, a leader with its own requests for entries,
//! a voter with its vote and a candidate by asking for one (index 0).
//!
//! Why a legal truncation is never taken for an old disk. Let a peer have told the mark (T, i), and let
//! its disk now hold the vote of term V and a log that ends at e.
//! - Before it told the mark, its vote of term T was durable, and votes only grow. So V < T means that
//!   the disk is older than the mark.
//! - While V = T it has accepted no leader but that of T, whose log never loses an entry while it leads;
//!   what the peer acknowledged up to i is a part of it, so nothing at or below i is cut in that term
//!   (and compaction counts: e is the end of the log or of the newest snapshot). So e < i means that the
//!   disk is older than the mark.
//! - V > T says that the disk is younger than the mark, since at the mark the vote was T. Only then may
//!   entries up to i have been cut, by a later leader. Nothing is compared.
//!
//! The boot counter is durable before any peer hears of it and grows with each start, so a start with a
//! boot that a peer knows already is one from an older disk, or a second process on a copy.
//!
//! Beside it stand the members that have come or moved since this node got its identity: the log, which has them,
//! is not read before the peers are asked.
//!
//! Invariants: nothing is remembered that its node had not made durable before; losing the newest of it
//! only loses the proof. Marks are not compared with `durability: os`, where a power cut may take back
//! what was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use memkv_disk::disk::Disk;
use memkv_disk::{HardState, Layout, MAX_PEERS_BYTES, OpenError, PeersFile};
use tokio::time::Instant;

use crate::disk::storage::Storage;
use crate::env::blocking;
use crate::membership::greet::peer_of;
use crate::membership::identity::Identity;
use crate::peer::client::{PeerError, Peers};
use crate::peer::encoding::{DecodeError, Reader, len32, put_option};
use crate::peer::message::{self, Kind, MemberInfo};
use crate::sync::lock::Mutex;
use crate::{Env, Frame, Lane, NodeConfig, Peer};

/// Version of the encoding without members.
const VERSION: u8 = 1;
/// The same with members. Older builds do not read it, and remember nothing then, so it is written only where
/// there are any.
const VERSION_WITH_MEMBERS: u8 = 2;
/// Peers that are remembered; of more, those with the highest ids. Far more than a cluster has members,
/// and they fit into the file.
const MAX_PEERS: usize = 64;
/// Bytes of one in the file.
const PEER_BYTES: usize = 4 * size_of::<u64>();
const _: () = assert!(1 + 16 + 4 + MAX_PEERS * PEER_BYTES <= MAX_PEERS_BYTES);

/// How often what is new is written down.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the answers of peers, with any election timeout.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Pause before a peer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How far a log was durable, under the leader of a term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// The memory of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) boot: u64,
    pub(crate) mark: Mark,
}

impl Remembered {
    fn put(self, out: &mut BytesMut) {
        for number in [self.boot, self.mark.term, self.mark.index] {
            out.put_u64_le(number);
        }
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            boot: reader.u64("boot")?,
            mark: Mark {
                term: reader.u64("term")?,
                index: reader.u64("index")?,
            },
        })
    }
}

#[derive(Default)]
struct State {
    peers: BTreeMap<u64, Remembered>,
    members: Vec<MemberInfo>,
    is_new: bool,
}

impl State {
    fn of(&mut self, id: u64) -> &mut Remembered {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            self.peers.pop_first();
        }
        self.peers.entry(id).or_default()
    }
}

/// The memory of this node, and its file.
pub(crate) struct Memory {
    file: PeersFile,
    /// The state of this process's own disk when it began.
    own: Remembered,
    state: Mutex<State>,
}

impl Memory {
    /// Goes on from what was saved for this cluster; `own` is what this node's disk holds.
    pub(crate) fn open(
        disk: &dyn Disk,
        layout: &Layout,
        identity: Option<&Identity>,
        own: Remembered,
    ) -> Result<Self, OpenError> {
        let (file, saved) = PeersFile::open(disk, layout)?;
        let peers = saved.map(|saved| decode(Reader(saved)));
        let (peers, members) = match (peers, identity) {
            (Some(Ok((cluster, peers, members))), Some(identity))
                if cluster == identity.cluster =>
            {
                (peers, members)
            }
            _ => Default::default(),
        };
        let state = State {
            peers,
            members,
            is_new: false,
        };
        Ok(Self {
            file,
            own,
            state: Mutex::new(state),
        })
    }

    /// A peer has spoken, in this life.
    pub(crate) fn note_boot(&self, id: u64, boot: u64) {
        let mut state = self.state.lock();
        let of = state.of(id);
        if boot > of.boot {
            of.boot = boot;
            state.is_new = true;
        }
    }

    /// A peer has told how far its log is durable.
    pub(crate) fn note_mark(&self, id: u64, term: u64, index: u64) {
        let mark = Mark { term, index };
        let mut state = self.state.lock();
        let of = state.of(id);
        if mark > of.mark {
            of.mark = mark;
            state.is_new = true;
        }
    }

    pub(crate) fn recall(&self, id: u64) -> Option<Remembered> {
        self.state.lock().peers.get(&id).copied()
    }

    /// The members that are not in this node's identity, or elsewhere.
    pub(crate) fn note_members(&self, members: Vec<MemberInfo>) {
        let mut state = self.state.lock();
        if state.members != members {
            state.members = members;
            state.is_new = true;
        }
    }

    /// The members that were noted, by this process or the one before.
    pub(crate) fn members(&self) -> Vec<MemberInfo> {
        self.state.lock().members.clone()
    }

    /// Answers what this node remembers of the node that asks.
    pub(crate) fn answer(&self, from: u64) -> Frame {
        let remembered = self.recall(from);
        message::ok(|out| put_option(out, remembered.as_ref(), |out, of| of.put(out)))
    }

    /// The memory to be saved, if anything in it is new.
    fn take_new(&self, cluster: [u8; 16]) -> Option<Bytes> {
        let mut state = self.state.lock();
        std::mem::take(&mut state.is_new).then(|| encode(cluster, &state.peers, &state.members))
    }
}

/// The state of the disk of a process that begins with this boot.
pub(crate) fn held(boot: u64, vote: Option<HardState>, storage: &Storage) -> Remembered {
    let log = storage.log.last().or(storage.log.purged());
    let snapshot = storage.snapshots.latest().map(|meta| meta.last);
    let ends = [log, snapshot].into_iter().flatten();
    Remembered {
        boot,
        mark: Mark {
            term: vote.map_or(0, |vote| vote.term),
            index: ends.map(|id| id.index).max().unwrap_or(0),
        },
    }
}

fn encode(cluster: [u8; 16], peers: &BTreeMap<u64, Remembered>, members: &[MemberInfo]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(match members.is_empty() {
        true => VERSION,
        false => VERSION_WITH_MEMBERS,
    });
    out.put_slice(&cluster);
    out.put_u32_le(len32(peers.len()));
    for (id, remembered) in peers {
        out.put_u64_le(*id);
        remembered.put(&mut out);
    }
    // They go to the end; those that do not fit are left out.
    for member in members {
        let mut one = BytesMut::new();
        member.put(&mut one);
        if out.len() + one.len() <= MAX_PEERS_BYTES {
            out.put_slice(&one);
        }
    }
    out.freeze()
}

type Saved = ([u8; 16], BTreeMap<u64, Remembered>, Vec<MemberInfo>);

fn decode(mut reader: Reader) -> Result<Saved, DecodeError> {
    let version = reader.u8("version")?;
    if !matches!(version, VERSION | VERSION_WITH_MEMBERS) {
        return Err(DecodeError::Bad {
            what: "version of the memory of peers",
            value: u64::from(version),
        });
    }
    let cluster = reader.array("cluster")?;
    let peers = reader.list("peers", |reader| {
        Ok((reader.u64("node id")?, Remembered::read(reader)?))
    })?;
    let mut members = Vec::new();
    while version == VERSION_WITH_MEMBERS && !reader.0.is_empty() {
        members.push(MemberInfo::read(&mut reader)?);
    }
    reader.end("memory of peers")?;
    Ok((cluster, peers.into_iter().collect(), members))
}

/// Why a disk that holds `own` is older than what its node once told, if it is.
fn is_older(own: Remembered, told: Remembered) -> Option<String> {
    if own.boot <= told.boot {
        return Some(format!(
            "it has started {} times by its own count, and {} times by what it had told",
            own.boot, told.boot
        ));
    }
    (own.mark < told.mark).then(|| {
        format!(
            "its log ends at {} in term {}, and it had acknowledged {} in term {}",
            own.mark.index, own.mark.term, told.mark.index, told.mark.term
        )
    })
}

/// Asks all peers that can be reached, and says why this node's disk is an old one, if it is.
pub(crate) async fn is_outdated(
    memory: &Memory,
    config: &NodeConfig,
    peers: &Peers,
) -> Option<String> {
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::TrustOldDisk) {
        return None;
    }
    let me = &peers.me;
    let mut others: Vec<Peer> = config.peers.clone();
    let members = peers.members();
    // They may know a newer address than the table, which is that of the last snapshot here.
    let identity = peers.identity().map(|identity| identity.members);
    let newer = [memory.members(), identity.unwrap_or_default()].concat();
    let is_member = |one: &&MemberInfo| members.iter().any(|member| member.id == one.id);
    let members = members.iter().chain(newer.iter().filter(is_member));
    let members = members.map(peer_of);
    others.extend(members.filter(|member| member.name != me.name));
    others.sort();
    others.dedup();
    let asked = others
        .chunk_by(|one, other| one.name == other.name)
        .map(|addrs| ask_any(config, peers, addrs));
    let told = join_all(asked).await;
    let mut own = memory.own;
    told.into_iter().flatten().find_map(|(name, told)| {
        if !config.sync {
            own.mark = told.mark;
        }
        let why = is_older(own, told)?;
        Some(format!(
            "the disk of {} went back in time: {name} remembers that {why}",
            me.name
        ))
    })
}

/// Asks one peer at all addresses that it may have; the first one with an answer will do.
async fn ask_any<'a>(
    config: &NodeConfig,
    peers: &Peers,
    addrs: &'a [Peer],
) -> Option<(&'a str, Remembered)> {
    let asked = addrs.iter().map(|peer| ask(config, peers, peer));
    let mut answers: FuturesUnordered<_> = asked.collect();
    while let Some(answer) = answers.next().await {
        if let Answer::Told(told) = answer {
            let name = &addrs.first()?.name;
            return Some((name, told?));
        }
    }
    None
}

/// The result of asking at an address.
enum Answer {
    /// A node of this cluster has answered, with what it remembers, if that is anything.
    Told(Option<Remembered>),
    /// None has.
    Nothing,
}

/// Asks one peer, as long as it may still answer.
async fn ask(config: &NodeConfig, peers: &Peers, peer: &Peer) -> Answer {
    let began = Instant::now();
    // A node that does not listen may be about to start, as all nodes are after a power cut.
    let refused_until = began + (config.election_timeout / 2).min(LONGEST_WAIT);
    let silent_until = began + (config.election_timeout * 2).min(LONGEST_WAIT);
    loop {
        let request = peers.envelope(Kind::Recall, 0).freeze();
        let left = silent_until.saturating_duration_since(Instant::now());
        let call = peers.call_addr(
            &peer.name,
            &peer.addr,
            Lane::Control,
            Frame(vec![request]),
            left,
        );
        let until = match call.await {
            Ok(mut body) => {
                let told = body.option("what is remembered", Remembered::read);
                return Answer::Told(told.ok().flatten());
            }
            // It remembers nothing of this cluster.
            Err(PeerError::Refused(_)) => return Answer::Nothing,
            Err(PeerError::NoListener(_)) => refused_until,
            Err(PeerError::Unreachable(_) | PeerError::Lost(_)) => silent_until,
        };
        if Instant::now() >= until {
            return Answer::Nothing;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Writes down what is new, from time to time.
pub(crate) async fn keep(memory: Arc<Memory>, peers: Arc<Peers>, env: Env) {
    loop {
        tokio::time::sleep(SAVE_EVERY).await;
        save(&memory, &peers, &env, false).await;
    }
}

/// Writes down what is new.
pub(crate) async fn save(memory: &Arc<Memory>, peers: &Peers, env: &Env, sync: bool) {
    let new = peers.cluster().and_then(|cluster| memory.take_new(cluster));
    let Some(new) = new else { return };
    let memory = memory.clone();
    let write = move || {
        let file = &memory.file;
        file.save(&new)?;
        if sync { file.sync() } else { Ok(()) }
    };
    // Without it the node only proves less about its peers.
    if let Err(error) = blocking(env, write).await.and_then(|saved| saved) {
        tracing::debug!(%error, "cannot write down what the peers have told");
    }
}

#[cfg(test)]
mod tests {
    use memkv_disk::disk::guard;
    use memkv_disk::disk::sim::SimDisk;

    use super::*;
    use crate::peer::fake::{Fakes, Script, config};

    fn told(boot: u64, term: u64, index: u64) -> Remembered {
        Remembered {
            boot,
            mark: Mark { term, index },
        }
    }

    #[test]
    fn what_was_told_outlives_the_process() {
        let peers = BTreeMap::from([(1, told(2, 3, 4)), (900, told(u64::MAX, 0, 7))]);
        let saved = encode([5; 16], &peers, &[]);
        let read = decode(Reader(saved.clone()));
        assert_eq!(read, Ok(([5; 16], peers.clone(), Vec::new())));
        for len in 0..saved.len() {
            assert!(decode(Reader(saved.slice(..len))).is_err());
        }
        assert_eq!(saved.first(), Some(&VERSION), "older builds read it");
        let member = |id, addr: &str| MemberInfo {
            id,
            name: format!("n{id}"),
            addr: addr.to_owned(),
        };
        let moved = vec![member(1, "h:1"), member(900, "new:2")];
        let saved = encode([5; 16], &peers, &moved);
        assert_eq!(decode(Reader(saved)), Ok(([5; 16], peers, moved)));
    }

    #[test]
    fn a_legal_truncation_is_no_old_disk() {
        let acknowledged = told(4, 7, 100);
        let is_old = |own| is_older(own, acknowledged).is_some();
        assert!(!is_old(told(5, 7, 100)), "nothing is missing");
        assert!(!is_old(told(5, 8, 60)), "a later leader has cut the log");
        assert!(is_old(told(5, 7, 99)), "the leader of term 7 cuts nothing");
        assert!(is_old(told(5, 6, 200)), "the vote of term 7 is missing");
        assert!(is_old(told(4, 7, 100)), "it has started before");
        assert!(is_old(told(3, 9, 300)), "a copy of it has started");
        assert!(!is_old(told(5, 7, 101)));
    }

    #[test]
    fn only_the_highest_is_remembered_of_a_bounded_number_of_peers() {
        let mut state = State::default();
        for id in 1..=2 * MAX_PEERS as u64 {
            *state.of(id) = told(id, 1, 1);
        }
        assert_eq!(state.peers.len(), MAX_PEERS);
        assert_eq!(state.of(2 * MAX_PEERS as u64).boot, 2 * MAX_PEERS as u64);
        let long = (1..=64).map(|id| MemberInfo {
            id,
            name: "n".to_owned(),
            addr: "x".repeat(261),
        });
        let saved = encode([0; 16], &state.peers, &long.collect::<Vec<_>>());
        assert!(saved.len() <= MAX_PEERS_BYTES);
        let (_, peers, members) = decode(Reader(saved)).unwrap();
        assert!(peers.len() == MAX_PEERS && members.len() >= 3);
    }

    async fn outdated(script: Script) -> (Option<String>, Duration) {
        let fakes = Fakes::new(script);
        let (disk, config) = (SimDisk::new(1), config());
        let own = told(2, 3, 50);
        let open = || {
            disk.create_dir_all(&config.layout.metadata).unwrap();
            Memory::open(&disk, &config.layout, None, own)
        };
        let memory = guard::allow(open).unwrap();
        let began = Instant::now();
        let why = is_outdated(&memory, &config, &fakes.peers).await;
        (why, began.elapsed())
    }

    fn body(told: Remembered) -> Script {
        let mut body = BytesMut::new();
        put_option(&mut body, Some(&told), |out, told| told.put(out));
        Script::Body(body.to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_holds_less_than_a_peer_remembers_is_outdated() {
        let (why, _) = outdated(body(told(1, 3, 51))).await;
        let why = why.unwrap();
        assert!(
            why.contains("the disk of n1 went back in time: n2"),
            "{why}"
        );
        assert_eq!(outdated(body(told(1, 3, 50))).await.0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_remembers_nothing_or_answers_nothing_proves_nothing() {
        let timeout = config().election_timeout;
        let (why, took) = outdated(Script::Refuse("another cluster")).await;
        assert_eq!((why, took), (None, Duration::ZERO));
        let (why, took) = outdated(Script::NoListener).await;
        assert!(
            why.is_none() && took >= timeout / 2 && took < timeout,
            "{took:?}"
        );
        for script in [Script::Lost, Script::Silence] {
            let (why, took) = outdated(script).await;
            assert!(
                why.is_none() && took >= LONGEST_WAIT.min(2 * timeout),
                "{took:?}"
            );
            assert!(took <= LONGEST_WAIT + RETRY_PAUSE, "{took:?}");
        }
    }
}
