//! The caller's side of the protocol, given the key and the time: canonical requests, HMAC, AppCode, nonces and time
//! stamps, for the gateway that verifies and for the tool that signs. And the signatures that backends ask of a gateway.
//!
//! Nothing here reads a clock, a file or a socket, and nothing here knows HTTP types: a request is four borrowed
//! parts ([`Parts`]) and something that answers header values ([`Headers`]). What an AppKey is allowed to do, whether
//! a nonce was seen before and which error code answers a refusal are the proxy's.
//!
//! "Ref" in these pages is the protocol reference, with its section numbers.

mod acs3;
pub mod appcode;
pub mod aws4;
pub mod backend;
mod canonical;
mod digest;
pub mod doctor;
mod eventbridge;
mod fc;
mod key;
mod lines;
mod nonce;
pub mod oss;
mod parameters;
mod percent;
mod sign;
pub mod store;
mod timestamp;
mod utc;
mod verify;

pub use acs3::{Acs3Parts, sha256_hex, sign_acs3};
pub use canonical::{Headers, Parts, Scratch, is_form};
pub use digest::{Md5, content_md5};
pub use eventbridge::sign_eventbridge;
pub use fc::{FcParts, sign_fc};
pub use key::{Algorithm, InvalidAlgorithm, Key};
pub use nonce::{InvalidNonce, NONCE_MAX_BYTES, parse_nonce};
pub use sign::{CannotSign, Signed, Signer, Unsigned};
pub use timestamp::{InvalidTimestamp, TIMESTAMP_WINDOW_MS, timestamp_ahead, timestamp_within};
pub use utc::Utc;
pub use verify::{HINT_MAX_BYTES, Mismatch, verify};
