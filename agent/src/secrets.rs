//! Secrets that resources refer to, as files: key `password` of Secret `rack-1` is `rack-1/password` in the secrets'
//! directory. That is how Kubernetes mounts a Secret, so the agent needs no right to read any other; elsewhere the
//! files are put there by hand.
//!
//! Files are read anew now and then, so that a secret can be changed while everything runs. What has been read once
//! outlives its file: a session does not end because a mount is late.

use std::collections::BTreeMap;
use std::path::PathBuf;

use manx_api::bgp::SecretKeyRef;
use manx_bgp::transport::{Authentication, Secret};

/// The secrets that have been asked for.
#[derive(Debug)]
pub struct Secrets {
    directory: PathBuf,
    known: BTreeMap<SecretKeyRef, Authentication>,
}

impl Secrets {
    /// Those in a directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            known: BTreeMap::new(),
        }
    }

    /// What a session is signed with whose password this is.
    pub fn password(&mut self, wanted: &SecretKeyRef) -> Authentication {
        if let Some(known) = self.known.get(wanted) {
            return known.clone();
        }
        let read = self.read(wanted);
        self.known.insert(wanted.clone(), read.clone());
        read
    }

    /// Whether any has been asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Reads the files again; whether any holds something else than before.
    pub fn refresh(&mut self) -> bool {
        let before = self.known.clone();
        for wanted in self.known.keys().cloned().collect::<Vec<_>>() {
            match (self.read(&wanted), self.known.get(&wanted)) {
                (Authentication::Missing(why), Some(Authentication::Md5(_))) => {
                    tracing::warn!(%why, "a secret can no longer be read; what it was stays in use");
                }
                (read, _) => drop(self.known.insert(wanted, read)),
            }
        }
        self.known != before
    }

    fn read(&self, wanted: &SecretKeyRef) -> Authentication {
        let path = self.directory.join(&wanted.name).join(&wanted.key);
        let content = std::fs::read(&path).map_err(|error| error.to_string());
        let secret = content.and_then(|it| Secret::from_file(&it).map_err(|error| error.to_string()));
        match secret {
            Ok(secret) => Authentication::Md5(secret),
            Err(why) => Authentication::Missing(format!("{}: {why}", path.display()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn md5(text: &str) -> Authentication {
        Authentication::Md5(Secret::new(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_secret_is_read_changed_and_outlives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::new(directory.path().to_owned());
        let wanted = SecretKeyRef {
            name: "rack-1".to_owned(),
            key: "password".to_owned(),
        };
        let Authentication::Missing(why) = secrets.password(&wanted) else {
            panic!("there is no file yet");
        };
        assert!(why.contains("rack-1/password: No such file"), "{why}");
        fs::create_dir(directory.path().join("rack-1")).unwrap();
        let file = directory.path().join("rack-1/password");
        for password in ["first", "second"] {
            fs::write(&file, format!("{password}\n")).unwrap();
            secrets.refresh();
            assert_eq!(secrets.password(&wanted), md5(password));
        }
        fs::remove_file(file).unwrap();
        secrets.refresh();
        assert_eq!(secrets.password(&wanted), md5("second"));
    }
}
