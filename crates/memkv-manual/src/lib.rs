//! Man pages and shell completions of a program, from the definition of its command line, in the directories
//! where Debian's packages have them. For the package only: no program that is shipped links this crate.
//!
//! Invariant: everything that a page or a completion names is in the definition, since nothing else is read.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

/// The directory of man pages; each section has one below it.
const MAN: &str = "usr/share/man";

/// Shells, and where the completions that a package brings are.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "usr/share/bash-completion/completions"),
    (Shell::Zsh, "usr/share/zsh/vendor-completions"),
    (Shell::Fish, "usr/share/fish/vendor_completions.d"),
];

/// Writes below `root` the page of a program in this section of the manual, one for each of its commands, and
/// its completions. `see_also` names other pages, such as `memkv.json(5)`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(command: &Command, section: &str, see_also: &str, root: &Path) -> io::Result<()> {
    let source = source(command);
    for (name, command) in commands(command.get_name(), command) {
        let man = Man::new(command).section(section).source(&source);
        let mut bytes = Vec::new();
        man.render(&mut bytes)?;
        let mut end = Roff::new();
        end.control("SH", ["SEE ALSO"]);
        end.text([roman(see_also)]);
        end.to_writer(&mut bytes)?;
        page(root, &name, section, &bytes)?;
    }
    for (shell, dir) in SHELLS {
        let dir = root.join(dir);
        fs::create_dir_all(&dir)?;
        let name = match shell {
            // The name by which bash-completion looks for it.
            Shell::Bash => command.get_name().to_owned(),
            _ => clap_complete::Generator::file_name(&shell, command.get_name()),
        };
        let mut file = File::create(dir.join(name))?;
        clap_complete::generate(shell, &mut command.clone(), command.get_name(), &mut file);
    }
    Ok(())
}

/// Writes below `root` the page of a file: what it is, and each of its settings with an explanation.
///
/// # Errors
/// If it cannot be written.
pub fn write_file_page(
    command: &Command,
    (name, about): (&str, &str),
    text: &str,
    settings: impl IntoIterator<Item = (String, String)>,
    root: &Path,
) -> io::Result<()> {
    let section = "5";
    let mut roff = Roff::new();
    roff.control("TH", [name, section, "", &source(command)]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {about}"))]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(text)]);
    roff.control("SH", ["SETTINGS"]);
    for (setting, meaning) in settings {
        roff.control("TP", []);
        roff.text([bold(setting)]);
        roff.text([roman(meaning)]);
    }
    page(root, name, section, roff.to_roff().as_bytes())
}

/// The program and its version, as the foot of a page has it.
fn source(command: &Command) -> String {
    let version = command.get_version().unwrap_or_default();
    format!("memkv {version}")
}

fn page(root: &Path, name: &str, section: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = root.join(MAN).join(format!("man{section}"));
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(format!("{name}.{section}")), bytes)
}

/// A program and all commands below it that are not hidden, each with the name of its page. What every command
/// takes is on the program's page only.
fn commands(name: &str, command: &Command) -> Vec<(String, Command)> {
    let own = command
        .clone()
        .display_name(name.to_owned())
        .bin_name(name.replace('-', " "))
        .disable_help_subcommand(true);
    let mut all = vec![(name.to_owned(), own)];
    for below in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        let everywhere = command.get_arguments().filter(|arg| arg.is_global_set());
        // Hidden and not left out: a command's own arguments may refer to them.
        let hidden = everywhere.map(|arg| arg.clone().hide(true));
        let name = format!("{name}-{}", below.get_name());
        all.extend(commands(&name, &below.clone().args(hidden)));
    }
    all
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn program() -> Command {
        let everywhere = Arg::new("everywhere").long("everywhere").global(true);
        let own = Arg::new("own").conflicts_with("everywhere");
        let deep = Command::new("deep").about("Does it").arg(own);
        Command::new("prog")
            .version("1.2")
            .about("A program")
            .arg(everywhere.help("Said once"))
            .subcommand(Command::new("one").about("Does one").subcommand(deep))
            .subcommand(Command::new("secret").hide(true))
    }

    #[test]
    fn each_command_has_a_page_and_each_shell_its_file() {
        let dir = tempfile::tempdir().unwrap();
        write(&program(), "8", "other(5)", dir.path()).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        let page = read("usr/share/man/man8/prog.8");
        for part in [
            "everywhere",
            "Said once",
            "prog\\-one(8)",
            "other(5)",
            "memkv 1.2",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let deep = read("usr/share/man/man8/prog-one-deep.8");
        assert!(
            deep.contains("Does it") && !deep.contains("everywhere"),
            "{deep}"
        );
        let pages = fs::read_dir(dir.path().join("usr/share/man/man8")).unwrap();
        assert_eq!(pages.count(), 3);
        for path in [
            "usr/share/bash-completion/completions/prog",
            "usr/share/zsh/vendor-completions/_prog",
            "usr/share/fish/vendor_completions.d/prog.fish",
        ] {
            assert!(read(path).contains("everywhere"), "{path}");
        }
    }

    #[test]
    fn text_of_a_setting_is_no_request_of_the_formatter() {
        let dir = tempfile::tempdir().unwrap();
        let setting = ("key".to_owned(), ".SH \\ it's\n'tis".to_owned());
        write_file_page(&program(), ("f", "a file"), "It is.", [setting], dir.path()).unwrap();
        let page = fs::read_to_string(dir.path().join("usr/share/man/man5/f.5")).unwrap();
        let requests = page.lines().filter(|line| line.starts_with(".SH"));
        assert_eq!(requests.count(), 3, "{page}");
        assert!(page.contains("\\\\ it"), "{page}");
    }
}
