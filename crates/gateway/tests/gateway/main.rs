//! A whole gateway in this process, real sockets, real bytes.

mod ending;
mod plain;
mod secure;
mod seeing;
mod support;
