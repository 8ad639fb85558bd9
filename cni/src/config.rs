//! The network's configuration, as the runtime hands it to the plugin on standard input.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::attachment::is_cni_name;
use crate::{Attachment, Code, Dns, Error, SpecVersion, Success};

/// Where the agent listens.
pub const DEFAULT_SOCKET: &str = "/run/manx/manxd.sock";

/// Where the agent keeps what outlives it; the plugin only adds tombstones.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/manx";

/// How long the plugin waits for the agent, in seconds.
const DEFAULT_TIMEOUT: u64 = 30;

/// The MTUs that an interface can have: from what every IPv4 host takes to what a length field carries.
const MTU: std::ops::RangeInclusive<u32> = 576..=65535;

/// The timeouts that make sense, in seconds.
const TIMEOUT: std::ops::RangeInclusive<u64> = 1..=600;

/// The configuration. Fields that Manx does not know are ignored: runtimes and meta plugins add their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetConf {
    /// The specification version that the answer has to follow.
    pub cni_version: SpecVersion,
    /// The network's name.
    pub name: String,
    /// The agent's control socket. Default [`DEFAULT_SOCKET`].
    pub socket: PathBuf,
    /// The agent's state directory. Default [`DEFAULT_STATE_DIR`].
    pub state_dir: PathBuf,
    /// How long to wait for the agent, in seconds: 1 to 600, default 30.
    pub timeout_seconds: u64,
    /// The MTU of the pod's interface, in bytes; the agent's choice where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Name service settings to put into the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// ADD: the result of the plugins that ran before this one; none for the first. CHECK, DEL: the result of
    /// ADD, after the plugins that ran behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_result: Option<Value>,
    /// GC: every attachment to the network that is still alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// A JSON object that has a specification version.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) version: SpecVersion,
    fields: Map<String, Value>,
}

impl Document {
    /// Reads the object and its `cniVersion`, so that errors about the rest can be answered in that version.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Error> {
        let fields = object(text)?;
        let Some(version) = field::<String>(&fields, "cniVersion")? else {
            return Err(incompatible("has no cniVersion".to_owned()));
        };
        match SpecVersion::parse(&version) {
            Some(version) => Ok(Self { version, fields }),
            None => Err(incompatible(format!("has cniVersion '{version}'"))),
        }
    }

    /// A field that is an object; an empty one where it is absent.
    pub(crate) fn object(&self, name: &str) -> Result<Map<String, Value>, Error> {
        Ok(field(&self.fields, name)?.unwrap_or_default())
    }

    /// Refuses what would change a pod's network if it were obeyed, and is not.
    ///
    /// # Errors
    /// [`Code::UnsupportedField`], naming the field.
    pub(crate) fn refuse_unsupported(&self) -> Result<(), Error> {
        let ipam = self
            .fields
            .get("ipam")
            .and_then(|ipam| ipam.get("type"))
            .and_then(Value::as_str);
        if let Some(plugin) = ipam.filter(|plugin| !plugin.is_empty()) {
            let message =
                format!("ipam.type '{plugin}': Manx assigns addresses from its IPPools; remove 'ipam'");
            return Err(Error::new(Code::UnsupportedField, message));
        }
        if self.fields.get("ipMasq").and_then(Value::as_bool) == Some(true) {
            let message = "ipMasq true: Manx does not rewrite pods' addresses; remove 'ipMasq'";
            return Err(Error::new(Code::UnsupportedField, message));
        }
        Ok(())
    }
}

/// The JSON object on standard input.
pub(crate) fn object(text: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(text).map_err(|error| {
        Error::new(
            Code::Decode,
            "the network configuration on standard input is no JSON object",
        )
        .with_details(error)
    })
}

impl NetConf {
    /// The result of the plugins before this one (ADD), or of all of them (CHECK, DEL); none where there is none.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: `prevResult` is no result of any version.
    pub fn previous(&self) -> Result<Option<Success>, Error> {
        let Some(result) = &self.prev_result else {
            return Ok(None);
        };
        Success::deserialize(result)
            .map(Some)
            .map_err(|error| invalid("prevResult", &error.to_string()))
    }

    /// The configuration that a document holds.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`], naming the field.
    pub(crate) fn from_document(document: &Document) -> Result<Self, Error> {
        let fields = &document.fields;
        let name = field::<String>(fields, "name")?.unwrap_or_default();
        if !is_cni_name(&name) {
            let rule = "a letter or digit, then these, '_', '.' and '-'";
            return Err(invalid("name", &format!("'{name}' is no network name: {rule}")));
        }
        let valid_attachments = match field(fields, "cni.dev/valid-attachments")? {
            Some(attachments) => Some(attachments),
            // The name before specification 1.1.0 was final; runtimes send both.
            None => field(fields, "cni.dev/attachments")?,
        };
        Ok(Self {
            cni_version: document.version,
            name,
            socket: path(fields, "socket", DEFAULT_SOCKET)?,
            state_dir: path(fields, "stateDir", DEFAULT_STATE_DIR)?,
            timeout_seconds: within(fields, "timeoutSeconds", &TIMEOUT)?.unwrap_or(DEFAULT_TIMEOUT),
            // Zero is how the reference plugins' configurations say "not set".
            mtu: match fields.get("mtu").and_then(Value::as_u64) {
                Some(0) => None,
                Some(_) | None => within(fields, "mtu", &MTU)?,
            },
            dns: field(fields, "dns")?,
            prev_result: field(fields, "prevResult")?,
            valid_attachments,
        })
    }
}

/// A field's value; none where it is absent or null.
fn field<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str) -> Result<Option<T>, Error> {
    nested(fields, name, name)
}

/// The same for a field of an object inside the configuration, which errors call by its path.
pub(crate) fn nested<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    name: &str,
    path: &str,
) -> Result<Option<T>, Error> {
    let Some(value) = fields.get(name).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    T::deserialize(value)
        .map(Some)
        .map_err(|error| invalid(path, &error.to_string()))
}

fn path(fields: &Map<String, Value>, name: &str, default: &str) -> Result<PathBuf, Error> {
    let path = field::<PathBuf>(fields, name)?.unwrap_or_else(|| default.into());
    if path.is_absolute() {
        return Ok(path);
    }
    Err(invalid(
        name,
        &format!("'{}' is no absolute path", path.display()),
    ))
}

fn within<T: DeserializeOwned + PartialOrd + std::fmt::Display>(
    fields: &Map<String, Value>,
    name: &str,
    range: &std::ops::RangeInclusive<T>,
) -> Result<Option<T>, Error> {
    match field(fields, name)? {
        Some(number) if !range.contains(&number) => Err(invalid(
            name,
            &format!("{number} is not between {} and {}", range.start(), range.end()),
        )),
        number => Ok(number),
    }
}

pub(crate) fn invalid(field: &str, problem: &str) -> Error {
    Error::new(
        Code::InvalidConfig,
        format!("the network configuration's field '{field}': {problem}"),
    )
}

fn incompatible(problem: String) -> Error {
    let supported = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
    Error::new(
        Code::IncompatibleVersion,
        format!("the network configuration {problem}"),
    )
    .with_details(format!("Manx supports {supported}"))
}
