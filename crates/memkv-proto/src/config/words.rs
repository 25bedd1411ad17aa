//! Settings that are one word out of a few. Never free text.

use serde::{Deserialize, Serialize};

/// Writes an enum together with its words, so that neither can be forgotten.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// All words, as in files, variables and flags.
            pub const WORDS: &'static [&'static str] = &[$($word,)*];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            pub(crate) fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// The durability of an acknowledged write. The whole cluster agrees on one.
    Durability {
        /// The write is fsynced on the disks of a majority.
        Sync "sync",
        /// The write is in the operating systems of a majority: it survives the death of every
        /// process, not a power loss.
        Os "os",
    }
}

words! {
    /// How log lines are written.
    LogFormat {
        /// For people.
        Text "text",
        /// One JSON object per line.
        Json "json",
    }
}

words! {
    /// The least severe log line that is written.
    LogLevel {
        /// Conditions that need an operator.
        Error "error",
        /// Conditions that may need one.
        Warn "warn",
        /// Rare changes: elections, members, snapshots.
        Info "info",
        /// For finding defects.
        Debug "debug",
        /// Everything.
        Trace "trace",
    }
}

words! {
    /// From where users without a password may come.
    NopassFrom {
        /// From everywhere if the node is `insecure` and has no password, else from loopback.
        Auto "auto",
        /// From the node's own machine.
        Loopback "loopback",
        /// From every machine.
        Everywhere "everywhere",
    }
}

words! {
    /// Whether clients are served over TLS.
    TlsClients {
        /// Plain connections alone.
        Off "off",
        /// Both, by the first byte.
        Accept "accept",
        /// TLS alone.
        Require "require",
    }
}

words! {
    /// Whether clients show a certificate.
    TlsClientAuth {
        /// None is asked for.
        No "no",
        /// One that is shown must be good.
        Optional "optional",
        /// There is no connection without a good one.
        Require "require",
    }
}

words! {
    /// Whether peers speak over TLS, in the order in which a running cluster is changed.
    TlsPeers {
        /// Plain connections alone.
        Off "off",
        /// Peers are answered over TLS too, and called without.
        Accept "accept",
        /// Peers are called over TLS, and answered without too.
        Dial "dial",
        /// TLS alone.
        Require "require",
    }
}

words! {
    /// The role that a node proposes when it joins a cluster.
    NodeRole {
        /// It is to vote.
        Voter "voter",
        /// It has the data and no vote.
        Replica "replica",
    }
}

words! {
    /// Whether a node with an empty directory may found a cluster.
    Found {
        /// Unless it is to join one.
        Auto "auto",
        /// Never.
        Never "never",
    }
}

words! {
    /// Which nodes of new names a leader admits.
    Admit {
        /// Those that prove that they belong to the cluster.
        Proven "proven",
        /// Of these, those that the operator expects.
        Listed "listed",
    }
}
