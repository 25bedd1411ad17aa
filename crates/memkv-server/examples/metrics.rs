//! Prints `docs/metrics.md`:
//! `cargo run -p memkv-server --example metrics > docs/metrics.md`.

#![allow(clippy::print_stdout, reason = "it prints a page")]

fn main() {
    print!("{}", memkv_server::metrics_page());
}
