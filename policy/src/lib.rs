//! The calculation graph of policy: resources in, rule and set deltas out, rendered as text.
