//! `cargo xtask crash`, `differential`, `failover`, `nemesis`, `security`, `interop`: one test of `tests/` alone,
//! against release binaries, longer than `cargo xtask test` runs it or with the same choices again.

use crate::{cargo, packages};

/// A test that runs alone.
struct Alone {
    name: &'static str,
    /// Its files below `tests/tests/`.
    files: &'static [&'static str],
    /// The only function of the file that runs; all of them if it is empty.
    only: &'static str,
    /// Each flag, the variable that it sets, and the value without the flag.
    flags: &'static [(&'static str, &'static str, Option<&'static str>)],
}

const TESTS: &[Alone] = &[
    Alone {
        name: "crash",
        files: &["crash"],
        only: "",
        flags: &[
            ("--rounds", "MEMKV_CRASH_ROUNDS", Some("200")),
            ("--seed", "MEMKV_CRASH_SEED", None),
        ],
    },
    Alone {
        name: "differential",
        files: &["differential"],
        only: "memkv_answers_as_redis_does",
        flags: &[
            ("--commands", "MEMKV_DIFFERENTIAL_COMMANDS", Some("1000000")),
            ("--seed", "MEMKV_DIFFERENTIAL_SEED", None),
        ],
    },
    Alone {
        name: "failover",
        files: &["failover"],
        only: "",
        flags: &[
            ("--rounds", "MEMKV_FAILOVER_ROUNDS", Some("100")),
            ("--seed", "MEMKV_FAILOVER_SEED", None),
        ],
    },
    Alone {
        name: "nemesis",
        files: &["nemesis"],
        only: "",
        flags: &[
            ("--rounds", "MEMKV_NEMESIS_ROUNDS", Some("30")),
            ("--seed", "MEMKV_NEMESIS_SEED", None),
        ],
    },
    Alone {
        name: "security",
        files: &["security"],
        only: "",
        flags: &[
            ("--times", "MEMKV_SECURITY_TIMES", Some("2")),
            ("--back-within", "MEMKV_SECURITY_BACK_WITHIN_S", Some("10")),
            ("--threads", "RUST_TEST_THREADS", Some("1")),
        ],
    },
    Alone {
        name: "interop",
        files: &["interop", "interop_crates", "interop_tls"],
        only: "",
        flags: &[],
    },
];

/// Whether a command of this name is one of these tests.
pub(crate) fn knows(name: &str) -> bool {
    TESTS.iter().any(|test| test.name == name)
}

/// Runs the test of that name.
pub(crate) fn run(name: &str, arguments: &[String]) -> Result<(), String> {
    let alone = TESTS
        .iter()
        .find(|test| test.name == name)
        .ok_or_else(|| format!("no test `{name}` runs alone"))?;
    let settings = alone.settings(arguments)?;
    packages::ensure()?;
    let binaries = cargo::release_binaries()?;
    let mut test = cargo::cargo(["test", "--locked", "-p", "memkv-black-box"]);
    for file in alone.files {
        test.args(["--test", file]);
    }
    test.args(["--", "--nocapture"]);
    if !alone.only.is_empty() {
        test.args(["--exact", alone.only]);
    }
    test.env("MEMKV_BIN_DIR", binaries);
    test.env("MEMKV_INTEROP_DIR", packages::interop_dir());
    cargo::run(test.envs(settings))
}

impl Alone {
    /// The variables that the flags set.
    fn settings(&self, arguments: &[String]) -> Result<Vec<(&'static str, String)>, String> {
        let defaults = self.flags.iter();
        let mut settings: Vec<(&str, String)> = defaults
            .filter_map(|(_, variable, value)| Some((*variable, (*value)?.to_owned())))
            .collect();
        for pair in arguments.chunks(2) {
            let flag = self.flags.iter().find(|(flag, ..)| *flag == pair[0]);
            let (Some((_, variable, _)), Some(value)) = (flag, pair.get(1)) else {
                let flags: Vec<String> = self
                    .flags
                    .iter()
                    .map(|(flag, ..)| format!(" [{flag} N]"))
                    .collect();
                return Err(format!(
                    "usage: cargo xtask {}{}",
                    self.name,
                    flags.concat()
                ));
            };
            value
                .parse::<u64>()
                .map_err(|_| format!("{} wants a number, not `{value}`", pair[0]))?;
            // The last one wins in a child's environment.
            settings.push((variable, value.clone()));
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::TESTS;

    fn settings(name: &str, arguments: &[&str]) -> Option<Vec<(&'static str, String)>> {
        let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
        let test = TESTS.iter().find(|test| test.name == name)?;
        test.settings(&arguments).ok()
    }

    #[test]
    fn flags_become_variables() {
        let of = |text: &str| text.to_owned();
        let rounds = ("MEMKV_CRASH_ROUNDS", of("200"));
        assert_eq!(settings("crash", &[]), Some(vec![rounds.clone()]));
        let three = ("MEMKV_CRASH_ROUNDS", of("3"));
        assert_eq!(
            settings("crash", &["--rounds", "3"]),
            Some(vec![rounds, three])
        );
        for wrong in [&["--rounds"][..], &["--rounds", "x"], &["--what", "3"]] {
            assert_eq!(settings("crash", wrong), None);
        }
    }
}
