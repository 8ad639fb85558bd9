//! `manx-bgpd`: the speaker on its own, for route reflectors, labs and benchmarks.

fn main() {}
