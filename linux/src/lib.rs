//! The only crate that enters the kernel: links, addresses, routes, neighbours, rules, namespaces, sysctls.
//!
//! Everything works on the network namespace of the calling thread; [`Netns::run`] lends a thread of
//! another one. Sockets stay in the namespace they were opened in, wherever they are used later.
//!
//! - [`nl`] is the wire to netlink: requests, dumps, and batches with one acknowledgement each;
//!   [`routes`], [`link`] and [`watch`] speak over it, in the words of `manx_routes` where there are some.
//! - [`sync`] keeps the kernel's routes as wanted: the whole of a route task but its loop.
//! - [`rules`] keeps the kernel's rules and sets as wanted: the same for a policy task. It runs the programs of
//!   [`iptables`]' back ends, in the words of `manx_policy`; [`ipset`] changes sets without any.
//! - [`conntrack`] lists connections and has the kernel forget them.
//! - [`nflog`] hears of the packets that rules log.
//! - [`netns`] makes and enters namespaces, [`pod`] wires a pod to its node, [`sysctl`] and [`proto`]
//!   write the files that go with it.
//!
//! Calls block, briefly; only [`watch`], [`rules`] and [`nflog`] wait, and they are the only parts that want tokio.

pub mod conntrack;
mod disturbance;
pub mod error;
pub mod ipset;
pub mod iptables;
pub mod link;
mod message;
pub mod netns;
mod nexthop;
pub mod nflog;
pub mod nl;
pub mod pod;
mod program;
pub mod proto;
pub mod routes;
pub mod rules;
pub mod sync;
pub mod sysctl;
pub mod watch;

pub use conntrack::{Connection, ConnectionSocket};
pub use error::{Error, Refusal, Result};
pub use ipset::SetSocket;
pub use iptables::Backend;
pub use link::{LinkSocket, Mac};
pub use netns::Netns;
pub use pod::{Attached, PodLink};
pub use routes::RouteSocket;
pub use rules::Rules;
