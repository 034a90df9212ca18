//! Kubernetes objects beside the six kinds, as far as the compiler needs them: Secrets, Services with their endpoints, Namespaces,
//! ReferenceGrants. ConfigMaps are allowed and not read.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use paifang_compiler::{GrantFrom, GrantTo, Problem, Reason, ReferenceGrant, Secret};
use paifang_model::Redacted;
use serde::{Deserialize, Serialize};

use crate::{
    manifest::AnyKind,
    shape::Shape,
    yaml::{Data, Node},
};

/// Names the endpoints of a Service in a folder, which has no cluster to ask.
pub(crate) const ENDPOINTS: &str = "paifang.dev/standalone-endpoints";

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An object beside the six kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Beside {
    Secret(Secret),
    ConfigMap,
    Service(Service),
    EndpointSlice(EndpointSlice),
    Namespace(BTreeMap<String, String>),
    ReferenceGrant(ReferenceGrant),
}

/// A Service, its endpoints not yet known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) external_name: Option<String>,
    /// Name and number.
    pub(crate) ports: Vec<(Option<String>, u16)>,
    /// `appProtocol` of ports, by number.
    #[serde(default)]
    pub(crate) protocols: BTreeMap<u16, String>,
    /// What the annotation says, when it is there.
    pub(crate) endpoints: Option<Vec<SocketAddr>>,
}

/// Endpoints of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointSlice {
    /// The Service, in the same namespace.
    pub(crate) service: String,
    /// Name and number.
    pub(crate) ports: Vec<(Option<String>, u16)>,
    /// Those that are ready.
    pub(crate) ready: Vec<IpAddr>,
}

/// What the kind has beside metadata.
pub(crate) fn fields(kind: AnyKind) -> Vec<(&'static str, Shape)> {
    match kind {
        AnyKind::Secret => vec![
            ("type", Shape::text()),
            ("data", Shape::texts()),
            ("stringData", Shape::texts()),
            ("immutable", Shape::Bool),
        ],
        AnyKind::ConfigMap => vec![
            ("data", Shape::texts()),
            ("binaryData", Shape::texts()),
            ("immutable", Shape::Bool),
        ],
        AnyKind::Service => vec![("spec", service_spec())],
        AnyKind::EndpointSlice => vec![
            ("addressType", Shape::text()),
            ("ports", Shape::list(slice_port())),
            ("endpoints", Shape::list(endpoint())),
        ],
        AnyKind::Namespace => vec![("spec", Shape::Any)],
        AnyKind::ReferenceGrant => vec![("spec", grant_spec())],
        AnyKind::Ours(_) => Vec::new(),
    }
}

fn service_spec() -> Shape {
    let port = Shape::object([
        ("name", Shape::text()),
        ("port", Shape::Integer(1, 65535)),
        ("targetPort", Shape::IntegerOrText),
        ("protocol", Shape::text()),
        ("appProtocol", Shape::text()),
        ("nodePort", Shape::Any),
    ]);
    Shape::object([
        ("type", Shape::text()),
        ("externalName", Shape::text()),
        ("ports", Shape::list(port.requiring(["port"]))),
        ("selector", Shape::Any),
        ("clusterIP", Shape::Any),
        ("clusterIPs", Shape::Any),
        ("externalIPs", Shape::Any),
        ("externalTrafficPolicy", Shape::Any),
        ("internalTrafficPolicy", Shape::Any),
        ("healthCheckNodePort", Shape::Any),
        ("ipFamilies", Shape::Any),
        ("ipFamilyPolicy", Shape::Any),
        ("loadBalancerClass", Shape::Any),
        ("loadBalancerIP", Shape::Any),
        ("loadBalancerSourceRanges", Shape::Any),
        ("allocateLoadBalancerNodePorts", Shape::Any),
        ("publishNotReadyAddresses", Shape::Any),
        ("sessionAffinity", Shape::Any),
        ("sessionAffinityConfig", Shape::Any),
        ("trafficDistribution", Shape::Any),
    ])
}

fn slice_port() -> Shape {
    Shape::object([
        ("name", Shape::text()),
        ("port", Shape::Integer(1, 65535)),
        ("protocol", Shape::text()),
        ("appProtocol", Shape::text()),
    ])
}

fn endpoint() -> Shape {
    let conditions = Shape::object([
        ("ready", Shape::Bool),
        ("serving", Shape::Bool),
        ("terminating", Shape::Bool),
    ]);
    Shape::object([
        ("addresses", Shape::list(Shape::text())),
        ("conditions", conditions),
        ("hostname", Shape::Any),
        ("nodeName", Shape::Any),
        ("zone", Shape::Any),
        ("hints", Shape::Any),
        ("targetRef", Shape::Any),
        ("deprecatedTopology", Shape::Any),
    ])
    .requiring(["addresses"])
}

fn grant_spec() -> Shape {
    let from = Shape::object([
        ("group", Shape::text()),
        ("kind", Shape::text()),
        ("namespace", Shape::text()),
    ]);
    let to = Shape::object([
        ("group", Shape::text()),
        ("kind", Shape::text()),
        ("name", Shape::text()),
    ]);
    Shape::object([
        (
            "from",
            Shape::list(from.requiring(["group", "kind", "namespace"])),
        ),
        ("to", Shape::list(to.requiring(["group", "kind"]))),
    ])
    .requiring(["from", "to"])
}

/// Reads an object of the right shape.
pub(crate) fn read(kind: AnyKind, root: &Node) -> Result<Beside, Vec<Problem>> {
    match kind {
        AnyKind::Secret => secret(root).map(Beside::Secret),
        AnyKind::Service => service(root).map(Beside::Service),
        AnyKind::EndpointSlice => slice(root).map(Beside::EndpointSlice),
        AnyKind::Namespace => Ok(Beside::Namespace(texts(labels(root)))),
        AnyKind::ReferenceGrant => Ok(Beside::ReferenceGrant(grant(root))),
        AnyKind::ConfigMap | AnyKind::Ours(_) => Ok(Beside::ConfigMap),
    }
}

fn secret(root: &Node) -> Result<Secret, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut data = BTreeMap::new();
    for (key, value) in root.get("data").map_or(&[][..], Node::entries) {
        let compact: String = value
            .text()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect();
        match STANDARD.decode(compact) {
            Ok(bytes) => {
                data.insert(key.name.clone(), Redacted::new(bytes));
            }
            Err(_) => problems.push(Problem::new(
                format!("data.{}", key.name),
                Reason::InvalidValue,
                "is not Base64",
                "encode it, or write it as it is below `stringData`",
            )),
        }
    }
    // As in Kubernetes, stringData wins.
    for (key, text) in texts(root.get("stringData")) {
        data.insert(key, Redacted::new(text.into_bytes()));
    }
    let kind = root.get("type").and_then(Node::text).unwrap_or("Opaque");
    refuse_any(problems)?;
    Ok(Secret {
        kind: kind.to_owned(),
        data,
    })
}

fn service(root: &Node) -> Result<Service, Vec<Problem>> {
    let spec = root.get("spec");
    let field = |name| spec.and_then(|spec| spec.get(name));
    let external = field("type").and_then(Node::text) == Some("ExternalName");
    let ports: Vec<_> = items(field("ports")).iter().filter_map(port).collect();
    let protocols = items(field("ports"))
        .iter()
        .filter_map(|node| {
            let protocol = node.get("appProtocol").and_then(Node::text)?;
            Some((port(node)?.1, protocol.to_owned()))
        })
        .collect();
    let annotation = root
        .get("metadata")
        .and_then(|metadata| metadata.get("annotations"))
        .and_then(|annotations| annotations.get(ENDPOINTS))
        .and_then(Node::text);
    let mut problems = Vec::new();
    let endpoints = annotation.map(|list| addresses(list, &mut problems));
    if endpoints.is_some() && ports.is_empty() {
        problems.push(Problem::new(
            "spec.ports",
            Reason::Required,
            "is missing, so the endpoints belong to no port",
            "add a port",
        ));
    }
    refuse_any(problems)?;
    Ok(Service {
        external_name: field("externalName")
            .and_then(Node::text)
            .filter(|_| external)
            .map(str::to_owned),
        ports,
        protocols,
        endpoints,
    })
}

fn addresses(list: &str, problems: &mut Vec<Problem>) -> Vec<SocketAddr> {
    let parts = list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let mut addresses = Vec::new();
    for part in parts {
        match part.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => problems.push(Problem::new(
                format!("metadata.annotations.{ENDPOINTS}"),
                Reason::InvalidAddress,
                format!(
                    "`{}` is not an IP address with a port",
                    crate::text::shortened(part)
                ),
                "write it as in 127.0.0.1:9000 or [::1]:9000, with commas between several",
            )),
        }
    }
    addresses
}

fn slice(root: &Node) -> Result<EndpointSlice, Vec<Problem>> {
    let Some(service) = labels(root)
        .and_then(|labels| labels.get(SERVICE_NAME))
        .and_then(Node::text)
    else {
        return Err(vec![Problem::new(
            format!("metadata.labels.{SERVICE_NAME}"),
            Reason::Required,
            "is missing, so the endpoints belong to no Service",
            "add the label with the Service's name",
        )]);
    };
    let mut problems = Vec::new();
    let mut ready = Vec::new();
    for (index, endpoint) in items(root.get("endpoints")).iter().enumerate() {
        if !is_ready(endpoint) {
            continue;
        }
        for (place, address) in items(endpoint.get("addresses")).iter().enumerate() {
            match address.text().unwrap_or_default().parse() {
                Ok(address) => ready.push(address),
                Err(_) => problems.push(Problem::new(
                    format!("endpoints[{index}].addresses[{place}]"),
                    Reason::InvalidAddress,
                    "is not an IP address",
                    "write an IPv4 or IPv6 address without a port",
                )),
            }
        }
    }
    refuse_any(problems)?;
    Ok(EndpointSlice {
        service: service.to_owned(),
        ports: items(root.get("ports")).iter().filter_map(port).collect(),
        ready,
    })
}

/// Kubernetes: absent means ready.
fn is_ready(endpoint: &Node) -> bool {
    let ready = endpoint
        .get("conditions")
        .and_then(|conditions| conditions.get("ready"));
    ready.is_none_or(|ready| ready.data == Data::Bool(true))
}

fn port(node: &Node) -> Option<(Option<String>, u16)> {
    let Some(Data::Number(number)) = node.get("port").map(|port| &port.data) else {
        return None;
    };
    let number = u16::try_from(number.as_u64()?).ok()?;
    let name = node.get("name").and_then(Node::text);
    Some((
        name.filter(|name| !name.is_empty()).map(str::to_owned),
        number,
    ))
}

fn grant(root: &Node) -> ReferenceGrant {
    let spec = root.get("spec");
    let list = |name| items(spec.and_then(|spec| spec.get(name)));
    let text = |node: &Node, name: &str| {
        let text = node.get(name).and_then(Node::text);
        text.unwrap_or_default().to_owned()
    };
    ReferenceGrant {
        from: list("from")
            .iter()
            .map(|from| GrantFrom {
                group: text(from, "group"),
                kind: text(from, "kind"),
                namespace: text(from, "namespace"),
            })
            .collect(),
        to: list("to")
            .iter()
            .map(|to| GrantTo {
                group: text(to, "group"),
                kind: text(to, "kind"),
                name: to.get("name").and_then(Node::text).map(str::to_owned),
            })
            .collect(),
    }
}

fn labels(root: &Node) -> Option<&Node> {
    root.get("metadata")?.get("labels")
}

fn texts(map: Option<&Node>) -> BTreeMap<String, String> {
    let entries = map.map_or(&[][..], Node::entries);
    let text = entries
        .iter()
        .filter_map(|(key, value)| Some((key.name.clone(), value.text()?.to_owned())));
    text.collect()
}

fn items(list: Option<&Node>) -> &[Node] {
    match list.map(|list| &list.data) {
        Some(Data::List(items)) => items,
        _ => &[],
    }
}

fn refuse_any(problems: Vec<Problem>) -> Result<(), Vec<Problem>> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}
