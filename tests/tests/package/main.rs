//! The Debian package from the cradle to the grave: it is built from the binaries under test, installed into a
//! system that is thrown away, run, upgraded, removed and purged. The unit is judged by systemd's own tools.

#![allow(clippy::unwrap_used, reason = "tests")]

mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Process, binary, skip};
use root::Root;

/// Longer than a start takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The highest exposure that `systemd-analyze security` may find, in tenths. What is left of it is the network
/// that the server exists for, `/proc/meminfo`, and setting limits.
const EXPOSURE: &str = "13";

/// Stands for systemd where none runs: it writes down what it is asked.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$@\" >> /systemctl.log\n";

/// Has the package built: the programs are those under test.
fn build(out: &Path, revision: u32) -> PathBuf {
    let server = binary("memkv_server");
    let mut cargo = Command::new("cargo");
    cargo.args(["xtask", "package", "--compression", "none"]);
    cargo.arg("--programs").arg(server.parent().unwrap());
    cargo.arg("--out").arg(out);
    cargo.args(["--revision", &revision.to_string()]);
    let output = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let end = format!("-{revision}_");
    let built = fs::read_dir(out)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let mut built = built.filter(|path| path.to_string_lossy().contains(&end));
    built.next().expect("a package was built")
}

/// The node as the unit runs it.
fn serve(root: &Root) -> Process {
    let line = "echo $$ > /server.pid && cd /var/lib/memkv && umask 077 && exec setpriv --reuid memkv --regid memkv --clear-groups \
                --no-new-privs memkv_server --config /etc/memkv/memkv.json";
    let mut server = root.start("sh", &["-c", line]);
    server.wait_output("ready in", LIMIT);
    server
}

/// Ends it as the unit would.
fn stop(root: &Root, mut server: Process) {
    root.sh("kill -TERM $(cat /server.pid) && rm /server.pid");
    assert!(server.wait_end(LIMIT).success());
}

/// A digest of the files of a package with their times and owners, but for the change log, which has the revision.
fn digest(package: &Path) -> String {
    let line = "dpkg-deb --fsys-tarfile \"$1\" | tar --delete --wildcards '*/changelog.Debian.gz' | sha256sum";
    let output = Command::new("sh")
        .args(["-c", line, "sh"])
        .arg(package)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, "");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_package_lives_from_its_installation_to_its_purge() {
    let name = "a_package_lives_from_its_installation_to_its_purge";
    let root = match Root::new() {
        Ok(root) => root,
        Err(why) => return skip(name, &why),
    };
    let files = root.files();
    let (first, second) = (build(&files, 1), build(&files, 2));
    assert_eq!(
        digest(&first),
        digest(&second),
        "the same tree gives the same bytes"
    );
    let install = |package: &Path| {
        let name = package.file_name().unwrap().to_string_lossy().into_owned();
        root.sh(&format!("dpkg --install /mnt/{name}"))
    };

    // As in a container, where no systemd runs.
    root.sh("rm -rf /run/systemd/system");
    let said = install(&first);
    assert!(said.contains("systemctl enable --now memkv"), "{said}");
    assert_eq!(
        root.sh("stat -c '%U:%G %a' /var/lib/memkv"),
        "memkv:memkv 700\n"
    );
    assert_eq!(
        root.sh("cd / && md5sum --quiet -c /var/lib/dpkg/info/memkv.md5sums"),
        ""
    );
    check_unit(&root);
    check_manual(&root);
    check_completions(&root);

    let server = serve(&root);
    root.sh("memkv_client set name memkv");
    // What an operator has changed stays, and what runs goes on.
    root.sh("sed -i 's/\"max_log_count\": 6/\"max_log_count\": 7/' /etc/memkv/memkv.json");
    root.sh("mkdir -p /run/systemd/system");
    root.sh(&format!("cat > /usr/local/sbin/systemctl <<'END'\n{SYSTEMCTL}END\nchmod 755 /usr/local/sbin/systemctl"));
    let said = install(&second);
    assert!(said.contains("-1 runs on"), "{said}");
    assert_eq!(root.sh("memkv_client get name"), "memkv\n");
    stop(&root, server);
    let server = serve(&root);
    assert_eq!(root.sh("memkv_client get name"), "memkv\n");
    assert!(
        root.sh("cat /etc/memkv/memkv.json")
            .contains("\"max_log_count\": 7")
    );
    stop(&root, server);

    let asked = root.sh("cat /systemctl.log; rm /systemctl.log");
    assert_eq!(
        asked,
        "--system daemon-reload\n--quiet is-active memkv.service\n"
    );
    root.sh("dpkg --remove memkv");
    assert_eq!(
        root.sh("cat /systemctl.log"),
        "stop memkv.service\n--system daemon-reload\n"
    );
    root.sh("test ! -e /usr/bin/memkv_server && test -e /etc/memkv/memkv.json && test -d /var/lib/memkv/log");
    // What came later, by hand and by `systemctl enable`.
    root.sh("touch /etc/memkv/password; mkdir -p /etc/systemd/system/multi-user.target.wants");
    root.sh("ln -s /lib/systemd/system/memkv.service /etc/systemd/system/multi-user.target.wants/");
    root.sh("dpkg --purge memkv");
    check_no_trace(&root);
}

/// The unit is understood, names what is there, and leaves the process little.
fn check_unit(root: &Root) {
    let unit = "/lib/systemd/system/memkv.service";
    assert_eq!(root.sh(&format!("systemd-analyze verify {unit}")), "");
    // It has looked for the pages that the unit names, and `man` keeps what it has formatted.
    root.sh("rm -f /var/cache/man/cat*/memkv*");
    let (code, said) = root.try_sh(&format!(
        "systemd-analyze security --offline=true --threshold={EXPOSURE} --no-pager {unit}"
    ));
    assert_eq!(code, 0, "{said}");
    // The limit that it counts is enough.
    let server = root.sh(&format!("grep ^ExecStart= {unit}"));
    assert_eq!(
        server.trim(),
        "ExecStart=/usr/bin/memkv_server --config /etc/memkv/memkv.json"
    );
}

/// Every page is found by its name, and the formatter warns of nothing.
fn check_manual(root: &Root) {
    for page in [
        "8 memkv_server",
        "8 memkv_server-doctor",
        "1 memkv_client",
        "1 memkv_client-backup-save",
        "5 memkv.json",
    ] {
        root.sh(&format!("man --where {page}"));
    }
    let pages = "find /usr/share/man -name 'memkv*.gz'";
    let lint = "-exec zcat {} + | groff -mandoc -Tutf8 -ww > /dev/null";
    assert_eq!(root.sh(&format!("{pages} {lint}")), "");
    let count: usize = root.sh(&format!("{pages} | wc -l")).trim().parse().unwrap();
    assert!(count > 20, "{count} pages");
    let page = root.sh("zcat $(man --where 5 memkv.json)");
    assert!(page.contains("election_timeout_ms"), "{page}");
}

/// Each shell that is there takes its completions, and bash offers what begins so.
fn check_completions(root: &Root) {
    let offered = |words: &str, program: &str| {
        let line = format!(
            ". /usr/share/bash-completion/completions/{program}; COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _{program} {program} \"${{COMP_WORDS[COMP_CWORD]}}\" ''; echo ${{COMPREPLY[@]}}"
        );
        let output = root.command("bash").args(["-c", &line]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(offered("memkv_server doc", "memkv_server"), "doctor\n");
    assert_eq!(
        offered("memkv_client backup ver", "memkv_client"),
        "verify\n"
    );
    for (shell, file) in [
        ("zsh", "/usr/share/zsh/vendor-completions/_memkv_client"),
        (
            "fish",
            "/usr/share/fish/vendor_completions.d/memkv_client.fish",
        ),
    ] {
        root.sh(&format!(
            "test -s {file}; if command -v {shell}; then {shell} -n {file}; fi"
        ));
    }
}

/// Of all that the machine has, only dpkg's own notes have changed.
fn check_no_trace(root: &Root) {
    assert_ne!(
        root.try_sh("getent passwd memkv || getent group memkv").0,
        0
    );
    for path in ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"] {
        assert!(root.is_as_outside(path), "{path}");
    }
    // Of this test, of dpkg, and of adduser; `/run` is empty at the next start.
    let expected = [
        "/run/",
        "/systemctl.log",
        "/usr/local/sbin/systemctl",
        "/var/lib/dpkg/",
        "/var/log/dpkg.log",
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/subuid",
        "/etc/subgid",
        "/etc/.pwd.lock",
    ];
    let changed = root.changed();
    let is_left = |path: &&String| {
        !path.ends_with('/') && !expected.iter().any(|known| path.starts_with(known))
    };
    let left: Vec<_> = changed.iter().filter(is_left).collect();
    assert_eq!(left, [""; 0]);
    let named: Vec<_> = changed
        .iter()
        .filter(|path| path.contains("memkv"))
        .collect();
    assert_eq!(named, [""; 0]);
}
