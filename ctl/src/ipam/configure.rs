//! `ipam configure`, `ipam cordon`, `ipam uncordon`: settings of all nodes, and of pools.

use manx_api::ipam::{IpPool, IpamConfiguration, IpamConfigurationSpec};
use manx_api::{Key, Kind, Metadata, Resource};
use manx_store::{AnyStore, Error, Store as _};
use serde::Serialize;

use super::args::{ConfigureArgs, Settings};
use super::show::find;
use crate::error::Result;
use crate::output::{self, Row};
use crate::target::Target;

/// The only IPAMConfiguration that is honoured.
const CONFIGURATION: &str = "default";

/// A setting that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Setting {
    property: &'static str,
    old: String,
    new: String,
}

/// Changes settings, and shows from what to what.
pub(super) async fn configure(target: &Target, args: &ConfigureArgs) -> Result<()> {
    let store = target.store().await?;
    let key = Key::cluster(Kind::IpamConfiguration, CONFIGURATION);
    loop {
        let stored = match store.get(&key).await {
            Ok(resource) => IpamConfiguration::try_from(resource).ok(),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let old = stored
            .as_ref()
            .map(|stored| stored.spec.clone())
            .unwrap_or_default();
        let spec = args.settings.over(&old);
        let metadata = stored.as_ref().map(|stored| stored.metadata.clone());
        let wanted = Resource::IpamConfiguration(IpamConfiguration {
            metadata: metadata.unwrap_or_else(|| Metadata {
                name: CONFIGURATION.to_owned(),
                ..Metadata::default()
            }),
            spec: spec.clone(),
        });
        let written = match stored {
            Some(_) => store.update(wanted).await,
            None => store.create(wanted).await,
        };
        match written {
            Ok(_) => return output::print(&changes(&args.settings, &old, &spec), args.output.output),
            // Somebody else was quicker: their other settings stay.
            Err(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::NotFound(_)) => {}
            Err(
                error @ (Error::Invalid { .. }
                | Error::Expired(_)
                | Error::Denied { .. }
                | Error::Unavailable { .. }),
            ) => {
                return Err(error.into());
            }
        }
    }
}

impl Settings {
    /// The settings, where they differ from what was.
    fn over(&self, old: &IpamConfigurationSpec) -> IpamConfigurationSpec {
        IpamConfigurationSpec {
            strict_affinity: self.strict_affinity.unwrap_or(old.strict_affinity),
            max_blocks_per_host: self.max_blocks_per_host.unwrap_or(old.max_blocks_per_host),
            ip_cooldown_seconds: self.ip_cooldown_seconds.unwrap_or(old.ip_cooldown_seconds),
            auto_allocate_blocks: self.auto_allocate_blocks.unwrap_or(old.auto_allocate_blocks),
        }
    }
}

/// What was asked for, from what to what.
fn changes(asked: &Settings, old: &IpamConfigurationSpec, new: &IpamConfigurationSpec) -> Vec<Setting> {
    let setting =
        |property, asked: bool, old: String, new: String| asked.then_some(Setting { property, old, new });
    let settings = [
        setting(
            "StrictAffinity",
            asked.strict_affinity.is_some(),
            old.strict_affinity.to_string(),
            new.strict_affinity.to_string(),
        ),
        setting(
            "AutoAllocateBlocks",
            asked.auto_allocate_blocks.is_some(),
            old.auto_allocate_blocks.to_string(),
            new.auto_allocate_blocks.to_string(),
        ),
        setting(
            "MaxBlocksPerHost",
            asked.max_blocks_per_host.is_some(),
            old.max_blocks_per_host.to_string(),
            new.max_blocks_per_host.to_string(),
        ),
        setting(
            "IPCooldownSeconds",
            asked.ip_cooldown_seconds.is_some(),
            old.ip_cooldown_seconds.to_string(),
            new.ip_cooldown_seconds.to_string(),
        ),
    ];
    settings.into_iter().flatten().collect()
}

impl Row for Setting {
    const COLUMNS: (&'static [&'static str], usize) = (&["PROPERTY", "OLD", "NEW"], 3);

    fn cells(&self) -> Vec<String> {
        vec![self.property.to_owned(), self.old.clone(), self.new.clone()]
    }

    fn name(&self) -> String {
        self.property.to_owned()
    }
}

/// Every pool there is.
pub(super) async fn pools(store: &AnyStore) -> Result<Vec<IpPool>> {
    let listed = store.list(Kind::IpPool, None).await?.items.into_iter();
    Ok(listed
        .filter_map(|resource| IpPool::try_from(resource).ok())
        .collect())
}

/// Changes a pool as it is now, again if somebody else changes it meanwhile. Returns it as it is then.
pub(super) async fn change_pool(
    store: &AnyStore,
    name: &str,
    change: impl Fn(&mut IpPool),
) -> Result<IpPool> {
    let key = Key::cluster(Kind::IpPool, name);
    loop {
        let Ok(mut pool) = IpPool::try_from(store.get(&key).await?) else {
            return Err(Error::NotFound(key).into());
        };
        change(&mut pool);
        match store.update(Resource::IpPool(pool.clone())).await {
            Ok(stored) => return Ok(IpPool::try_from(stored).unwrap_or(pool)),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Has a pool give nothing new, or give again; what is held stays either way.
pub(super) async fn cordon(target: &Target, wanted: &str, disabled: bool) -> Result<()> {
    let store = target.store().await?;
    let known = pools(&store).await?;
    let pool = find(&known, wanted)?;
    let name = &pool.metadata.name;
    let word = match (pool.spec.disabled == disabled, disabled) {
        (true, _) => "unchanged",
        (false, true) => "cordoned",
        (false, false) => "uncordoned",
    };
    change_pool(&store, name, |pool| pool.spec.disabled = disabled).await?;
    output::emit(&format!("IPPool/{name} {word}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn what_is_not_asked_for_stays() {
        let old = IpamConfigurationSpec {
            strict_affinity: true,
            max_blocks_per_host: 4,
            ..IpamConfigurationSpec::default()
        };
        let asked = Settings {
            strict_affinity: None,
            max_blocks_per_host: Some(0),
            ip_cooldown_seconds: Some(120),
            auto_allocate_blocks: None,
        };
        let new = asked.over(&old);
        assert_eq!(
            new,
            IpamConfigurationSpec {
                max_blocks_per_host: 0,
                ip_cooldown_seconds: 120,
                ..old.clone()
            }
        );
        let text = output::text(&changes(&asked, &old, &new), Format::Table).unwrap();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text), @r"
        PROPERTY           OLD  NEW
        MaxBlocksPerHost   4    0
        IPCooldownSeconds  60   120
        ");
    }
}
