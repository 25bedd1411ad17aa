//! `LATENCY`: how long commands take, when something took long, and what to do about it. The shapes are Redis's.

use std::fmt::Write;

use super::spec::flag::{READONLY, WRITE};
use super::{Call, ErrorReply, Spec, find};
use crate::report::{Findings, Kind, Sample, Seen, advice};

/// Samples of a graph: as many columns fit on a screen beside nothing else.
const COLUMNS: usize = 80;

/// Height of a graph.
const ROWS: u64 = 4;

pub(super) fn histogram(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let (args, calls) = (call.args, &call.server.calls);
    let was_called = |seen: &Seen| seen.took.total > 0;
    let seen: Vec<Seen> = match args.len() {
        2 => calls.seen().filter(was_called).collect(),
        _ => {
            let asked = (2..args.len()).filter_map(|at| find(args.get(at)));
            // A container stands for its subcommands, as in Redis.
            let each = |spec: &'static Spec| std::iter::once(spec).chain(spec.subcommands());
            let each = asked.take(MAX_NAMES).flat_map(each);
            each.filter_map(|spec| calls.of(spec))
                .filter(was_called)
                .collect()
        }
    };
    let mut reply = call.reply();
    reply.map(seen.len());
    for seen in seen {
        reply.bulk(seen.spec.name.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(seen.took.total.cast_signed());
        reply.bulk(b"histogram_usec");
        let doublings = seen.took.doublings();
        reply.map(doublings.len());
        for (nanos, count) in doublings {
            // Redis tells the largest value that its histogram does not tell apart from the bound.
            let micros = (nanos + nanos / 128 - 1) / 1_000;
            reply.integer(micros.cast_signed());
            reply.integer(count.cast_signed());
        }
    }
    Ok(())
}

/// Most commands that one call is answered for: more than there are.
const MAX_NAMES: usize = 512;

pub(super) fn latest(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let spikes = &call.server.spikes;
    let each = Kind::ALL.into_iter().filter_map(|kind| {
        let (samples, longest) = spikes.of(kind);
        Some((kind, *samples.last()?, longest))
    });
    let each: Vec<(Kind, Sample, u64)> = each.collect();
    let mut reply = call.reply();
    reply.array(each.len());
    for (kind, last, longest) in each {
        reply.array(4);
        reply.bulk(kind.name().as_bytes());
        for number in [last.at, last.ms, longest] {
            reply.integer(number.cast_signed());
        }
    }
    Ok(())
}

pub(super) fn history(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let kind = Kind::named(call.args.get(2));
    let samples = kind.map_or_else(Vec::new, |kind| call.server.spikes.of(kind).0);
    let mut reply = call.reply();
    reply.array(samples.len());
    for sample in samples {
        reply.array(2);
        reply.integer(sample.at.cast_signed());
        reply.integer(sample.ms.cast_signed());
    }
    Ok(())
}

pub(super) fn reset(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let (args, spikes) = (call.args, &call.server.spikes);
    let is_meant = |kind: &Kind| {
        let named = |at: usize| args.get(at) == kind.name().as_bytes();
        args.len() == 2 || (2..args.len()).any(named)
    };
    let meant = Kind::ALL.into_iter().filter(is_meant);
    let reset = meant.filter(|kind| spikes.reset(*kind)).count();
    call.reply()
        .integer(i64::try_from(reset).unwrap_or(i64::MAX));
    Ok(())
}

pub(super) fn graph(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let name = call.args.get(2);
    let found = Kind::named(name).map(|kind| (kind, call.server.spikes.of(kind)));
    let Some((kind, (samples, longest))) = found.filter(|(_, (samples, _))| !samples.is_empty())
    else {
        let text = b"ERR No samples available for event '";
        return Err(ErrorReply::with([text, name, b"'"].concat()));
    };
    let text = draw(kind.name(), &samples, longest, crate::resp::unix_seconds());
    call.reply().verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// A column for each of the last samples, and below it how long ago it was.
fn draw(name: &str, samples: &[Sample], longest: u64, now: u64) -> String {
    let samples = &samples[samples.len().saturating_sub(COLUMNS)..];
    let high = samples.iter().map(|sample| sample.ms).max().unwrap_or(0);
    let low = samples.iter().map(|sample| sample.ms).min().unwrap_or(0);
    let mut text = format!("{name}: {low} to {high} ms, the longest of all {longest} ms\n\n");
    for row in (0..ROWS).rev() {
        let bar = |sample: &Sample| {
            let is_high = sample.ms.saturating_mul(ROWS) > row.saturating_mul(high);
            if is_high { '#' } else { ' ' }
        };
        let line: String = samples.iter().map(bar).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let ago = samples
        .iter()
        .map(|sample| ago(now.saturating_sub(sample.at)));
    let ago: Vec<String> = ago.collect();
    let height = ago.iter().map(String::len).max().unwrap_or(0);
    for row in 0..height {
        let letter = |ago: &String| ago.chars().nth(row).unwrap_or(' ');
        let line: String = ago.iter().map(letter).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(super) fn doctor(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let server = call.server;
    let node = server.introspect().ok_or_else(ErrorReply::loading)?;
    let stats = server.measured().ok_or_else(ErrorReply::loading)?;
    let text = advice(&Findings {
        status: &node.status,
        stats: &stats,
        writes: server.calls.took_with(WRITE),
        reads: server.calls.took_with(READONLY),
        calls: server.calls.seen().collect(),
        spikes: &server.spikes,
        slow: (server.slow_log.len(), server.slow_log.least_micros()),
    });
    call.reply().verbatim(b"txt", text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_shows_the_samples_as_columns() {
        let sample = |at, ms| Sample { at, ms };
        let samples = [sample(900, 100), sample(990, 200), sample(999, 400)];
        let text = draw("fsync", &samples, 500, 1_000);
        let expected =
            "fsync: 100 to 400 ms, the longest of all 500 ms\n\n  #\n  #\n ##\n###\n111\nm0s\n s\n";
        assert_eq!(text, expected);
        let many: Vec<Sample> = (0..160).map(|at| sample(at, 7)).collect();
        let text = draw("command", &many, 7, 200_000);
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
    }
}
