//! Monitoring stations (RFC 7854): what they are sent, as an independent reader (bgpkit-parser) reads it.

mod export;
mod messages;
mod rig;
