//! Verbs for members on their way to the leader, and its answers.
//!
//! Decides nothing. Invariant: a verb is sent once, since it may have been carried out although its answer is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use memkv_store::{MemberState, Role};

use super::verbs::{MemberVerb, VerbError, Verbs};
use super::view::{MemberList, MemberView};
use crate::group::Group;
use crate::peer::answer::{Answer, answer, bad};
use crate::peer::client::PeerError;
use crate::peer::encoding::{DecodeError, Reader, len32, put_blob, put_option};
use crate::peer::message::{self, Kind};
use crate::{Frame, Lane};

/// A log entry is in it, or a transfer of leadership, which takes two seconds at most.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

const ADD: u8 = 1;
const REMOVE: u8 = 2;
const REPLACE: u8 = 3;
const PROMOTE: u8 = 4;
const DEMOTE: u8 = 5;
const TRANSFER: u8 = 6;

/// A verb that was refused, and that no leader took. An answer that fits neither is unreadable.
const REFUSED: u8 = 1;
const NO_LEADER: u8 = 2;
const UNKNOWN: u8 = 3;

/// Has the leader carry a verb out, wherever it is.
pub(crate) async fn send(
    group: Arc<Group>,
    verb: MemberVerb,
    dry_run: bool,
) -> Result<String, VerbError> {
    if group.engine.leads() {
        return group.verbs.execute(verb, dry_run).await;
    }
    let mut body = ask(&group, Kind::Administer, |out| {
        put_verb(out, &verb);
        out.put_u8(u8::from(dry_run));
    })
    .await?;
    let unreadable = |error: DecodeError| VerbError::Unknown(error.to_string());
    let (outcome, words) =
        (|| Ok((body.u8("outcome")?, body.text("answer")?)))().map_err(unreadable)?;
    match outcome {
        0 => Ok(words),
        REFUSED => Err(VerbError::Refused(words)),
        NO_LEADER => Err(VerbError::NoLeader(words)),
        _ => Err(VerbError::Unknown(words)),
    }
}

/// The members as the leader sees them.
pub(crate) async fn ask_list(group: Arc<Group>) -> Result<MemberList, VerbError> {
    if group.engine.leads() {
        return group.verbs.list();
    }
    let mut body = ask(&group, Kind::Members, |_| {}).await?;
    // Nothing was to be changed.
    read_list(&mut body).map_err(|error| VerbError::NoLeader(error.to_string()))
}

async fn ask(
    group: &Group,
    kind: Kind,
    put: impl FnOnce(&mut BytesMut),
) -> Result<Reader, VerbError> {
    let process = &group.process;
    let no_leader = |why: String| VerbError::NoLeader(why);
    let leader = group.leadership.leader_id();
    let leader = leader.ok_or_else(|| no_leader(process.lifecycle.no_leader(None)))?;
    let mut request = process.peers.envelope(kind, leader);
    put(&mut request);
    let request = Frame(vec![request.freeze()]);
    let call = process
        .peers
        .call(leader, Lane::Control, request, ANSWER_WITHIN);
    call.await.map_err(|error| match error {
        PeerError::Unreachable(why) | PeerError::NoListener(why) | PeerError::Refused(why) => {
            no_leader(why)
        }
        PeerError::Lost(why) => VerbError::Unknown(why),
    })
}

/// Answers [`Kind::Administer`].
pub(crate) fn administer(verbs: Arc<Verbs>, mut body: Reader) -> Answer {
    let fields = (|| Ok::<_, DecodeError>((read_verb(&mut body)?, body.bool("dry run")?)))();
    let (verb, dry_run) = match fields {
        Ok(fields) => fields,
        Err(error) => return answer(bad(&error)),
    };
    Box::pin(async move {
        let (outcome, words) = match verbs.execute(verb, dry_run).await {
            Ok(words) => (0, words),
            Err(VerbError::Refused(why)) => (REFUSED, why),
            Err(VerbError::NoLeader(why)) => (NO_LEADER, why),
            Err(VerbError::Unknown(why)) => (UNKNOWN, why),
        };
        message::ok(|out| {
            out.put_u8(outcome);
            put_blob(out, words.as_bytes());
        })
    })
}

/// Answers [`Kind::Members`].
pub(crate) fn list(verbs: &Verbs) -> Frame {
    match verbs.list() {
        Ok(list) => message::ok(|out| put_list(out, &list)),
        Err(error) => message::refused(&error.to_string()),
    }
}

fn put_role(out: &mut BytesMut, role: Role) {
    out.put_u8(u8::from(role == Role::Voter));
}

fn read_role(reader: &mut Reader) -> Result<Role, DecodeError> {
    Ok(match reader.bool("whether it is to vote")? {
        true => Role::Voter,
        false => Role::Replica,
    })
}

fn put_verb(out: &mut BytesMut, verb: &MemberVerb) {
    let mut named = |tag: u8, name: &str| {
        out.put_u8(tag);
        put_blob(out, name.as_bytes());
    };
    match verb {
        MemberVerb::Add { name, role } => {
            named(ADD, name);
            put_role(out, *role);
        }
        MemberVerb::Remove { name } => named(REMOVE, name),
        MemberVerb::Replace { old, new } => {
            named(REPLACE, old);
            put_blob(out, new.as_bytes());
        }
        MemberVerb::Promote { name } => named(PROMOTE, name),
        MemberVerb::Demote { name } => named(DEMOTE, name),
        MemberVerb::Transfer { to } => named(TRANSFER, to.as_deref().unwrap_or_default()),
    }
}

fn read_verb(reader: &mut Reader) -> Result<MemberVerb, DecodeError> {
    let tag = reader.u8("verb")?;
    let name = reader.text("name")?;
    Ok(match tag {
        ADD => MemberVerb::Add {
            name,
            role: read_role(reader)?,
        },
        REMOVE => MemberVerb::Remove { name },
        REPLACE => MemberVerb::Replace {
            old: name,
            new: reader.text("name")?,
        },
        PROMOTE => MemberVerb::Promote { name },
        DEMOTE => MemberVerb::Demote { name },
        TRANSFER => MemberVerb::Transfer {
            to: Some(name).filter(|name| !name.is_empty()),
        },
        value => {
            return Err(DecodeError::Bad {
                what: "verb",
                value: u64::from(value),
            });
        }
    })
}

const STATES: [MemberState; 3] = [
    MemberState::Joining,
    MemberState::Member,
    MemberState::Leaving,
];

/// What older versions do not read stands at the end.
fn put_list(out: &mut BytesMut, list: &MemberList) {
    let members = &list.members;
    out.put_u32_le(len32(members.len()));
    members.iter().for_each(|view| put_view(out, view));
    put_blob(
        out,
        list.left_to_do.as_deref().unwrap_or_default().as_bytes(),
    );
    let levels = members.iter().map(|view| view.highest_level);
    levels.for_each(|level| out.put_u32_le(level));
}

fn read_list(body: &mut Reader) -> Result<MemberList, DecodeError> {
    let mut members = body.list("members", read_view)?;
    if body.end("members").is_ok() {
        let left_to_do = None;
        return Ok(MemberList {
            members,
            left_to_do,
        });
    }
    let left_to_do = Some(body.text("what is left to do")?);
    for view in &mut members {
        view.highest_level = body.u32("level")?;
    }
    Ok(MemberList {
        members,
        left_to_do,
    })
}

fn put_view(out: &mut BytesMut, view: &MemberView) {
    put_blob(out, view.name.as_bytes());
    out.put_u64_le(view.id);
    put_blob(out, view.addr.as_bytes());
    put_role(out, view.role);
    let state = view
        .state
        .and_then(|state| STATES.iter().position(|one| *one == state));
    let state = state.and_then(|at| u8::try_from(at).ok());
    put_option(out, state, BytesMut::put_u8);
    out.put_u8(u8::from(view.votes));
    out.put_u8(u8::from(view.leads));
    put_option(out, view.lag, BytesMut::put_u64_le);
    put_option(out, view.heard_ms, BytesMut::put_u64_le);
}

fn read_view(reader: &mut Reader) -> Result<MemberView, DecodeError> {
    Ok(MemberView {
        name: reader.text("name")?,
        id: reader.u64("id")?,
        addr: reader.text("address")?,
        role: read_role(reader)?,
        state: reader.option("state", |reader| {
            let at = reader.u8("state")?;
            let state = STATES.get(usize::from(at)).copied();
            state.ok_or(DecodeError::Bad {
                what: "state",
                value: u64::from(at),
            })
        })?,
        votes: reader.bool("whether it votes")?,
        leads: reader.bool("whether it leads")?,
        lag: reader.option("lag", |reader| reader.u64("lag"))?,
        heard_ms: reader.option("silence", |reader| reader.u64("silence"))?,
        highest_level: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_and_views_survive_the_wire() {
        let name = || "n4".to_owned();
        let role = Role::Replica;
        for verb in [
            MemberVerb::Add { name: name(), role },
            MemberVerb::Remove { name: name() },
            MemberVerb::Replace {
                old: name(),
                new: "n5".to_owned(),
            },
            MemberVerb::Promote { name: name() },
            MemberVerb::Demote { name: name() },
            MemberVerb::Transfer { to: Some(name()) },
            MemberVerb::Transfer { to: None },
        ] {
            let mut out = BytesMut::new();
            put_verb(&mut out, &verb);
            let whole = out.freeze();
            for len in 0..whole.len() {
                assert!(
                    read_verb(&mut Reader(whole.slice(..len))).is_err(),
                    "{verb:?} {len}"
                );
            }
            assert_eq!(read_verb(&mut Reader(whole)), Ok(verb));
        }
    }

    #[test]
    fn members_survive_the_wire_also_from_an_older_leader() {
        let states = STATES.map(Some).into_iter().chain([None]);
        let view = |state| MemberView {
            name: "n4".to_owned(),
            id: 4,
            addr: "h:4".to_owned(),
            role: Role::Replica,
            state,
            votes: true,
            leads: false,
            lag: Some(7),
            heard_ms: None,
            highest_level: 3,
        };
        let list = MemberList {
            members: states.map(view).collect(),
            left_to_do: Some("n4 joins".to_owned()),
        };
        let mut out = BytesMut::new();
        put_list(&mut out, &list);
        let whole = out.freeze();
        let mut older = BytesMut::new();
        older.put_u32_le(len32(list.members.len()));
        list.members
            .iter()
            .for_each(|view| put_view(&mut older, view));
        for len in 0..whole.len() {
            let read = read_list(&mut Reader(whole.slice(..len)));
            assert_eq!(read.is_ok(), len == older.len(), "{len}");
        }
        assert_eq!(read_list(&mut Reader(whole)), Ok(list));
        let read = read_list(&mut Reader(older.freeze())).unwrap();
        assert_eq!((read.members.len(), read.left_to_do), (4, None));
    }
}
