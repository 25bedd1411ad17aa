//! Users under load: an administrator takes rights away and gives them back while clients act as these
//! users on all nodes, and the log is held against the rights that it says itself.
//!
//! The rights of this model are one word: a user may write or it may not. The model of the table knows
//! nothing of principals, standing and judging. Invariants of its own: a run without users draws nothing
//! here; a command is noted here before it can be in the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use memkv_node::{Judge, Node};
use memkv_store::{
    BY_CERTIFICATE, Command, DEFAULT_USER, NO_CREDENTIAL, Principal, Reply, ReplyValue, Secret,
    SecretKind, UserSpec, UserTable,
};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::client::{Workload, key_name};
use crate::invariants::Verdict;
use crate::promise::Promise;
use crate::rng::Rng;
use crate::trace::Trace;

/// The rights of a user that may write.
const MAY_WRITE: &[u8] = b"write";
const MAY_NOT: &[u8] = b"nothing";
const NAMES: [&[u8]; 3] = [b"ada", b"bob", b"eve"];
/// Clients that act as users, beside the others.
const CLIENTS: u64 = 3;
/// Their numbers.
const FIRST_PROCESS: u64 = 500;
/// Between two calls of such a client, and between two changes, in milliseconds.
const THINK_MS: (u64, u64) = (5, 120);
const CHANGE_MS: (u64, u64) = (20, 600);
/// Most writes that such a client sends without waiting for the answers.
const BURST: u64 = 6;

/// Who sends a command, as its client has shown.
#[derive(Debug, Clone, Copy)]
struct Sent {
    user: u64,
    credential: u64,
}

/// The commands of users that were sent so far, by their bytes. Never iterated.
#[derive(Default)]
pub(crate) struct SentByUsers(Mutex<HashMap<Bytes, Sent>>);

impl SentByUsers {
    /// A client is about to send this.
    pub(crate) fn note(&self, command: &Command, principal: Principal) {
        let sent = Sent {
            user: principal.user,
            credential: principal.credential,
        };
        self.0.lock().insert(command.encode(), sent);
    }

    fn of(&self, command: &Bytes) -> Option<Sent> {
        self.0.lock().get(command).copied()
    }
}

/// A user as the log made it.
#[derive(Debug)]
struct Known {
    name: Bytes,
    user: UserSpec,
}

/// The users as the log made them, up to some entry.
#[derive(Default)]
pub(crate) struct Rights {
    revision: u64,
    by_id: BTreeMap<u64, Known>,
}

impl Rights {
    /// Takes a command that was executed into account; whether it changes users.
    ///
    /// # Errors
    /// If its user may not have it executed.
    pub(crate) fn ran(
        &mut self,
        at: u64,
        command: &Bytes,
        reply: &Reply,
        sent: &SentByUsers,
        trace: &Trace,
    ) -> Result<bool, (Promise, String)> {
        if let Some(sent) = sent.of(command) {
            trace.count("commands of users executed");
            if !self.allows(sent) {
                let seen = format!("{at}: {sent:?} had {command:?} executed by {self:?}");
                return Err((Promise::RightsHold, seen));
            }
        }
        match Command::decode(command) {
            Ok(Command::InitUsers { users }) => {
                if reply.value == ReplyValue::Integer(1) {
                    users
                        .into_iter()
                        .for_each(|(name, user)| self.set(name, user));
                }
            }
            Ok(Command::SetUser { name, user, .. }) => {
                if matches!(reply.value, ReplyValue::Integer(_)) {
                    trace.count("changes of users");
                    self.set(name, user);
                }
            }
            Ok(Command::DelUsers { names }) => {
                let before = self.by_id.len();
                self.by_id.retain(|_, known| !names.contains(&known.name));
                self.revision += u64::from(self.by_id.len() < before);
                trace.count("users removed");
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn allows(&self, sent: Sent) -> bool {
        self.by_id
            .get(&sent.user)
            .is_some_and(|Known { user, .. }| {
                let mut secrets = user.secrets.iter();
                let is_known = match sent.credential {
                    NO_CREDENTIAL => user.nopass,
                    BY_CERTIFICATE => true,
                    id => secrets.any(|secret| secret.id() == id),
                };
                user.enabled && is_known && user.rules == MAY_WRITE
            })
    }

    fn set(&mut self, name: Bytes, user: UserSpec) {
        self.revision += 1;
        let old = self.by_id.iter().find(|(_, known)| known.name == name);
        let id = old.map_or(self.revision, |(id, _)| *id);
        self.by_id.insert(id, Known { name, user });
    }
}

impl std::fmt::Debug for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "revision {}: {:?}", self.revision, self.by_id)
    }
}

/// A number that was executed is answered, and never refused for its user.
pub(crate) fn check_refusal(at: u64, first: u64, executed: u64) -> Verdict {
    match first > executed {
        true => Ok(()),
        false => {
            let seen = format!("{at}: number {first} is refused, and {executed} was executed");
            Err((Promise::FirstOutcomeStays, seen))
        }
    }
}

/// Judges by the one word, as a node's edge does.
pub(crate) struct ByWord;

impl Judge for ByWord {
    fn judge(&self, users: &Arc<UserTable>, principal: &Principal, _: &Bytes) -> bool {
        let user = users.by_id(principal.user);
        user.is_some_and(|user| user.enabled && user.rules == MAY_WRITE)
    }
}

/// The user `default` as this node knows it; none if it knows no users.
pub(crate) fn default_of(node: &Node) -> Option<Principal> {
    let users = node.users()?;
    Some(Principal {
        user: users.get(DEFAULT_USER)?.id,
        credential: NO_CREDENTIAL,
        revision: users.revision(),
    })
}

fn may_write(secrets: Vec<Secret>) -> UserSpec {
    UserSpec {
        enabled: true,
        nopass: secrets.is_empty(),
        secrets,
        rules: Bytes::from_static(MAY_WRITE),
    }
}

fn secret(rng: &Rng) -> Secret {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&rng.next().to_le_bytes());
    Secret::new(SecretKind::Sha256(hash))
}

/// A change of a user as it is in a table.
fn change(users: &UserTable, name: &'static [u8], rng: &Rng) -> Command {
    let of = Bytes::from_static(name);
    let Some(old) = users.get(name) else {
        return Command::SetUser {
            name: of,
            expected: 0,
            user: may_write(vec![secret(rng)]),
            narrows: true,
        };
    };
    let (mut user, mut narrows) = (old.spec(), false);
    match rng.below(8) {
        0..3 => {
            user.rules = Bytes::from_static(MAY_NOT);
            narrows = true;
        }
        3..5 => {
            user.rules = Bytes::from_static(MAY_WRITE);
            user.enabled = true;
        }
        5 => user.enabled = !user.enabled,
        6 => user.secrets = vec![secret(rng)],
        _ => return Command::DelUsers { names: vec![of] },
    }
    Command::SetUser {
        name: of,
        expected: old.changed_at,
        user,
        narrows,
    }
}

impl Workload {
    /// Starts the administrator, and the clients that act as users.
    pub(crate) fn start_users(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        if !self.cluster.swarm.users {
            return Vec::new();
        }
        let clients = (FIRST_PROCESS..FIRST_PROCESS + CLIENTS).map(|process| {
            let rng = Rng::new(self.cluster.seed(), &format!("user {process}"));
            tokio::spawn(self.clone().act(process, rng))
        });
        let rng = Rng::new(self.cluster.seed(), "users");
        clients
            .chain([tokio::spawn(self.clone().administrate(rng))])
            .collect()
    }

    /// Waits; whether the run goes on.
    async fn think(&self, rng: &Rng, (least, most): (u64, u64)) -> bool {
        let mut stop = self.stopped();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => false,
            () = tokio::time::sleep(rng.millis(least, most)) => true,
        }
    }

    async fn administrate(self: Arc<Self>, rng: Rng) {
        while self.think(&rng, CHANGE_MS).await {
            let Some(node) = self.cluster.node(rng.index(self.cluster.nodes())) else {
                continue;
            };
            let command = match node.users() {
                None => Command::InitUsers {
                    users: vec![(Bytes::from_static(DEFAULT_USER), may_write(Vec::new()))],
                },
                Some(users) => change(&users, NAMES[rng.index(NAMES.len())], &rng),
            };
            let answer = node.write_as(&command, default_of(&node));
            let answer = tokio::time::timeout(Self::patience_by(&rng), answer).await;
            let answer = answer.map(|answer| answer.map(|reply| reply.value));
            let trace = &self.cluster.trace;
            trace.line(format_args!("administrator: {command:?}: {answer:?}"));
        }
    }

    /// A client of some user on some node: judged there, by the table that is there.
    async fn act(self: Arc<Self>, process: u64, rng: Rng) {
        while self.think(&rng, THINK_MS).await {
            let home = rng.index(self.cluster.nodes());
            let name = *rng.pick(&NAMES);
            let (count, key) = (rng.between(1, BURST), rng.index(self.cluster.swarm.keys));
            let Some(node) = self.cluster.node(home) else {
                continue;
            };
            let Some(users) = node.users() else { continue };
            let user = users.get(name).filter(|user| user.enabled);
            let Some(user) = user.filter(|user| user.rules == MAY_WRITE) else {
                self.cluster.trace.count("calls of users without the right");
                continue;
            };
            let shown = user.secrets.first();
            let principal = Principal {
                user: user.id,
                credential: shown.map_or(NO_CREDENTIAL, |(secret, _)| secret.id()),
                revision: users.revision(),
            };
            let writes: Vec<_> = (0..count)
                .map(|_| self.write_as(process, home, &node, key_name(key), Some(principal)))
                .collect();
            for write in writes {
                write.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_knows_what_was_taken_away() {
        let trace = Trace::new(None);
        let sent = SentByUsers::default();
        let mut rights = Rights::default();
        let done = |number| Reply {
            revision: 0,
            value: ReplyValue::Integer(number),
        };
        let ada = Bytes::from_static(b"ada");
        let rng = Rng::new(1, "test");
        let key = secret(&rng);
        let mut user = may_write(vec![key.clone()]);
        let set = |user: &UserSpec| {
            let command = Command::SetUser {
                name: ada.clone(),
                expected: 0,
                user: user.clone(),
                narrows: true,
            };
            command.encode()
        };
        let first = Command::InitUsers {
            users: vec![(Bytes::from_static(DEFAULT_USER), may_write(Vec::new()))],
        };
        let mut ran =
            |command: &Bytes, number| rights.ran(1, command, &done(number), &sent, &trace);
        assert_eq!(ran(&first.encode(), 1), Ok(true));
        assert_eq!(ran(&set(&user), 2), Ok(true));
        let of = |user, credential, number: u8| {
            let command = Command::Del {
                keys: vec![Bytes::from(vec![number])],
            };
            let principal = Principal {
                user,
                credential,
                revision: 2,
            };
            sent.note(&command, principal);
            command.encode()
        };
        let broken = |verdict: Result<bool, (Promise, String)>| {
            matches!(verdict, Err((Promise::RightsHold, _)))
        };
        assert_eq!(ran(&of(2, key.id(), 250), 0), Ok(false));
        assert_eq!(ran(&of(1, NO_CREDENTIAL, 251), 0), Ok(false));
        assert!(broken(ran(&of(2, key.id() ^ 1, 252), 0)));
        assert!(broken(ran(&of(3, key.id(), 253), 0)));
        user.rules = Bytes::from_static(MAY_NOT);
        // One that failed has changed nothing.
        let failed = Reply {
            revision: 0,
            value: ReplyValue::Nil,
        };
        assert_eq!(rights.ran(1, &set(&user), &failed, &sent, &trace), Ok(true));
        let again = of(2, key.id(), 250);
        assert_eq!(rights.ran(1, &again, &done(0), &sent, &trace), Ok(false));
        assert_eq!(
            rights.ran(1, &set(&user), &done(3), &sent, &trace),
            Ok(true)
        );
        assert!(broken(rights.ran(1, &again, &done(0), &sent, &trace)));
    }
}
