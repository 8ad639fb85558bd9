//! `ipam split`: one pool becomes several, while pods run and come.
//!
//! The datastore lets pools lie in each other only while the outer one says that it is being split. So first it says
//! so, then the parts are made, then the whole goes. Blocks and pods stay: what a block belongs to is the smallest
//! pool around it. Each step finds what an interrupted run has done, so running again finishes the split.

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpPool, IpPoolSpec, SPLIT_INTO};
use manx_api::{Key, Kind, Metadata, Resource};
use manx_store::{AnyStore, Error, Store as _};

use super::args::SplitArgs;
use super::configure::{change_pool, pools};
use super::show::find;
use crate::error::{CtlError, Result};
use crate::output;
use crate::target::Target;

/// The longest name that a resource may have.
const LONGEST_NAME: usize = 253;

/// Why a pool cannot be split like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    /// Parts of one size that fill the pool come in powers of two.
    #[error("a pool is split into 2, 4, 8 or another power of two: {number} is none")]
    Number {
        /// What was asked for.
        number: u32,
    },
    /// The parts would not hold a block.
    #[error(
        "IPPool {pool} ({cidr}, in blocks of /{block}) cannot be split into {number}: at most into {most}"
    )]
    TooSmall {
        /// The pool.
        pool: String,
        /// Its addresses.
        cidr: IpNetwork,
        /// Prefix length of its blocks.
        block: u8,
        /// What was asked for.
        number: u32,
        /// What would be possible.
        most: u128,
    },
    /// An earlier run was asked for another number.
    #[error(
        "IPPool {pool} is being split into {under_way} already: finish that with \
         `manxctl ipam split {under_way} --pool {pool}`"
    )]
    UnderWay {
        /// The pool.
        pool: String,
        /// Into how many.
        under_way: u32,
    },
    /// A part's name is taken.
    #[error("IPPool {name} exists already, and is {found}: a part of that name would be {wanted}")]
    Taken {
        /// The name.
        name: String,
        /// What it has.
        found: IpNetwork,
        /// What it should have.
        wanted: IpNetwork,
    },
}

/// Splits a pool.
pub(super) async fn run(target: &Target, args: &SplitArgs) -> Result<()> {
    let store = target.store().await?;
    let known = pools(&store).await?;
    let SplitArgs { number, which } = args;
    let wanted = match (&which.pool, which.cidr) {
        (Some(name), _) => name.clone(),
        (None, cidr) => cidr.map(|cidr| cidr.to_string()).unwrap_or_default(),
    };
    let whole = match find(&known, &wanted) {
        Ok(whole) => whole,
        Err(error) => {
            let done = which.cidr.map_or_else(
                || split_by_name(&known, &wanted, *number),
                |cidr| split_by_cidr(&known, cidr, *number),
            );
            return match done {
                true => output::emit(&format!(
                    "IPPool {wanted} has been split into {number} already.\n"
                )),
                false => Err(error),
            };
        }
    };
    let parts = split(&store, whole, *number).await?;
    let mut text = format!("IPPool {} was split into {number} pools.\n", whole.metadata.name);
    for part in parts {
        text += &format!("Created {} with CIDR {}.\n", part.metadata.name, part.spec.cidr);
    }
    output::emit(&text)
}

/// Goes through with it, from wherever an earlier run has left it.
async fn split(store: &AnyStore, whole: &IpPool, number: u32) -> Result<Vec<IpPool>> {
    let name = &whole.metadata.name;
    // What cannot be is refused before anything is written.
    parts(whole, number)?;
    let whole = change_pool(store, name, |pool| {
        let annotations = &mut pool.metadata.annotations;
        annotations
            .entry(SPLIT_INTO.to_owned())
            .or_insert_with(|| number.to_string());
    })
    .await?;
    let parts = parts(&whole, number)?;
    for part in &parts {
        make(store, part).await?;
    }
    match store.delete(&Key::cluster(Kind::IpPool, name), None).await {
        Ok(_) | Err(Error::NotFound(_)) => Ok(parts),
        Err(error) => Err(error.into()),
    }
}

async fn make(store: &AnyStore, part: &IpPool) -> Result<()> {
    match store.create(Resource::IpPool(part.clone())).await {
        Ok(_) => return Ok(()),
        Err(Error::AlreadyExists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let key = Key::cluster(Kind::IpPool, &part.metadata.name);
    let found = IpPool::try_from(store.get(&key).await?).map(|found| found.spec.cidr);
    match found {
        Ok(found) if found != part.spec.cidr => Err(CtlError::Split(SplitError::Taken {
            name: key.name,
            found,
            wanted: part.spec.cidr,
        })),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The pools that `whole` becomes: like it in all but addresses, named as calicoctl names them.
fn parts(whole: &IpPool, number: u32) -> std::result::Result<Vec<IpPool>, SplitError> {
    let (name, spec) = (&whole.metadata.name, &whole.spec);
    if number < 2 || !number.is_power_of_two() {
        return Err(SplitError::Number { number });
    }
    if let Some(under_way) = whole.split_into().filter(|under_way| *under_way != number) {
        let pool = name.clone();
        return Err(SplitError::UnderWay { pool, under_way });
    }
    let room = u32::from(spec.block_size().saturating_sub(spec.cidr.prefix()));
    if number.ilog2() > room {
        return Err(SplitError::TooSmall {
            pool: name.clone(),
            cidr: spec.cidr,
            block: spec.block_size(),
            number,
            most: 1_u128.checked_shl(room).unwrap_or(u128::MAX),
        });
    }
    let mut annotations = whole.metadata.annotations.clone();
    annotations.remove(SPLIT_INTO);
    let part = |(index, cidr): (usize, IpNetwork)| IpPool {
        metadata: Metadata {
            name: part_name(name, index),
            labels: whole.metadata.labels.clone(),
            annotations: annotations.clone(),
            ..Metadata::default()
        },
        spec: IpPoolSpec { cidr, ..spec.clone() },
    };
    Ok(cidrs(spec.cidr, number)
        .into_iter()
        .enumerate()
        .map(part)
        .collect())
}

fn part_name(whole: &str, index: usize) -> String {
    let suffix = format!("-{index}");
    let most = LONGEST_NAME
        .saturating_sub("split-".len())
        .saturating_sub(suffix.len());
    let kept: String = whole.chars().take(most).collect();
    format!("split-{}{suffix}", kept.trim_end_matches(['-', '.']))
}

/// The networks that a network falls into, a power of two.
fn cidrs(whole: IpNetwork, number: u32) -> Vec<IpNetwork> {
    let depth = u8::try_from(number.ilog2()).unwrap_or(u8::MAX);
    let prefix = whole.prefix().saturating_add(depth);
    let network = |index: u32| match whole {
        IpNetwork::V4(v4) => {
            let offset = index
                .checked_shl(32_u32.saturating_sub(prefix.into()))
                .unwrap_or(0);
            let address = std::net::Ipv4Addr::from_bits(v4.network().to_bits() | offset);
            IpNetwork::new(address.into(), prefix).ok()
        }
        IpNetwork::V6(v6) => {
            let offset = u128::from(index)
                .checked_shl(128_u32.saturating_sub(prefix.into()))
                .unwrap_or(0);
            let address = std::net::Ipv6Addr::from_bits(v6.network().to_bits() | offset);
            IpNetwork::new(address.into(), prefix).ok()
        }
    };
    (0..number).filter_map(network).collect()
}

/// Whether a pool that is gone was split: its parts are there.
fn split_by_name(known: &[IpPool], name: &str, number: u32) -> bool {
    let is_there = |index| {
        known
            .iter()
            .any(|pool| pool.metadata.name == part_name(name, index))
    };
    number > 1 && (0..number as usize).all(is_there)
}

fn split_by_cidr(known: &[IpPool], whole: IpNetwork, number: u32) -> bool {
    let is_there = |cidr: &IpNetwork| known.iter().any(|pool| pool.spec.cidr == *cidr);
    number > 1 && number.is_power_of_two() && cidrs(whole, number).iter().all(is_there)
}

#[cfg(test)]
mod tests {
    use manx_store::SqliteStore;
    use serde_json::json;

    use super::*;

    fn pool(name: &str, cidr: &str) -> IpPool {
        let mut pool = IpPool {
            metadata: Metadata {
                name: name.to_owned(),
                ..Metadata::default()
            },
            spec: IpPoolSpec::new(cidr.parse().unwrap()),
        };
        pool.metadata
            .annotations
            .insert("team".to_owned(), "net".to_owned());
        pool.spec.nat_outgoing = true;
        pool
    }

    #[test]
    fn parts_fill_the_whole_and_are_like_it() {
        let parts = parts(&pool("blue", "10.1.0.0/24"), 4).unwrap();
        let found: Vec<_> = parts
            .iter()
            .map(|part| format!("{} {}", part.metadata.name, part.spec.cidr))
            .collect();
        assert_eq!(
            found,
            [
                "split-blue-0 10.1.0.0/26",
                "split-blue-1 10.1.0.64/26",
                "split-blue-2 10.1.0.128/26",
                "split-blue-3 10.1.0.192/26",
            ]
        );
        assert!(
            parts
                .iter()
                .all(|part| part.spec.nat_outgoing && part.metadata.annotations["team"] == "net")
        );
        let six = cidrs("fd00::/48".parse().unwrap(), 2);
        assert_eq!(
            six,
            ["fd00::/49", "fd00:0:0:8000::/49"].map(|text| text.parse().unwrap())
        );
        assert_eq!(cidrs("::/0".parse().unwrap(), 2)[1].to_string(), "8000::/1");
        assert_eq!(
            cidrs("0.0.0.0/0".parse().unwrap(), 2)[1].to_string(),
            "128.0.0.0/1"
        );
        assert_eq!(part_name(&"a.".repeat(126), 10).len(), LONGEST_NAME - 1);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_could() {
        let refused = |number| {
            parts(&pool("blue", "10.1.0.0/24"), number)
                .unwrap_err()
                .to_string()
        };
        for number in [0, 1, 3] {
            let wanted = format!("a pool is split into 2, 4, 8 or another power of two: {number} is none");
            assert_eq!(refused(number), wanted);
        }
        assert_eq!(
            refused(8),
            "IPPool blue (10.1.0.0/24, in blocks of /26) cannot be split into 8: at most into 4"
        );
        let mut marked = pool("blue", "10.1.0.0/24");
        marked
            .metadata
            .annotations
            .insert(SPLIT_INTO.to_owned(), "2".to_owned());
        assert_eq!(
            parts(&marked, 4).unwrap_err().to_string(),
            "IPPool blue is being split into 2 already: finish that with `manxctl ipam split 2 --pool blue`"
        );
    }

    async fn store() -> (tempfile::TempDir, AnyStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store.db")).await.unwrap();
        let store = AnyStore::Sqlite(store);
        store
            .create(Resource::IpPool(pool("blue", "10.1.0.0/24")))
            .await
            .unwrap();
        let block = json!({
            "apiVersion": "manx.network/v1", "kind": "IPBlock", "metadata": {"name": "10-1-0-64-26"},
            "spec": {"cidr": "10.1.0.64/26", "pool": "blue", "node": "n1", "generation": 1},
        });
        store
            .create(serde_json::from_value(block).unwrap())
            .await
            .unwrap();
        (folder, store)
    }

    async fn names(store: &AnyStore) -> Vec<String> {
        pools(store)
            .await
            .unwrap()
            .into_iter()
            .map(|pool| pool.metadata.name)
            .collect()
    }

    #[tokio::test]
    async fn a_split_that_was_interrupted_anywhere_is_finished_by_another_run() {
        let whole = pool("blue", "10.1.0.0/24");
        let wanted = parts(&whole, 4).unwrap();
        for made in 0..=4 {
            let (_folder, store) = store().await;
            // As the interrupted run would have left it.
            let mark = |pool: &mut IpPool| {
                drop(
                    pool.metadata
                        .annotations
                        .insert(SPLIT_INTO.to_owned(), "4".to_owned()),
                );
            };
            change_pool(&store, "blue", mark).await.unwrap();
            for part in &wanted[..made] {
                make(&store, part).await.unwrap();
            }
            assert_eq!(split(&store, &whole, 4).await.unwrap(), wanted);
            assert_eq!(
                names(&store).await,
                ["split-blue-0", "split-blue-1", "split-blue-2", "split-blue-3"]
            );
            let known = pools(&store).await.unwrap();
            assert!(split_by_name(&known, "blue", 4) && split_by_cidr(&known, whole.spec.cidr, 4));
            assert!(!split_by_name(&known, "blue", 8) && !split_by_cidr(&known, whole.spec.cidr, 2));
        }
    }

    #[tokio::test]
    async fn a_name_that_is_taken_stops_the_split_and_says_so() {
        let (_folder, store) = store().await;
        let other = pool("split-blue-1", "10.9.0.0/24");
        store.create(Resource::IpPool(other)).await.unwrap();
        let error = split(&store, &pool("blue", "10.1.0.0/24"), 2).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "IPPool split-blue-1 exists already, and is 10.9.0.0/24: a part of that name would be 10.1.0.128/25"
        );
        assert!(
            names(&store).await.contains(&"blue".to_owned()),
            "the whole is still there"
        );
    }
}
