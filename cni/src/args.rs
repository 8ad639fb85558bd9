//! `CNI_ARGS`: `KEY=VALUE` pairs separated by semicolons.

use std::fmt::Display;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::attachment::is_cni_name;
use crate::{Code, Error, MacAddress, runtime};

/// The longest name that Kubernetes gives an object, in bytes.
const MAX_NAME: usize = 253;

/// What Kubernetes' runtimes say of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Args {
    /// `K8S_POD_NAMESPACE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// `K8S_POD_UID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// `K8S_POD_INFRA_CONTAINER_ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra_container_id: Option<String>,
    /// `IP`: an address that the pod should have; podman says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// `MAC`: the MAC that the pod's end should have; podman says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
}

impl Args {
    /// Parses `CNI_ARGS`. An empty value is none; an unknown key is refused unless `IgnoreUnknown=1`.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`], naming the pair.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut args = Self::default();
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(invalid(format!("'{pair}' is not KEY=VALUE")));
            };
            match key {
                "K8S_POD_NAMESPACE" => args.pod_namespace = name(key, value)?,
                "K8S_POD_NAME" => args.pod_name = name(key, value)?,
                "K8S_POD_UID" => args.pod_uid = name(key, value)?,
                "K8S_POD_INFRA_CONTAINER_ID" => args.infra_container_id = name(key, value)?,
                "IP" => args.ip = wish(key, value, runtime::address)?,
                "MAC" => args.mac = wish(key, value, str::parse)?,
                "IgnoreUnknown" => ignore_unknown = boolean(key, value)?,
                _ => unknown.push(key),
            }
        }
        if !ignore_unknown && !unknown.is_empty() {
            return Err(invalid(format!(
                "unknown [{}]: add IgnoreUnknown=1 to have them ignored",
                unknown.join(", ")
            )));
        }
        Ok(args)
    }
}

fn name(key: &str, value: &str) -> Result<Option<String>, Error> {
    if value.is_empty() {
        return Ok(None);
    }
    if is_cni_name(value) && value.len() <= MAX_NAME {
        return Ok(Some(value.to_owned()));
    }
    Err(invalid(format!(
        "{key}='{value}': a letter or digit, then these, '_', '.' and '-', at most 253"
    )))
}

fn wish<T, E: Display>(
    key: &str,
    value: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Error> {
    if value.is_empty() {
        return Ok(None);
    }
    parse(value)
        .map(Some)
        .map_err(|problem| invalid(format!("{key}: {problem}")))
}

fn boolean(key: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(invalid(format!(
            "{key}='{value}' is neither 1 or true nor 0 or false"
        ))),
    }
}

fn invalid(problem: String) -> Error {
    Error::new(Code::InvalidEnvironment, format!("CNI_ARGS: {problem}"))
}
