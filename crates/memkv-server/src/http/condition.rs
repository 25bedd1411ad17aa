//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1): the condition on a key, by the
//! revision of its last write. Never weak: an ETag of ours names one write.

use memkv_proto::ErrorCode;
use memkv_store::{Compare, Condition};

use super::head::{Head, Refusal};

/// The condition of a request on its key; none without either header field.
pub(super) fn of(head: &Head) -> Result<Option<Condition>, Refusal> {
    match (head.if_match.as_deref(), head.if_none_match.as_deref()) {
        (None, None) => Ok(None),
        (Some("*"), None) => Ok(Some(Condition::Exists(true))),
        (None, Some("*")) => Ok(Some(Condition::Exists(false))),
        (Some(tag), None) => revision(tag).map(|r| Some(Condition::ModRevision(Compare::Equal, r))),
        (None, Some(tag)) => {
            revision(tag).map(|r| Some(Condition::ModRevision(Compare::NotEqual, r)))
        }
        (Some(_), Some(_)) => Err(refused(
            "If-Match and If-None-Match together; send one of them",
        )),
    }
}

/// The revision in an ETag: a number in double quotes.
fn revision(tag: &str) -> Result<u64, Refusal> {
    let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    let number = quoted.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    number
        .and_then(|number| number.parse().ok())
        .filter(|revision| *revision > 0)
        .ok_or_else(|| {
            refused(&format!(
                "{tag:?} is no ETag of this server; it is * or one revision in double quotes, as in \
                 the ETag of a reply"
            ))
        })
}

fn refused(detail: &str) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_one_revision_in_quotes() {
        assert_eq!(revision("\"17\""), Ok(17));
        for tag in [
            "",
            "17",
            "\"17",
            "W/\"17\"",
            "\"17\", \"18\"",
            "\"0\"",
            "\"+1\"",
            "\"\"",
        ] {
            assert!(revision(tag).is_err(), "{tag}");
        }
    }
}
