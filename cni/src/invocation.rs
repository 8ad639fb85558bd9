//! What the runtime wants: the verb and the attachment, from the environment.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use manx_api::ipam::AttachmentId;
use serde::{Deserialize, Serialize};

use crate::runtime::Wishes;
use crate::{Args, Attachment, Code, ContainerId, Error, InterfaceName, MacAddress, NetConf, SpecVersion};

/// The verbs of CNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach a container.
    Del,
    /// Compare an attachment with what ADD answered.
    Check,
    /// Whether an ADD could succeed.
    Status,
    /// Detach every container that the runtime does not know.
    Gc,
    /// Which specification versions are supported.
    Version,
}

impl Command {
    const ALL: [Self; 6] = [
        Self::Add,
        Self::Del,
        Self::Check,
        Self::Status,
        Self::Gc,
        Self::Version,
    ];

    /// The verb in `CNI_COMMAND`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    /// The specification version that introduced the verb.
    #[must_use]
    pub fn since(self) -> SpecVersion {
        match self {
            Self::Add | Self::Del | Self::Version => SpecVersion::V0_3_1,
            Self::Check => SpecVersion::V0_4_0,
            Self::Status | Self::Gc => SpecVersion::V1_1_0,
        }
    }

    /// The verb in `CNI_COMMAND`.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`]: it is none.
    pub(crate) fn parse(verb: &str) -> Result<Self, Error> {
        if verb.is_empty() {
            let message = "CNI_COMMAND is not set: manx is a CNI plugin, which a container runtime calls; people use manxctl";
            return Err(Error::new(Code::InvalidEnvironment, message));
        }
        Self::ALL
            .into_iter()
            .find(|command| command.as_str() == verb)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join(", ");
                Error::new(
                    Code::InvalidEnvironment,
                    format!("unknown CNI_COMMAND '{verb}': it is one of {known}"),
                )
            })
    }

    /// The variables that have to be set beside `CNI_COMMAND`.
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Status | Self::Gc | Self::Version => &[],
        }
    }
}

/// A call about one attachment: what `cni.add`, `cni.del` and `cni.check` take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Which attachment.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// `CNI_NETNS`, an absolute path. ADD and CHECK have it; at DEL the namespace may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// `CNI_ARGS`.
    #[serde(default)]
    pub args: Args,
    /// ADD, CHECK: addresses that the pod should have, one of a family at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested: Vec<IpAddr>,
    /// ADD, CHECK: the MAC that the pod's end should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// ADD, CHECK: the pod's annotations, as far as the runtime tells them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// ADD, CHECK: the pod's labels, from a runtime that has no cluster to ask about them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Standard input.
    pub config: NetConf,
}

impl Call {
    /// A call with the attachment that the environment names; an empty variable counts as not set.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`], naming every variable that is missing or the one that is malformed.
    pub(crate) fn from_environment(
        command: Command,
        variable: impl Fn(&str) -> Option<String>,
        (config, wishes): (NetConf, Wishes),
    ) -> Result<Self, Error> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let missing = command
            .required()
            .iter()
            .copied()
            .filter(|name| variable(name).is_none());
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            let message = format!("{} needs [{}], not set", command.as_str(), missing.join(", "));
            return Err(Error::new(Code::InvalidEnvironment, message));
        }
        let netns = variable("CNI_NETNS");
        if let Some(path) = netns.as_deref().filter(|path| !path.starts_with('/')) {
            return Err(malformed("CNI_NETNS", format!("'{path}' is no absolute path")));
        }
        let container_id = ContainerId::try_from(variable("CNI_CONTAINERID").unwrap_or_default());
        let ifname = InterfaceName::try_from(variable("CNI_IFNAME").unwrap_or_default());
        let attachment = Attachment {
            container_id: container_id.map_err(|problem| malformed("CNI_CONTAINERID", problem))?,
            ifname: ifname.map_err(|problem| malformed("CNI_IFNAME", problem))?,
        };
        // A DEL goes through whatever else is said, also after an ADD that was refused for it.
        let args = match command {
            Command::Del => Args::default(),
            Command::Add | Command::Check | Command::Status | Command::Gc | Command::Version => {
                Args::parse(&variable("CNI_ARGS").unwrap_or_default())?
            }
        };
        let Wishes {
            requested,
            mac,
            annotations,
            labels,
        } = wishes.or(&args);
        Ok(Self {
            attachment,
            netns,
            args,
            requested,
            mac,
            annotations,
            labels,
            config,
        })
    }

    /// What the attachment is called in IPAM: a runtime that names no pod gets namespace `default` and the
    /// container id as the pod's name.
    #[must_use]
    pub fn attachment_id(&self) -> AttachmentId {
        let container_id = self.attachment.container_id.as_str().to_owned();
        AttachmentId {
            ifname: self.attachment.ifname.as_str().to_owned(),
            namespace: self
                .args
                .pod_namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
            pod: self.args.pod_name.clone().unwrap_or_else(|| container_id.clone()),
            network: Some(self.config.name.clone()),
            container_id,
        }
    }
}

fn malformed(variable: &str, problem: impl Display) -> Error {
    Error::new(Code::InvalidEnvironment, format!("{variable}: {problem}"))
}
