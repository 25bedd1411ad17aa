//! The one error table: each failure's code in HTTP, RESP and on the command line, whether it may be
//! retried, and whether the command may have been executed.
//!
//! It never has the text of one particular failure: the code that fails writes that, with what happened,
//! why, and what to do next. Invariants, tested below: codes are unique; RESP prefixes and codes that clients
//! retry by themselves are used only where nothing was executed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a failed command was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Executed {
    /// It was not and never will be: sending it again is safe.
    No,
    /// It may have been, or may still be: only reading can tell.
    Maybe,
}

impl Executed {
    /// `no` or `maybe`, as in JSON and in the header `X-Memkv-Executed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
        }
    }
}

impl fmt::Display for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Exit codes of the command line.
pub mod exit {
    /// The command succeeded.
    pub const OK: u8 = 0;
    /// The key is absent, or a condition on it does not hold.
    pub const NOT_FOUND: u8 = 1;
    /// The command line, a file or the request is wrong; sending it again changes nothing.
    pub const USAGE: u8 = 2;
    /// No node could do it now; nothing was written.
    pub const UNAVAILABLE: u8 = 3;
    /// The write may or may not have been executed.
    pub const UNKNOWN: u8 = 4;
    /// The command was executed, but its answer could not be printed.
    pub const UNPRINTED: u8 = 5;
}

/// One line of the error table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorInfo {
    /// The failure of this line.
    pub error: ErrorCode,
    /// Stable code for people and documentation, such as `MK-103`. Never reused.
    pub code: &'static str,
    /// HTTP status.
    pub http: u16,
    /// First word of the RESP error, without the `-`.
    pub resp: &'static str,
    /// Exit code of the command line, see [`exit`].
    pub exit: u8,
    /// Whether a program may send the same request again without asking a person.
    pub retryable: bool,
    /// Whether the command may have been executed.
    pub executed: Executed,
    /// Its name, in a few words: the `title` of [`Problem`].
    pub title: &'static str,
}

/// Writes the enum, [`ErrorCode::ALL`] and the table from one list, in ascending order of code.
macro_rules! error_table {
    ($($(#[$doc:meta])* $name:ident $code:literal $http:literal $resp:literal $exit:ident
        $retry:ident $executed:ident $title:literal;)*) => {
        /// Every way in which a request can fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        const TABLE: &[ErrorInfo] = &[$(ErrorInfo {
            error: ErrorCode::$name,
            code: $code,
            http: $http,
            resp: $resp,
            exit: exit::$exit,
            retryable: error_table!(@$retry),
            executed: Executed::$executed,
            title: $title,
        },)*];
    };
    (@retry) => { true };
    (@final) => { false };
}

// MK-0xx: the request or the configuration. MK-1xx: the cluster's ability to answer now.
error_table! {
    /// The command line is wrong.
    Usage "MK-001" 400 "ERR" USAGE final No "usage";
    /// A configuration file, variable or flag is wrong.
    BadConfig "MK-002" 400 "ERR" USAGE final No "bad configuration";
    /// The request is malformed in a way that no other code describes.
    BadRequest "MK-010" 400 "ERR" USAGE final No "bad request";
    /// The body is not the JSON that the path asks for.
    BadJson "MK-011" 400 "ERR" USAGE final No "bad JSON";
    /// No such path.
    BadPath "MK-012" 404 "ERR" USAGE final No "no such path";
    /// The path exists, the method does not.
    MethodNotAllowed "MK-013" 405 "ERR" USAGE final No "method not allowed";
    /// The body's media type is not the one that the path asks for.
    UnsupportedMediaType "MK-014" 415 "ERR" USAGE final No "unsupported media type";
    /// The request head exceeds [`crate::limits::MAX_HTTP_HEADER_BYTES`].
    HeaderTooLarge "MK-015" 431 "ERR" USAGE final No "request header too large";
    /// The request did not arrive completely in time.
    RequestTimeout "MK-016" 408 "ERR" UNAVAILABLE retry No "request arrived too slowly";
    /// The key exceeds [`crate::limits::MAX_KEY_BYTES`].
    KeyTooLarge "MK-020" 413 "ERR" USAGE final No "key too large";
    /// The value exceeds `max_value_bytes`.
    ValueTooLarge "MK-021" 413 "ERR" USAGE final No "value too large";
    /// The body exceeds the limit of its path, though no value in it need be too large.
    BodyTooLarge "MK-022" 413 "ERR" USAGE final No "body too large";
    /// The key is absent.
    NotFound "MK-030" 404 "ERR" NOT_FOUND final No "key not found";
    /// `If-Match` or `If-None-Match` does not hold.
    PreconditionFailed "MK-031" 412 "ERR" NOT_FOUND final No "precondition failed";
    /// The password is missing or wrong.
    Unauthorized "MK-040" 401 "NOAUTH" USAGE final No "not authorized";
    /// A browser sent it for a page of another site.
    ForeignSite "MK-041" 403 "ERR" USAGE final No "sent by another site's page";
    /// The host of the URL is not one of the node's, and no password proves that the client is trusted.
    UnknownHost "MK-042" 421 "ERR" USAGE final No "unknown host name";
    /// The user may not run this command, or not with these keys or channels.
    NoPermission "MK-043" 403 "NOPERM" USAGE final No "no permission";
    /// The cluster would not survive the change of its members, or it makes no sense; the detail has the way that
    /// works.
    ChangeRefused "MK-050" 409 "ERR" USAGE final No "change of members refused";
    /// A defect of the node: the detail has a summary, the node's log has more.
    Internal "MK-100" 500 "ERR" UNKNOWN final Maybe "internal error";
    /// More is queued than the node may hold; refused before it was proposed.
    Overloaded "MK-101" 503 "TRYAGAIN" UNAVAILABLE retry No "overloaded";
    /// The node is still starting, forming its cluster or restoring its data.
    Loading "MK-102" 503 "LOADING" UNAVAILABLE retry No "loading";
    /// No leader was found while the command was held.
    NoLeader "MK-103" 503 "CLUSTERDOWN" UNAVAILABLE retry No "no leader";
    /// `max_connections` are open.
    TooManyConnections "MK-104" 503 "ERR" UNAVAILABLE retry No "too many connections";
    /// The reserve on a quorum's disks is low: writes are refused, reads go on.
    DiskFull "MK-105" 507 "MISCONF" UNAVAILABLE final No "disk full";
    /// Reported by the client: no endpoint could be reached or gave a usable answer.
    Unreachable "MK-106" 503 "CLUSTERDOWN" UNAVAILABLE retry No "no node available";
    /// The command belongs to a feature level that the cluster does not use yet.
    NeedsLevel "MK-107" 501 "ERR" UNAVAILABLE final No "needs a higher feature level";
    /// The keys cost as much as they may, or memory is short: what may grow them is refused, reads and
    /// what removes keys go on.
    OutOfMemory "MK-108" 507 "OOM" UNAVAILABLE final No "out of memory";
    /// The command may or may not have been executed.
    Unknown "MK-110" 504 "UNKNOWN" UNKNOWN final Maybe "outcome unknown";
}

impl ErrorCode {
    /// The whole table, in ascending order of code.
    pub fn table() -> &'static [ErrorInfo] {
        TABLE
    }

    /// The line of this failure.
    pub fn info(self) -> &'static ErrorInfo {
        // The table is written in the order of the variants, see the macro.
        &TABLE[self as usize]
    }

    /// The failure with this stable code, if this version knows it.
    pub fn from_code(code: &str) -> Option<Self> {
        TABLE
            .iter()
            .find(|line| line.code == code)
            .map(|line| line.error)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().code)
    }
}

/// A failure as the REST API answers it: RFC 9457 problem details, plus `code`, `executed` and
/// `retry_after_ms`. Missing fields and unknown ones are accepted when reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// URI that identifies the kind of failure: `urn:memkv:error:MK-103`.
    #[serde(rename = "type", default)]
    pub type_uri: String,
    /// Its name, in a few words.
    #[serde(default)]
    pub title: String,
    /// HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What happened here, why, and what to do next.
    #[serde(default)]
    pub detail: String,
    /// Stable code such as `MK-103`.
    #[serde(default)]
    pub code: String,
    /// Whether the command may have been executed. A missing field is read as `maybe`.
    #[serde(default = "maybe")]
    pub executed: Executed,
    /// After how many milliseconds a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

fn maybe() -> Executed {
    Executed::Maybe
}

impl Problem {
    /// The problem of this kind, with the table's values.
    pub fn new(error: ErrorCode, detail: impl Into<String>) -> Self {
        let info = error.info();
        Self {
            type_uri: format!("urn:memkv:error:{}", info.code),
            title: info.title.to_owned(),
            status: info.http,
            detail: detail.into(),
            code: info.code.to_owned(),
            executed: info.executed,
            retry_after_ms: None,
        }
    }

    /// Replaces the table's `executed`, where more is known of this failure.
    #[must_use]
    pub fn with_executed(self, executed: Executed) -> Self {
        Self { executed, ..self }
    }

    /// Sets when a retry makes sense.
    #[must_use]
    pub fn with_retry_after_ms(self, retry_after_ms: u64) -> Self {
        Self {
            retry_after_ms: Some(retry_after_ms),
            ..self
        }
    }

    /// The line of the table, if this version knows the code.
    pub fn error_code(&self) -> Option<ErrorCode> {
        ErrorCode::from_code(&self.code)
    }

    /// Whether a program may send the same request again: the table allows it, and nothing was executed.
    pub fn is_retryable(&self) -> bool {
        let listed = self.error_code().is_some_and(|code| code.info().retryable);
        listed && self.executed == Executed::No
    }

    /// The body of the response, `application/problem+json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings and numbers always serializes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_each_line_of_the_table() {
        let page = include_str!("../../../docs/errors.md");
        let lines: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| MK-"))
            .collect();
        assert_eq!(lines.len(), ErrorCode::table().len());
        for (line, known) in lines.into_iter().zip(ErrorCode::table()) {
            let again = if known.retryable { "yes" } else { "no" };
            let begin = format!(
                "| {} | {} | {} | {} | {} | {} | {again} | ",
                known.code, known.title, known.http, known.resp, known.exit, known.executed
            );
            assert!(line.starts_with(&begin), "{line}\n{begin}");
        }
    }

    #[test]
    fn each_line_is_found_by_its_variant_and_by_its_code() {
        for line in ErrorCode::table() {
            assert_eq!(line.error.info(), line);
            assert_eq!(ErrorCode::from_code(line.code), Some(line.error));
        }
        assert!(
            ErrorCode::table().windows(2).all(|w| w[0].code < w[1].code),
            "ascending, unique"
        );
        assert_eq!(ErrorCode::from_code("MK-999"), None);
    }

    #[test]
    fn commands_that_may_have_been_executed_are_never_retried_automatically() {
        // go-redis and redis-py resend these by themselves.
        let resent = [
            "LOADING",
            "READONLY",
            "CLUSTERDOWN",
            "TRYAGAIN",
            "MASTERDOWN",
            "NOREPLICAS",
        ];
        for line in ErrorCode::table() {
            if line.executed == Executed::Maybe {
                assert!(!line.retryable && !resent.contains(&line.resp), "{line:?}");
            }
            assert_eq!(
                line.exit == exit::UNKNOWN,
                line.executed == Executed::Maybe,
                "{line:?}"
            );
            assert!((400..600).contains(&line.http), "{line:?}");
            assert!(
                line.resp.bytes().all(|b| b.is_ascii_uppercase()),
                "{line:?}"
            );
        }
    }

    #[test]
    fn the_codes_that_the_documentation_names_do_not_change() {
        let code = |error: ErrorCode| error.info().code;
        assert_eq!(code(ErrorCode::BadConfig), "MK-002");
        assert_eq!(code(ErrorCode::ValueTooLarge), "MK-021");
        assert_eq!(code(ErrorCode::NoLeader), "MK-103");
        assert_eq!(code(ErrorCode::Unknown), "MK-110");
    }

    #[test]
    fn problem_is_problem_json() {
        let problem = Problem::new(ErrorCode::NoLeader, "n2 is down").with_retry_after_ms(500);
        let json = concat!(
            r#"{"type":"urn:memkv:error:MK-103","title":"no leader","status":503,"#,
            r#""detail":"n2 is down","code":"MK-103","executed":"no","retry_after_ms":500}"#
        );
        assert_eq!(problem.to_json(), json);
        assert_eq!(serde_json::from_str::<Problem>(json).unwrap(), problem);
        assert!(problem.is_retryable());
        assert!(!problem.with_executed(Executed::Maybe).is_retryable());
    }

    #[test]
    fn a_problem_without_executed_is_read_as_maybe() {
        let problem: Problem = serde_json::from_str(r#"{"code":"MK-103","new":1}"#).unwrap();
        assert_eq!(problem.executed, Executed::Maybe);
        assert!(!problem.is_retryable());
    }
}
