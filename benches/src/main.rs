//! `memkv-hot-path`: lists the pieces, or executes one some number of times; what `cargo xtask
//! instructions` runs under callgrind. It measures nothing itself.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::process::ExitCode;

use memkv_hot_path::pieces;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => {
            pieces().for_each(|piece| println!("{} {}", piece.name, piece.operations));
            ExitCode::SUCCESS
        }
        ["run", name, times] => run(name, times),
        _ => {
            eprintln!("usage: memkv-hot-path list | run NAME TIMES");
            ExitCode::from(2)
        }
    }
}

fn run(name: &str, times: &str) -> ExitCode {
    let (Some(piece), Ok(times)) = (
        pieces().find(|piece| piece.name == name),
        times.parse::<u64>(),
    ) else {
        eprintln!(
            "there is no piece `{name}`, or `{times}` is no number; see `memkv-hot-path list`"
        );
        return ExitCode::from(2);
    };
    let mut run = (piece.prepare)();
    (0..times).for_each(|_| run());
    ExitCode::SUCCESS
}
