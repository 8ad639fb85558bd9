//! Whole clusters in network namespaces on one machine: fabric, routers, nodes, pods.
//!
//! [`Options`] say what a lab is asked to be; a [`Plan`] follows from them alone, as values that a test can
//! read without root: namespaces, links, addresses, configuration files, processes, resources. [`Lab`] carries
//! a plan out and remembers, in the lab's folder, what it did, so that any later process can look at the lab,
//! add pods to it and take it down.
//!
//! Nothing of a lab is in the machine's own namespace, and nothing is sent from there.

pub mod address;
mod agent;
mod build;
mod error;
mod lab;
pub mod layout;
pub mod options;
pub mod plan;
mod pods;
mod process;
mod programs;
mod progress;
mod routers;
mod state;
mod verify;
mod wait;

pub use agent::{ask, ask_with, ask_within};
pub use error::{LabError, Result};
pub use lab::{Lab, LabStatus, NodeView, RouterView, Settings, names};
pub use options::{Name, Options, OptionsError, Software, Topology};
pub use plan::Plan;
pub use pods::Traits;
pub use process::is_alive;
pub use progress::Progress;
pub use state::{Pod, Started};
pub use verify::{Class, Exchange, Proof, verify};
