//! What a call is judged by: the keys and channels that it names, what the store says that it touches, and
//! the commands that a script calls. Never decides itself; `crate::rights` does.

use bytes::Bytes;
use memkv_store::{Access, Touch, Touched};

use super::hints::{NOT_KEYS, key_uses, key_uses_of};
use super::script;
use super::spec::{Judged, Spec, find, flag};
use super::{Args, Op};
use crate::rights::{Attempt, Denied, Rules, decide};

/// Whether rules allow a call. `op` is what the store would execute; without it, the keys that the call
/// names count.
///
/// # Errors
/// What is not allowed.
pub(crate) fn judge(
    rules: &Rules,
    spec: &'static Spec,
    args: &Args<'_>,
    op: Option<&Op>,
) -> Result<(), Denied> {
    let channels = channels(spec, args);
    let asked = Attempt {
        spec,
        first: args.request.arg(1 + usize::from(spec.is_subcommand())),
        channels: &channels,
        are_patterns: spec.judged == Judged::Patterns,
    };
    let named = named_keys(spec, args);
    by_keys(rules, &asked, args, &named)?;
    // What happens to the keys that it names is Redis's word. Whatever else is touched is judged too.
    let access = |touch: Touch<'_>| match named.is_empty() {
        true => touch.access,
        false => Access::METADATA,
    };
    match (spec.judged, op) {
        (Judged::Touches, Some(Op::Write(command, _))) => decide(rules, &asked, &|visit| {
            command.touches(&mut |touch| {
                visit(Touch {
                    access: access(touch),
                    ..touch
                });
            });
        }),
        (Judged::Touches, Some(Op::Read(query, _))) => decide(rules, &asked, &|visit| {
            query.touches(&mut |touch| {
                visit(Touch {
                    access: access(touch),
                    ..touch
                });
            });
        }),
        (Judged::Script, _) => {
            for name in script::calls(args) {
                let called = find(name.as_bytes()).ok_or(Denied::Command(name))?;
                let access = access_of(key_uses(called).first().copied().unwrap_or_default());
                let keys = named_keys(spec, args)
                    .into_iter()
                    .map(|(at, _)| (at, access));
                let keys: Vec<_> = keys.collect();
                by_keys(rules, &Attempt::command(called), args, &keys)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether rules allow a command at all, whatever its keys are.
pub(crate) fn judge_name(
    rules: &Rules,
    spec: &'static Spec,
    first: Option<&[u8]>,
) -> Result<(), Denied> {
    let asked = Attempt {
        first,
        ..Attempt::command(spec)
    };
    decide(rules, &asked, &|_| {})
}

fn by_keys(
    rules: &Rules,
    asked: &Attempt<'_>,
    args: &Args<'_>,
    keys: &[(usize, Access)],
) -> Result<(), Denied> {
    let keys = keys.iter().map(|(at, access)| (args.bytes(*at), *access));
    let keys: Vec<(Bytes, Access)> = keys.collect();
    decide(rules, asked, &|visit| {
        for (key, access) in &keys {
            visit(Touch {
                what: Touched::Key {
                    database: args.db,
                    key,
                },
                access: *access,
            });
        }
    })
}

/// The keys that a call names, by place, and what happens to each.
fn named_keys(spec: &'static Spec, args: &Args<'_>) -> Vec<(usize, Access)> {
    let positions = if spec.has(flag::MOVABLEKEYS) {
        script::key_positions(args.get(2), args.len())
    } else if spec.keys.first == 0 || key_uses(spec).contains(&NOT_KEYS) {
        Vec::new()
    } else {
        spec.key_positions(args.len())
    };
    let words: Vec<&[u8]> = (3..args.len()).map(|at| args.get(at)).collect();
    let uses = key_uses_of(spec, &words);
    let of_key = |index: usize| uses.get(index).or(uses.last()).copied().unwrap_or_default();
    let keys = positions.into_iter().enumerate();
    keys.map(|(index, at)| (at, access_of(of_key(index))))
        .collect()
}

/// The words of a key specification.
fn access_of(words: &[&str]) -> Access {
    let kinds = [
        ("access", Access::READ),
        ("insert", Access::INSERT),
        ("update", Access::UPDATE),
        ("delete", Access::DELETE),
    ];
    let named = kinds.into_iter().filter(|(word, _)| words.contains(word));
    named.fold(Access::METADATA, |all, (_, kind)| all.and(kind))
}

/// The channels that a call names.
fn channels(spec: &Spec, args: &Args<'_>) -> Vec<Bytes> {
    match spec.judged {
        Judged::Channels | Judged::Patterns => args.bytes_from(1),
        Judged::Channel => vec![args.bytes(1)],
        Judged::Touches | Judged::Nothing | Judged::Keys | Judged::Script => Vec::new(),
    }
}
