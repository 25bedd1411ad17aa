//! The operator's verbs for members: what a leader makes of them, or why it does not.
//!
//! Never changes the engine's membership: it writes into the member table what is wanted, and `reconcile` follows.
//! Invariant: a verb that a majority of the old or of the new voters would not survive is refused, with the way
//! that is safe; there is no way round that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use memkv_store::{
    MAX_VOTERS, MEMBERS_LEVEL, MemberChange, MemberState, MemberTable, Role, SystemOp,
    SystemOutcome,
};

use crate::NodeConfig;
use crate::engine::handle::{Engine, EngineSlot, Standing};
use crate::leadership::handover;
use crate::membership::levels;
use crate::membership::view::{MemberList, MemberView, left_to_do};
use crate::peer::client::Peers;
use crate::replica::Replica;
use crate::report::seldom::Lines;
use crate::write::batcher::{Batcher, ProposeError};

/// What an operator asks of the cluster's members. Nodes are named by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberVerb {
    /// Expects a node of this name, or lets a removed one come back.
    Add {
        /// The name.
        name: String,
        /// The role that it is to have.
        role: Role,
    },
    /// Lets a node leave, or expects it no more.
    Remove {
        /// The name.
        name: String,
    },
    /// Gives a node's place to another one, and lets it leave.
    Replace {
        /// The one that leaves.
        old: String,
        /// The one that gets its place; it has joined already.
        new: String,
    },
    /// Lets a replica vote.
    Promote {
        /// The name.
        name: String,
    },
    /// Takes a node's vote; it stays as a replica.
    Demote {
        /// The name.
        name: String,
    },
    /// Hands leadership over.
    Transfer {
        /// To this node; to any voter that has the whole log if there is no name.
        to: Option<String>,
    },
}

/// Why a verb was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerbError {
    /// It would be unsafe or makes no sense; the text has the way that works. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// No leader took it. Nothing was changed.
    #[error("no leader: {0}; nothing was changed")]
    NoLeader(String),
    /// It may have been carried out.
    #[error("the outcome is not known: {0}; look at `member list` before you try again")]
    Unknown(String),
}

/// Time between two looks at the engine for the next leader.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Carries verbs out while this node leads.
pub(crate) struct Verbs {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) engine: EngineSlot,
    pub(crate) lines: Arc<Lines>,
}

/// What is looked at for one verb.
struct Now {
    table: Arc<MemberTable>,
    me: u64,
    voters: BTreeSet<u64>,
    /// Nodes that have answered within the election timeout, this one included.
    alive: BTreeSet<u64>,
    /// Nodes that have nearly all of the log.
    caught_up: BTreeSet<u64>,
}

impl Verbs {
    /// Carries a verb out, or only says what would be done. The answer is a sentence.
    pub(crate) async fn execute(
        &self,
        verb: MemberVerb,
        dry_run: bool,
    ) -> Result<String, VerbError> {
        let engine = self.leading()?;
        let now = self.look(engine)?;
        if let MemberVerb::Transfer { to } = verb {
            return self.transfer(engine, &now, to, dry_run).await;
        }
        let (change, words) = now.change(&verb).map_err(VerbError::Refused)?;
        let tried = now.table.would_accept(&change);
        tried.map_err(|why| VerbError::Refused(why.to_string()))?;
        if dry_run {
            return Ok(format!("{words} (dry run: nothing was changed)"));
        }
        let proposed = self.batcher.propose_system(SystemOp::Members(change)).await;
        match proposed {
            Ok(Ok(SystemOutcome::Refused { why })) => Err(VerbError::Refused(why.to_string())),
            Ok(Ok(_)) => {
                tracing::info!(?verb, "{words}");
                Ok(words)
            }
            Ok(Err(ProposeError::NotAppended(why))) => Err(VerbError::NoLeader(why)),
            Ok(Err(error)) => Err(VerbError::Unknown(error.to_string())),
            Err(_) => Err(VerbError::Unknown("the node is stopping".to_owned())),
        }
    }

    fn leading(&self) -> Result<&Engine, VerbError> {
        let engine = self.engine.get().filter(|engine| engine.is_leader());
        engine.ok_or_else(|| VerbError::NoLeader("this node does not lead".to_owned()))
    }

    fn look(&self, engine: &Engine) -> Result<Now, VerbError> {
        let settled = engine.settled();
        let table = self.replica.member_table();
        let level = self.peers.levels.in_use();
        if level < MEMBERS_LEVEL {
            return Err(VerbError::Refused(format!(
                "changing members needs feature level {MEMBERS_LEVEL}, and the cluster is at level {level}: {}",
                levels::behind(&table, MEMBERS_LEVEL),
            )));
        }
        let under_way = || {
            let words =
                "a change of the leader or of the membership is under way; try again in a moment";
            VerbError::Refused(words.to_owned())
        };
        let (members, _) = settled
            .filter(|(members, _)| members.configs.len() == 1)
            .ok_or_else(under_way)?;
        let me = self.peers.my_id();
        let ids: Vec<u64> = table.members().map(|member| member.id).collect();
        let matched = engine.matched();
        let is_alive = |id: &u64| engine.answered(*id, self.config.election_timeout);
        let has_log = |id: &u64| *id == me || matched.has_caught_up(*id);
        Ok(Now {
            me,
            voters: members.voters(),
            alive: ids.iter().copied().filter(is_alive).collect(),
            caught_up: ids.iter().copied().filter(has_log).collect(),
            table,
        })
    }

    async fn transfer(
        &self,
        engine: &Engine,
        now: &Now,
        to: Option<String>,
        dry_run: bool,
    ) -> Result<String, VerbError> {
        let refused = |why: String| Err(VerbError::Refused(why));
        let wanted = match &to {
            Some(name) => Some(now.member(name).map_err(VerbError::Refused)?),
            None => None,
        };
        if wanted == Some(now.me) {
            return Ok(format!("{} leads already", self.peers.me.name));
        }
        let fits = |id: &u64| {
            let stays = now
                .table
                .row(*id)
                .is_some_and(|it| it.state == MemberState::Member);
            *id != now.me
                && stays
                && now.alive.contains(id)
                && wanted.is_none_or(|wanted| wanted == *id)
        };
        let Some(candidate) = now.voters.iter().copied().find(fits) else {
            return refused(match &to {
                Some(name) => format!(
                    "{name} cannot lead: it must vote and answer; {}",
                    now.describe()
                ),
                None => format!("no other voter answers; {}", now.describe()),
            });
        };
        if dry_run {
            let name = self.peers.name_of(candidate);
            return Ok(format!("{name} would lead (dry run: nothing was changed)"));
        }
        let within = handover::TRANSFER_TIMEOUT;
        let told = (&*self.lines, &*self.replica.timeline);
        handover::hand_over(engine, &self.peers, told, within, fits).await;
        let standing = self.next_leader(engine).await;
        match standing.leader.filter(|_| !standing.leads()) {
            Some(id) => Ok(format!("{} leads now", self.peers.name_of(id))),
            None if engine.is_leader() => refused(format!(
                "{} still leads: no other voter had the whole log in time",
                self.peers.me.name
            )),
            None => Ok("leadership was handed over; an election decides".to_owned()),
        }
    }

    /// The standing of this node once the next leader is known: an election takes a round trip and a sync on the heir's disk.
    async fn next_leader(&self, engine: &Engine) -> Standing {
        let known = async {
            loop {
                let standing = engine.report().standing;
                if standing.leader.is_some() {
                    return standing;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let known = tokio::time::timeout(self.config.election_timeout, known).await;
        known.unwrap_or_else(|_| engine.report().standing)
    }

    /// All members as this leader sees them, and names that are expected, in the order of their names.
    pub(crate) fn list(&self) -> Result<MemberList, VerbError> {
        let engine = self.leading()?;
        // Before the table, which is then at least as new.
        let settled = engine.settled();
        let (table, me) = (self.replica.member_table(), self.peers.my_id());
        let (voters, matched) = (engine.members().voters(), engine.matched());
        let last = matched.last.unwrap_or(0);
        let millis = |ago: Duration| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        let seen = |row: memkv_store::Row<'_>| {
            let id = row.member.id;
            let lag = matched.of_member(id).map(|has| last.saturating_sub(has));
            MemberView {
                name: row.member.name.clone(),
                id,
                addr: row.member.addr.clone(),
                role: row.role,
                state: Some(row.state),
                votes: voters.contains(&id),
                leads: id == me,
                lag: lag.or((id == me).then_some(0)),
                heard_ms: match id == me {
                    true => Some(0),
                    false => engine.acked_ago(id).map(millis),
                },
                highest_level: table.advertised(id).map_or(0, |it| it.highest),
            }
        };
        let mut views: Vec<MemberView> = table.rows().map(seen).collect();
        views.extend(table.expected().map(|(name, role)| MemberView {
            name: name.to_owned(),
            id: 0,
            addr: String::new(),
            role,
            state: None,
            votes: false,
            leads: false,
            lag: None,
            heard_ms: None,
            highest_level: 0,
        }));
        // Ids are in the order of admission, which is chance where nodes join together.
        views.sort_by(|one, other| one.name.cmp(&other.name));
        let left_to_do = left_to_do(&table, settled.as_ref().map(|(members, _)| members));
        Ok(MemberList {
            members: views,
            left_to_do: Some(left_to_do),
        })
    }
}

impl Now {
    /// The change that a verb asks for, and what comes of it in words; or why it is refused.
    fn change(&self, verb: &MemberVerb) -> Result<(MemberChange, String), String> {
        Ok(match verb {
            MemberVerb::Add { name, role } => {
                let words = format!(
                    "{name} may join as a {}: start it with `join` and its name",
                    role.name()
                );
                let (name, role) = (name.clone(), *role);
                (MemberChange::Expect { name, role }, words)
            }
            MemberVerb::Remove { name } if self.expects(name) => {
                let words = format!("{name} is not expected any more");
                (MemberChange::Forget { name: name.clone() }, words)
            }
            MemberVerb::Remove { name } => {
                let node = self.member(name)?;
                self.check(&format!("remove {name}"), node, None)?;
                let words = format!("{name} leaves; {}", self.after(node, None));
                (MemberChange::Leave { node }, words)
            }
            MemberVerb::Replace { old, new } => {
                let (gone, heir) = (self.member(old)?, self.member(new)?);
                if !self.alive.contains(&heir) || !self.caught_up.contains(&heir) {
                    return Err(format!(
                        "{new} must answer and have the log before it takes the place of {old}: wait until \
                         `member list` shows it with a lag of 0"
                    ));
                }
                self.check(&format!("replace {old}"), gone, Some(heir))?;
                let words = format!(
                    "{new} takes the place of {old}, which leaves; {}",
                    self.after(gone, Some(heir))
                );
                (
                    MemberChange::HandOver {
                        old: gone,
                        new: heir,
                    },
                    words,
                )
            }
            MemberVerb::Promote { name } => {
                let (node, role) = (self.member(name)?, Role::Voter);
                (
                    MemberChange::SetRole { node, role },
                    self.promotion(name, node),
                )
            }
            MemberVerb::Demote { name } => {
                let (node, role) = (self.member(name)?, Role::Replica);
                self.check(&format!("demote {name}"), node, None)?;
                let words = format!("{name} loses its vote; {}", self.after(node, None));
                (MemberChange::SetRole { node, role }, words)
            }
            MemberVerb::Transfer { .. } => return Err("it changes no member".to_owned()),
        })
    }

    fn expects(&self, name: &str) -> bool {
        self.table.expected().any(|(expected, _)| expected == name)
    }

    /// The node of this name: one that has joined or is leaving, failing that one that joins.
    fn member(&self, name: &str) -> Result<u64, String> {
        let named = || self.table.rows().filter(|row| row.member.name == name);
        let joined = named().find(|row| !row.member.pending);
        let node = joined.or_else(|| named().next()).map(|row| row.member.id);
        node.ok_or_else(|| {
            let names: Vec<&str> = self.table.members().map(|member| &*member.name).collect();
            format!(
                "no node named {name} is in the cluster; there are {}",
                names.join(", ")
            )
        })
    }

    /// The voters without `node`, with its `heir` if it votes.
    fn voters_after(&self, node: u64, heir: Option<u64>) -> BTreeSet<u64> {
        if !self.voters.contains(&node) {
            return self.voters.clone();
        }
        let left = self.voters.iter().copied().filter(|voter| *voter != node);
        left.chain(heir).collect()
    }

    /// Refuses what a majority of the present voters, or of those after it, would not answer.
    fn check(&self, what: &str, node: u64, heir: Option<u64>) -> Result<(), String> {
        let after = self.voters_after(node, heir);
        if after == self.voters {
            return Ok(());
        }
        let answering = |voters: &BTreeSet<u64>| voters.intersection(&self.alive).count();
        for (when, voters) in [("now", &self.voters), ("then", &after)] {
            let (needed, found) = (voters.len() / 2 + 1, answering(voters));
            if found < needed {
                return Err(format!(
                    "refusing to {what}: {when} {needed} of {} voters must answer, and {found} do. {}. Start \
                     those that are silent first; or let a new node join (`memkv_server --join`), and give it \
                     the place of a lost one with `member replace` once it has joined",
                    voters.len(),
                    self.describe(),
                ));
            }
        }
        Ok(())
    }

    /// The voters, and which of them answer.
    fn describe(&self) -> String {
        let one = |id: &u64| {
            let name = self.table.member(*id).map_or("?", |member| &member.name);
            let how = if self.alive.contains(id) {
                "answers"
            } else {
                "is silent"
            };
            format!("{name} {how}")
        };
        let voters: Vec<String> = self.voters.iter().map(one).collect();
        format!("voters: {}", voters.join(", "))
    }

    /// How many may fail after a node has lost its vote.
    fn after(&self, node: u64, heir: Option<u64>) -> String {
        may_fail(self.voters_after(node, heir).len())
    }

    fn promotion(&self, name: &str, node: u64) -> String {
        if self.voters.contains(&node) {
            return format!("{name} votes already");
        }
        let waits = |row: &memkv_store::Row<'_>| {
            let id = row.member.id;
            let is_to = row.role == Role::Voter && row.state == MemberState::Member;
            id != node && is_to && !self.voters.contains(&id)
        };
        let is_alone = !self.table.rows().any(|row| waits(&row));
        match self.voters.len() % 2 == 1 && is_alone {
            true if self.voters.len() + 2 <= MAX_VOTERS => format!(
                "{name} is to vote. It gets its vote together with another replica: {} voters survive no more \
                 losses than {}. Let another node join, or promote another replica",
                self.voters.len() + 1,
                self.voters.len(),
            ),
            true => format!("{name} is to vote, once one of {MAX_VOTERS} voters has gone"),
            false => {
                format!("{name} gets a vote once it has been close behind the leader for a while")
            }
        }
    }
}

/// How many of so many voters may fail, as a sentence.
pub(crate) fn may_fail(voters: usize) -> String {
    match (voters.saturating_sub(1)) / 2 {
        0 => format!("{voters} then vote, of which none may fail"),
        n => format!("{voters} then vote, of which {n} may fail"),
    }
}

#[cfg(test)]
mod tests {
    use memkv_store::{BatchBuilder, Store};

    use super::*;
    use crate::peer::fake::form_at;

    /// n1 to n5 have joined, and n1 to n3 vote.
    fn now(alive: &[u64]) -> Now {
        let mut store = Store::new();
        let mut batch = BatchBuilder::new(5);
        batch.system(&form_at(5, MEMBERS_LEVEL));
        store.apply(1, &batch.finish(), &mut ());
        Now {
            table: Arc::new(store.member_table().clone()),
            me: 1,
            voters: [1, 2, 3].into(),
            alive: alive.iter().copied().collect(),
            caught_up: [1, 2, 3, 4].into(),
        }
    }

    fn named(name: &str) -> String {
        name.to_owned()
    }

    #[test]
    fn a_change_needs_a_majority_of_the_old_and_of_the_new_voters() {
        let remove = |alive: &[u64], name: &str| {
            let verb = MemberVerb::Remove { name: named(name) };
            now(alive).change(&verb)
        };
        let (change, words) = remove(&[1, 2, 3], "n3").unwrap();
        assert_eq!(change, MemberChange::Leave { node: 3 });
        assert_eq!(words, "n3 leaves; 2 then vote, of which none may fail");
        assert!(remove(&[1, 2], "n3").is_ok(), "the silent one goes");
        let refused = remove(&[1, 2], "n2").unwrap_err();
        for part in [
            "refusing to remove n2: then 2 of 2 voters must answer, and 1 do",
            "voters: n1 answers, n2 answers, n3 is silent",
            "member replace",
        ] {
            assert!(refused.contains(part), "{refused}");
        }
        let refused = remove(&[1], "n3").unwrap_err();
        assert!(
            refused.contains("now 2 of 3 voters must answer, and 1 do"),
            "{refused}"
        );
        assert!(remove(&[1], "n4").is_ok(), "it has no vote");
        let unknown = remove(&[1], "n9").unwrap_err();
        assert!(
            unknown.contains("there are n1, n2, n3, n4, n5"),
            "{unknown}"
        );
    }

    #[test]
    fn a_vote_is_handed_over_only_to_a_node_that_has_the_log() {
        let replace = |alive: &[u64], old: &str, new: &str| {
            let (old, new) = (named(old), named(new));
            now(alive).change(&MemberVerb::Replace { old, new })
        };
        let (change, words) = replace(&[1, 2, 4], "n3", "n4").unwrap();
        assert_eq!(change, MemberChange::HandOver { old: 3, new: 4 });
        assert!(
            words.contains("3 then vote, of which 1 may fail"),
            "{words}"
        );
        for (alive, new) in [(&[1, 2, 5][..], "n5"), (&[1, 2][..], "n4")] {
            let refused = replace(alive, "n3", new).unwrap_err();
            assert!(
                refused.contains("must answer and have the log"),
                "{refused}"
            );
        }
        assert!(
            replace(&[1, 4], "n3", "n4").is_err(),
            "no majority of the old"
        );
    }

    #[test]
    fn a_single_promotion_says_that_it_waits() {
        let mut now = now(&[1, 2, 3, 4, 5]);
        let promote = |now: &Now| {
            let name = named("n4");
            now.change(&MemberVerb::Promote { name }).unwrap().1
        };
        assert!(
            promote(&now).contains("once it has been close behind"),
            "n5 waits too"
        );
        now.voters = [1, 2, 3, 5].into();
        assert!(
            promote(&now).contains("once it has been close behind"),
            "it makes five"
        );
        now.voters.insert(4);
        assert_eq!(promote(&now), "n4 votes already");
    }

    #[test]
    fn the_sentence_counts_losses() {
        let words = [1, 2, 3, 4, 5].map(may_fail).join("; ");
        assert_eq!(
            words,
            "1 then vote, of which none may fail; 2 then vote, of which none may fail; 3 then vote, of which 1 \
             may fail; 4 then vote, of which 1 may fail; 5 then vote, of which 2 may fail"
        );
    }
}
