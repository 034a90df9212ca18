//! Measures the table: `load APIS GROUPS [FINDS]`.
//!
//! Builds that many Apis of five parameters each, spread over that many groups, and prints how long a load takes, how much memory
//! the table keeps, what one changed group costs and how long a look-up takes. Under callgrind, run it with two numbers of FINDS: the
//! difference in instructions is the look-ups' alone.
#![allow(clippy::print_stdout, reason = "the numbers are its output")]

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use paifang_model::{
    BasePath, HttpsPolicy, Location, Method, ObjectName, ParameterType, PathTemplate, Protocol,
    Stage, SystemParameter,
};
use paifang_snapshot::{
    table::{AppId, Captures, Network, Permission, Table},
    wire,
};

const STAGE: &str = "RELEASE";

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |default| arguments.next().map_or(default, |it| it.expect("a number"));
    let (apis, groups, finds) = (next(100_000), next(100), next(1_000_000));

    let mut snapshot = snapshot(apis, groups);
    let json: Vec<Vec<u8>> = snapshot
        .groups
        .values()
        .map(|group| serde_json::to_vec(&**group).expect("groups are JSON"))
        .collect();
    let json_bytes: usize = json.iter().map(Vec::len).sum();

    let before = resident();
    let (table, took) = timed(|| load(&snapshot, &Table::empty()));
    let grown = resident().saturating_sub(before);
    println!(
        "apis {apis}, groups {groups}, json {} B/api",
        json_bytes / apis
    );
    println!("load from values: {took:?}");
    println!(
        "memory: {} B/api ({} KiB in all)",
        grown * 1024 / apis,
        grown
    );

    let ((), took) = timed(|| find(&table, apis, groups, finds));
    let each = took.as_nanos() / u128::try_from(finds.max(1)).expect("a count");
    println!("host + find + grant: {each} ns");
    if std::env::var_os("FIND_ONLY").is_some() {
        return;
    }

    let first = snapshot.groups.keys().next().expect("a group").clone();
    let mut changed = wire::Group::clone(&snapshot.groups[&first]);
    changed.qps_limit += 1;
    snapshot.groups.insert(first, Arc::new(changed));
    let (table, took) = timed(|| load(&snapshot, &table));
    println!("one group of {} changed: {took:?}", apis / groups);

    drop((snapshot, table));
    let (snapshot, took) = timed(|| parse(&json));
    println!("parse JSON: {took:?}");
    let (_, took) = timed(|| load(&snapshot, &Table::empty()));
    println!("load what was parsed: {took:?}");
}

fn load(snapshot: &wire::Snapshot, previous: &Table) -> Table {
    let (table, problems) = Table::load(snapshot, previous);
    assert!(problems.is_empty(), "{problems:?}");
    table
}

fn parse(json: &[Vec<u8>]) -> wire::Snapshot {
    let parse =
        |bytes: &Vec<u8>| -> wire::Group { serde_json::from_slice(bytes).expect("a group") };
    let groups = json
        .iter()
        .map(parse)
        .map(|group| (group.name.clone(), Arc::new(group)));
    wire::Snapshot {
        groups: groups.collect(),
        ..wire::Snapshot::default()
    }
}

/// Looks up, for every request: the host, its group, the stage, the route and the grant.
fn find(table: &Table, apis: usize, groups: usize, count: usize) {
    let hosts: Vec<String> = (0..groups).map(host).collect();
    let app = AppId::of(&app());
    // As many Apis of each shape whatever the total, evenly spread.
    let sample = 64.min(apis);
    let requests: Vec<(&str, String)> = (0..sample)
        .map(|at| (at * (apis / sample) / 4 * 4 + at % 4).min(apis - 1))
        .map(|at| {
            (
                &*hosts[at % groups],
                path(at).replace("[id]", "12345678").replace('*', "x/y"),
            )
        })
        .collect();
    for (host, path) in requests.iter().cycle().take(count) {
        let binding = &table.bindings(black_box(host), Network::Public)[0];
        let group = &binding.group;
        let rest = group.base_path.strip(path).expect("the base path is /");
        let stage = group.stage(STAGE).expect("RELEASE is always there");
        let mut captures = Captures::new();
        let route = group
            .find(stage, Method::Get, rest, &mut captures)
            .expect("every request has an Api");
        assert_eq!(group.grant(app, route, 0), Permission::Granted);
        black_box(captures.get(0));
    }
}

fn snapshot(apis: usize, groups: usize) -> wire::Snapshot {
    let groups = (0..groups).map(|at| {
        let mine: Vec<usize> = (at..apis).step_by(groups).collect();
        let group = group(at, &mine);
        (group.name.clone(), Arc::new(group))
    });
    wire::Snapshot {
        groups: groups.collect(),
        ..wire::Snapshot::default()
    }
}

fn group(at: usize, apis: &[usize]) -> wire::Group {
    let stage: Stage = STAGE.parse().expect("a stage");
    wire::Group {
        format: wire::FORMAT,
        name: ObjectName::new("load", format!("group-{at:06}")),
        id: format!("g{at:031}"),
        instance: "default".into(),
        base_path: BasePath::root(),
        qps_limit: 500,
        sub_domain: wire::SubDomain {
            public: Some(host(at).parse().expect("a host")),
            internal: None,
            daily_quota: 1000,
        },
        https_policy: HttpsPolicy::Http2Tls13,
        filter_app_code: false,
        domains: Vec::new(),
        apis: apis.iter().map(|&at| Arc::new(api(at))).collect(),
        routes: (0..apis.len())
            .map(|at| wire::Route {
                stage: stage.clone(),
                api: u32::try_from(at).expect("a position"),
                backend: u32::try_from(at % 10).expect("a position"),
                variables: BTreeMap::new(),
            })
            .collect(),
        backends: (0..10).map(backend).collect(),
        grants: apis
            .iter()
            .map(|&at| {
                Arc::new(wire::Grant {
                    app: app(),
                    stage: stage.clone(),
                    api: Some(api_name(at)),
                    expires_at_ms: None,
                    authorization: ObjectName::new("load", "all"),
                })
            })
            .collect(),
    }
}

fn host(group: usize) -> String {
    format!("g{group:06}.api.example.com")
}

fn app() -> ObjectName {
    ObjectName::new("load", "app")
}

fn api_name(at: usize) -> ObjectName {
    ObjectName::new("load", format!("get-forecast-{at:06}"))
}

/// Four shapes, each as long for every `at`.
fn path(at: usize) -> String {
    match at % 4 {
        0 => format!("/v1/things{at:06}/[id]"),
        1 => format!("/v1/things{at:06}/list"),
        2 => format!("/v2/[id]/things{at:06}"),
        _ => format!("/v1/files{at:06}/[id]/*"),
    }
}

fn api(at: usize) -> wire::Api {
    let path: PathTemplate = path(at).parse().expect("a path");
    let mut parameters: Vec<wire::Parameter> = vec![
        parameter("city", Location::Query, |it| {
            it.rules.min_length = Some(1);
            it.rules.max_length = Some(40);
            it.rules.pattern = Some(r"^[\w -]+$".into());
        }),
        parameter("days", Location::Query, |it| {
            it.kind = ParameterType::Int;
            it.default = Some("3".into());
            it.rules.minimum = Some(wire::Number::Integer(1));
            it.rules.maximum = Some(wire::Number::Integer(14));
        }),
        parameter("X-Units", Location::Header, |it| {
            it.rules.one_of = vec!["metric".into(), "imperial".into()];
        }),
        // One that no other Api has.
        parameter(&format!("field{at:06}"), Location::Query, |it| {
            it.rules.max_length = Some(u32::try_from(at).expect("a number") + 1);
            it.rules.pattern = Some(format!("^[a-z]{{1,{}}}$", at % 50 + 1));
        }),
    ];
    parameters.push(match path.parameters().next() {
        Some(name) => parameter(name, Location::Path, |it| {
            it.required = true;
            it.rules.pattern = Some("^[0-9]{1,12}$".into());
            it.backend_location = Location::Query;
        }),
        None => parameter("page", Location::Query, |it| it.kind = ParameterType::Long),
    });
    wire::Api {
        name: api_name(at),
        display_name: format!("getForecast{at:06}"),
        release: 3,
        hash: format!("{at:064x}").into(),
        kind: wire::ApiKind::Common,
        protocols: [Protocol::Http, Protocol::Https].into_iter().collect(),
        method: Method::Get,
        path,
        mode: wire::Mode::Mapping,
        body_format: wire::BodyFormat::Form,
        parameters,
        auth: wire::Auth::App(wire::AppAuth {
            app_code: wire::AppCode::Disabled,
            allow_sha1: true,
            allow_sha256: true,
            require_nonce: false,
        }),
        internal_only: false,
        dispatch: wire::Dispatch {
            method: None,
            path: Some(format!("/backend/{at:06}").parse().expect("a path")),
            timeout_ms: 10_000,
            content_type: wire::ContentType::Default,
            constants: vec![wire::Constant {
                name: "X-Source".into(),
                location: Location::Header,
                value: "gateway".into(),
            }],
            system: vec![wire::System {
                from: SystemParameter::CaClientIp,
                name: "X-Client-Ip".into(),
                location: Location::Header,
            }],
            call: wire::Call::Plain,
        },
    }
}

fn parameter(
    name: &str,
    location: Location,
    change: impl FnOnce(&mut wire::Parameter),
) -> wire::Parameter {
    let mut parameter = wire::Parameter {
        name: name.into(),
        location,
        kind: ParameterType::String,
        array: false,
        required: false,
        default: None,
        rules: wire::Rules::default(),
        backend_name: name.into(),
        backend_location: location,
    };
    change(&mut parameter);
    parameter
}

fn backend(at: usize) -> wire::Backend {
    wire::Backend {
        label: format!("backend-{at}"),
        target: wire::Target::Http(wire::HttpTarget {
            address: format!("http://backend-{at}.example.com")
                .parse()
                .expect("an address"),
            host: None,
            tls: None,
            http2: false,
        }),
    }
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

/// Resident memory of this process in KiB (Linux), 0 elsewhere.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
