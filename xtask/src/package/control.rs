//! The part of a Debian package that dpkg reads: its description, scripts, and the sums of its files.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{copy, failed, files, said};
use crate::cargo::root;

/// A package whose files lie in a tree.
pub(super) struct Package<'a> {
    pub(super) version: &'a str,
    /// As dpkg names it.
    pub(super) architecture: &'a str,
    pub(super) tree: &'a Path,
}

impl Package<'_> {
    pub(super) fn file_name(&self) -> String {
        format!("memkv_{}_{}.deb", self.version, self.architecture)
    }

    /// Writes the directory `DEBIAN` for the files that are in the tree.
    pub(super) fn write(&self, conffiles: &str, scripts: &[&str]) -> Result<(), String> {
        let mut paths = Vec::new();
        files(self.tree, &mut paths)?;
        let (mut names, mut bytes) = (Vec::new(), 0);
        let mut libc = Version::default();
        for path in &paths {
            let name = path.strip_prefix(self.tree).unwrap_or(path);
            let content = fs::read(path).map_err(failed(path))?;
            bytes += content.len();
            if name.starts_with("usr/bin") {
                libc = libc.max(newest_libc(&content));
            }
            names.push(name);
        }
        let mut sums = Command::new("md5sum");
        let sums = said(sums.args(names).current_dir(self.tree))? + "\n";
        let source = root().join("contrib/debian");
        let dir = self.tree.join("DEBIAN");
        for script in scripts {
            copy(&source.join(script), &dir.join(script))?;
        }
        let control = source.join("control");
        let control = fs::read_to_string(&control).map_err(failed(&control))?;
        let control = control
            .replace("@VERSION@", self.version)
            .replace("@ARCHITECTURE@", self.architecture)
            .replace("@SIZE@", &bytes.div_ceil(1024).to_string())
            .replace("@LIBC@", &format!("{}.{}", libc.0, libc.1));
        for (name, text) in [
            ("control", control.as_str()),
            ("conffiles", conffiles),
            ("md5sums", &sums),
        ] {
            fs::write(dir.join(name), text).map_err(failed(&dir))?;
        }
        Ok(())
    }
}

/// A version of the C library: 2.36.
type Version = (u32, u32);

/// The newest version of the C library that a program asks for: it names each symbol's, as `GLIBC_2.34`.
fn newest_libc(program: &[u8]) -> Version {
    const MARK: &[u8] = b"GLIBC_";
    let marks = program.windows(MARK.len()).enumerate();
    let ends = marks
        .filter(|(_, window)| *window == MARK)
        .map(|(at, _)| at + MARK.len());
    let version = |at: usize| -> Option<Version> {
        let text = program.get(at..)?;
        let is_part = |byte: &&u8| byte.is_ascii_digit() || **byte == b'.';
        let text: Vec<u8> = text.iter().take_while(is_part).copied().collect();
        let text = String::from_utf8(text).ok()?;
        let (major, rest) = text.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    ends.filter_map(version).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::newest_libc;

    #[test]
    fn the_newest_version_counts_as_numbers() {
        let program = b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0GLIBC_";
        assert_eq!(newest_libc(program), (2, 34));
        assert_eq!(newest_libc(b"static"), (0, 0));
    }
}
