//! Files with secrets: when one may be used, and which of its bytes are the secret. The rules are in one
//! place, so that server and client read the same password from the same file. Opens no file: the caller
//! passes the operating system's metadata of the opened file.

/// Longest secret in bytes (4 KiB). A request with a longer password would be refused before the password
/// is compared, and more random bytes add no security.
pub const MAX_SECRET_BYTES: usize = 4 * 1024;

/// Shortest cluster secret in bytes. A process that listens at a peer's address receives a proof against
/// which it can test guesses without limit, so the secret must not be guessable.
pub const MIN_CLUSTER_SECRET_BYTES: usize = 32;

/// Permission bits of the group and of others.
const OTHERS: u32 = 0o077;

/// Permission bits, without the file's type.
const PERMISSIONS: u32 = 0o7777;

/// The superuser's id.
const ROOT: u32 = 0;

/// Owner and permissions of an opened file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// `st_mode`.
    pub mode: u32,
    /// The id of the user that owns it.
    pub owner: u32,
    /// The id of the user that this process acts for.
    pub user: u32,
}

/// Why a file holds no secret that may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Others may read it, or put another secret there.
    #[error("other users can use it, its mode is {mode:04o}; say: chmod 600 FILE")]
    Open {
        /// Its permissions.
        mode: u32,
    },
    /// Another user may change it at any time.
    #[error("it belongs to user {owner}, this process to user {user}; say: chown {user} FILE")]
    Foreign {
        /// The file's owner.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// Longer than [`MAX_SECRET_BYTES`].
    #[error("it is longer than {MAX_SECRET_BYTES} bytes, the limit; write a shorter one")]
    TooLong,
    /// Not UTF-8.
    #[error("it is not UTF-8 text; write text into it")]
    NotText,
    /// It is empty or a line end only.
    #[error("there is no password in it; write one into it, or leave the setting out")]
    Empty,
    /// Shorter than [`MIN_CLUSTER_SECRET_BYTES`].
    #[error(
        "it holds fewer than {MIN_CLUSTER_SECRET_BYTES} bytes, so it could be guessed; make a secret \
         with: memkv_server secret"
    )]
    Short,
}

/// Refuses a file that users other than this process's and the superuser can read or change.
///
/// # Errors
/// [`SecretError::Open`] and [`SecretError::Foreign`].
pub fn check_access(access: Access) -> Result<(), SecretError> {
    let Access { mode, owner, user } = access;
    if mode & OTHERS != 0 {
        let mode = mode & PERMISSIONS;
        return Err(SecretError::Open { mode });
    }
    if owner != user && owner != ROOT {
        return Err(SecretError::Foreign { owner, user });
    }
    Ok(())
}

/// A password: the file's text without the line ends behind it. White space is part of it.
///
/// # Errors
/// [`SecretError::TooLong`], [`SecretError::NotText`] and [`SecretError::Empty`].
pub fn password(file: &[u8]) -> Result<&str, SecretError> {
    match text(file)?.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretError::Empty),
        text => Ok(text),
    }
}

/// A cluster secret: the file's text without the white space around it.
///
/// # Errors
/// [`SecretError::TooLong`], [`SecretError::NotText`] and [`SecretError::Short`].
pub fn cluster_secret(file: &[u8]) -> Result<&str, SecretError> {
    let text = text(file)?.trim();
    if text.len() < MIN_CLUSTER_SECRET_BYTES {
        return Err(SecretError::Short);
    }
    Ok(text)
}

fn text(file: &[u8]) -> Result<&str, SecretError> {
    if file.len() > MAX_SECRET_BYTES {
        return Err(SecretError::TooLong);
    }
    std::str::from_utf8(file).map_err(|_| SecretError::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_have_any_right() {
        let access = |mode, owner, user| check_access(Access { mode, owner, user });
        for mode in [0o100_600, 0o100_400, 0o100_700, 0o010_600] {
            assert_eq!(access(mode, 7, 7), Ok(()), "{mode:o}");
            assert_eq!(access(mode, 0, 7), Ok(()), "{mode:o}");
        }
        for bit in [0o1, 0o2, 0o4, 0o10, 0o20, 0o40] {
            let open = Err(SecretError::Open { mode: 0o600 | bit });
            assert_eq!(access(0o100_600 | bit, 7, 7), open);
        }
        for user in [7, 0] {
            let foreign = Err(SecretError::Foreign { owner: 8, user });
            assert_eq!(access(0o100_600, 8, user), foreign);
        }
        let said = access(0o100_644, 7, 7).unwrap_err().to_string();
        assert!(
            said.contains("0644") && said.contains("chmod 600"),
            "{said}"
        );
    }

    #[test]
    fn a_password_ends_before_the_line_end_and_a_cluster_secret_is_trimmed() {
        assert_eq!(password(b" a b \r\n"), Ok(" a b "));
        assert_eq!(password(b"\r\n"), Err(SecretError::Empty));
        assert_eq!(password(b"\xff"), Err(SecretError::NotText));
        let secret = "0123456789abcdef0123456789abcdef";
        let padded = format!(" {secret}\r\n\n");
        assert_eq!(cluster_secret(padded.as_bytes()), Ok(secret));
        let short = format!("{}                 ", &secret[1..]);
        assert_eq!(cluster_secret(short.as_bytes()), Err(SecretError::Short));
    }

    #[test]
    fn too_long_secrets_are_refused_and_never_cut() {
        let most = vec![b'a'; MAX_SECRET_BYTES];
        assert_eq!(password(&most).map(str::len), Ok(MAX_SECRET_BYTES));
        let more = [&most[..], b"\n"].concat();
        assert_eq!(password(&more), Err(SecretError::TooLong));
        assert_eq!(cluster_secret(&more), Err(SecretError::TooLong));
    }
}
