//! Servers as hosts of their own: real namespaces, real packets, and the router between them.
//!
//! Where a machine cannot do this, each test says why and tries nothing; CI has to be able to.

#[cfg(test)]
mod netns {
    mod packets;
    mod place;
    mod servers;
}
