//! Sockets and timers around the BGP speaker; a library for the agent, a binary for reflectors and labs.
