//! `manx`: the CNI plugin.

fn main() {}
