//! Which endpoints take requests: EndpointSlices in, addresses out. Pure; the watches are elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use paifang_model::ObjectName;
use paifang_proxy::{Endpoints, Ready};

use super::store::Service;

/// How long the endpoints of a Service are kept that no group names any more: a request that is on its way may still ask them.
const LINGER: Duration = Duration::from_secs(60);

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) name: Box<str>,
    pub(super) service: ObjectName,
    /// TCP ports: the name of the Service's port, empty when it has none, and the number at the endpoint.
    pub(super) ports: Vec<(String, u16)>,
    /// Whether it holds host names, of which Kubernetes says that nobody needs to support them.
    pub(super) by_name: bool,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) zone: Option<Box<str>>,
    /// Zones that are to use it.
    pub(super) hints: Vec<Box<str>>,
}

/// Where the gateway itself is.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) ip: Option<IpAddr>,
    pub(super) zone: Option<Box<str>>,
}

/// Everything known of the Services that are needed.
pub(super) struct Known {
    place: Place,
    slices: HashMap<ObjectName, BTreeMap<Box<str>, Slice>>,
    /// Whose slice each is, by namespace and name.
    owners: HashMap<ObjectName, ObjectName>,
    /// Ports by Service.
    wanted: HashMap<ObjectName, BTreeSet<String>>,
    /// Services of which all slices were listed.
    listed: HashSet<ObjectName>,
    ready: Endpoints,
    /// Services that are needed no more, and until when they are kept.
    leaving: HashMap<ObjectName, Instant>,
    /// Services with slices of host names.
    by_name: BTreeSet<ObjectName>,
    changed: bool,
}

// === impl Known ===

impl Known {
    /// Nothing but what `ready` says, which counts until more is known.
    pub(super) fn new(place: Place, ready: Endpoints) -> Self {
        Self {
            place,
            slices: HashMap::new(),
            owners: HashMap::new(),
            wanted: HashMap::new(),
            listed: HashSet::new(),
            changed: ready != Endpoints::default(),
            ready,
            leaving: HashMap::new(),
            by_name: BTreeSet::new(),
        }
    }

    /// From now on these are needed.
    pub(super) fn want(&mut self, services: &BTreeSet<Service>, now: Instant) {
        let mut wanted: HashMap<ObjectName, BTreeSet<String>> = HashMap::new();
        for (service, port) in services {
            wanted
                .entry(service.clone())
                .or_default()
                .insert(port.clone());
        }
        for service in self.wanted.keys() {
            if !wanted.contains_key(service) {
                self.leaving.insert(service.clone(), now + LINGER);
                self.listed.remove(service);
                self.by_name.remove(service);
                for slice in self.slices.remove(service).into_iter().flatten() {
                    let slice = ObjectName::new(&*service.namespace, slice.0);
                    self.owners.remove(&slice);
                }
            }
        }
        let new: Vec<ObjectName> = wanted
            .iter()
            .filter(|(service, ports)| self.wanted.get(service) != Some(ports))
            .map(|(service, _)| service.clone())
            .collect();
        self.wanted = wanted;
        for service in new {
            self.leaving.remove(&service);
            if self.listed.contains(&service) {
                self.look_at(&service);
            }
        }
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        let before = self.leaving.len();
        self.leaving.retain(|_, until| *until > now);
        if self.leaving.len() == before {
            return;
        }
        let mut kept = Endpoints::default();
        for (service, port, ready) in self.ready.iter() {
            if self.wanted.contains_key(service) || self.leaving.contains_key(service) {
                kept.insert(service.clone(), port, Arc::clone(ready));
            }
        }
        self.ready = kept;
        self.changed = true;
    }

    pub(super) fn put(&mut self, slice: Slice) {
        if let Some(service) = self.add(slice) {
            self.look_at(&service);
        }
    }

    fn add(&mut self, slice: Slice) -> Option<ObjectName> {
        let service = slice.service.clone();
        let name = ObjectName::new(&*service.namespace, &*slice.name);
        if let Some(before) = self.owners.get(&name).filter(|before| **before != service) {
            let before = before.clone();
            self.drop_slice(&before, &slice.name);
            self.look_at(&before);
        }
        if !self.wanted.contains_key(&service) {
            return None;
        }
        self.owners.insert(name, service.clone());
        let slices = self.slices.entry(service.clone()).or_default();
        slices.insert(slice.name.clone(), slice);
        Some(service)
    }

    pub(super) fn gone(&mut self, slice: &Slice) {
        let name = ObjectName::new(&*slice.service.namespace, &*slice.name);
        if let Some(service) = self.owners.remove(&name) {
            self.drop_slice(&service, &slice.name);
            self.look_at(&service);
        }
    }

    fn drop_slice(&mut self, service: &ObjectName, slice: &str) {
        if let Some(slices) = self.slices.get_mut(service) {
            slices.remove(slice);
        }
    }

    /// All slices of the Services `covered` (of the whole namespace without any).
    pub(super) fn listed(
        &mut self,
        namespace: &str,
        covered: Option<&BTreeSet<Box<str>>>,
        all: Vec<Slice>,
    ) {
        let services: Vec<ObjectName> = self
            .wanted
            .keys()
            .filter(|service| &*service.namespace == namespace)
            .filter(|service| covered.is_none_or(|names| names.contains(&service.name)))
            .cloned()
            .collect();
        for service in &services {
            for slice in self.slices.remove(service).into_iter().flatten() {
                self.owners.remove(&ObjectName::new(namespace, slice.0));
            }
        }
        for slice in all {
            self.add(slice);
        }
        for service in services {
            self.listed.insert(service.clone());
            self.look_at(&service);
        }
    }

    /// Whether all endpoints of a Service are known.
    pub(super) fn knows(&self, (service, _): &Service) -> bool {
        self.listed.contains(service)
    }

    /// The zone is found out later than the rest.
    pub(super) fn set_zone(&mut self, zone: &str) {
        self.place.zone = Some(zone.into());
        for service in self.listed.clone() {
            self.look_at(&service);
        }
    }

    pub(super) fn zone(&self) -> Option<&str> {
        self.place.zone.as_deref()
    }

    fn look_at(&mut self, service: &ObjectName) {
        // Half a list would take endpoints away that are only not listed yet.
        if !self.listed.contains(service) {
            return;
        }
        let Some(ports) = self.wanted.get(service) else {
            return;
        };
        let none = BTreeMap::new();
        let slices = self.slices.get(service).unwrap_or(&none);
        if !slices.values().any(|slice| slice.by_name) {
            self.by_name.remove(service);
        } else if self.by_name.insert(service.clone()) {
            tracing::warn!(%service, "an EndpointSlice of host names is not used");
        }
        for port in ports {
            let ready = ready(slices.values(), port, &self.place);
            if self
                .ready
                .get(service, port)
                .is_none_or(|known| **known != ready)
            {
                tracing::info!(%service, port, near = ready.near.len(), far = ready.far.len(), "endpoints changed");
                self.ready.insert(service.clone(), port, Arc::new(ready));
                self.changed = true;
            }
        }
    }

    /// All endpoints, when they are others than at the last call.
    pub(super) fn changed(&mut self) -> Option<Endpoints> {
        std::mem::take(&mut self.changed).then(|| self.ready.clone())
    }

    /// What of the endpoints is not used, for people.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.by_name.iter().map(|service| {
            format!("Service {service}: its EndpointSlice holds host names, which are not used; give a BackendService the host as an address")
        })
    }

    pub(super) fn ready(&self) -> &Endpoints {
        &self.ready
    }
}

/// The endpoints that take requests on the port named `port`. Those that are ready; when none is, those that still serve on their way
/// out. Of one address family where a Service has both. Those of the own zone are near.
fn ready<'s>(slices: impl Iterator<Item = &'s Slice>, port: &str, place: &Place) -> Ready {
    let mut all: Vec<(SocketAddr, &Endpoint)> = Vec::new();
    for slice in slices.filter(|slice| !slice.by_name) {
        for (_, number) in slice.ports.iter().filter(|(name, _)| name == port) {
            let at =
                |endpoint: &'s Endpoint| (SocketAddr::new(endpoint.address, *number), endpoint);
            all.extend(slice.endpoints.iter().map(at));
        }
    }
    let ready = |(_, endpoint): &(SocketAddr, &Endpoint)| endpoint.ready;
    let serving =
        |(_, endpoint): &(SocketAddr, &Endpoint)| endpoint.serving && endpoint.terminating;
    if all.iter().any(ready) {
        all.retain(ready);
    } else {
        all.retain(serving);
    }
    let own_family = place.ip.is_none_or(|ip| ip.is_ipv4());
    if all
        .iter()
        .any(|(address, _)| address.is_ipv4() == own_family)
    {
        all.retain(|(address, _)| address.is_ipv4() == own_family);
    }
    // One that is moving from slice to slice is in both for a moment.
    all.sort_by_key(|(address, _)| *address);
    all.dedup_by_key(|(address, _)| *address);
    let is_near = |endpoint: &Endpoint| {
        let Some(zone) = &place.zone else { return true };
        if all.iter().all(|(_, endpoint)| !endpoint.hints.is_empty()) {
            endpoint.hints.contains(zone)
        } else {
            endpoint.zone.as_ref() == Some(zone)
        }
    };
    let (near, far): (Vec<_>, Vec<_>) = all.iter().partition(|(_, endpoint)| is_near(endpoint));
    let addresses = |all: Vec<&(SocketAddr, &Endpoint)>| all.iter().map(|(it, _)| *it).collect();
    Ready {
        near: addresses(near),
        far: addresses(far),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str) -> Endpoint {
        Endpoint {
            address: address.parse().unwrap(),
            ready: true,
            serving: true,
            terminating: false,
            zone: None,
            hints: Vec::new(),
        }
    }

    fn leaving(address: &str) -> Endpoint {
        Endpoint {
            ready: false,
            terminating: true,
            ..endpoint(address)
        }
    }

    fn unready(address: &str) -> Endpoint {
        Endpoint {
            ready: false,
            serving: false,
            ..endpoint(address)
        }
    }

    fn zoned(address: &str, zone: &str, hints: &[&str]) -> Endpoint {
        Endpoint {
            zone: Some(zone.into()),
            hints: hints.iter().map(|hint| (*hint).into()).collect(),
            ..endpoint(address)
        }
    }

    fn slice(name: &str, service: &str, endpoints: Vec<Endpoint>) -> Slice {
        Slice {
            name: name.into(),
            service: ObjectName::new("ns", service),
            ports: vec![("web".to_owned(), 8080), ("admin".to_owned(), 9000)],
            by_name: false,
            endpoints,
        }
    }

    fn place(ip: &str, zone: Option<&str>) -> Place {
        Place {
            ip: Some(ip.parse().unwrap()),
            zone: zone.map(Into::into),
        }
    }

    fn text(ready: &Ready) -> String {
        let list = |all: &[SocketAddr]| {
            all.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        format!("{} | {}", list(&ready.near), list(&ready.far))
            .trim()
            .to_owned()
    }

    fn of(port: &str, place: &Place, slices: &[Slice]) -> String {
        text(&ready(slices.iter(), port, place))
    }

    #[test]
    fn ready_ones_are_asked_and_those_on_their_way_out_only_when_no_other_is_left() {
        let anywhere = place("10.0.0.9", None);
        let one = |endpoints| [slice("a", "s", endpoints)];
        for (endpoints, expected) in [
            (
                vec![
                    endpoint("10.0.0.1"),
                    leaving("10.0.0.2"),
                    unready("10.0.0.3"),
                ],
                "10.0.0.1:8080 |",
            ),
            (
                vec![leaving("10.0.0.2"), unready("10.0.0.3")],
                "10.0.0.2:8080 |",
            ),
            (vec![unready("10.0.0.3")], "|"),
            (
                vec![Endpoint {
                    serving: false,
                    ..leaving("10.0.0.2")
                }],
                "|",
            ),
            (vec![], "|"),
        ] {
            assert_eq!(of("web", &anywhere, &one(endpoints)), expected);
        }
        assert_eq!(
            of("admin", &anywhere, &one(vec![endpoint("10.0.0.1")])),
            "10.0.0.1:9000 |"
        );
        assert_eq!(
            of("", &anywhere, &one(vec![endpoint("10.0.0.1")])),
            "|",
            "no port without a name"
        );
        let mut names = slice("a", "s", vec![endpoint("10.0.0.1")]);
        names.by_name = true;
        assert_eq!(of("web", &anywhere, &[names]), "|");
    }

    #[test]
    fn the_own_zone_is_near_by_zone_or_by_hints() {
        let a = place("10.0.0.9", Some("a"));
        let slices = |endpoints| [slice("a", "s", endpoints)];
        assert_eq!(
            of(
                "web",
                &a,
                &slices(vec![
                    zoned("10.0.0.1", "a", &[]),
                    zoned("10.0.0.2", "b", &[])
                ])
            ),
            "10.0.0.1:8080 | 10.0.0.2:8080"
        );
        assert_eq!(
            of(
                "web",
                &a,
                &slices(vec![
                    zoned("10.0.0.1", "b", &["a"]),
                    zoned("10.0.0.2", "a", &["b"])
                ])
            ),
            "10.0.0.1:8080 | 10.0.0.2:8080",
            "hints go before zones"
        );
        assert_eq!(
            of(
                "web",
                &a,
                &slices(vec![
                    zoned("10.0.0.1", "b", &["a"]),
                    zoned("10.0.0.2", "a", &[])
                ])
            ),
            "10.0.0.2:8080 | 10.0.0.1:8080",
            "unless one has none"
        );
        assert_eq!(
            of(
                "web",
                &place("10.0.0.9", Some("c")),
                &slices(vec![zoned("10.0.0.1", "b", &[])])
            ),
            "| 10.0.0.1:8080"
        );
    }

    #[test]
    fn of_two_families_the_gateways_own_is_used_and_one_address_counts_once() {
        let both = [
            slice("a", "s", vec![endpoint("10.0.0.1")]),
            slice("b", "s", vec![endpoint("fd00::1")]),
            slice("c", "s", vec![endpoint("10.0.0.1")]),
        ];
        assert_eq!(
            of("web", &place("10.0.0.9", None), &both),
            "10.0.0.1:8080 |"
        );
        assert_eq!(
            of("web", &place("fd00::9", None), &both),
            "[fd00::1]:8080 |"
        );
        assert_eq!(
            of("web", &place("fd00::9", None), &both[..1]),
            "10.0.0.1:8080 |"
        );
    }

    fn service(name: &str) -> Service {
        (ObjectName::new("ns", name), "web".to_owned())
    }

    fn want(known: &mut Known, services: &[&str], now: Instant) {
        known.want(&services.iter().map(|name| service(name)).collect(), now);
    }

    fn shown(known: &Known, name: &str) -> Option<String> {
        known
            .ready()
            .get(&ObjectName::new("ns", name), "web")
            .map(|ready| text(ready))
    }

    #[test]
    fn nothing_known_is_lost_before_a_whole_list_says_so() {
        let now = Instant::now();
        let cached: Endpoints = [(
            ObjectName::new("ns", "s"),
            "web",
            Ready::alike(["10.9.9.9:8080".parse().unwrap()]),
        )]
        .into_iter()
        .collect();
        let mut known = Known::new(place("10.0.0.9", None), cached);
        assert!(known.changed().is_some(), "what was kept counts at once");
        want(&mut known, &["s", "t"], now);
        known.put(slice("s-1", "s", vec![endpoint("10.0.0.1")]));
        assert_eq!(
            shown(&known, "s").as_deref(),
            Some("10.9.9.9:8080 |"),
            "half a list counts for nothing"
        );
        assert!(!known.knows(&service("s")));
        let covered: BTreeSet<Box<str>> = ["s".into()].into();
        known.listed(
            "ns",
            Some(&covered),
            vec![slice("s-1", "s", vec![endpoint("10.0.0.1")])],
        );
        assert_eq!(shown(&known, "s").as_deref(), Some("10.0.0.1:8080 |"));
        assert!(known.knows(&service("s")) && !known.knows(&service("t")));
        assert!(known.changed().is_some() && known.changed().is_none());

        // The watch is started anew for both; what is known of the one stays.
        known.listed(
            "ns",
            None,
            vec![slice("s-1", "s", vec![endpoint("10.0.0.1")])],
        );
        assert!(known.knows(&service("t")));
        assert_eq!(
            shown(&known, "t").as_deref(),
            Some("|"),
            "listed, and none there"
        );
        known.put(slice("s-2", "s", vec![endpoint("10.0.0.2")]));
        known.put(slice("other", "not-wanted", vec![endpoint("10.0.0.3")]));
        assert_eq!(
            shown(&known, "s").as_deref(),
            Some("10.0.0.1:8080 10.0.0.2:8080 |")
        );
        known.gone(&slice("s-1", "s", vec![]));
        assert_eq!(shown(&known, "s").as_deref(), Some("10.0.0.2:8080 |"));
        // A slice that goes over to another Service.
        known.put(slice("s-2", "t", vec![endpoint("10.0.0.2")]));
        assert_eq!(shown(&known, "s").as_deref(), Some("|"));
        assert_eq!(shown(&known, "t").as_deref(), Some("10.0.0.2:8080 |"));
        assert_eq!(shown(&known, "not-wanted"), None);
    }

    #[test]
    fn endpoints_stay_for_requests_on_their_way_when_no_group_names_them_any_more() {
        let now = Instant::now();
        let mut known = Known::new(Place::default(), Endpoints::default());
        want(&mut known, &["s"], now);
        known.listed(
            "ns",
            None,
            vec![slice("s-1", "s", vec![endpoint("10.0.0.1")])],
        );
        want(&mut known, &[], now);
        assert_eq!(shown(&known, "s").as_deref(), Some("10.0.0.1:8080 |"));
        want(&mut known, &["t"], now + LINGER);
        assert_eq!(shown(&known, "s"), None);
        want(&mut known, &["s"], now + LINGER);
        assert!(!known.knows(&service("s")), "it must be listed again");
    }

    #[test]
    fn host_names_are_told_and_not_used() {
        let mut known = Known::new(Place::default(), Endpoints::default());
        want(&mut known, &["s"], Instant::now());
        let mut names = slice("s-1", "s", vec![]);
        names.by_name = true;
        known.listed("ns", None, vec![names.clone()]);
        assert_eq!(known.problems().count(), 1);
        known.gone(&names);
        assert_eq!(known.problems().count(), 0);
        known.put(names);
        want(&mut known, &[], Instant::now());
        assert_eq!(known.problems().count(), 0);
    }

    #[test]
    fn a_zone_that_is_found_out_later_counts() {
        let mut known = Known::new(Place::default(), Endpoints::default());
        want(&mut known, &["s"], Instant::now());
        known.listed(
            "ns",
            None,
            vec![slice(
                "s-1",
                "s",
                vec![zoned("10.0.0.1", "a", &[]), zoned("10.0.0.2", "b", &[])],
            )],
        );
        assert_eq!(
            shown(&known, "s").as_deref(),
            Some("10.0.0.1:8080 10.0.0.2:8080 |")
        );
        known.set_zone("b");
        assert_eq!(
            shown(&known, "s").as_deref(),
            Some("10.0.0.2:8080 | 10.0.0.1:8080")
        );
    }
}
