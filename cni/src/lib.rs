//! CNI types and the thin plugin: standard input to the agent's socket to standard output.
