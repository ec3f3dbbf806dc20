//! A password that stands in a file, and is read anew for each connection: one that is changed needs no
//! restart. Danger: errors name the file, and never what it holds.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::Secret;

/// The file, and what it last held.
#[derive(Debug)]
pub struct PasswordFile {
    path: PathBuf,
    last: Mutex<Option<Secret>>,
}

impl PasswordFile {
    pub(super) fn new(path: PathBuf) -> Self {
        let last = Mutex::new(None);
        Self { path, last }
    }

    /// The password as it is now. While the file is missing or empty, as in the middle of a change, the one
    /// before.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn read(&self) -> io::Result<Secret> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (secret(&self.path), &*last) {
            (Ok(now), _) => Ok(last.insert(now).clone()),
            (Err(error), None) => Err(error),
            (Err(error), Some(last)) => {
                let file = self.path.display();
                tracing::warn!(%file, %error, "the file of a password cannot be used: going on with the password from before");
                Ok(last.clone())
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn secret(path: &Path) -> io::Result<Secret> {
    let text = fs::read_to_string(path)?;
    // Editors and shells end a file with a line break, which is no part of the secret.
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(io::Error::other("it is empty")),
        password => Ok(password.to_owned().into()),
    }
}

impl PartialEq for PasswordFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for PasswordFile {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_middle_of_a_change_gives_the_password_from_before() {
        let guard = harness::Guard::start().unwrap();
        let path = guard.directory().join("password");
        let file = PasswordFile::new(path.clone());
        let read = || file.read().map(|secret| secret.expose().to_owned()).ok();
        assert_eq!(read(), None);
        for (content, expected) in [("one\n", "one"), ("", "one"), ("two #\r\n", "two #")] {
            fs::write(&path, content).unwrap();
            assert_eq!(read().as_deref(), Some(expected), "{content:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(read().as_deref(), Some("two #"));
        assert!(!format!("{file:?}").contains("two #"));
    }
}
