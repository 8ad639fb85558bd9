//! What a runtime without a cluster behind it says of a pod, for policies to go by: labels, service account, names of
//! ports, further source addresses.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use manx_api::rule::NamedPort;
use manx_api::workload::{ALLOWED_SOURCES_ANNOTATIONS, PORTS_ANNOTATION, SERVICE_ACCOUNT_ANNOTATION};
use manx_cni::{Call, Code, Error};
use serde::de::DeserializeOwned;

/// A pod's traits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
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
