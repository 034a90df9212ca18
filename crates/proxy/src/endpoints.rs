//! Where the Services that backends name can be reached. Apart from the configuration: endpoints come and go with every rolling
//! update, and nothing else has to be loaded for that.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use paifang_model::ObjectName;

/// Endpoints of all Services, behind one pointer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    services: HashMap<ObjectName, Ports, foldhash::fast::RandomState>,
}

/// Those of one Service, by the name of its port. It has few.
type Ports = Vec<(Box<str>, Arc<Ready>)>;

/// The endpoints of one port of a Service that take requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ready {
    /// Those that are asked as long as there are any.
    pub near: Vec<SocketAddr>,
    /// Those that are asked when none is near, or one that was near could not be reached.
    pub far: Vec<SocketAddr>,
}

// === impl Endpoints ===

impl Endpoints {
    /// Sets the endpoints of a Service's port. `port` is its name, empty when it has none.
    pub fn insert(&mut self, service: ObjectName, port: &str, ready: Arc<Ready>) {
        let ports = self.services.entry(service).or_default();
        match ports.iter_mut().find(|(name, _)| **name == *port) {
            Some((_, known)) => *known = ready,
            None => ports.push((port.into(), ready)),
        }
    }

    /// The endpoints of a Service's port; `None` when nothing is known of it.
    pub fn get(&self, service: &ObjectName, port: &str) -> Option<&Arc<Ready>> {
        let ports = self.services.get(service)?;
        let (_, ready) = ports.iter().find(|(name, _)| **name == *port)?;
        Some(ready)
    }

    /// Every Service's port, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &str, &Arc<Ready>)> {
        self.services.iter().flat_map(|(service, ports)| {
            ports
                .iter()
                .map(move |(port, ready)| (service, &**port, ready))
        })
    }

    /// These, and of `before` those Services that are not among them: a request that began with the configuration before may still
    /// ask them.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        for (service, port, ready) in before.iter() {
            if self.get(service, port).is_none() {
                self.insert(service.clone(), port, Arc::clone(ready));
            }
        }
        self
    }
}

impl<S: AsRef<str>> FromIterator<(ObjectName, S, Ready)> for Endpoints {
    fn from_iter<I: IntoIterator<Item = (ObjectName, S, Ready)>>(all: I) -> Self {
        let mut endpoints = Self::default();
        for (service, port, ready) in all {
            endpoints.insert(service, port.as_ref(), Arc::new(ready));
        }
        endpoints
    }
}

// === impl Ready ===

impl Ready {
    /// All of these alike.
    pub fn alike(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            near: addresses.into_iter().collect(),
            far: Vec::new(),
        }
    }

    /// Whether nothing can be asked.
    pub fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.near.len() + self.far.len()
    }
}
