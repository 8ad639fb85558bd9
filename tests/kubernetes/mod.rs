//! A cluster on a Kubernetes API server, with agents, a controller and the CNI plugin as `deploy/` has them, each with the
//! token of its own account.
//!
//! Each scenario runs with the tests' own server (`netns/kubernetes.rs`), and with a real one where that is there
//! (`apiserver/main.rs`): what is proved with the one holds with the other.

pub(crate) mod cluster;
pub(crate) mod controller;
pub(crate) mod network;
pub(crate) mod real;
pub(crate) mod rights;
pub(crate) mod server;
pub(crate) mod told;

pub(crate) use self::cluster::runtime;

/// Hands all scenarios to a macro: their modules, and their names.
macro_rules! each_scenario {
    ([$each:ident] $($more:tt)*) => {
        $each! { $($more)*
            network {
                pods_of_a_cluster_meet_its_policies_as_labels_change
                a_pods_first_packet_waits_until_the_cluster_has_told_of_it
                the_network_goes_on_while_the_api_server_is_away
                services_of_a_cluster_are_announced_from_where_they_are_until_the_node_is_cordoned
                an_agents_account_is_enough_for_an_operator_in_its_pod
            }
            told {
                kubernetes_is_told_whether_a_node_has_its_network
                operators_are_told_of_what_they_must_mend
            }
            controller {
                a_bare_cluster_has_its_network_by_what_is_installed_alone
                a_load_balancers_service_gets_an_address_and_a_router_learns_it
                blocks_of_a_deleted_node_are_freed_when_no_pod_of_it_is_left
            }
            rights {
                what_no_role_grants_is_refused
                an_agent_writes_its_own_node_and_blocks_alone
            }
        }
    };
}
pub(crate) use each_scenario;
