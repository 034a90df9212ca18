//! The vocabulary of Paifang: hosts, path templates, stages, parameters and backends, as values that cannot be wrong.
//!
//! Whoever holds one of these values holds a checked one: the constructors parse, and nothing downstream checks again. This crate
//! knows no YAML kind, no socket and no clock. `serde` is here only because these leaves travel inside the snapshot's wire form, as
//! the strings that users write; whole objects are described in `paifang-resources` and `paifang-snapshot`.

mod address;
mod host;
mod method;
mod name;
mod parameter;
mod path;
pub mod percent;
mod protocol;
mod secret;
mod stage;

pub use address::{Address, InvalidAddress, Scheme};
pub use host::{HostPattern, InvalidHost, normalise_host};
pub use method::{InvalidMethod, Method};
pub use name::ObjectName;
pub use parameter::{BackendLocation, Location, ParameterType, SystemParameter};
pub use path::{BasePath, InvalidPath, PathTemplate, Segment};
pub use protocol::{HttpsPolicy, Protocol, Protocols};
pub use secret::Redacted;
pub use stage::{InvalidStage, Stage};

/// What a user wrote, short enough to be told back in a message.
fn short(text: &str) -> String {
    text.chars().take(100).collect()
}
