//! Whole home servers on loopback, and clients that speak the protocol frame by frame. Nothing
//! here uses the SDK: what a stranger's client may send is what is tested.

#[cfg(test)]
mod it {
    mod acts;
    mod alerts;
    mod bad_input;
    mod client;
    mod documents;
    mod erasure;
    mod garbage;
    mod hostile_peer;
    mod meeting;
    mod membership;
    mod net;
    mod outside;
    mod overload;
    mod policies;
    mod restarts;
    mod resume;
    mod sight;
    mod stewards;
    mod strangers;
    mod voided;
}
