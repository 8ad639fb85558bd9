//! Why a prefix is reached as it is, and who is told of it.

use std::sync::Arc;

use manx_bgp::explain::Explanation;
use manx_bgp::filter::{Action, Chain, Filter, Match, Rule};
use manx_bgp::{Input, PeerConfig, PeerKey, Policy};

use crate::rig::{Rig, announcement, config, external, internal, key, path, prefix};

fn rejecting(name: &str) -> Policy {
    let rule = Rule {
        when: Match::default(),
        then: Action::Reject,
    };
    let filter = Filter {
        name: name.into(),
        v4: vec![rule],
        v6: Vec::new(),
    };
    Policy::Filtered(Arc::new(Chain::new(&[filter], Policy::Accept)))
}

/// From whom, why it lost, and by which import rule.
fn paths(explained: &Explanation) -> Vec<(PeerKey, Option<String>, Option<String>)> {
    let shown = explained.paths.iter().map(|it| {
        let rule = it.rule.as_ref().map(ToString::to_string);
        (it.path.peer.unwrap(), it.path.reason.clone(), rule)
    });
    shown.collect()
}

/// To whom, whether, why not, and by which export rule.
fn peers(explained: &Explanation) -> Vec<(PeerKey, bool, &str, Option<String>)> {
    let shown = explained.peers.iter().map(|it| {
        let rule = it.rule.as_ref().map(ToString::to_string);
        (it.peer, it.advertised, it.reason.as_deref().unwrap_or(""), rule)
    });
    shown.collect()
}

#[test]
fn every_path_says_why_it_lost_and_every_peer_why_it_is_not_told() {
    let mut rig = Rig::new(config());
    let target = prefix("10.1.0.0/26");
    let (best, longer) = (rig.establish(internal(2)), rig.establish(external(3)));
    let refused = rig.establish(PeerConfig {
        import: rejecting("in"),
        ..external(4)
    });
    rig.establish(internal(5));
    rig.establish(external(6));
    rig.establish(PeerConfig {
        export: rejecting("out"),
        ..external(7)
    });
    rig.input(Input::SetPeer(Box::new(external(8))));
    rig.update(best, announcement(2, target, path(&[])));
    rig.update(longer, announcement(3, target, path(&[65_003])));
    rig.update(refused, announcement(4, target, path(&[65_004])));

    let explained = rig.speaker.explain(target).unwrap();
    let paths = paths(&explained);
    assert_eq!(
        paths,
        [
            (key(2), None, None),
            (
                key(3),
                Some("another path has a shorter AS_PATH".to_owned()),
                None
            ),
            (
                key(4),
                Some("the import policy refuses the prefix".to_owned()),
                Some("in importV4[0]".to_owned())
            ),
        ]
    );
    let peers = peers(&explained);
    let reflected = "it came by iBGP, and neither side is our client";
    let out = Some("out exportV4[0]".to_owned());
    assert_eq!(
        peers,
        [
            (key(2), false, "the peer announced it to us", None),
            (key(3), true, "", None),
            (key(4), true, "", None),
            (key(5), false, reflected, None),
            (key(6), true, "", None),
            (key(7), false, "the export policy refuses it", out),
            (key(8), false, "the session is Active", None),
        ]
    );
    assert_eq!(rig.speaker.explain(prefix("10.9.0.0/26")), None);
}

#[test]
fn what_it_says_of_peers_is_what_they_were_told() {
    let mut rig = Rig::new(config());
    let (from, to) = (rig.establish(external(2)), rig.establish(external(3)));
    for i in 0..8 {
        let mut attributes = path(&[65_002]);
        attributes.communities = if i % 2 == 0 {
            Default::default()
        } else {
            [0xffff_ff01].into()
        };
        rig.update(
            from,
            announcement(2, prefix(&format!("10.{i}.0.0/16")), attributes),
        );
    }
    let (told, _) = rig.told(to);
    for i in 0..8 {
        let target = prefix(&format!("10.{i}.0.0/16"));
        let explained = rig.speaker.explain(target).unwrap();
        let third = explained.peers.iter().find(|it| it.peer == key(3)).unwrap();
        assert_eq!(third.advertised, told.contains(&target), "{target}");
        let reason = (!third.advertised).then_some("it carries no-export");
        assert_eq!(third.reason.as_deref(), reason);
    }
}
