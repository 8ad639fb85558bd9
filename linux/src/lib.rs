//! The only crate that enters the kernel: links, addresses, routes, neighbours, namespaces, sysctls.
