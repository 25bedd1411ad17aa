//! `COMMAND` and `... HELP`: the table, as clients ask for it.

use memkv_resp::ReplyWriter;

use super::hints::{NOT_KEYS, Use, key_uses, key_uses_of, tips};
use super::spec::{commands, find, flag};
use super::{Call, ErrorReply, Spec};
use crate::resp::Out;

type Reply<'a> = ReplyWriter<'a, Out>;

pub(super) fn all(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let all: Vec<_> = commands().map(Some).collect();
    describe_all(&mut call.reply(), &all);
    Ok(())
}

pub(super) fn count(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let count = commands().count();
    call.reply()
        .integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

pub(super) fn info(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let asked: Vec<_> = if args.len() == 2 {
        commands().map(Some).collect()
    } else {
        (2..args.len()).map(|at| find(args.get(at))).collect()
    };
    describe_all(&mut call.reply(), &asked);
    Ok(())
}

fn describe_all(reply: &mut Reply<'_>, asked: &[Option<&Spec>]) {
    reply.array(asked.len());
    for spec in asked {
        match spec {
            Some(spec) => describe(reply, spec),
            None => reply.null(),
        }
    }
}

/// The ten elements of `COMMAND INFO`.
fn describe(reply: &mut Reply<'_>, spec: &Spec) {
    let subcommands: Vec<_> = spec.subcommands().collect();
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.integer(spec.arity.into());
    words(reply, &spec.flag_names().collect::<Vec<_>>());
    for position in [spec.keys.first, spec.keys.last, spec.keys.step] {
        reply.integer(position.into());
    }
    words(reply, &spec.categories());
    let tips = tips(spec);
    reply.set(tips.len());
    tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    key_specs(reply, spec);
    // Subcommands have none, so this goes one level deep.
    reply.set(subcommands.len());
    subcommands.iter().for_each(|sub| describe(reply, sub));
}

fn words(reply: &mut Reply<'_>, words: &[&str]) {
    reply.set(words.len());
    words.iter().for_each(|word| reply.simple(word.as_bytes()));
}

fn key_specs(reply: &mut Reply<'_>, spec: &Spec) {
    let (keys, uses) = (spec.keys, key_uses(spec));
    reply.set(uses.len());
    for (first, of_key) in (keys.first..).zip(uses) {
        reply.map(3);
        reply.bulk(b"flags");
        words(reply, of_key);
        reply.bulk(b"begin_search");
        if spec.has(flag::MOVABLEKEYS) {
            // Behind the script comes the number of keys.
            nested(reply, "index", &[("index", 2)]);
            reply.bulk(b"find_keys");
            let fields = [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)];
            nested(reply, "keynum", &fields);
            continue;
        }
        nested(reply, "index", &[("index", first)]);
        reply.bulk(b"find_keys");
        // Counted from the first key, unless it is counted from the end.
        let last = match uses.len() {
            1 if keys.last < 0 => keys.last,
            1 => keys.last - keys.first,
            _ => 0,
        };
        let range = [("lastkey", last), ("keystep", keys.step), ("limit", 0)];
        nested(reply, "range", &range);
    }
}

fn nested(reply: &mut Reply<'_>, kind: &str, values: &[(&str, i32)]) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(values.len());
    for (name, value) in values {
        reply.bulk(name.as_bytes());
        reply.integer((*value).into());
    }
}

pub(super) fn docs(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let asked: Vec<_> = if args.len() == 2 {
        commands().collect()
    } else {
        (2..args.len())
            .filter_map(|at| find(args.get(at)))
            .collect()
    };
    explain_all(&mut call.reply(), &asked);
    Ok(())
}

fn explain_all(reply: &mut Reply<'_>, asked: &[&Spec]) {
    reply.map(asked.len());
    for spec in asked {
        let subcommands: Vec<_> = spec.subcommands().collect();
        reply.bulk(spec.name.as_bytes());
        reply.map(4 + usize::from(!subcommands.is_empty()));
        for (name, value) in [
            ("summary", spec.summary),
            ("since", spec.since),
            ("group", spec.group.name()),
            ("complexity", spec.complexity),
        ] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        if !subcommands.is_empty() {
            reply.bulk(b"subcommands");
            explain_all(reply, &subcommands);
        }
    }
}

pub(super) fn list(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let mut specs: Vec<_> = commands().collect();
    match args.len() {
        2 => {}
        5 if args.is(2, "FILTERBY") => {
            let value = args.get(4);
            match &args.word(3)[..] {
                b"MODULE" => specs.clear(),
                b"ACLCAT" => specs.retain(|spec| {
                    let is = |category: &&str| category.as_bytes()[1..].eq_ignore_ascii_case(value);
                    spec.categories().iter().any(is)
                }),
                b"PATTERN" => {
                    let pattern = args.pattern(4)?;
                    specs.retain(|spec| pattern.matches_any_case(spec.name.as_bytes()));
                }
                _ => return Err(ErrorReply::SYNTAX),
            }
        }
        _ => return Err(ErrorReply::SYNTAX),
    }
    let mut reply = call.reply();
    reply.array(specs.len());
    specs
        .iter()
        .for_each(|spec| reply.bulk(spec.name.as_bytes()));
    Ok(())
}

pub(super) fn getkeys(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let (_, keys) = keys_of(call)?;
    let args = call.args;
    let mut reply = call.reply();
    reply.array(keys.len());
    keys.iter().for_each(|at| reply.bulk(args.get(*at)));
    Ok(())
}

pub(super) fn getkeysandflags(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let (spec, keys) = keys_of(call)?;
    let args = call.args;
    let words_of: Vec<&[u8]> = (BEFORE + 3..args.len()).map(|at| args.get(at)).collect();
    let uses: &[Use] = key_uses_of(spec, &words_of);
    let mut reply = call.reply();
    reply.array(keys.len());
    for (index, at) in keys.into_iter().enumerate() {
        reply.array(2);
        reply.bulk(args.get(at));
        // Behind the last entry follow keys like it.
        let of_key = uses.get(index).or(uses.last());
        words(&mut reply, of_key.copied().unwrap_or_default());
    }
    Ok(())
}

/// Arguments before the command that is quoted.
const BEFORE: usize = 2;

/// Where, in the arguments of this call, the keys of the command line are that it quotes.
fn keys_of(call: &Call<'_>) -> Result<(&'static Spec, Vec<usize>), ErrorReply> {
    let args = call.args;
    let no_keys = || ErrorReply::new("ERR The command has no key arguments");
    let mut spec = find(args.get(BEFORE)).filter(|spec| !spec.is_subcommand());
    if spec.is_some_and(|spec| spec.subcommands().next().is_some()) {
        spec = find(&[args.get(BEFORE), b"|", args.get(BEFORE + 1)].concat());
    }
    let spec = spec.ok_or(ErrorReply::new("ERR Invalid command specified"))?;
    let count = args.len() - BEFORE;
    let keys = if spec.has(flag::MOVABLEKEYS) {
        super::script::key_positions(args.get(BEFORE + 2), count)
    } else if spec.keys.first == 0 || key_uses(spec).contains(&NOT_KEYS) {
        return Err(no_keys());
    } else {
        spec.key_positions(count)
    };
    if !spec.fits(count) {
        let text = "ERR Invalid number of arguments specified for command";
        return Err(ErrorReply::new(text));
    }
    if keys.is_empty() && !spec.has(flag::NO_MANDATORY_KEYS) {
        return Err(no_keys());
    }
    Ok((spec, keys.into_iter().map(|at| at + BEFORE).collect()))
}

/// `<container> HELP`, from the table.
pub(super) fn help(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let container = call.args.name.split('|').next().unwrap_or_default();
    let Some(spec) = find(container.as_bytes()) else {
        return Err(ErrorReply::SYNTAX);
    };
    let upper = container.to_uppercase();
    let mut lines = vec![format!(
        "{upper} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    )];
    for sub in spec.subcommands() {
        let name = sub.name.rsplit('|').next().unwrap_or_default();
        lines.push(name.to_uppercase());
        lines.push(format!("    {}", sub.summary));
    }
    let mut reply = call.reply();
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line.as_bytes()));
    Ok(())
}
