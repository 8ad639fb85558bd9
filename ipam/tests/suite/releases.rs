//! An owner's answer to what operators ask of its block.

use std::collections::BTreeMap;

use manx_api::ipam::Release;
use manx_ipam::{NotOwner, Settled, settle_releases};

use crate::{NODE, allocation, block};

#[test]
fn what_was_dealt_with_is_gone_and_what_was_kept_stays_allocated() {
    let mut asked = block("p", "10.0.0.0/24", "10.0.0.0/26");
    let [gone, kept, later] = [1, 2, 3].map(|number| allocation(&format!("10.0.0.{number}"), number, 1));
    asked.spec.allocations = vec![gone.clone(), kept.clone(), later.clone()];
    let release = |of: &manx_api::ipam::Allocation, off: u64| Release {
        address: of.address,
        sequence: of.sequence - off,
    };
    let late = release(&later, 0);
    let old = release(&later, 1);
    asked.spec.releases = vec![release(&gone, 0), release(&kept, 0), old, late];
    let settled = BTreeMap::from([
        (release(&gone, 0), Settled::Gone),
        (release(&kept, 0), Settled::Kept),
        (old, Settled::Gone),
    ]);
    let next = settle_releases(&asked, NODE, &settled).unwrap();
    assert_eq!(next.spec.releases, [late], "asked meanwhile");
    assert_eq!(
        next.spec.allocations,
        [kept, later],
        "an old number frees nothing"
    );

    let refused = settle_releases(&asked, "another", &settled).unwrap_err();
    assert!(matches!(refused, NotOwner { .. }), "{refused}");
}
