//! A user while `ACL SETUSER` changes it: its modifiers are applied in order. Hashes passwords, so it runs on
//! the threads of the pool.
//!
//! Invariant: a modifier that fails leaves the replicated user as it was, because the draft is not proposed.

use bytes::Bytes;
use memkv_store::{MAX_SECRETS, Secret, UserSpec};

use super::grammar::{Bad, Rules};
use super::secret;
use super::user::User;

/// The longest password: the configuration takes none that is longer either.
const MAX_PASSWORD_BYTES: usize = memkv_proto::secret::MAX_SECRET_BYTES;

/// Most passwords that are hashed for one change, each in some hundredths of a second: all of a user, removed and added.
const MAX_HASHES: usize = 2 * MAX_SECRETS;

/// See the module's documentation. The default is a new user, as in Redis: it is off and may do nothing.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    enabled: bool,
    nopass: bool,
    secrets: Vec<Secret>,
    rules: Rules,
    /// Passwords that were hashed for it.
    hashes: usize,
}

impl Draft {
    /// Of a user that is there.
    pub(crate) fn of(user: &User) -> Self {
        Self {
            enabled: user.enabled,
            nopass: user.nopass,
            secrets: user.secrets.clone(),
            rules: user.rules.clone(),
            hashes: 0,
        }
    }

    /// Takes one modifier.
    pub(crate) fn modify(&mut self, op: &[u8]) -> Result<(), Bad> {
        let is = |word: &str| op.eq_ignore_ascii_case(word.as_bytes());
        match op {
            _ if is("on") => self.enabled = true,
            _ if is("off") => self.enabled = false,
            // They are about the checking of serialised values, of which memkv loads none.
            _ if is("sanitize-payload") || is("skip-sanitize-payload") => {}
            _ if is("nopass") => {
                self.nopass = true;
                self.secrets.clear();
            }
            _ if is("resetpass") => {
                self.nopass = false;
                self.secrets.clear();
            }
            _ if is("reset") => {
                *self = Self {
                    hashes: self.hashes,
                    ..Self::default()
                };
            }
            [b'>', password @ ..] => {
                let hashed = self.hashed(password)?;
                self.add(hashed)?;
            }
            [b'#', hash @ ..] => {
                let secret = secret::parse(hash, &self.secrets).ok_or(Bad::NotAHash)?;
                self.add(secret)?;
            }
            [b'<', password @ ..] => {
                let hashed = self.hashed(password)?;
                let plain: String = secret::sha256(password)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let given = secret::parse(plain.as_bytes(), &[]);
                self.remove(&[Some(hashed), given])?;
            }
            [b'!', hash @ ..] => {
                let secret = secret::parse(hash, &self.secrets).ok_or(Bad::NotAHash)?;
                self.remove(&[Some(secret)])?;
            }
            _ => self.rules.modify(op)?,
        }
        Ok(())
    }

    fn hashed(&mut self, password: &[u8]) -> Result<Secret, Bad> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(Bad::TooMany("bytes of a password", MAX_PASSWORD_BYTES));
        }
        if self.hashes == MAX_HASHES {
            return Err(Bad::TooMany("passwords in one command", MAX_HASHES));
        }
        self.hashes += 1;
        // It fails for no password that is short enough.
        secret::hash(password, &self.secrets).ok_or(Bad::Syntax)
    }

    fn add(&mut self, secret: Secret) -> Result<(), Bad> {
        self.nopass = false;
        if self.secrets.contains(&secret) {
            return Ok(());
        }
        if self.secrets.len() >= MAX_SECRETS {
            return Err(Bad::TooMany("passwords", MAX_SECRETS));
        }
        self.secrets.push(secret);
        Ok(())
    }

    fn remove(&mut self, secrets: &[Option<Secret>]) -> Result<(), Bad> {
        let before = self.secrets.len();
        self.secrets
            .retain(|known| !secrets.contains(&Some(known.clone())));
        match self.secrets.len() < before {
            true => Ok(()),
            false => Err(Bad::NoSuchPassword),
        }
    }

    /// What is proposed.
    ///
    /// # Errors
    /// The rules are more than a user may have.
    pub(crate) fn spec(&self) -> Result<UserSpec, Bad> {
        self.rules.check()?;
        Ok(UserSpec {
            enabled: self.enabled,
            nopass: self.nopass,
            secrets: self.secrets.clone(),
            rules: Bytes::from(self.rules.text()),
        })
    }

    /// Whether it takes a right from the user as it was; a secret that disappears is not one.
    pub(crate) fn narrows(&self, was: Option<&User>) -> bool {
        was.is_some_and(|was| {
            (was.enabled && !self.enabled)
                || (was.nopass && !self.nopass)
                || !self.rules.covers(&was.rules)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(ops: &[&str]) -> Result<Draft, Bad> {
        let mut draft = Draft::default();
        for op in ops {
            draft.modify(op.as_bytes())?;
        }
        Ok(draft)
    }

    #[test]
    fn a_new_user_is_off_and_may_do_nothing() {
        let spec = draft(&[""]).unwrap().spec().unwrap();
        assert!(!spec.enabled && !spec.nopass && spec.secrets.is_empty());
        assert_eq!(&spec.rules[..], b"resetchannels -@all");
    }

    #[test]
    fn passwords_are_added_and_removed_by_text_and_by_hash() {
        let hash = "0123456789abcdef".repeat(4);
        let (given, taken) = (format!("#{hash}"), format!("!{hash}"));
        let count = |ops: &[&str]| draft(ops).map(|draft| draft.spec().unwrap().secrets.len());
        assert_eq!(count(&[">a", ">a", ">b", &given]), Ok(3));
        assert_eq!(count(&[">a", "<a"]), Ok(0));
        assert_eq!(count(&[&given, &taken]), Ok(0));
        assert_eq!(count(&[">a", "nopass"]), Ok(0));
        assert_eq!(count(&[">a", "resetpass"]), Ok(0));
        assert_eq!(count(&[">a", "<b"]), Err(Bad::NoSuchPassword));
        assert_eq!(count(&["#ff"]), Err(Bad::NotAHash));
        let many: Vec<String> = (0..=MAX_SECRETS).map(|at| format!("#{at:064x}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(count(&many[1..]), Ok(MAX_SECRETS));
        assert!(matches!(count(&many), Err(Bad::TooMany(..))));
        let mut same = vec![">a"; MAX_HASHES];
        assert_eq!(count(&same), Ok(1));
        same.extend(["reset", ">a"]);
        assert!(matches!(count(&same), Err(Bad::TooMany(..))));
        let of_a = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        assert_eq!(count(&[&format!("#{of_a}"), "<a"]), Ok(0));
        assert!(draft(&["nopass", ">a"]).is_ok_and(|draft| !draft.spec().unwrap().nopass));
    }
}
