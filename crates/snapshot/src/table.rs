//! What a gateway loads.
