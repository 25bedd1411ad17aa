//! What each command is, after Redis's documentation: a call, and its categories. Written by hand, and never
//! derived from the table of commands: the two must agree.
//!
//! A word `a1:rw` is a key that is read and written; `a1:-` one of which no data is shown. `news:c` is a channel
//! and `news*:p` a pattern of channels. Categories, by letter: `r`ead, `w`rite, `a`dmin, `d`angerous,
//! `c`onnection, `t`ransaction, `p`ubsub, `s`cripting. `!` is allowed to every user, `x` to none.

use std::sync::LazyLock;

const STATEMENT: &str = "
    get a1:r                        | r
    get b1:r                        | r
    set a1:w v                      | w
    set b1:w v                      | w
    set a1:rw v GET                 | w
    set a1:rw v IFEQ v              | w
    setnx a1:w v                    | w
    setex a1:w 900 v                | w
    psetex a1:w 900000 v            | w
    getset a1:rw v                  | w
    getdel a2:rw                    | w
    getex a1:rw                     | w
    mget a1:r a2:r                  | r
    mget a1:r b1:r                  | r
    mset a1:w v a2:w v              | w
    mset a1:w v b1:w v              | w
    msetnx a1:w v a2:w v            | w
    append a1:w v                   | w
    strlen a1:-                     | r
    getrange a1:r 0 1               | r
    substr a1:r 0 1                 | r
    setrange a1:w 0 v               | w
    incr a3:rw                      | w
    decr a3:rw                      | w
    incrby a3:rw 1                  | w
    decrby a3:rw 1                  | w
    incrbyfloat a3:rw 1             | w
    delifeq a2:rw v                 | w
    delex a2:rw                     | w
    del a2:w                        | w
    del a2:w b2:w                   | w
    unlink a2:w                     | w
    exists a1:-                     | r
    exists a1:- b1:-                | r
    touch a1:-                      | r
    expire a1:w 900                 | w
    pexpire a1:w 900000             | w
    expireat a1:w 9999999999        | w
    pexpireat a1:w 9999999999999    | w
    ttl a1:r                        | r
    pttl a1:r                       | r
    expiretime a1:r                 | r
    pexpiretime a1:r                | r
    persist a1:w                    | w
    type a1:-                       | r
    rename a4:rw a5:w               | w
    rename a4:rw b5:w               | w
    renamenx a4:rw a5:w             | w
    copy a1:r a6:w                  | w
    copy b1:r a6:w                  | w
    scan 0                          | r
    keys *                          | rd
    randomkey                       | r
    object encoding a1:-            | r
    object freq a1:-                | r
    object idletime a1:-            | r
    object refcount a1:-            | r
    object help                     |
    wait 0 1                        | c
    waitaof 0 0 1                   | c

    multi                           | t
    exec                            | t
    discard                         | t
    watch a1:-                      | t
    watch b1:-                      | t
    unwatch                         | t

    script load none                | s
    script exists none              | s
    script flush                    | s
    script help                     | s
    function list                   | s
    function help                   | s

    subscribe news:c                | p
    subscribe news:c other:c        | p
    unsubscribe                     | p
    psubscribe news*:p              | p
    psubscribe new*:p               | p
    punsubscribe                    | p
    ssubscribe news:c               | p
    sunsubscribe                    | p
    publish news:c m                | p
    publish other:c m               | p
    spublish news:c m               | p
    pubsub channels                 | p
    pubsub numsub news              | p
    pubsub numpat                   | p
    pubsub shardchannels            | p
    pubsub shardnumsub news         | p
    pubsub help                     |

    hello 2 auth admin any          | !c
    auth admin any                  | !c
    ping                            | c
    echo x                          | c
    quit                            | !c
    reset                           | !c
    select 0                        | c
    client id                       | c
    client info                     | c
    client list                     | cad
    client kill id 999999           | cad
    client getname                  | c
    client setname x                | c
    client setinfo lib-name x       | c
    client reply on                 | c
    client no-evict off             | cad
    client no-touch off             | c
    client capa redirect            | c
    client unblock 999999           | cad
    client tracking off             | c
    client trackinginfo             | c
    client getredir                 | c
    client help                     | c

    dbsize                          | r
    flushdb                         | wd
    flushall                        | wd
    time                            |
    lolwut                          | r
    info server                     | d
    role                            | ad
    command                         | c
    command count                   | c
    command info get                | c
    command docs get                | c
    command list                    | c
    command getkeys get a1          | c
    command getkeysandflags get a1  | c
    command help                    | c
    config get port                 | ad
    config set maxmemory 0          | ad
    config set slowlog-max-len 128  | ad
    config resetstat                | ad
    config rewrite                  | ad
    config help                     |
    memory usage a1:-               | r
    memory doctor                   |
    memory help                     |
    slowlog get                     | ad
    slowlog len                     | ad
    slowlog reset                   | ad
    slowlog help                    |
    latency histogram               | ad
    latency latest                  | ad
    latency history x               | ad
    latency graph x                 | ad
    latency reset                   | ad
    latency doctor                  | ad
    latency help                    |
    module list                     | ad
    module help                     |
    acl cat                         |
    acl deluser nosuch              | ad
    acl dryrun admin get a1         | ad
    acl genpass                     |
    acl getuser admin               | ad
    acl list                        | ad
    acl load                        | ad
    acl log                         | ad
    acl save                        | ad
    acl setuser other               | ad
    acl users                       | ad
    acl whoami                      |
    acl help                        |
    lastsave                        | ad
    debug sleep                     | xad
    shutdown abort                  | ad

    readonly                        | c
    readwrite                       | c

    memkv.meta a1:r                 | r
    memkv.cas a1:rw 1 v             | w
    memkv.delrev a1:rw 1            | w
    memkv.range a:r                 | r
    memkv.backup                    | ad
    memkv.events                    | ad
    memkv.slowlog                   | ad
    memkv.cluster members           | ad
    memkv.cluster checkstop n9      | ad
    memkv.cluster wait 0            | ad
    memkv.cluster add n9            | ad
    memkv.cluster remove n9         | ad
    memkv.cluster replace n8 n9     | ad
    memkv.cluster promote n9        | ad
    memkv.cluster demote n9         | ad
    memkv.cluster transfer          | ad
    memkv.cluster help              |
    memkv.users init                | ad
    memkv.users token nosuch        | ad
    memkv.users help                |
";

/// All of it.
pub(super) static CALLS: LazyLock<Vec<Call>> = LazyLock::new(|| {
    let lines = STATEMENT
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (text, letters) = line.split_once('|').expect("a call and its categories");
            Call::of(text.trim().to_owned(), letters.trim())
        })
        .collect()
});

/// A call of a command.
pub(super) struct Call {
    /// As the statement has it.
    pub(super) text: String,
    letters: String,
}

/// What is done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use(&'static str);

impl Use {
    pub(super) fn reads(self) -> bool {
        self.0.contains('r')
    }

    pub(super) fn writes(self) -> bool {
        self.0.contains('w')
    }
}

const USES: [&str; 4] = ["r", "w", "rw", "-"];

impl Call {
    pub(super) fn of(text: String, letters: &str) -> Self {
        Self {
            text,
            letters: letters.to_owned(),
        }
    }

    /// The words, each with what it is besides a word.
    fn parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text
            .split_whitespace()
            .map(|word| match word.split_once(':') {
                Some((word, kind)) => (word, kind),
                None => (word, ""),
            })
    }

    pub(super) fn letters(&self) -> &str {
        &self.letters
    }

    /// What is sent.
    pub(super) fn words(&self) -> Vec<String> {
        self.parts().map(|(word, _)| word.to_owned()).collect()
    }

    /// The name in the table.
    pub(super) fn name(&self) -> String {
        let mut words = self.text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let containers = [
            "object",
            "script",
            "function",
            "pubsub",
            "client",
            "command",
            "config",
            "memory",
            "slowlog",
            "latency",
            "module",
            "acl",
            "memkv.cluster",
            "memkv.users",
        ];
        match words.next().filter(|_| containers.contains(&name)) {
            Some(sub) => format!("{name}|{sub}"),
            None => name.to_owned(),
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, Use)> {
        self.parts().filter_map(|(word, kind)| {
            let how = USES.into_iter().find(|how| *how == kind)?;
            Some((word, Use(how)))
        })
    }

    /// Each with whether it is a pattern.
    pub(super) fn channels(&self) -> impl Iterator<Item = (&str, bool)> {
        let parts = self.parts().filter(|(_, kind)| matches!(*kind, "c" | "p"));
        parts.map(|(word, kind)| (word, kind == "p"))
    }

    pub(super) fn is_open(&self) -> bool {
        self.letters.contains('!')
    }

    pub(super) fn is_forbidden(&self) -> bool {
        self.letters.contains('x')
    }

    pub(super) fn categories(&self) -> Vec<&'static str> {
        let of = |letter| match letter {
            'r' => Some("read"),
            'w' => Some("write"),
            'a' => Some("admin"),
            'd' => Some("dangerous"),
            'c' => Some("connection"),
            't' => Some("transaction"),
            'p' => Some("pubsub"),
            's' => Some("scripting"),
            _ => None,
        };
        self.letters.chars().filter_map(of).collect()
    }
}
