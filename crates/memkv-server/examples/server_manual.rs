//! Writes the man pages and completions of `memkv_server`, and the page of its configuration file, below a
//! directory: `cargo xtask package` calls it.

use std::path::PathBuf;

use memkv_manual::{write, write_file_page};
use memkv_proto::config::KEYS;

fn main() -> std::io::Result<()> {
    let root = std::env::args_os().nth(1).map(PathBuf::from);
    let root = root.ok_or_else(|| std::io::Error::other("usage: server_manual DIRECTORY"))?;
    let command = memkv_server::args::command();
    write(&command, "8", "memkv.json(5), memkv_client(1)", &root)?;
    let settings = KEYS.iter().map(|key| {
        let default = match key.default {
            "" => "none",
            default => default,
        };
        let meaning = format!("{} It is {}; default: {default}.", key.doc, key.expects());
        (key.name.to_owned(), meaning)
    });
    let text = "The configuration of a memkv node: a JSON object. memkv_server reads the file that --config \
                names. Each setting is also a variable, MEMKV_ and its name in upper case, and a flag, its name \
                with dashes. A flag wins over a variable, a variable over the file. An unknown setting is an \
                error that names the line and the nearest setting.";
    let name = ("memkv.json", "configuration of memkv_server");
    write_file_page(&command, name, text, settings, &root)
}
