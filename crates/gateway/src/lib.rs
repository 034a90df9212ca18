//! A gateway in one process: listeners, certificates, the configuration's swap and the process's end, wrapped around the proxy.
//!
//! Each worker is a thread with a single-threaded runtime, sockets, connections and backend pools of its own; what workers share is
//! one pointer to the configuration and one to the certificates. `paifang standalone` starts a [`Gateway`] on snapshots compiled from
//! files; `paifang gateway` starts the same and lets a [`cluster::Subscription`] feed it.

mod access_log;
pub mod cluster;
mod connection;
mod dump;
mod flight;
mod gateway;
mod guard;
mod listen;
mod metrics;
mod settings;
mod tls;
mod worker;

pub use gateway::{Applied, Control, Drained, Feed, Gateway, Problem};
pub use listen::Addresses;
pub use settings::{AccessLog, Connections, DefaultCertificate, Drain, Settings};
pub use tls::certificate::CertificateFacts;
