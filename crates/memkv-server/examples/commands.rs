//! Prints `docs/commands.md`:
//! `cargo run -p memkv-server --example commands > docs/commands.md`.

#![allow(clippy::print_stdout, reason = "it prints a page")]

fn main() {
    print!("{}", memkv_server::commands_page());
}
