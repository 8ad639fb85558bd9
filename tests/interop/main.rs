//! Our speaker against BIRD, FRR and GoBGP, in network namespaces.
