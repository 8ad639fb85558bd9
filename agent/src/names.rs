//! Names that are made from other names.

use manx_api::ipam::AttachmentId;
use sha1::{Digest as _, Sha1};

/// The name of an attachment's WorkloadEndpoint: `<node>-<pod>-<ifname>`.
///
/// Made a DNS-1123 label of up to 253 characters: what is neither letter nor digit becomes `-`, and a name
/// that is too long is cut and ends in a hash of the whole.
#[must_use]
pub(crate) fn workload(node: &str, attachment: &AttachmentId) -> String {
    const MAX: usize = 253;
    const HASH_BYTES: usize = 5;
    let name = label(&format!("{node}-{}-{}", attachment.pod, attachment.ifname));
    if name.len() <= MAX {
        return name;
    }
    let hash: String = Sha1::digest(&name)
        .iter()
        .take(HASH_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}-{hash}", &name[..MAX - 1 - hash.len()])
}

/// A pod's name as Kubernetes could have it, which is its own where Kubernetes gave it: `brave_otter` of another
/// runtime becomes `brave-otter`.
#[must_use]
pub(crate) fn pod(name: &str) -> String {
    let labels: Vec<String> = name
        .split('.')
        .map(label)
        .filter(|label| !label.is_empty())
        .collect();
    labels.join(".")
}

/// The text with `-` for what cannot stand in a DNS-1123 label.
fn label(text: &str) -> String {
    let dashed: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    dashed.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_names_that_kubernetes_could_have_given() {
        for (name, expected) in [
            ("web-0", "web-0"),
            ("web-0.example", "web-0.example"),
            ("brave_Otter", "brave-otter"),
            ("a_.-b.", "a.b"),
        ] {
            assert_eq!(pod(name), expected);
        }
    }

    #[test]
    fn workloads_have_names_that_the_store_takes() {
        let attachment = |pod: &str| AttachmentId {
            container_id: "c".to_owned(),
            ifname: "eth0".to_owned(),
            namespace: "default".to_owned(),
            pod: pod.to_owned(),
            network: None,
        };
        assert_eq!(workload("n1", &attachment("web-0")), "n1-web-0-eth0");
        assert_eq!(workload("n1", &attachment("Pod_A")), "n1-pod-a-eth0");
        let long = workload("n1", &attachment(&"x".repeat(253)));
        assert_eq!(long.len(), 253);
        assert_ne!(long, workload("n1", &attachment(&"x".repeat(254))));
    }
}
