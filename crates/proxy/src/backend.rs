//! Phase 8: asking the backend. One module per kind of backend; what HTTP and VPC share is here and in [`pool`].
//!
//! A request that was not sent, because a pooled connection had closed or no connection could be made, is tried once more; one of
//! which the backend may have seen a byte never is.

mod http;
pub mod mock;
mod pool;
mod resolve;
pub(crate) mod tls;

pub(crate) use self::{
    http::{Exchange, Load, ask},
    pool::{Lease, Pool},
    resolve::Resolver,
};
