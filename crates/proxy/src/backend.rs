//! Phase 8: asking the backend.
//!
//! A [`Remote`] is asked over HTTP, by the one exchange that all types share ([`http`]); what is particular to a type is a [`Kind`]
//! in a module of its own: how the request is written, and how the answer is read. HTTP and VPC have none: they are asked as mapped.
//!
//! A request that was not sent, because a pooled connection had closed or no connection could be made, is tried once more; one of
//! which the backend may have seen a byte never is, unless its kind says that this does no harm.

mod acs3;
mod busy;
mod call;
mod dial;
mod event;
mod function;
mod h2;
mod head;
mod http;
mod json;
mod mock;
mod object;
mod outlier;
mod pool;
mod resolve;
pub(crate) mod tls;

use std::{fmt, sync::Arc, time::Duration};

use ::http::{HeaderValue, Request, Response, StatusCode, response};
use bytes::Bytes;
use paifang_model::{Address, ObjectName, Redacted, Scheme};
use paifang_signing::Key;
use paifang_snapshot::{
    table::Api,
    wire::{self, BackendTls, Endpoints, Origin, Target},
};

pub(crate) use self::{
    busy::Load,
    call::{Call, dispatch},
    http::{Exchange, ask},
    outlier::Outliers,
    pool::{Lease, Pool},
    resolve::Resolver,
};
use crate::{body::Outgoing, refusal::Refusal, settings::Limits};

/// A backend, ready to be asked. Made once when its configuration is loaded.
pub(crate) enum Backend {
    /// The gateway answers by itself.
    Own(mock::Mock),
    /// Asked over HTTP.
    Remote(Remote),
    /// Answers every call with a refusal; the reason goes to the log.
    Unusable(String),
}

/// A backend that is asked over HTTP.
pub(crate) struct Remote {
    /// The `Host` it is told.
    pub(crate) host: HeaderValue,
    /// Where it is.
    pub(crate) upstream: Upstream,
    /// What is particular to its type; `None` when it is asked as mapped.
    pub(crate) kind: Option<Box<dyn Kind>>,
}

/// Where a backend is and how connections to it are made.
pub(crate) struct Upstream {
    pub(crate) scheme: Scheme,
    /// Whether HTTP/2 is spoken: over TLS if the other end takes it, else without asking.
    pub(crate) http2: bool,
    /// How TLS is verified.
    pub(crate) tls: Option<BackendTls>,
    /// For SNI and verification, unless the TLS settings name another. Without port.
    pub(crate) host: Box<str>,
    pub(crate) place: Place,
}

/// Where connections of a backend lead.
pub(crate) enum Place {
    /// A host to be resolved, and a port.
    Name(Box<str>, u16),
    /// The ready endpoints of a Service's port.
    Service { name: ObjectName, port: Box<str> },
    /// Addresses, any of which will do.
    Fixed(Vec<Address>),
}

/// What is particular to a type of backend. Every function is pure: reading bodies, deadlines and connections are [`call`]'s.
pub(crate) trait Kind: Send + Sync {
    /// The Secret with the access key that its requests are signed with.
    fn credentials(&self) -> Option<&ObjectName> {
        None
    }

    /// How large a body it takes, in bytes.
    fn body_limit(&self, _api: &Api, limits: &Limits) -> u64 {
        limits.body_bytes
    }

    /// How long nothing may move, for one whose bodies may take any time as long as they go on; `None` when the Api's timeout bounds the
    /// whole call.
    fn pause(&self, _api: &Api) -> Option<Duration> {
        None
    }

    /// Whether it needs the whole body before it can ask; otherwise the body is streamed.
    fn needs_whole_body(&self, _api: &Api) -> bool {
        false
    }

    /// Writes the mapped request as the backend wants it.
    ///
    /// # Errors
    /// The refusal that the caller gets.
    fn prepare(
        &self,
        call: &Call<'_>,
        request: Request<Outgoing>,
    ) -> Result<Request<Outgoing>, Refusal>;

    /// The most bytes of the answer that must be read before it can be given; `None` when it is passed on as it comes.
    fn reads(&self, _call: &Call<'_>, _answer: &response::Parts) -> Option<usize> {
        None
    }

    /// Makes the caller's answer from the backend's, whose body was read because of [`Kind::reads`].
    ///
    /// # Errors
    /// The refusal that the caller gets.
    fn finish(
        &self,
        _call: &Call<'_>,
        answer: response::Parts,
        body: Bytes,
    ) -> Result<Response<Bytes>, Refusal> {
        Ok(Response::from_parts(answer, body))
    }

    /// Whether the answer's head says it all: its body is read for its words and to use the connection again, and what goes wrong with
    /// it, even its size, does not matter.
    fn ends_with_head(&self) -> bool {
        false
    }

    /// What a caller is told of an answer that was to be read and was cut, or is too large.
    fn unreadable(&self, reason: &'static str) -> Refusal {
        Refusal::backend_answer(reason)
    }

    /// Whether the same request may be sent again after this outcome: the status of an answer, or `None` when no answer came.
    fn may_repeat(&self, _outcome: Option<StatusCode>) -> bool {
        false
    }

    /// Makes a request ready to be sent again: what may be said once only is said anew.
    ///
    /// # Errors
    /// The refusal that the caller gets.
    fn renew(&self, _call: &Call<'_>, _request: &mut Request<Outgoing>) -> Result<(), Refusal> {
        Ok(())
    }
}

// === impl Backend ===

impl Backend {
    /// Makes a backend ready. What cannot be is [`Backend::Unusable`].
    pub(crate) fn load(target: &Target) -> Self {
        Self::try_load(target).unwrap_or_else(Self::Unusable)
    }

    fn try_load(target: &Target) -> Result<Self, String> {
        let remote = match target {
            Target::Http(http) => Remote::new(
                http.host
                    .clone()
                    .unwrap_or_else(|| http.address.authority()),
                Upstream {
                    http2: http.http2,
                    ..Upstream::at(&http.address, http.tls.as_ref())
                },
                None,
            )?,
            Target::Vpc(vpc) => Remote::new(
                vpc.host.clone(),
                Upstream {
                    scheme: vpc.scheme,
                    http2: vpc.http2,
                    tls: vpc.tls.clone(),
                    host: paifang_model::normalise_host(&vpc.host)
                        .unwrap_or(&vpc.host)
                        .into(),
                    place: Place::of(&vpc.endpoints),
                },
                None,
            )?,
            Target::Function(target) => {
                Remote::at(&target.origin, function::Function::load(target)?)?
            }
            Target::Event(target) => Remote::at(&target.origin, event::Event::load(target)?)?,
            Target::Object(object) => object::load(object)?,
            Target::Mock(mock) => return Ok(Self::Own(mock::Mock::load(mock)?)),
            Target::Unavailable { reason } => return Err(reason.clone()),
        };
        Ok(Self::Remote(remote))
    }

    /// The `Host` it is told.
    pub(crate) fn host(&self) -> HeaderValue {
        match self {
            Self::Remote(remote) => remote.host.clone(),
            Self::Own(_) | Self::Unusable(_) => HeaderValue::from_static("none"),
        }
    }

    /// What is particular to its type.
    pub(crate) fn kind(&self) -> Option<&dyn Kind> {
        match self {
            Self::Remote(remote) => remote.kind.as_deref(),
            Self::Own(_) | Self::Unusable(_) => None,
        }
    }
}

// === impl Remote ===

impl Remote {
    /// `host` is what it is told as `Host`.
    fn new(host: String, upstream: Upstream, kind: Option<Box<dyn Kind>>) -> Result<Self, String> {
        Ok(Self {
            host: HeaderValue::try_from(host).map_err(|error| format!("its host: {error}"))?,
            upstream,
            kind,
        })
    }

    /// A server with one address, asked in the way of `kind`.
    fn at(origin: &Origin, kind: impl Kind + 'static) -> Result<Self, String> {
        Self::new(
            origin.address.authority(),
            Upstream::at(&origin.address, origin.tls.as_ref()),
            Some(Box::new(kind)),
        )
    }
}

// === impl Upstream ===

impl Upstream {
    fn at(address: &Address, tls: Option<&BackendTls>) -> Self {
        Self {
            scheme: address.scheme,
            http2: false,
            tls: tls.cloned(),
            host: address.host.clone(),
            place: Place::Name(address.host.clone(), address.port),
        }
    }
}

// === impl Place ===

impl Place {
    fn of(endpoints: &Endpoints) -> Self {
        match endpoints {
            Endpoints::Fixed(addresses) => Self::Fixed(addresses.clone()),
            Endpoints::Service { name, port } => Self::Service {
                name: name.clone(),
                port: port.as_str().into(),
            },
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "Own",
            Self::Remote(_) => "Remote",
            Self::Unusable(_) => "Unusable",
        })
    }
}

/// An access key that requests are signed with, as [`Call`] carries it.
pub(crate) type Credentials = Arc<AccessKey>;

/// An access key, ready to sign with. Made when it is loaded.
pub(crate) struct AccessKey {
    /// Public; sent with every request.
    pub(crate) id: String,
    /// What keys of a day are derived from.
    secret: Redacted<String>,
    /// For signatures over the secret itself.
    key: Key,
    /// Of a temporary access key.
    security_token: Option<Redacted<String>>,
}

impl From<&wire::AccessKey> for AccessKey {
    fn from(key: &wire::AccessKey) -> Self {
        Self {
            id: key.id.clone(),
            secret: key.secret.clone(),
            key: Key::new(key.secret.expose()),
            security_token: key.security_token.clone(),
        }
    }
}
