//! `deploy/overlays/admission`: what an agent's token lets its bearer write, as the tests' API server judges it.

use manx_api::ipam::{IpBlock, Lease, LeaseState};
use manx_api::{Key, Kind, Resource};
use manx_store::fake::FakeApiServer;
use manx_store::{Error, KubeStore, Store as _};
use manx_tests::manifests::rendered;
use serde_json::json;

use crate::ALL;

/// The API server, and agents of two nodes.
struct Cluster {
    server: FakeApiServer,
    left: KubeStore,
    right: KubeStore,
}

impl Cluster {
    async fn new() -> Self {
        let server = FakeApiServer::start().await.unwrap();
        server.authorize(&[ALL.clone(), rendered("overlays/admission")].concat());
        let [left, right] = ["left", "right"].map(|node| server.store_of("manx-system", "manxd", node));
        let (left, right) = (left.await.unwrap(), right.await.unwrap());
        Self { server, left, right }
    }
}

fn block(cidr: &str, node: Option<&str>, lease: Option<LeaseState>) -> IpBlock {
    let cidr = cidr.parse().unwrap();
    let name = manx_api::ipam::block_name(cidr);
    let spec = json!({"cidr": cidr, "pool": "v4", "node": node, "generation": 1});
    let metadata = json!({"name": name});
    let resource =
        json!({"apiVersion": "manx.network/v1", "kind": "IPBlock", "metadata": metadata, "spec": spec});
    let mut block = IpBlock::try_from(serde_json::from_value::<Resource>(resource).unwrap()).unwrap();
    let of = "10-1-0-0-26".to_owned();
    block.spec.lease = lease.map(|state| Lease { of, state });
    block
}

/// Changes a block as it is by now.
async fn change(store: &KubeStore, name: &str, change: impl FnOnce(&mut IpBlock)) -> Result<(), Error> {
    let found = store.get(&Key::cluster(Kind::IpBlock, name)).await?;
    let mut block = IpBlock::try_from(found).unwrap();
    change(&mut block);
    store.update(Resource::IpBlock(block)).await.map(drop)
}

async fn give(store: &KubeStore, name: &str, node: Option<&str>) -> Result<(), Error> {
    let to = |block: &mut IpBlock| {
        block.spec.node = node.map(str::to_owned);
        block.spec.generation += 1;
    };
    change(store, name, to).await
}

async fn lend(store: &KubeStore, name: &str, state: LeaseState) -> Result<(), Error> {
    change(store, name, |block| {
        block.spec.lease.as_mut().unwrap().state = state
    })
    .await
}

async fn delete(store: &KubeStore, name: &str) -> Result<(), Error> {
    store
        .delete(&Key::cluster(Kind::IpBlock, name), None)
        .await
        .map(drop)
}

fn denied<T: std::fmt::Debug>(outcome: Result<T, Error>, why: &str) {
    match outcome {
        Err(Error::Denied { message, .. }) => assert!(message.ends_with(why), "{message}"),
        other => panic!("{other:?}, which should be denied: {why}"),
    }
}

const WHOLE: &str = "10-1-0-0-26";
const OWN: &str = "an agent claims free blocks, and changes and gives back its own";
const BORROWER: &str = "whoever borrows a part of a block asks for it, keeps it and returns it";
const LENDER: &str = "whoever lends a part of a block grants it, and deletes what is refused or returned";

#[tokio::test]
async fn an_agent_writes_its_own_blocks() {
    let Cluster { server, left, right } = Cluster::new().await;
    let whole = |node| Resource::IpBlock(block("10.1.0.0/26", node, None));
    denied(right.create(whole(Some("left"))).await, OWN);
    left.create(whole(Some("left"))).await.unwrap();
    denied(give(&right, WHOLE, Some("right")).await, OWN);
    denied(give(&right, WHOLE, None).await, OWN);
    denied(give(&left, WHOLE, Some("right")).await, OWN);
    denied(delete(&right, WHOLE).await, OWN);
    let part_of_itself = |it: &mut IpBlock| {
        let (of, state) = ("10-1-0-0-24".to_owned(), LeaseState::Granted);
        it.spec.lease = Some(Lease { of, state });
    };
    denied(change(&right, WHOLE, part_of_itself).await, LENDER);
    give(&left, WHOLE, None).await.unwrap();
    give(&right, WHOLE, Some("right")).await.unwrap();
    delete(&right, WHOLE).await.unwrap();
    let nowhere = server.store_of("manx-system", "manxd", "").await.unwrap();
    denied(
        nowhere.create(whole(None)).await,
        "the token does not say which node it is for",
    );
}

#[tokio::test]
async fn a_part_of_a_block_is_asked_for_by_one_and_granted_by_another() {
    let Cluster {
        server: _server,
        left,
        right,
    } = Cluster::new().await;
    let part = |node, state| Resource::IpBlock(block("10.1.0.0/30", Some(node), Some(state)));
    const PART: &str = "10-1-0-0-30";
    denied(right.create(part("right", LeaseState::Granted)).await, BORROWER);
    denied(right.create(part("left", LeaseState::Requested)).await, LENDER);
    right.create(part("right", LeaseState::Requested)).await.unwrap();
    denied(lend(&right, PART, LeaseState::Granted).await, BORROWER);
    denied(give(&left, PART, Some("left")).await, BORROWER);
    lend(&left, PART, LeaseState::Granted).await.unwrap();
    denied(delete(&left, PART).await, LENDER);
    denied(lend(&left, PART, LeaseState::Returned).await, LENDER);
    denied(change(&right, PART, |it| it.spec.lease = None).await, BORROWER);
    lend(&right, PART, LeaseState::Returned).await.unwrap();
    delete(&left, PART).await.unwrap();
}

#[tokio::test]
async fn an_agent_writes_its_own_node() {
    let Cluster {
        server: _server,
        left,
        right,
    } = Cluster::new().await;
    let node = |name: &str| -> Resource {
        let node =
            json!({"apiVersion": "manx.network/v1", "kind": "Node", "metadata": {"name": name}, "spec": {}});
        serde_json::from_value(node).unwrap()
    };
    let why = "an agent writes its own node alone";
    denied(right.create(node("left")).await, why);
    let created = left.create(node("left")).await.unwrap();
    let Resource::Node(mut changed) = created else {
        panic!("{created:?}");
    };
    changed.spec.unschedulable = true;
    denied(right.update(Resource::Node(changed.clone())).await, why);
    left.update(Resource::Node(changed)).await.unwrap();
}
