//! What policies know a pod by: labels, service account, names of ports, further source addresses. A cluster says so of
//! its pods, a runtime of those that no cluster knows.
//!
//! A runtime says so at ADD alone, and later on the datastore may be away. So a file in the state directory has it until DEL, for
//! the agent's next life. Pods end with the machine's kernel: the file need not outlive that, and is not synced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use manx_api::rule::NamedPort;
use manx_api::workload::{
    ALLOWED_SOURCES_ANNOTATIONS, PORTS_ANNOTATION, SERVICE_ACCOUNT_ANNOTATION, WorkloadEndpoint,
};
use manx_cni::{Attachment, Call, Code, Error, tombstone};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A pod's traits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    /// Which of the cluster's pods it is, if it is one.
    pub uid: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: Option<String>,
    /// What its ports are called.
    pub ports: Vec<NamedPort>,
    /// What it may send from beside its own addresses.
    pub allowed_source_prefixes: Vec<IpNetwork>,
}

impl Traits {
    /// What a call says.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`], naming the annotation.
    pub(super) fn of(call: &Call) -> Result<Self, Error> {
        let annotation = |names: &[&'static str]| {
            let mut values = names
                .iter()
                .filter_map(|name| Some((*name, call.annotations.get(*name)?)));
            values.next_back()
        };
        Ok(Self {
            uid: None,
            labels: call.labels.clone(),
            service_account: call.annotations.get(SERVICE_ACCOUNT_ANNOTATION).cloned(),
            ports: json(
                annotation(&[PORTS_ANNOTATION]),
                r#"[{"name": "http", "port": 80, "protocol": "TCP"}]"#,
            )?,
            allowed_source_prefixes: json(annotation(&ALLOWED_SOURCES_ANNOTATIONS), r#"["10.0.0.0/24"]"#)?,
        })
    }
}

impl From<WorkloadEndpoint> for Traits {
    /// What the cluster says of its pod.
    fn from(WorkloadEndpoint { metadata, spec }: WorkloadEndpoint) -> Self {
        Self {
            uid: metadata.uid,
            labels: metadata.labels,
            service_account: spec.service_account,
            ports: spec.ports,
            allowed_source_prefixes: spec.allowed_source_prefixes,
        }
    }
}

impl Traits {
    /// Keeps them for the agent's next life; a pod that has none needs no file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn keep(&self, state_dir: &Path, attachment: &Attachment) -> io::Result<()> {
        if *self == Self::default() {
            return Self::forget(state_dir, attachment);
        }
        let path = file(state_dir, attachment);
        std::fs::create_dir_all(folder(state_dir))?;
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        std::fs::write(&beside, serde_json::to_vec(self)?)?;
        std::fs::rename(beside, path)
    }

    /// What an earlier life kept; nothing of a pod that had none.
    pub(super) fn kept(state_dir: &Path, attachment: &Attachment) -> Self {
        let path = file(state_dir, attachment);
        let read = std::fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
        match read {
            Ok(traits) => traits,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what policies know a pod by is left to the datastore");
                Self::default()
            }
        }
    }

    /// Lets go of what was kept.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(super) fn forget(state_dir: &Path, attachment: &Attachment) -> io::Result<()> {
        match std::fs::remove_file(file(state_dir, attachment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("traits")
}

fn file(state_dir: &Path, attachment: &Attachment) -> PathBuf {
    folder(state_dir).join(tombstone::file_name(attachment))
}

/// What an annotation holds; nothing where there is none.
fn json<T: DeserializeOwned + Default>(
    annotation: Option<(&str, &String)>,
    example: &str,
) -> Result<T, Error> {
    let Some((name, value)) = annotation else {
        return Ok(T::default());
    };
    serde_json::from_str(value).map_err(|error| {
        let message = format!("annotation {name} '{value}': {error}; write it like {example}");
        Error::new(Code::InvalidConfig, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_until_it_is_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let attachment = Attachment {
            container_id: "c1".to_owned().try_into().unwrap(),
            ifname: "eth0".to_owned().try_into().unwrap(),
        };
        let at = (directory.path(), &attachment);
        let traits = Traits {
            labels: [("app".to_owned(), "web".to_owned())].into(),
            service_account: Some("clerk".to_owned()),
            allowed_source_prefixes: vec!["10.0.0.0/24".parse().unwrap()],
            ..Traits::default()
        };
        assert_eq!(Traits::kept(at.0, at.1), Traits::default());
        traits.keep(at.0, at.1).unwrap();
        assert_eq!(Traits::kept(at.0, at.1), traits);
        std::fs::write(file(at.0, at.1), "{").unwrap();
        assert_eq!(Traits::kept(at.0, at.1), Traits::default(), "a torn file is none");
        Traits::default().keep(at.0, at.1).unwrap();
        assert!(!file(at.0, at.1).exists());
        Traits::forget(at.0, at.1).unwrap();
    }
}
