//! The conventions: what a runtime wishes for one attachment, by capability, by `args` or by `CNI_ARGS`.

use std::net::IpAddr;

use manx_cni::{Call, MacAddress};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use serde_json::{Value, json};

use crate::agent::{Agent, Reply};
use crate::spec::{answer, assert_refused, config, told};

/// The call that the agent hears.
fn call(args: &str, more: Value) -> Call {
    let (_, params) = told("ADD", &[("CNI_ARGS", args)], more);
    serde_json::from_value(params).unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn addresses_and_a_mac_come_as_capabilities() {
    let call = call(
        "",
        json!({"runtimeConfig": {"ips": ["10.64.0.5/24", "fd64::5"], "mac": "C2-11-22-33-44-55"}}),
    );
    assert_eq!(call.requested, ips(&["10.64.0.5", "fd64::5"]));
    assert_eq!(call.mac.unwrap().to_string(), "c2:11:22:33:44:55");
}

/// CONVENTIONS.md, "CNI_ARGS": a plugin that understands `args` ignores the variable's equivalent.
#[test]
fn a_capability_counts_before_args_and_those_before_the_environment() {
    let args = json!({"cni": {"ips": ["10.64.0.6"]}});
    let environment = "IP=10.64.0.7/16;MAC=02:00:00:00:00:07;K8S_POD_NAME=web";
    let asked = |more: Value| call(environment, more).requested;
    assert_eq!(asked(json!({})), ips(&["10.64.0.7"]));
    assert_eq!(asked(json!({"args": args})), ips(&["10.64.0.6"]));
    let all = json!({"args": args, "runtimeConfig": {"ips": ["10.64.0.5"], "mac": "02:00:00:00:00:05"}});
    assert_eq!(asked(all.clone()), ips(&["10.64.0.5"]));
    let mac = |more: Value| call(environment, more).mac.unwrap().to_string();
    assert_eq!(
        (mac(json!({})), mac(all)),
        ("02:00:00:00:00:07".to_owned(), "02:00:00:00:00:05".to_owned())
    );
}

#[test]
fn the_pods_annotations_are_passed_on() {
    let annotations = json!({"manx.network/ipv4pools": "[\"blue\"]", "a": ""});
    let call = call(
        "",
        json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations}}),
    );
    assert_eq!(json!(call.annotations), annotations);
}

#[test]
fn what_other_plugins_of_the_chain_serve_and_what_nobody_knows_is_not_ours_to_refuse() {
    let runtime = json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 1_000_000},
        "dns": {"servers": ["10.96.0.10"]}, "aliases": ["web"], "ipRanges": null, "something": {"new": 1},
    });
    let call = call(
        "",
        json!({"runtimeConfig": runtime, "args": {"labels": [], "cni": null}}),
    );
    assert_eq!((call.requested, call.mac), (Vec::new(), None));
}

/// Section 5, "Error", code 2: "The error message must contain the key and value of the unsupported field."
#[test]
fn a_capability_that_manx_cannot_serve_is_error_2_with_key_and_value() {
    for (key, value) in [
        ("ipRanges", json!([[{"subnet": "10.1.2.0/24"}]])),
        ("deviceID", json!("0000:04:00.5")),
        ("infinibandGUID", json!("c2:11:22:33:44:55:66:77")),
    ] {
        let input = config(json!({"runtimeConfig": {key: value}}));
        assert_refused(
            answer("ADD", &[], &input),
            2,
            &format!("runtimeConfig.{key} {value}: Manx"),
        );
    }
}

#[test]
fn a_wish_that_cannot_be_is_refused_with_its_place() {
    let refused = |more: Value, part: &str| assert_refused(answer("ADD", &[], &config(more)), 7, part);
    let runtime = |key: &str, value: Value| json!({"runtimeConfig": {key: value}});
    refused(
        json!({"runtimeConfig": []}),
        "field 'runtimeConfig': invalid type",
    );
    refused(json!({"args": "x"}), "field 'args': invalid type");
    refused(json!({"args": {"cni": 1}}), "field 'args.cni': invalid type");
    refused(
        runtime("ips", json!("10.0.0.1")),
        "field 'runtimeConfig.ips': invalid type",
    );
    refused(
        runtime("ips", json!(["10.0.0"])),
        "'10.0.0' is no address: write 10.244.0.5",
    );
    refused(
        runtime("ips", json!(["0.0.0.0"])),
        "'0.0.0.0' is no address that a pod could have",
    );
    refused(
        runtime("ips", json!(["ff02::1"])),
        "no address that a pod could have",
    );
    refused(
        runtime("ips", json!(["10.0.0.1", "10.0.0.2"])),
        "10.0.0.1 and 10.0.0.2: a pod has one address of a family",
    );
    refused(
        json!({"args": {"cni": {"ips": ["10.0.0.1", "10.0.0.2"]}}}),
        "field 'args.cni.ips': 10.0.0.1 and 10.0.0.2",
    );
    refused(
        runtime("mac", json!("02:00:00:00:00")),
        "field 'runtimeConfig.mac': '02:00:00:00:00' is no MAC",
    );
    refused(
        runtime("mac", json!("01:00:5e:00:00:01")),
        "is no station's MAC address",
    );
    refused(
        runtime("mac", json!("00:00:00:00:00:00")),
        "is no station's MAC address",
    );
    refused(
        runtime("io.kubernetes.cri.pod-annotations", json!({"a": 1})),
        "field 'runtimeConfig': invalid type",
    );
    for (args, part) in [
        ("IP=10.0.0", "CNI_ARGS: IP: '10.0.0' is no address"),
        (
            "MAC=+2:00:00:00:00:01",
            "CNI_ARGS: MAC: '+2:00:00:00:00:01' is no MAC",
        ),
    ] {
        assert_refused(answer("ADD", &[("CNI_ARGS", args)], &config(json!({}))), 4, part);
    }
}

#[test]
fn a_del_goes_through_whatever_was_wished() {
    let more = json!({"runtimeConfig": {"mac": "x", "ipRanges": []}, "args": 1});
    let (method, _) = told("DEL", &[("CNI_ARGS", "IP=nothing;garbage")], more);
    assert_eq!(method, "cni.del");
}

/// Section 5, "ADD Success": a plugin provided a `prevResult` outputs it, with its own changes included.
#[test]
fn behind_other_plugins_the_answer_is_theirs_with_ours_added() {
    let ours = json!({
        "interfaces": [{"name": "mx0"}, {"name": "eth0", "sandbox": "/run/netns/pod"}],
        "ips": [{"address": "10.64.0.5/32", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
    });
    let agent = Agent::answering(Reply::Result(ours));
    let previous = json!({
        "interfaces": [{"name": "dummy0", "sandbox": "/run/netns/pod"}],
        "ips": [{"address": "192.0.2.1/24", "interface": 0}],
        "dns": {"nameservers": ["192.0.2.53"]},
    });
    let input = agent.config("1.0.0", json!({"prevResult": previous}));
    let manx_cni::Answer::Done(Some(result)) = answer("ADD", &[], &input) else {
        panic!("no result")
    };
    let expected = json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "dummy0", "sandbox": "/run/netns/pod"},
            {"name": "mx0"},
            {"name": "eth0", "sandbox": "/run/netns/pod"},
        ],
        "ips": [
            {"address": "192.0.2.1/24", "interface": 0},
            {"address": "10.64.0.5/32", "interface": 2},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    });
    assert_eq!(result, expected);
    let bad = config(json!({"prevResult": {"ips": "none"}}));
    assert_refused(answer("ADD", &[], &bad), 7, "field 'prevResult': invalid type");
}

proptest! {
    #![proptest_config(Config {
        cases: 256,
        rng_seed: RngSeed::Fixed(20_261),
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn a_macs_text_is_read_back(octets in any::<[u8; 6]>()) {
        let text = octets.map(|octet| format!("{octet:02X}")).join(":");
        let is_a_stations = octets[0] & 1 == 0 && octets != [0; 6];
        match text.parse::<MacAddress>() {
            Ok(mac) => {
                prop_assert!(is_a_stations);
                prop_assert_eq!(mac.octets(), octets);
                prop_assert_eq!(mac.to_string(), text.to_lowercase());
            }
            Err(_) => prop_assert!(!is_a_stations),
        }
    }

    #[test]
    fn no_text_makes_a_mac_panic(text in ".{0,20}") {
        prop_assert!(text.parse::<MacAddress>().is_err() || text.len() == 17);
    }
}
