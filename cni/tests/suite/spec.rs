//! The specification's sentences about what a plugin is given, and what it answers to what it must refuse.

use manx_api::ipam::AttachmentId;
use manx_cni::{Answer, Attachment, Call, ContainerId, InterfaceName, run, tombstone};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use serde_json::{Value, json};

use crate::agent::{Agent, Reply};

const ENVIRONMENT: [(&str, &str); 4] = [
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/pod"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin"),
];

/// Runs the plugin with the usual environment, changed so; an empty value takes a variable away.
pub(crate) fn answer(command: &str, changes: &[(&str, &str)], input: &str) -> Answer {
    let variables = [("CNI_COMMAND", command)];
    let all = variables.iter().chain(&ENVIRONMENT);
    let variable = |name: &str| {
        let given = changes.iter().chain(all.clone()).find(|(key, _)| *key == name);
        given.map(|(_, value)| (*value).to_owned())
    };
    run(variable, input.as_bytes())
}

/// The code and the message of a refusal.
fn refusal(answer: Answer) -> (i64, String) {
    let Answer::Failed(error) = answer else {
        panic!("{answer:?} is no refusal")
    };
    (
        error["code"].as_i64().unwrap(),
        error["msg"].as_str().unwrap().to_owned(),
    )
}

pub(crate) fn config(more: Value) -> String {
    let mut config =
        json!({"cniVersion": "1.1.0", "name": "pods", "type": "manx", "socket": "/nowhere/manxd.sock"});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    config.to_string()
}

pub(crate) fn assert_refused(answer: Answer, code: i64, part: &str) {
    let (number, message) = refusal(answer);
    assert_eq!(number, code, "{message}");
    assert!(message.contains(part), "'{message}' does not say '{part}'");
}

#[test]
fn version_is_answered_without_an_agent_in_the_callers_version() {
    let supported = json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    for (input, version) in [
        (r#"{"cniVersion": "1.0.0"}"#, "1.0.0"),
        (r#"{"cniVersion": "0.1.0"}"#, "0.1.0"),
        ("{}", "1.1.0"),
        ("", "1.1.0"),
    ] {
        let expected = json!({"cniVersion": version, "supportedVersions": supported});
        assert_eq!(
            answer("VERSION", &[], input),
            Answer::Done(Some(expected)),
            "{input}"
        );
    }
    assert_refused(answer("VERSION", &[], "garbage"), 6, "no JSON object");
}

#[test]
fn a_missing_or_unknown_command_is_error_4() {
    assert_refused(
        answer("", &[], &config(json!({}))),
        4,
        "CNI_COMMAND is not set: manx is a CNI plugin",
    );
    assert_refused(
        answer("add", &[], &config(json!({}))),
        4,
        "unknown CNI_COMMAND 'add'",
    );
}

#[test]
fn every_missing_variable_is_named() {
    let nothing = [("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_IFNAME", "")];
    let full = config(json!({"prevResult": {}}));
    for (command, missing) in [
        (
            "ADD",
            "ADD needs [CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME], not set",
        ),
        (
            "CHECK",
            "CHECK needs [CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME], not set",
        ),
        ("DEL", "DEL needs [CNI_CONTAINERID, CNI_IFNAME], not set"),
    ] {
        assert_eq!(refusal(answer(command, &nothing, &full)), (4, missing.to_owned()));
    }
}

#[test]
fn malformed_variables_are_error_4_with_the_value() {
    let long = "c".repeat(201);
    for (name, value, part) in [
        (
            "CNI_CONTAINERID",
            "-c",
            "CNI_CONTAINERID: '-c' is no container id",
        ),
        ("CNI_CONTAINERID", "../../etc/passwd", "no container id"),
        ("CNI_CONTAINERID", "a b", "no container id"),
        ("CNI_CONTAINERID", &long, "at most 200"),
        (
            "CNI_IFNAME",
            "sixteen-bytes-xx",
            "CNI_IFNAME: 'sixteen-bytes-xx' is no interface name",
        ),
        ("CNI_IFNAME", "..", "no interface name"),
        ("CNI_IFNAME", "a/b", "no interface name"),
        ("CNI_IFNAME", "a:b", "no interface name"),
        ("CNI_IFNAME", "a b", "no interface name"),
        (
            "CNI_NETNS",
            "netns/pod",
            "CNI_NETNS: 'netns/pod' is no absolute path",
        ),
        (
            "CNI_ARGS",
            "K8S_POD_NAME",
            "CNI_ARGS: 'K8S_POD_NAME' is not KEY=VALUE",
        ),
        (
            "CNI_ARGS",
            "IgnoreUnknown=yes",
            "neither 1 or true nor 0 or false",
        ),
        (
            "CNI_ARGS",
            "FOO=1;IgnoreUnknown=0;BAR=2",
            "CNI_ARGS: unknown [FOO, BAR]: add IgnoreUnknown=1",
        ),
        ("CNI_ARGS", "K8S_POD_NAME=a b", "K8S_POD_NAME='a b'"),
    ] {
        assert_refused(answer("ADD", &[(name, value)], &config(json!({}))), 4, part);
    }
}

#[test]
fn the_configuration_is_refused_with_the_field() {
    let refused = |more, code, part| assert_refused(answer("ADD", &[], &config(more)), code, part);
    refused(json!({"cniVersion": "2.0.0"}), 1, "has cniVersion '2.0.0'");
    refused(json!({"cniVersion": null}), 1, "has no cniVersion");
    refused(json!({"cniVersion": 1}), 7, "field 'cniVersion': invalid type");
    refused(json!({"name": ""}), 7, "field 'name': '' is no network name");
    refused(json!({"name": "a/b"}), 7, "field 'name'");
    refused(
        json!({"socket": "run/manxd.sock"}),
        7,
        "field 'socket': 'run/manxd.sock' is no absolute path",
    );
    refused(json!({"stateDir": "x"}), 7, "field 'stateDir'");
    refused(
        json!({"mtu": "big"}),
        7,
        "field 'mtu': invalid type: string \"big\"",
    );
    refused(
        json!({"mtu": 70000}),
        7,
        "field 'mtu': 70000 is not between 576 and 65535",
    );
    refused(json!({"mtu": -1}), 7, "field 'mtu'");
    refused(
        json!({"timeoutSeconds": 0}),
        7,
        "field 'timeoutSeconds': 0 is not between 1 and 600",
    );
    refused(
        json!({"ipam": {"type": "host-local"}}),
        2,
        "ipam.type 'host-local'",
    );
    refused(json!({"ipMasq": true}), 2, "ipMasq true");
    assert_refused(answer("ADD", &[], "garbage"), 6, "no JSON object");
    assert_refused(answer("ADD", &[], "[]"), 6, "no JSON object");
    assert_refused(answer("ADD", &[], ""), 6, "no JSON object");
    assert_refused(
        answer("ADD", &[], &" ".repeat((1 << 20) + 1)),
        6,
        "exceeds 1048576 bytes",
    );
}

#[test]
fn a_del_goes_through_with_a_configuration_that_no_add_would_take() {
    let (method, _) = told(
        "DEL",
        &[],
        json!({"ipam": {"type": "host-local"}, "ipMasq": true}),
    );
    assert_eq!(method, "cni.del");
    assert_refused(
        answer("STATUS", &[], &config(json!({"ipMasq": true}))),
        2,
        "ipMasq",
    );
}

#[test]
fn an_error_is_in_the_callers_version_once_that_is_known() {
    let version = |answer| {
        let Answer::Failed(error) = answer else {
            panic!("{answer:?}")
        };
        error["cniVersion"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        version(answer(
            "ADD",
            &[],
            &config(json!({"cniVersion": "0.4.0", "mtu": 1}))
        )),
        "0.4.0"
    );
    assert_eq!(
        version(answer(
            "ADD",
            &[("CNI_IFNAME", "")],
            &config(json!({"cniVersion": "0.3.1"}))
        )),
        "0.3.1"
    );
    assert_eq!(
        version(answer("ADD", &[], &config(json!({"cniVersion": "9.9.9"})))),
        "1.1.0"
    );
}

#[test]
fn a_verb_is_refused_in_versions_before_its_own() {
    for (command, version) in [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0")] {
        let config =
            config(json!({"cniVersion": version, "prevResult": {}, "cni.dev/valid-attachments": []}));
        assert_refused(
            answer(command, &[], &config),
            1,
            &format!("{command} came with CNI"),
        );
    }
}

#[test]
fn check_needs_the_result_of_add_and_gc_needs_the_living() {
    assert_refused(
        answer("CHECK", &[], &config(json!({}))),
        7,
        "CHECK needs 'prevResult'",
    );
    // Without a list nobody would be alive, and every pod would lose its network.
    assert_refused(
        answer("GC", &[], &config(json!({}))),
        7,
        "GC needs 'cni.dev/valid-attachments'",
    );
    let bad = json!({"cni.dev/valid-attachments": [{"containerID": "../x", "ifname": "eth0"}]});
    assert_refused(
        answer("GC", &[], &config(bad)),
        7,
        "field 'cni.dev/valid-attachments'",
    );
}

/// What the agent is told when the runtime calls so.
pub(crate) fn told(command: &str, changes: &[(&str, &str)], more: Value) -> (Value, Value) {
    let agent = Agent::answering(Reply::Result(json!({})));
    let answer = answer(command, changes, &agent.config("1.1.0", more));
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    let request = agent.request();
    (json!(request.method), request.params)
}

#[test]
fn the_agent_is_told_the_attachment_the_pod_and_the_configuration() {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web-0;K8S_POD_UID=u-1;\
                K8S_POD_INFRA_CONTAINER_ID=c1;OTHER=x";
    let more = json!({
        "mtu": 1400, "dns": {"nameservers": ["10.96.0.10"]}, "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": []}, "ipam": {}, "unknown": [1, 2],
    });
    let (method, params) = told("ADD", &[("CNI_ARGS", args)], more);
    assert_eq!(method, "cni.add");
    let call: Call = serde_json::from_value(params).unwrap();
    assert_eq!(call.netns.as_deref(), Some("/run/netns/pod"));
    assert_eq!(call.args.pod_uid.as_deref(), Some("u-1"));
    assert_eq!(call.args.infra_container_id.as_deref(), Some("c1"));
    assert_eq!(
        (
            call.config.mtu,
            call.config.name.as_str(),
            call.config.timeout_seconds
        ),
        (Some(1400), "pods", 30)
    );
    assert_eq!(call.config.dns.as_ref().unwrap().nameservers, ["10.96.0.10"]);
    let id = AttachmentId {
        container_id: "c1".to_owned(),
        ifname: "eth0".to_owned(),
        namespace: "blue".to_owned(),
        pod: "web-0".to_owned(),
        network: Some("pods".to_owned()),
    };
    assert_eq!(call.attachment_id(), id);
}

#[test]
fn without_a_pod_the_attachment_is_named_after_the_container() {
    let (_, params) = told("ADD", &[("CNI_ARGS", "K8S_POD_NAME=;")], json!({"mtu": 0}));
    let call: Call = serde_json::from_value(params).unwrap();
    assert_eq!(call.config.mtu, None);
    let id = call.attachment_id();
    assert_eq!((id.namespace.as_str(), id.pod.as_str()), ("default", "c1"));
}

#[test]
fn del_needs_no_network_namespace() {
    let (method, params) = told("DEL", &[("CNI_NETNS", "")], json!({}));
    assert_eq!(method, "cni.del");
    assert_eq!(serde_json::from_value::<Call>(params).unwrap().netns, None);
}

#[test]
fn check_passes_the_result_of_add_on() {
    let (method, params) = told(
        "CHECK",
        &[],
        json!({"prevResult": {"ips": [{"address": "10.0.0.1/32"}]}}),
    );
    assert_eq!(method, "cni.check");
    assert_eq!(params["config"]["prevResult"]["ips"][0]["address"], "10.0.0.1/32");
}

#[test]
fn status_and_gc_pass_the_configuration_on() {
    let (method, params) = told("STATUS", &[("CNI_CONTAINERID", "")], json!({}));
    assert_eq!((method, &params["name"]), (json!("cni.status"), &json!("pods")));
    let living = json!([{"containerID": "c1", "ifname": "eth0"}]);
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let (method, params) = told("GC", &[("CNI_CONTAINERID", "")], json!({key: living}));
        assert_eq!((method, &params["validAttachments"]), (json!("cni.gc"), &living));
    }
}

#[test]
fn an_agent_takes_no_malformed_attachment_from_the_socket() {
    let (_, mut params) = told("DEL", &[], json!({}));
    params["ifname"] = json!("../../x");
    let error = serde_json::from_value::<Call>(params).unwrap_err().to_string();
    assert!(error.contains("'../../x' is no interface name"), "{error}");
}

#[test]
fn a_tombstones_name_says_whose_it_is() {
    let attachment = Attachment {
        container_id: ContainerId::try_from("c-1.x_y".to_owned()).unwrap(),
        ifname: InterfaceName::try_from("eth0.1-@".to_owned()).unwrap(),
    };
    assert_eq!(tombstone::file_name(&attachment), "c-1.x_y:eth0.1-@");
    assert_eq!(tombstone::parse("c-1.x_y:eth0.1-@"), Some(attachment));
    for other in [
        "",
        "c1",
        "c1:",
        ":eth0",
        "c1:eth0:1",
        ".c1:eth0",
        "c1:a b",
        "c1:sixteen-bytes-xx",
    ] {
        assert_eq!(tombstone::parse(other), None, "{other}");
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 256,
        rng_seed: RngSeed::Fixed(20_260),
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn no_environment_and_no_input_makes_it_panic(
        command in prop::sample::select(vec!["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"]),
        container in ".{0,20}",
        ifname in ".{0,20}",
        args in "[A-Za-z=;_0-9]{0,40}",
        input in prop_oneof![".{0,80}", Just(config(json!({"stateDir": "/dev/null/x"})))],
    ) {
        let changes = [("CNI_CONTAINERID", container.as_str()), ("CNI_IFNAME", &ifname), ("CNI_ARGS", &args)];
        match answer(command, &changes, &input) {
            Answer::Failed(error) => prop_assert!(error["code"].as_i64().is_some_and(|code| code > 0)),
            Answer::Done(_) => prop_assert_eq!(command, "VERSION"),
        }
    }

    #[test]
    fn a_tombstones_name_is_read_back(
        container in "[A-Za-z0-9][A-Za-z0-9_.-]{0,199}",
        ifname in "[^/:\\s\\x00]{1,5}",
    ) {
        prop_assume!(ifname != "." && ifname != ".." && ifname.len() <= 15);
        let attachment = Attachment {
            container_id: ContainerId::try_from(container).unwrap(),
            ifname: InterfaceName::try_from(ifname).unwrap(),
        };
        let name = tombstone::file_name(&attachment);
        prop_assert!(name.len() <= 255);
        prop_assert_eq!(tombstone::parse(&name), Some(attachment));
    }
}
