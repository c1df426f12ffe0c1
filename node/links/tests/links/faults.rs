//! What networks and processes do to links.
