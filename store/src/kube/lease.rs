//! Leases (`coordination.k8s.io/v1`): which of several processes acts.
//!
//! Times in a lease are for people who read it. Nobody here compares them with a clock of its own: a holder that lives
//! writes, and whether it wrote is seen by the revision.

use jiff::Timestamp;
use kube::api::{GetParams, Patch};
use manx_api::Revision;
use serde_json::{Value, json};

use super::cluster::patcher;
use super::{Cluster, PATIENCE, object, paths, writer};
use crate::Error;

/// A lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its last write.
    pub revision: Revision,
    /// Who has it; nobody: it was given back.
    pub holder: Option<String>,
    /// How long it lasts after a write, in seconds, as its holder wrote it.
    pub seconds: u32,
    /// How often it changed hands.
    pub transitions: u64,
}

impl Lease {
    fn of(lease: &Value) -> Self {
        let spec = &lease["spec"];
        let holder = spec["holderIdentity"]
            .as_str()
            .filter(|holder| !holder.is_empty());
        let seconds = spec["leaseDurationSeconds"].as_u64().unwrap_or_default();
        Self {
            revision: object::revision(lease),
            holder: holder.map(str::to_owned),
            seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            transitions: spec["leaseTransitions"].as_u64().unwrap_or_default(),
        }
    }
}

/// Which lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Cluster {
    /// The namespace that we are in, or that the kubeconfig names; `default` where neither says.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.client().default_namespace()
    }

    /// A lease; none where there is no such lease.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn lease(&self, lease: &LeaseName) -> Result<Option<Lease>, Error> {
        let request = paths::leases(&lease.namespace).get(&lease.name, &GetParams::default());
        self.ask_lease("read", lease, request).await
    }

    /// Writes who has a lease from now on, in the place of what was read; none: somebody else has written since.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`].
    pub async fn write_lease(
        &self,
        lease: &LeaseName,
        before: Option<&Lease>,
        holder: Option<&str>,
        seconds: u32,
    ) -> Result<Option<Lease>, Error> {
        let now = Timestamp::now().strftime("%FT%T.%6fZ").to_string();
        let mut spec = json!({"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": now});
        if before.is_none_or(|before| before.holder.as_deref() != holder) && holder.is_some() {
            spec["acquireTime"] = json!(now);
            spec["leaseTransitions"] = json!(before.map_or(0, |before| before.transitions.saturating_add(1)));
        }
        let leases = paths::leases(&lease.namespace);
        let request = match before {
            None => {
                let metadata = json!({"name": lease.name, "namespace": lease.namespace});
                let body = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec,
                });
                leases.create(&writer(), body.to_string().into_bytes())
            }
            Some(before) => {
                let patch = json!({"metadata": {"resourceVersion": before.revision.0}, "spec": spec});
                leases.patch(&lease.name, &patcher(), &Patch::Merge(patch))
            }
        };
        self.ask_lease("write", lease, request).await
    }

    /// One request and the lease that it answers with; none: it is not there, or another than was read.
    async fn ask_lease(
        &self,
        what: &str,
        lease: &LeaseName,
        request: super::Request,
    ) -> Result<Option<Lease>, Error> {
        let LeaseName { namespace, name } = lease;
        let context = || format!("cannot {what} Lease {namespace}/{name}");
        let request = request.map_err(|error| Error::unavailable(context(), error))?;
        let answer = tokio::time::timeout(PATIENCE, self.client().request::<Value>(request)).await;
        match answer.map_err(|late| Error::unavailable(context(), late))? {
            Ok(found) => Ok(Some(Lease::of(&found))),
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => Err(Error::Denied {
                context: context(),
                message: status.message,
            }),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(Error::unavailable(context(), error)),
        }
    }
}
