//! The operator's command line manxctl.
