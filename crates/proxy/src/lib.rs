//! The life of one request, from parsed head to finished response.
//!
//! [`Worker::serve`] reads like the drawing in product.md §4: clean, locate, protocol, throttle, authenticate, authorise, map,
//! dispatch, respond. Each phase takes what the one before has proven, so a request cannot reach a backend without the permit of
//! the phase that grants it. This crate opens connections to backends; listeners, certificates of domains and where configuration
//! comes from are the gateway's.

mod authenticate;
pub mod backend;
mod body;
pub mod clean;
mod config;
mod encode;
mod endpoints;
mod keys;
mod locate;
mod map;
pub mod network;
mod nonce;
mod record;
pub mod refusal;
mod respond;
mod serve;
mod settings;
mod throttle;
pub mod trailers;
mod upgrade;

pub use body::Body;
pub use config::Config;
pub use endpoints::{Endpoints, Ready};
pub use keys::{Caller, Keys};
pub use nonce::Nonces;
pub use record::{Change, Observe, Record, RequestId};
pub use respond::refuse;
pub use serve::{Client, ClientTls, Shared, Worker};
pub use settings::{Limits, Settings, Timeouts};
pub use upgrade::Tunnel;
