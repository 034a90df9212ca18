//! One published group becomes one [`Group`] in service.
//!
//! What the whole group depends on makes it fail; what one Api depends on makes that Api answer closed, with a [`Problem`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::RandomState;
use paifang_model::{Location, ObjectName, PathTemplate, Stage};

use super::{
    Domain, Problem,
    api::{Api, Backend, Call, Constant, Parameter, Route, System, TextPiece},
    backend_path::BackendPath,
    digest::Digest,
    grants::{AppId, EVERY_API, Grants},
    group::{Counters, Group, StageIndex},
    header,
    intern::Interner,
    trie::{Refused, Trie, TrieBuilder},
    variables::substitute,
};
use crate::wire;

/// Stages that a caller may always name (Ref §5.1).
const USUAL_STAGES: [&str; 3] = ["TEST", "PRE", "RELEASE"];

/// Loads the content published under `name`. Fails, in words for people, when it cannot be served as a whole.
pub(super) fn group(
    name: &ObjectName,
    content: &wire::Group,
    digest: Digest,
    counters: Arc<Counters>,
    interner: &mut Interner<'_>,
) -> Result<Group, String> {
    check_readable(name, content)?;
    let stages = stages(content)?;
    let (routes, tries, problems) = Routing::new(content, &stages, interner).run()?;
    Ok(Group {
        name: name.clone(),
        id: content.id.as_str().into(),
        instance: content.instance.as_str().into(),
        base_path: content.base_path.clone(),
        qps_limit: content.qps_limit,
        daily_quota: content.sub_domain.daily_quota,
        filter_app_code: content.filter_app_code,
        https_policy: content.https_policy,
        public_sub_domain: content.sub_domain.public.clone(),
        internal_sub_domain: content.sub_domain.internal.clone(),
        domains: domains(content, &stages),
        counters,
        digest,
        grants: grants(content, &stages),
        stages,
        tries,
        routes,
        problems: problems.into(),
    })
}

fn check_readable(name: &ObjectName, content: &wire::Group) -> Result<(), String> {
    let (own, found) = (wire::FORMAT, content.format);
    if found == 0 || (found != own && found.checked_add(1) != Some(own)) {
        return Err(format!(
            "it is published in format {found}, and this gateway reads {own} and the one before"
        ));
    }
    if content.name != *name {
        return Err(format!(
            "it is published as {name} and says it is {}",
            content.name
        ));
    }
    // Positions are 32 bits wide, and the last one means "every Api".
    if u32::try_from(content.apis.len()).is_ok_and(|count| count < EVERY_API) {
        Ok(())
    } else {
        Err("it has too many Apis".to_owned())
    }
}

/// Every stage that may be named, sorted.
fn stages(content: &wire::Group) -> Result<Box<[Arc<Stage>]>, String> {
    let usual: Vec<Stage> = USUAL_STAGES
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    let pinned = content.domains.iter().filter_map(|it| it.stage.as_ref());
    let names: BTreeSet<&Stage> = content
        .routes
        .iter()
        .map(|route| &route.stage)
        .chain(pinned)
        .chain(&usual)
        .collect();
    if u16::try_from(names.len()).is_err() {
        return Err("it has more than 65535 stages".to_owned());
    }
    Ok(names.into_iter().cloned().map(Arc::new).collect())
}

fn stage_index(stages: &[Arc<Stage>], stage: &Stage) -> Option<StageIndex> {
    let at = stages.binary_search_by(|known| (**known).cmp(stage)).ok()?;
    u16::try_from(at).ok().map(StageIndex)
}

fn domains(content: &wire::Group, stages: &[Arc<Stage>]) -> Box<[Arc<Domain>]> {
    content
        .domains
        .iter()
        .map(|domain| Arc::new(self::domain(domain, stages)))
        .collect()
}

fn domain(domain: &wire::Domain, stages: &[Arc<Stage>]) -> Domain {
    let tls = domain.tls.as_ref();
    let pinned = domain.stage.as_ref();
    Domain {
        name: domain.name.clone(),
        host: domain.host.clone(),
        stage: pinned.and_then(|stage| Some((stage_index(stages, stage)?, stage.clone()))),
        intranet: domain.intranet,
        web_socket: domain.web_socket,
        has_tls: tls.is_some(),
        redirect_http: tls.is_some_and(|tls| tls.redirect_http),
        pass_client_subject: tls.is_some_and(|tls| tls.pass_client_subject),
        client_ca_required: tls.is_some_and(|tls| tls.client_ca.is_some()),
    }
}

/// Grants for stages and Apis that are not served are left out: nobody can ask for them.
fn grants(content: &wire::Group, stages: &[Arc<Stage>]) -> Grants {
    let keys = grant_keys(content);
    let mut out = Grants::with_capacity(content.grants.len());
    let mut last: Option<(&ObjectName, AppId)> = None;
    for grant in &content.grants {
        let app = match last {
            Some((name, id)) if *name == grant.app => id,
            _ => AppId::of(&grant.app),
        };
        last = Some((&grant.app, app));
        let key = match &grant.api {
            None => Some(EVERY_API),
            Some(name) => keys.get(name).copied(),
        };
        if let (Some(stage), Some(key)) = (stage_index(stages, &grant.stage), key) {
            out.add(app, stage, key, grant.expires_at_ms);
        }
    }
    out.shrink();
    out
}

/// By Api, whatever its release: the first of its positions.
fn grant_keys(content: &wire::Group) -> HashMap<&ObjectName, u32, RandomState> {
    let mut keys = HashMap::with_capacity_and_hasher(content.apis.len(), RandomState::default());
    for (at, api) in (0_u32..).zip(&content.apis) {
        keys.entry(&api.name).or_insert(at);
    }
    keys
}

/// The routes of a group, being lowered.
struct Routing<'w, 'i, 'l> {
    content: &'w wire::Group,
    stages: &'w [Arc<Stage>],
    interner: &'i mut Interner<'l>,
    keys: HashMap<&'w ObjectName, u32, RandomState>,
    /// By position in [`wire::Group::apis`], when a route needs it.
    apis: Vec<Option<Lowered>>,
    /// By position in [`wire::Group::backends`]; or why it cannot be used.
    backends: Vec<Result<Arc<Backend>, String>>,
    routes: Vec<Arc<Route>>,
    tries: Vec<TrieBuilder<'w>>,
    problems: Vec<Problem>,
}

type Routed = (Box<[Arc<Route>]>, Box<[Trie]>, Vec<Problem>);

/// An Api, for all its routes.
#[derive(Clone)]
struct Lowered {
    api: Arc<Api>,
    /// For routes without stage variables; why it answers closed otherwise.
    added: Result<Added, Arc<str>>,
}

/// What stage variables may change.
#[derive(Clone, Default)]
struct Added {
    constants: Arc<[Constant]>,
    backend_path: Option<Arc<BackendPath>>,
}

// === impl Routing ===

impl<'w, 'i, 'l> Routing<'w, 'i, 'l> {
    fn new(
        content: &'w wire::Group,
        stages: &'w [Arc<Stage>],
        interner: &'i mut Interner<'l>,
    ) -> Self {
        Self {
            content,
            stages,
            keys: grant_keys(content),
            apis: vec![None; content.apis.len()],
            backends: content
                .backends
                .iter()
                .map(|it| {
                    let target = &it.target;
                    check_target(target).map(|()| interner.backend(&it.label, target))
                })
                .collect(),
            interner,
            routes: Vec::with_capacity(content.routes.len()),
            tries: stages.iter().map(|_| TrieBuilder::default()).collect(),
            problems: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Routed, String> {
        for route in &self.content.routes {
            self.route(route)?;
        }
        let tries = self.tries.into_iter().map(TrieBuilder::build).collect();
        Ok((self.routes.into(), tries, self.problems))
    }

    /// A route without an Api has no path that could answer closed: the group fails.
    fn route(&mut self, route: &'w wire::Route) -> Result<(), String> {
        let at = usize::try_from(route.api).unwrap_or(usize::MAX);
        let api = self.content.apis.get(at).ok_or_else(|| {
            let count = self.content.apis.len();
            format!("a route names Api number {at}, and there are {count}")
        })?;
        let stage_index = stage_index(self.stages, &route.stage)
            .ok_or_else(|| format!("the stage {} of a route is unknown", route.stage))?;
        if !self.enter(api, route, stage_index) {
            return Ok(());
        }
        let lowered = self.lowered(at, api);
        let (added, backend) = match self.added(&lowered, api, route) {
            Ok(ready) => ready,
            Err(reason) => (Added::default(), self.closed(&reason)),
        };
        let stage = Arc::clone(&self.stages[usize::from(stage_index.0)]);
        self.routes.push(Arc::new(Route {
            api: lowered.api,
            stage,
            stage_index,
            grant_key: self.keys.get(&api.name).copied().unwrap_or(route.api),
            backend,
            constants: added.constants,
            backend_path: added.backend_path,
        }));
        Ok(())
    }

    /// Puts the template of the next route in its stage's trie; false when it has no place there.
    fn enter(&mut self, api: &'w wire::Api, route: &wire::Route, stage: StageIndex) -> bool {
        let number = u32::try_from(self.routes.len()).unwrap_or(u32::MAX);
        let trie = &mut self.tries[usize::from(stage.0)];
        let message = match trie.add(&api.path, api.method, number) {
            Ok(()) => return true,
            Err(Refused::Taken(other)) => {
                let other = usize::try_from(other)
                    .ok()
                    .and_then(|at| self.routes.get(at));
                let other = other.map_or_else(String::new, |it| it.api.name.to_string());
                format!("{other} serves the same method and path already and keeps them")
            }
            Err(Refused::TooLarge) => "there is no room for its path: it is not served".to_owned(),
        };
        let (stage, method, path) = (&route.stage, api.method, &api.path);
        self.problem(api, format!("in stage {stage}, {method} {path}: {message}"));
        false
    }

    fn lowered(&mut self, at: usize, wire: &wire::Api) -> Lowered {
        if let Some(known) = &self.apis[at] {
            return known.clone();
        }
        let lowered = api(wire, self.interner).and_then(|api| {
            let added = added(wire, &BTreeMap::new(), self.interner)?;
            Ok((api, added))
        });
        let lowered = match lowered {
            Ok((api, added)) => Lowered {
                api: Arc::new(api),
                added: Ok(added),
            },
            Err(reason) => {
                self.problem(wire, format!("{reason}; it answers closed"));
                Lowered {
                    api: Arc::new(bare(wire)),
                    added: Err(reason.into()),
                }
            }
        };
        self.apis[at] = Some(lowered.clone());
        lowered
    }

    /// What the route adds, and its backend; or why it answers closed.
    fn added(
        &mut self,
        lowered: &Lowered,
        wire: &wire::Api,
        route: &wire::Route,
    ) -> Result<(Added, Arc<Backend>), String> {
        let shared = lowered
            .added
            .as_ref()
            .map_err(|reason| reason.to_string())?;
        let own = if route.variables.is_empty() {
            Ok(shared.clone())
        } else {
            added(wire, &route.variables, self.interner)
        };
        let backend = usize::try_from(route.backend)
            .ok()
            .and_then(|at| self.backends.get(at).cloned())
            .unwrap_or_else(|| Err(format!("backend number {} is missing", route.backend)));
        let ready = own.and_then(|own| Ok((own, backend?)));
        if let Err(reason) = &ready {
            let stage = &route.stage;
            self.problem(
                wire,
                format!("in stage {stage}: {reason}; it answers closed there"),
            );
        }
        ready
    }

    fn closed(&mut self, reason: &str) -> Arc<Backend> {
        let target = wire::Target::Unavailable {
            reason: reason.to_owned(),
        };
        self.interner.backend("unavailable", &target)
    }

    fn problem(&mut self, api: &wire::Api, message: String) {
        self.problems.push(Problem {
            group: self.content.name.clone(),
            api: Some(api.name.clone()),
            message,
        });
    }
}

/// What could not be put on the wire.
fn check_target(target: &wire::Target) -> Result<(), String> {
    let host = match target {
        wire::Target::Http(http) => http.host.as_deref(),
        wire::Target::Vpc(vpc) => Some(&*vpc.host),
        wire::Target::Mock(mock) => return check_mock(mock),
        wire::Target::Function(_)
        | wire::Target::Object(_)
        | wire::Target::Event(_)
        | wire::Target::Unavailable { .. } => None,
    };
    match host {
        Some(host) if host.is_empty() || !header::is_value(host) => {
            Err("its backend's host is not a header value".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_mock(mock: &wire::MockTarget) -> Result<(), String> {
    if !(200..=599).contains(&mock.status) {
        return Err(format!("its mock status {} is not 200 to 599", mock.status));
    }
    let bad =
        |(name, value): &&(String, String)| !header::is_name(name) || !header::is_value(value);
    match mock.headers.iter().find(bad) {
        Some((name, _)) => Err(format!("its mock header `{name}` cannot be sent")),
        None => Ok(()),
    }
}

/// Everything of an Api but what stage variables may change.
fn api(wire: &wire::Api, interner: &mut Interner<'_>) -> Result<Api, String> {
    let parameters = wire
        .parameters
        .iter()
        .map(|it| {
            parameter(it, &wire.path, interner)
                .map_err(|reason| format!("parameter `{}`: {reason}", it.name))
        })
        .collect::<Result<_, _>>()?;
    let system = wire
        .dispatch
        .system
        .iter()
        .map(|it| system(it, interner))
        .collect::<Result<Vec<_>, _>>()?;
    if let wire::ContentType::Custom(value) = &wire.dispatch.content_type
        && (value.is_empty() || !header::is_value(value))
    {
        return Err("its content type is not a header value".to_owned());
    }
    Ok(Api {
        call: call(wire)?,
        parameters,
        system: interner.systems(&system),
        content_type: wire.dispatch.content_type.clone(),
        ..bare(wire)
    })
}

/// What can always be had of an Api: enough to recognise a call of it, authorise it and refuse it.
fn bare(wire: &wire::Api) -> Api {
    Api {
        name: wire.name.clone(),
        display_name: match &*wire.display_name {
            "" => Arc::default(),
            name => name.into(),
        },
        release: wire.release,
        hash: Arc::clone(&wire.hash),
        kind: wire.kind,
        protocols: wire.protocols,
        method: wire.method,
        path: wire.path.to_string().into(),
        mode: wire.mode,
        body_format: wire.body_format,
        auth: wire.auth.clone(),
        internal_only: wire.internal_only,
        parameters: Box::default(),
        backend_method: wire.dispatch.method,
        timeout: Duration::from_millis(wire.dispatch.timeout_ms.max(1).into()),
        content_type: wire::ContentType::Default,
        system: Arc::default(),
        call: Call::Plain,
    }
}

/// What the backend's type needs to know, with parameters by their position.
fn call(wire: &wire::Api) -> Result<Call, String> {
    Ok(match &wire.dispatch.call {
        wire::Call::Plain => Call::Plain,
        wire::Call::Function { only_business_path } => Call::Function {
            only_business_path: *only_business_path,
        },
        wire::Call::Object { action } => Call::Object { action: *action },
        wire::Call::Event { kind, subject } => Call::Event {
            kind: kind.as_str().into(),
            subject: subject
                .iter()
                .map(|piece| text_piece(piece, &wire.parameters))
                .collect::<Result<_, _>>()?,
        },
    })
}

fn text_piece(piece: &wire::TextPiece, among: &[wire::Parameter]) -> Result<TextPiece, String> {
    match piece {
        wire::TextPiece::Text(text) => Ok(TextPiece::Text(text.as_str().into())),
        wire::TextPiece::Parameter(name) => among
            .iter()
            .position(|parameter| parameter.name == *name)
            .and_then(|at| u16::try_from(at).ok())
            .map(TextPiece::Parameter)
            .ok_or_else(|| {
                format!("its event's subject mentions `[{name}]`, which is no parameter")
            }),
    }
}

fn parameter(
    wire: &wire::Parameter,
    path: &PathTemplate,
    interner: &mut Interner<'_>,
) -> Result<Parameter, String> {
    let capture = match wire.location {
        Location::Path => Some(capture(&wire.name, path)?),
        _ => None,
    };
    Ok(Parameter {
        name: name(&wire.name, wire.location, interner)?,
        backend_name: name(&wire.backend_name, wire.backend_location, interner)?,
        default: wire.default.as_deref().map(|text| interner.text(text)),
        check: interner.check(wire.kind, &wire.rules)?,
        location: wire.location,
        backend_location: wire.backend_location,
        kind: wire.kind,
        array: wire.array,
        required: wire.required,
        capture,
    })
}

fn capture(name: &str, path: &PathTemplate) -> Result<u8, String> {
    path.parameters()
        .position(|it| it == name)
        .and_then(|at| u8::try_from(at).ok())
        .ok_or_else(|| format!("it is in the path, and {path} has no `[{name}]`"))
}

fn system(wire: &wire::System, interner: &mut Interner<'_>) -> Result<System, String> {
    Ok(System {
        from: wire.from,
        name: added_name(&wire.name, wire.location, interner)?,
        location: wire.location,
    })
}

/// Constants and backend path with a stage's variables filled in.
fn added(
    wire: &wire::Api,
    variables: &BTreeMap<String, String>,
    interner: &mut Interner<'_>,
) -> Result<Added, String> {
    let constants = wire
        .dispatch
        .constants
        .iter()
        .map(|it| constant(it, variables, interner))
        .collect::<Result<Vec<_>, _>>()?;
    let backend_path = match &wire.dispatch.path {
        None => None,
        Some(path) => {
            let path = filled_path(path, variables)?;
            Some(Arc::new(BackendPath::new(&path, &wire.parameters)?))
        }
    };
    Ok(Added {
        constants: interner.constants(&constants),
        backend_path,
    })
}

fn constant(
    wire: &wire::Constant,
    variables: &BTreeMap<String, String>,
    interner: &mut Interner<'_>,
) -> Result<Constant, String> {
    let name = added_name(&wire.name, wire.location, interner)?;
    let value = substitute(&wire.value, variables)
        .ok_or_else(|| format!("the constant `{name}` is too long with its stage variables"))?;
    if wire.location == Location::Header && !header::is_value(&value) {
        return Err(format!("the constant `{name}` is not a header value"));
    }
    Ok(Constant {
        name,
        location: wire.location,
        value: interner.text(&value),
    })
}

/// The template with variables filled in, checked like one that a user wrote.
fn filled_path(
    path: &PathTemplate,
    variables: &BTreeMap<String, String>,
) -> Result<PathTemplate, String> {
    if variables.is_empty() {
        return Ok(path.clone());
    }
    let text = path.to_string();
    substitute(&text, variables)
        .ok_or_else(|| "the backend path is too long with its stage variables".to_owned())?
        .parse()
        .map_err(|error| format!("the backend path with its stage variables: {error}"))
}

/// The name of something added, which has no place in a path.
fn added_name(
    text: &str,
    location: Location,
    interner: &mut Interner<'_>,
) -> Result<Arc<str>, String> {
    if location == Location::Path {
        return Err(format!("`{text}` cannot be added to the path"));
    }
    name(text, location, interner)
}

/// A name at its place: that of a header is a token, and lower case, as header names compare without case.
fn name(text: &str, location: Location, interner: &mut Interner<'_>) -> Result<Arc<str>, String> {
    if text.is_empty() {
        return Err("a name is empty".to_owned());
    }
    if location != Location::Header {
        return Ok(interner.text(text));
    }
    if !header::is_name(text) {
        return Err(format!("`{text}` is not a header name"));
    }
    Ok(interner.text(&text.to_ascii_lowercase()))
}
