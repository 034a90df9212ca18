//! What several types say of the server they are reached at: address, URL, TLS, access key.

use paifang_model::{Address, ObjectName, Scheme};
use paifang_resources::{BackendTls, SecretRef};
use paifang_snapshot::wire::{self, Origin, Target};

use super::{At, Referrer, Resolved, Resolver};
use crate::{
    Problem, Reason,
    certificates::Use,
    parse::{Check, text},
};

/// TLS towards a backend. Secrets are names still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    ca: Option<ObjectName>,
    server_name: Option<String>,
    client_certificate: Option<ObjectName>,
}

/// A server with its TLS settings, and the access key that its calls are signed with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) tls: Option<Tls>,
    /// `credentialsRef`.
    pub(crate) credentials: Option<ObjectName>,
}

/// An address that settings allow.
pub(super) fn parse_address(field: &str, written: &str, check: &mut Check<'_>) -> Option<Address> {
    let address: Address = check.take(field, Reason::InvalidAddress, written.parse())?;
    check_allowed(field, &address, check);
    Some(address)
}

pub(super) fn check_allowed(field: &str, address: &Address, check: &mut Check<'_>) {
    if let Some(what) = check.settings.addresses.refusal(&address.host) {
        check.add(
            field,
            Reason::AddressNotAllowed,
            format!("`{}` is {what}", address.host),
            "use another address, or ask the platform team to allow it",
        );
    }
}

/// An address and perhaps a path, which comes back without `/` at its end.
fn parse_url(field: &str, url: &str, check: &mut Check<'_>) -> Option<(Address, String)> {
    let path_at = url
        .find("://")
        .and_then(|at| url[at + 3..].find('/').map(|path| at + 3 + path));
    let (origin, path) = url.split_at(path_at.unwrap_or(url.len()));
    let mark = check.problems.len();
    if path.contains(['?', '#', '\\']) || path.contains(|c: char| !c.is_ascii_graphic()) {
        check.add(
            field,
            Reason::InvalidAddress,
            "has a query, a fragment, or characters that no path may have",
            "write scheme, host, port and path",
        );
    }
    let address = parse_address(field, origin, check)?;
    let path = path.trim_end_matches('/').to_owned();
    check.clean_since(mark).then_some((address, path))
}

pub(super) fn parse_tls(
    field: &str,
    namespace: &str,
    tls: Option<&BackendTls>,
    scheme: Scheme,
    check: &mut Check<'_>,
) -> Option<Tls> {
    let tls = tls?;
    let field = format!("{field}.tls");
    if scheme == Scheme::Http {
        check.add(
            &field,
            Reason::Contradiction,
            "has no meaning for plain HTTP",
            "use https, or remove it",
        );
    }
    let mut secret = |key: &str, reference: &Option<SecretRef>| {
        reference.as_ref().map(|reference| {
            check.object_name(&format!("{field}.{key}.name"), &reference.name);
            ObjectName::new(namespace, reference.name.as_str())
        })
    };
    let ca = secret("caSecretRef", &tls.ca_secret_ref);
    let client_certificate = secret("clientCertificateRef", &tls.client_certificate_ref);
    if let Some(name) = &tls.server_name
        && !text::is_object_name(&name.to_ascii_lowercase())
    {
        check.add(
            format!("{field}.serverName"),
            Reason::InvalidHost,
            format!("`{}` is not a host name", text::short(name)),
            "write the name in the backend's certificate",
        );
    }
    Some(Tls {
        ca,
        server_name: tls
            .server_name
            .as_ref()
            .map(|name| name.to_ascii_lowercase()),
        client_certificate,
    })
}

/// A service of Alibaba's, as far as it says where it is.
pub(super) struct Service<'w> {
    pub(super) region: &'w str,
    pub(super) endpoint: Option<&'w str>,
    pub(super) public: Public<'w>,
}

/// The host of a service's public endpoint, which is called without one that is written.
pub(super) enum Public<'w> {
    /// One for each region.
    OfRegion(String),
    /// One for each account in a region, from both.
    OfAccount(Option<&'w str>, fn(&str, &str) -> String),
    /// One for each thing that is called: what it is, as `endpoint` has to be written for it.
    None(&'static str),
}

/// Where a type that knows both is reached: a URL of the user's under `key`, or a service of Alibaba's, whose calls are signed.
pub(super) struct Place {
    pub(super) address: Address,
    /// Of a URL; without `/` at its end.
    pub(super) path: String,
    credentials: Option<ObjectName>,
}

impl Place {
    pub(super) fn parse(
        At { field, namespace }: At<'_>,
        (key, url): (&str, Option<&str>),
        service: Option<Service<'_>>,
        credentials: Option<&SecretRef>,
        check: &mut Check<'_>,
    ) -> Option<Self> {
        let signed = service.is_some();
        if url.is_some() == signed {
            check.add(
                field,
                Reason::Contradiction,
                format!("needs either `{key}` or `alibaba`"),
                "write exactly one of the two",
            );
        }
        let url = url.and_then(|url| parse_url(&format!("{field}.{key}"), url, check));
        let service =
            service.map(|service| service.parse_endpoint(&format!("{field}.alibaba"), check));
        let credentials = parse_credentials(field, namespace, signed, credentials, check);
        let (address, path) = match (url, service) {
            (Some(url), None) => url,
            (None, Some(endpoint)) => (endpoint?, String::new()),
            _ => return None,
        };
        Some(Self {
            address,
            path,
            credentials,
        })
    }

    /// The server there, and the path.
    pub(super) fn with_tls(
        self,
        At { field, namespace }: At<'_>,
        tls: Option<&BackendTls>,
        check: &mut Check<'_>,
    ) -> (Server, String) {
        let tls = parse_tls(field, namespace, tls, self.address.scheme, check);
        let server = Server {
            address: self.address,
            tls,
            credentials: self.credentials,
        };
        (server, self.path)
    }
}

impl Service<'_> {
    /// The endpoint that is written, or the region's public one.
    fn parse_endpoint(self, field: &str, check: &mut Check<'_>) -> Option<Address> {
        check.label(&format!("{field}.region"), self.region);
        let written = format!("{field}.endpoint");
        if let Some(endpoint) = self.endpoint {
            return parse_address(&written, endpoint, check);
        }
        match self.public {
            Public::OfRegion(host) => parse_address(
                &format!("{field}.region"),
                &format!("https://{host}"),
                check,
            ),
            Public::OfAccount(Some(account), host) => {
                let url = format!("https://{}", host(account, self.region));
                parse_address(&format!("{field}.accountId"), &url, check)
            }
            Public::OfAccount(None, _) => {
                check.add(
                    format!("{field}.accountId"),
                    Reason::Required,
                    "is needed to find the region's public endpoint",
                    "write it, or `endpoint`",
                );
                None
            }
            Public::None(what) => {
                check.add(
                    written,
                    Reason::Required,
                    format!("is needed: nothing else tells {what}"),
                    format!("write {what}, `https://…`"),
                );
                None
            }
        }
    }
}

/// `credentialsRef`, which goes with a service that is `signed`.
pub(super) fn parse_credentials(
    field: &str,
    namespace: &str,
    signed: bool,
    reference: Option<&SecretRef>,
    check: &mut Check<'_>,
) -> Option<ObjectName> {
    let field = format!("{field}.credentialsRef");
    match reference {
        None if signed => check.add(
            field,
            Reason::Required,
            "calls of Alibaba's services are signed",
            "name a Secret with accessKeyId and accessKeySecret",
        ),
        Some(_) if !signed => check.add(
            field,
            Reason::Contradiction,
            "has no meaning without `alibaba`",
            "remove it",
        ),
        Some(reference) => {
            check.object_name(&format!("{field}.name"), &reference.name);
            return Some(ObjectName::new(namespace, reference.name.as_str()));
        }
        None => {}
    }
    None
}

/// Looks the Secrets up. A backend whose CA, client certificate or access key is not there is not called: without it, something
/// would go unchecked or unsigned.
pub(super) fn resolve(
    field: &str,
    tls: Option<&Tls>,
    credentials: Option<&ObjectName>,
    address: String,
    resolver: &mut Resolver<'_, '_>,
    target: impl FnOnce(Option<wire::BackendTls>) -> Target,
) -> Resolved {
    let uses = [
        (
            "tls.caSecretRef",
            tls.and_then(|it| it.ca.as_ref()),
            Use::Ca,
        ),
        (
            "tls.clientCertificateRef",
            tls.and_then(|it| it.client_certificate.as_ref()),
            Use::Pair,
        ),
        ("credentialsRef", credentials, Use::AccessKey),
    ];
    let mut problems: Vec<Problem> = Vec::new();
    let mut usable = true;
    for (key, secret, usage) in uses {
        let Some(secret) = secret else { continue };
        let judged = resolver.judge(secret, usage);
        usable &= judged.is_usable();
        problems.extend(judged.problem(&format!("{field}.{key}")));
    }
    let base = if usable {
        target(tls.map(|tls| wire::BackendTls {
            ca: tls.ca.clone(),
            server_name: tls.server_name.clone(),
            client_certificate: tls.client_certificate.clone(),
        }))
    } else {
        let reason = problems
            .first()
            .map_or_else(String::new, |problem| problem.message.clone());
        Target::Unavailable { reason }
    };
    Resolved {
        problems,
        ..Resolved::new(base, address)
    }
}

// === impl Server ===

impl Server {
    /// Looks its Secrets up; `shown` is what the status says of the address.
    pub(super) fn resolve(
        &self,
        from: Referrer<'_>,
        key: &str,
        shown: String,
        resolver: &mut Resolver<'_, '_>,
        target: impl FnOnce(Origin) -> Target,
    ) -> Resolved {
        let field = format!("{}.{key}", from.field);
        let credentials = self.credentials.as_ref();
        resolve(
            &field,
            self.tls.as_ref(),
            credentials,
            shown,
            resolver,
            |tls| {
                target(Origin {
                    address: self.address.clone(),
                    tls,
                })
            },
        )
    }
}
