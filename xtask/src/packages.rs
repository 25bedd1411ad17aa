//! Programs that the tests call and that are not built here. Installs what is missing where it
//! may; otherwise says what to install.

use std::process::Command;

use crate::cargo::run;

/// Program and the Debian package that holds it.
const NEEDED: &[(&str, &str)] = &[("curl", "curl"), ("strace", "strace"), ("ip", "iproute2")];

/// Makes sure that every program in [`NEEDED`] can be run.
pub(crate) fn ensure() -> Result<(), String> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !exists(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --yes {}", missing.join(" "));
    if !is_root() {
        return Err(format!(
            "the tests need programs that are missing; run: sudo {install}"
        ));
    }
    println!("installing what the tests need: {install}");
    run(Command::new("apt-get").arg("update"))?;
    run(Command::new("apt-get")
        .args(["install", "--yes"])
        .args(&missing))
}

fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
