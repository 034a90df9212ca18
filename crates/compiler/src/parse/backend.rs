//! The configuration of a backend: of one stage of a BackendService, or inline in an Api.

use paifang_model::{Address, ObjectName, Scheme};
use paifang_resources::{
    BackendConfig, BackendTls, BackendType, EventBridgeBackend, FunctionComputeBackend,
    HttpBackend, IntOrString, MockBackend, OssBackend, Scheme as WrittenScheme, VpcBackend,
};

use super::{Check, text};
use crate::Reason;

/// What a backend's configuration means. Secrets and Services are names still.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Backend {
    Http {
        address: Address,
        host: Option<String>,
        tls: Option<Tls>,
    },
    Vpc {
        scheme: Scheme,
        source: Source,
        host: Option<String>,
        tls: Option<Tls>,
    },
    Mock {
        status: u16,
        headers: Vec<(String, String)>,
        /// Absent: the Api's sample.
        body: Option<String>,
    },
    /// Well-formed, of a type that this version does not serve.
    NotServed(BackendType),
}

/// Where the endpoints of a VPC backend are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Fixed(Vec<Address>),
    Service { name: ObjectName, port: String },
}

/// TLS towards a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) ca: Option<ObjectName>,
    pub(crate) server_name: Option<String>,
    pub(crate) client_certificate: Option<ObjectName>,
}

/// Parses a union. `field` is where its keys stand; `namespace` is that of the object. `expected` is the type that the object says.
pub(crate) fn parse(
    field: &str,
    namespace: &str,
    config: &BackendConfig,
    expected: Option<BackendType>,
    check: &mut Check<'_>,
) -> Option<Backend> {
    let types = config.types();
    let kind = match (types.as_slice(), expected) {
        ([kind], None) => *kind,
        ([kind], Some(expected)) if *kind == expected => *kind,
        (_, Some(expected)) => {
            check.add(
                field,
                Reason::Contradiction,
                format!(
                    "must have the key `{}` and no other type's, as spec.type is {}",
                    expected.key(),
                    expected.name()
                ),
                "write that one",
            );
            return None;
        }
        (_, None) => {
            check.add(
                field,
                Reason::Contradiction,
                "must have exactly one type of backend",
                "keep one of http, vpc, functionCompute, oss and mock",
            );
            return None;
        }
    };
    let field = &format!("{field}.{}", kind.key());
    let mark = check.problems.len();
    let parsed = if let Some(http) = &config.http {
        parse_http(field, namespace, http, check)
    } else if let Some(vpc) = &config.vpc {
        parse_vpc(field, namespace, vpc, check)
    } else if let Some(mock) = &config.mock {
        parse_mock(field, mock, check)
    } else {
        if let Some(function) = &config.function_compute {
            check_function(field, function, check);
        }
        if let Some(oss) = &config.oss {
            check_oss(field, oss, check);
        }
        if let Some(bridge) = &config.event_bridge {
            check_bridge(field, bridge, check);
        }
        Some(Backend::NotServed(kind))
    };
    parsed.filter(|_| check.clean_since(mark))
}

fn parse_http(
    field: &str,
    namespace: &str,
    http: &HttpBackend,
    check: &mut Check<'_>,
) -> Option<Backend> {
    let at = format!("{field}.address");
    let address: Option<Address> = check.take(&at, Reason::InvalidAddress, http.address.parse());
    if let Some(address) = &address {
        allowed(&at, address, check);
    }
    if let Some(host) = &http.host {
        check.authority(&format!("{field}.host"), host);
    }
    let scheme = address
        .as_ref()
        .map_or(Scheme::Https, |address| address.scheme);
    let tls = parse_tls(field, namespace, http.tls.as_ref(), scheme, check);
    Some(Backend::Http {
        address: address?,
        host: http.host.clone(),
        tls,
    })
}

fn allowed(field: &str, address: &Address, check: &mut Check<'_>) {
    if let Some(what) = check.settings.addresses.refusal(&address.host) {
        check.add(
            field,
            Reason::AddressNotAllowed,
            format!("`{}` is {what}", address.host),
            "use another address, or ask the platform team to allow it",
        );
    }
}

fn parse_tls(
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
    let mut secret = |key: &str, reference: &Option<paifang_resources::SecretRef>| {
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

fn parse_vpc(
    field: &str,
    namespace: &str,
    vpc: &VpcBackend,
    check: &mut Check<'_>,
) -> Option<Backend> {
    let scheme = match vpc.scheme {
        WrittenScheme::HTTP => Scheme::Http,
        WrittenScheme::HTTPS => Scheme::Https,
    };
    let source = match (&vpc.service, vpc.addresses.as_slice()) {
        (Some(service), []) => {
            let at = format!("{field}.service");
            check.reference(&at, &service.name, service.namespace.as_deref());
            parse_port(&format!("{at}.port"), &service.port, check).map(|port| Source::Service {
                name: ObjectName::new(
                    service.namespace.as_deref().unwrap_or(namespace),
                    service.name.as_str(),
                ),
                port,
            })
        }
        (None, [_, ..]) => parse_addresses(field, scheme, &vpc.addresses, check),
        _ => {
            check.add(
                field,
                Reason::Contradiction,
                "needs either `service` or `addresses`",
                "write exactly one of the two",
            );
            None
        }
    };
    if let Some(host) = &vpc.host {
        check.authority(&format!("{field}.host"), host);
    }
    let tls = parse_tls(field, namespace, vpc.tls.as_ref(), scheme, check);
    Some(Backend::Vpc {
        scheme,
        source: source?,
        host: vpc.host.clone(),
        tls,
    })
}

fn parse_addresses(
    field: &str,
    scheme: Scheme,
    written: &[String],
    check: &mut Check<'_>,
) -> Option<Source> {
    check.count(&format!("{field}.addresses"), written.len(), 100);
    let mut addresses: Vec<Address> = Vec::new();
    for (at, text) in written.iter().enumerate() {
        let field = format!("{field}.addresses[{at}]");
        let address = Address::from_host_port(scheme, text);
        if let Some(address) = check.take(&field, Reason::InvalidAddress, address) {
            allowed(&field, &address, check);
            if addresses.contains(&address) {
                check.add(
                    &field,
                    Reason::Duplicate,
                    format!("`{}` is there twice", text::short(text)),
                    "remove one",
                );
            }
            addresses.push(address);
        }
    }
    (addresses.len() == written.len()).then_some(Source::Fixed(addresses))
}

/// A number of a port, or its name (RFC 6335 §5.1), as text.
fn parse_port(field: &str, port: &IntOrString, check: &mut Check<'_>) -> Option<String> {
    let name = |name: &str| {
        (1..=15).contains(&name.len())
            && text::is_object_name(name)
            && name.bytes().any(|b| b.is_ascii_lowercase())
    };
    let number = |number: i64| (1..=65_535).contains(&number);
    match port {
        IntOrString::Int(written) if number(i64::from(*written)) => Some(written.to_string()),
        IntOrString::String(written) if name(written) => Some(written.clone()),
        IntOrString::String(written) if written.parse().is_ok_and(number) => {
            Some(written.trim_start_matches(['+', '0']).to_owned())
        }
        _ => {
            check.add(
                field,
                Reason::OutOfRange,
                "is not a port",
                "write a number from 1 to 65535, or the name of the Service's port",
            );
            None
        }
    }
}

fn parse_mock(field: &str, mock: &MockBackend, check: &mut Check<'_>) -> Option<Backend> {
    check.range(&format!("{field}.statusCode"), mock.status_code, 200, 599);
    check.count(&format!("{field}.headers"), mock.headers.len(), 32);
    for (at, header) in mock.headers.iter().enumerate() {
        let field = format!("{field}.headers[{at}]");
        check.header_name(&format!("{field}.name"), &header.name);
        check.not_managed(&format!("{field}.name"), &header.name);
        check.header_value(&format!("{field}.value"), &header.value);
        check.length(&format!("{field}.value"), Some(&header.value), 2048);
    }
    check.length(&format!("{field}.body"), mock.body.as_deref(), 32_768);
    Some(Backend::Mock {
        status: mock.status_code,
        headers: mock
            .headers
            .iter()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
        body: mock.body.clone(),
    })
}

fn check_function(field: &str, function: &FunctionComputeBackend, check: &mut Check<'_>) {
    either(
        field,
        "url",
        function.url.is_some(),
        function.alibaba.is_some(),
        check,
    );
    if let Some(url) = &function.url {
        check_url(&format!("{field}.url"), url, check);
    }
    if let Some(alibaba) = &function.alibaba {
        endpoint_or_account(
            &format!("{field}.alibaba"),
            alibaba.endpoint.as_deref(),
            alibaba.account_id.as_deref(),
            check,
        );
        let version2 = alibaba.version == paifang_resources::FunctionComputeVersion::V2;
        if version2 != alibaba.service.is_some() {
            check.add(
                format!("{field}.alibaba.service"),
                if version2 {
                    Reason::Required
                } else {
                    Reason::Contradiction
                },
                "functions of version 2.0 belong to a service, those of 3.0 do not",
                "add or remove it",
            );
        }
    }
    credentials(
        field,
        function.alibaba.is_some(),
        function.credentials_ref.as_ref(),
        check,
    );
}

fn check_oss(field: &str, oss: &OssBackend, check: &mut Check<'_>) {
    let at = format!("{field}.endpoint");
    let address: Option<Address> = check.take(&at, Reason::InvalidAddress, oss.endpoint.parse());
    if let Some(address) = address {
        allowed(&at, &address, check);
    }
    if !(3..=63).contains(&oss.bucket.len()) || !text::is_object_name(&oss.bucket) {
        check.add(
            format!("{field}.bucket"),
            Reason::InvalidValue,
            "is not the name of a bucket",
            "write lower-case letters, digits and `-`; 3 to 63",
        );
    }
    check.label(&format!("{field}.region"), &oss.region);
    check.object_name(
        &format!("{field}.credentialsRef.name"),
        &oss.credentials_ref.name,
    );
}

fn check_bridge(field: &str, bridge: &EventBridgeBackend, check: &mut Check<'_>) {
    either(
        field,
        "sink",
        bridge.sink.is_some(),
        bridge.alibaba.is_some(),
        check,
    );
    if let Some(sink) = &bridge.sink {
        check_url(&format!("{field}.sink"), sink, check);
    }
    if let Some(alibaba) = &bridge.alibaba {
        endpoint_or_account(
            &format!("{field}.alibaba"),
            alibaba.endpoint.as_deref(),
            alibaba.account_id.as_deref(),
            check,
        );
    }
    credentials(
        field,
        bridge.alibaba.is_some(),
        bridge.credentials_ref.as_ref(),
        check,
    );
}

fn either(field: &str, key: &str, here: bool, alibaba: bool, check: &mut Check<'_>) {
    if here == alibaba {
        check.add(
            field,
            Reason::Contradiction,
            format!("needs either `{key}` or `alibaba`"),
            "write exactly one of the two",
        );
    }
}

fn endpoint_or_account(
    field: &str,
    endpoint: Option<&str>,
    account: Option<&str>,
    check: &mut Check<'_>,
) {
    match (endpoint, account) {
        (None, None) => check.add(
            format!("{field}.accountId"),
            Reason::Required,
            "is needed to find the region's public endpoint",
            "write it, or `endpoint`",
        ),
        (Some(endpoint), _) => check_url(&format!("{field}.endpoint"), endpoint, check),
        (None, Some(_)) => {}
    }
}

fn credentials(
    field: &str,
    needed: bool,
    reference: Option<&paifang_resources::SecretRef>,
    check: &mut Check<'_>,
) {
    let field = format!("{field}.credentialsRef");
    match reference {
        None if needed => check.add(
            field,
            Reason::Required,
            "calls of Alibaba's services are signed",
            "name a Secret with accessKeyId and accessKeySecret",
        ),
        Some(_) if !needed => check.add(
            field,
            Reason::Contradiction,
            "has no meaning without `alibaba`",
            "remove it",
        ),
        Some(reference) => check.object_name(&format!("{field}.name"), &reference.name),
        None => {}
    }
}

/// An address and perhaps a path.
fn check_url(field: &str, url: &str, check: &mut Check<'_>) {
    let path_at = url
        .find("://")
        .and_then(|at| url[at + 3..].find('/').map(|path| at + 3 + path));
    let (origin, path) = url.split_at(path_at.unwrap_or(url.len()));
    if path.contains(['?', '#', ' ', '\\']) || path.chars().any(char::is_control) {
        check.add(
            field,
            Reason::InvalidAddress,
            "has a query, a fragment, or characters that no path may have",
            "write scheme, host, port and path",
        );
    }
    let address: Option<Address> = check.take(field, Reason::InvalidAddress, origin.parse());
    if let Some(address) = address {
        allowed(field, &address, check);
    }
}
