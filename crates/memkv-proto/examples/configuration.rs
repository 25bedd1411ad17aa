//! Prints `docs/configuration.md`:
//! `cargo run -p memkv-proto --example configuration > docs/configuration.md`.

#![allow(clippy::print_stdout, reason = "it prints a page")]

fn main() {
    print!("{}", memkv_proto::config::page());
}
