//! The binary as the runtime starts it.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use manx_api::rpc::RpcError;
use manx_cni::tombstone;
use serde_json::{Value, json};

use crate::agent::{Agent, Reply};

/// Starts the plugin with nothing but these variables in its environment.
fn manx(variables: &[(&str, &str)], input: &str) -> Output {
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_manx"))
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin that refuses its environment does not read its input.
    plugin.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    plugin.wait_with_output().unwrap()
}

fn call(command: &str, config: &str) -> Output {
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/pod"),
        ("CNI_IFNAME", "eth0"),
    ];
    manx(&variables, config)
}

/// What a failed call printed: one JSON line on standard output, and exit status 1.
fn error(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_silent_success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b""[..], &b""[..])
    );
}

fn tombstones(agent: &Agent) -> Vec<String> {
    let Ok(directory) = fs::read_dir(tombstone::directory(&agent.state_dir())) else {
        return Vec::new();
    };
    directory
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn version_works_without_an_agent() {
    let output = manx(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"0.4.0"}"#);
    assert!(output.status.success());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["cniVersion"], "0.4.0");
    assert_eq!(
        answer["supportedVersions"],
        json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    );
}

#[test]
fn without_an_environment_it_says_what_it_is() {
    let error = error(&manx(&[], ""));
    assert_eq!(error["code"], 4);
    assert!(error["msg"].as_str().unwrap().contains("people use manxctl"));
}

#[test]
fn add_prints_the_agents_result_in_the_callers_version() {
    let result = json!({
        "interfaces": [{"name": "eth0", "mtu": 1500, "sandbox": "/run/netns/pod"}],
        "ips": [{"address": "10.244.0.5/32", "interface": 0}],
    });
    let agent = Agent::answering(Reply::Result(result));
    let output = call("ADD", &agent.config("0.4.0", json!({})));
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "cniVersion": "0.4.0",
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod"}],
        "ips": [{"address": "10.244.0.5/32", "interface": 0, "version": "4"}],
        "routes": [],
        "dns": {},
    });
    assert_eq!(printed, expected);
}

#[test]
fn del_check_status_and_gc_say_nothing_when_all_is_well() {
    let agent = Agent::answering(Reply::Result(Value::Null));
    let config = agent.config(
        "1.1.0",
        json!({"prevResult": {}, "cni.dev/valid-attachments": []}),
    );
    for command in ["DEL", "CHECK", "STATUS", "GC"] {
        assert_silent_success(&call(command, &config));
    }
    assert_eq!(tombstones(&agent), [""; 0]);
}

#[test]
fn the_agents_error_is_the_plugins() {
    let refusal = RpcError {
        code: 101,
        message: "every pool is full".to_owned(),
        data: Some(json!("pools: blue")),
    };
    let agent = Agent::answering(Reply::Error(refusal));
    let config = agent.config("1.0.0", json!({"prevResult": {}}));
    let expected = json!({
        "cniVersion": "1.0.0", "code": 101, "msg": "every pool is full", "details": "pools: blue",
    });
    for command in ["ADD", "DEL", "CHECK"] {
        assert_eq!(error(&call(command, &config)), expected, "{command}");
    }
    assert_eq!(tombstones(&agent), [""; 0], "an agent that answers is not absent");
}

#[test]
fn without_an_agent_add_is_to_be_tried_again_and_status_says_not_available() {
    for agent in [Agent::absent(), Agent::gone()] {
        let config = agent.config(
            "1.1.0",
            json!({"prevResult": {}, "cni.dev/valid-attachments": []}),
        );
        for (command, code) in [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)] {
            let error = error(&call(command, &config));
            assert_eq!(error["code"], code, "{command}");
            let message = error["msg"].as_str().unwrap();
            assert!(
                message.contains(agent.socket().to_str().unwrap()) && message.contains("manxd"),
                "{message}"
            );
            assert!(
                error["details"]
                    .as_str()
                    .unwrap()
                    .contains("nobody listens there")
            );
        }
        assert_eq!(tombstones(&agent), [""; 0]);
    }
}

#[test]
fn without_an_agent_del_leaves_a_tombstone_and_succeeds() {
    for agent in [Agent::absent(), Agent::gone()] {
        let config = agent.config("1.0.0", json!({}));
        assert_silent_success(&call("DEL", &config));
        assert_silent_success(&call("DEL", &config));
        assert_eq!(tombstones(&agent), ["c1:eth0"]);
    }
}

#[test]
fn del_fails_where_no_tombstone_can_be_left() {
    let agent = Agent::absent();
    fs::write(agent.state_dir(), "a file where the directory should be").unwrap();
    let error = error(&call("DEL", &agent.config("1.0.0", json!({}))));
    assert_eq!(error["code"], 5);
    assert!(
        error["msg"]
            .as_str()
            .unwrap()
            .contains("no tombstone can be left in"),
        "{error}"
    );
}

#[test]
fn an_agent_that_answers_nonsense_or_dies_is_absent() {
    let long: &[u8] = Box::leak(vec![b' '; 2 << 20].into_boxed_slice());
    for (said, details) in [
        (&b""[..], "the other side closed the connection"),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"res",
            "in the middle of a message",
        ),
        (b"hello\n", "expected value"),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n",
            "an answer to request 2 instead of 1",
        ),
        (long, "more than 1048576 bytes"),
    ] {
        let agent = Agent::answering(Reply::Raw(said));
        let config = agent.config("1.0.0", json!({}));
        let error = error(&call("ADD", &config));
        assert_eq!(error["code"], 11);
        assert!(error["details"].as_str().unwrap().contains(details), "{error}");
        assert_silent_success(&call("DEL", &config));
        assert_eq!(tombstones(&agent), ["c1:eth0"]);
    }
}

#[test]
fn an_agent_that_answers_something_else_is_of_another_version() {
    let agent = Agent::answering(Reply::Result(json!({"ips": "none"})));
    let error = error(&call("ADD", &agent.config("1.0.0", json!({}))));
    assert_eq!(error["code"], 6);
    assert!(
        error["msg"]
            .as_str()
            .unwrap()
            .contains("are manx and manxd of one version?")
    );
}

#[test]
fn an_agent_that_hangs_is_left_at_the_deadline() {
    let agent = Agent::answering(Reply::Drip);
    let config = agent.config("1.0.0", json!({"timeoutSeconds": 1}));
    let start = Instant::now();
    let error = error(&call("ADD", &config));
    assert_eq!(
        (&error["code"], &error["details"]),
        (&json!(11), &json!("no answer in 1 seconds"))
    );
    assert_silent_success(&call("DEL", &config));
    assert_eq!(tombstones(&agent), ["c1:eth0"]);
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(10),
        "{took:?}"
    );
}
