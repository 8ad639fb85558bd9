//! The real kernel, in network namespaces that the tests make.
