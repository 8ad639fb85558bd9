//! Whole clusters in network namespaces on one machine: fabric, routers, nodes, pods.
