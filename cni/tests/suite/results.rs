//! Results and errors, byte for byte in every version.

use manx_api::rpc::RpcError;
use manx_cni::{Code, Dns, Error, Interface, IpConfig, Route, SpecVersion, Success};
use serde_json::json;

fn success() -> Success {
    Success {
        interfaces: vec![
            Interface {
                name: "mx0123456789a".to_owned(),
                mac: None,
                mtu: None,
                sandbox: None,
            },
            Interface {
                name: "eth0".to_owned(),
                mac: Some("ee:ee:ee:ee:ee:ee".to_owned()),
                mtu: Some(1500),
                sandbox: Some("/run/netns/pod".to_owned()),
            },
        ],
        ips: vec![
            IpConfig {
                address: "10.244.0.5/32".parse().unwrap(),
                gateway: Some("169.254.1.1".parse().unwrap()),
                interface: Some(1),
            },
            IpConfig {
                address: "fd00::5/128".parse().unwrap(),
                gateway: None,
                interface: Some(1),
            },
        ],
        routes: vec![
            Route {
                dst: "169.254.1.1/32".parse().unwrap(),
                gw: None,
            },
            Route {
                dst: "0.0.0.0/0".parse().unwrap(),
                gw: Some("169.254.1.1".parse().unwrap()),
            },
        ],
        dns: Some(Dns {
            nameservers: vec!["10.96.0.10".to_owned()],
            ..Dns::default()
        }),
    }
}

const BEFORE_1_0: &str = r#"{
  "cniVersion": "VERSION",
  "dns": {
    "nameservers": [
      "10.96.0.10"
    ]
  },
  "interfaces": [
    {
      "name": "mx0123456789a"
    },
    {
      "mac": "ee:ee:ee:ee:ee:ee",
      "name": "eth0",
      "sandbox": "/run/netns/pod"
    }
  ],
  "ips": [
    {
      "address": "10.244.0.5/32",
      "gateway": "169.254.1.1",
      "interface": 1,
      "version": "4"
    },
    {
      "address": "fd00::5/128",
      "interface": 1,
      "version": "6"
    }
  ],
  "routes": [
    {
      "dst": "169.254.1.1/32"
    },
    {
      "dst": "0.0.0.0/0",
      "gw": "169.254.1.1"
    }
  ]
}"#;

const AT_1_1: &str = r#"{
  "cniVersion": "1.1.0",
  "dns": {
    "nameservers": [
      "10.96.0.10"
    ]
  },
  "interfaces": [
    {
      "name": "mx0123456789a"
    },
    {
      "mac": "ee:ee:ee:ee:ee:ee",
      "mtu": 1500,
      "name": "eth0",
      "sandbox": "/run/netns/pod"
    }
  ],
  "ips": [
    {
      "address": "10.244.0.5/32",
      "gateway": "169.254.1.1",
      "interface": 1
    },
    {
      "address": "fd00::5/128",
      "interface": 1
    }
  ],
  "routes": [
    {
      "dst": "169.254.1.1/32"
    },
    {
      "dst": "0.0.0.0/0",
      "gw": "169.254.1.1"
    }
  ]
}"#;

fn rendered(version: SpecVersion) -> String {
    serde_json::to_string_pretty(&success().render(version)).unwrap()
}

#[test]
fn before_1_0_an_address_names_its_family() {
    assert_eq!(
        rendered(SpecVersion::V0_3_1),
        BEFORE_1_0.replace("VERSION", "0.3.1")
    );
    assert_eq!(
        rendered(SpecVersion::V0_4_0),
        BEFORE_1_0.replace("VERSION", "0.4.0")
    );
}

#[test]
fn from_1_0_on_an_address_has_no_family_and_from_1_1_on_an_interface_has_an_mtu() {
    assert_eq!(rendered(SpecVersion::V1_1_0), AT_1_1);
    let at_1_0 = AT_1_1
        .replace("1.1.0", "1.0.0")
        .replace("      \"mtu\": 1500,\n", "");
    assert_eq!(rendered(SpecVersion::V1_0_0), at_1_0);
}

#[test]
fn a_result_of_any_version_is_read_back() {
    for version in SpecVersion::ALL {
        let mut expected = success();
        if version < SpecVersion::V1_1_0 {
            expected.interfaces[1].mtu = None;
        }
        let read: Success = serde_json::from_value(success().render(version)).unwrap();
        assert_eq!(read, expected);
    }
}

#[test]
fn an_error_has_its_number_its_sentence_and_its_details() {
    let error = Error::new(Code::TryAgainLater, "not now").with_details("nobody listens");
    assert_eq!(
        error.render(SpecVersion::V1_0_0),
        json!({"cniVersion": "1.0.0", "code": 11, "msg": "not now", "details": "nobody listens"})
    );
    let error = Error::new(Code::InvalidConfig, "wrong");
    assert_eq!(
        error.render(SpecVersion::V0_3_1),
        json!({"cniVersion": "0.3.1", "code": 7, "msg": "wrong"})
    );
}

#[test]
fn every_code_survives_the_agents_socket() {
    let numbers: Vec<_> = Code::ALL.iter().map(|code| code.number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 11, 50, 51, 100, 101]);
    for code in Code::ALL {
        let error = Error::new(code, "message").with_details("details");
        assert_eq!(Error::from(RpcError::from(error.clone())), error);
    }
}

#[test]
fn an_error_of_the_socket_itself_is_internal() {
    let error = RpcError {
        code: -32601,
        message: "no such method".to_owned(),
        data: Some(json!({"method": "x"})),
    };
    let expected = Error::new(Code::Internal, "no such method").with_details(r#"{"method":"x"}"#);
    assert_eq!(Error::from(error), expected);
}
