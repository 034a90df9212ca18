//! A folder of YAML as the source of objects, and the state kept beside it.
//!
//! [`Session`] reads the folder, compiles it, remembers what must survive a restart, and says what is wrong by file and line. [`Watch`]
//! notices that files were saved. Nothing here listens on a network and nothing prints: the program that owns a session serves its snapshots
//! and shows what it says.

mod beside;
mod changes;
mod diagnostic;
mod folder;
mod gather;
mod made;
mod manifest;
mod session;
mod shape;
mod specs;
mod state;
mod suggest;
mod text;
mod watch;
mod yaml;

pub use changes::{Change, What};
pub use diagnostic::{Diagnostic, Severity};
pub use folder::{MAX_FILE_BYTES, Touched};
pub use session::{CannotOpen, MadeSecret, Outcome, Session, StateUse, Took};
pub use state::InvalidState;
pub use watch::{Stop, Watch};
pub use yaml::Position;
