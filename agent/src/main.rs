//! `manxd`: the node daemon.

fn main() {}
