//! The pools task: a new cluster's first pools, made once.
//!
//! That it was done is kept in the cluster, as a Lease that is never given back: so an operator's deletion of a pool is final,
//! whichever controller acts later. Where somebody has made a pool for pods already, nothing is made, then or ever.

use std::convert::Infallible;
use std::future::pending;

use manx_api::ipam::{IpPool, PoolUse};
use manx_api::{Kind, Resource};
use manx_store::{Cluster, Error, LeaseName, Store};

/// The name of the Lease, in the namespace that the controller is in. Without it, the cluster counts as new again.
pub const MADE: &str = "manx-default-pools";

/// How many seconds the Lease says that it lasts: nobody asks.
const SECONDS: u32 = 1;

/// Makes the pools, where that is still to be done, and waits for ever.
pub(crate) async fn run<S: Store>(
    store: &S,
    cluster: &Cluster,
    name: &str,
    pools: &[IpPool],
) -> Result<Infallible, Error> {
    let lease = LeaseName {
        namespace: cluster.namespace().to_owned(),
        name: MADE.to_owned(),
    };
    if !pools.is_empty() && cluster.lease(&lease).await?.is_none() {
        let listed = store.list(Kind::IpPool, None).await?.items;
        let for_pods = |pool: IpPool| pool.spec.allowed_use() == PoolUse::Workload;
        let mut existing = listed
            .into_iter()
            .filter_map(|resource| IpPool::try_from(resource).ok());
        if existing.any(for_pods) {
            tracing::info!("the cluster has a pool already: controller.defaultPools is not needed");
        } else {
            make(store, pools).await?;
        }
        // After the pools: who dies between the two leaves it to the next, who finds them.
        cluster.write_lease(&lease, None, Some(name), SECONDS).await?;
    }
    pending().await
}

async fn make<S: Store>(store: &S, pools: &[IpPool]) -> Result<(), Error> {
    for pool in pools {
        match store.create(Resource::IpPool(pool.clone())).await {
            Ok(_) => {
                tracing::info!(pool = pool.metadata.name, cidr = %pool.spec.cidr, "the cluster has its first pool")
            }
            Err(Error::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
