//! HTTP: a server at a fixed address (Ref §6.1).

use paifang_model::{Address, Scheme};
use paifang_resources::{HttpBackend, HttpVersion};
use paifang_snapshot::wire::{HttpTarget, Target};

use super::{
    At, Kind, Referrer, Resolved, Resolver,
    server::{self, Tls, parse_address, parse_tls},
};
use crate::parse::Check;

/// What is written under `http`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Http {
    address: Address,
    host: Option<String>,
    tls: Option<Tls>,
    http2: bool,
}

impl Kind for Http {
    type Written = HttpBackend;

    fn parse(at: At<'_>, written: &HttpBackend, check: &mut Check<'_>) -> Option<Self> {
        let field = at.field;
        let address = parse_address(&format!("{field}.address"), &written.address, check);
        if let Some(host) = &written.host {
            check.authority(&format!("{field}.host"), host);
        }
        let scheme = address
            .as_ref()
            .map_or(Scheme::Https, |address| address.scheme);
        let tls = parse_tls(field, at.namespace, written.tls.as_ref(), scheme, check);
        Some(Self {
            address: address?,
            host: written.host.clone(),
            tls,
            http2: written.http_version == Some(HttpVersion::HTTP2),
        })
    }

    fn resolve(&self, from: Referrer<'_>, resolver: &mut Resolver<'_, '_>) -> Resolved {
        let field = format!("{}.http", from.field);
        let shown = self.address.to_string();
        server::resolve(&field, self.tls.as_ref(), None, shown, resolver, |tls| {
            Target::Http(HttpTarget {
                address: self.address.clone(),
                host: self.host.clone(),
                tls,
                http2: self.http2,
            })
        })
    }
}
