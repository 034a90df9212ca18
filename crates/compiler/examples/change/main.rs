//! What one change costs, by the number of Apis and by what is changed. Prints a table; each figure is the median of some turns.
//!
//! `cargo run --release -p paifang-compiler --example change`

mod world;

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use paifang_compiler::{
    AnyObject, CertificateFacts, Compiler, Kind, Memory, Object, ObjectId, Objects, Request,
    Secret, Settings, Touched, Update, compile,
};
use serde_json::json;

use self::world::{api, authorization, backend, name, object, secret, world};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Changes of a kind that are measured.
const TURNS: usize = 21;

type Change = fn(&mut Objects, usize) -> Touched;

const CHANGES: [(&str, Change); 7] = [
    ("an Api's description", change_api),
    ("an Api's path", change_path),
    ("an address, 1 Api behind it", |objects, turn| {
        change_address(objects, "alone", turn)
    }),
    ("an address, 500 Apis behind it", |objects, turn| {
        change_address(objects, "shared", turn)
    }),
    ("an Authorization", change_authorization),
    ("an App's Secret", change_secret),
    ("a group's stage variable", change_variable),
];

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| Apis | from nothing | bytes an Api | {} | asking about an Api | asking about an address, 500 Apis |",
        CHANGES.map(|(what, _)| what).join(" | ")
    )?;
    writeln!(out, "|{}", " ---: |".repeat(CHANGES.len() + 5))?;
    for apis in [100, 2_000, 20_000] {
        writeln!(out, "{}", row(apis))?;
    }
    Ok(())
}

fn row(apis: usize) -> String {
    let mut objects = world(apis);
    let settings = Settings::new(|_| Ok(CertificateFacts::default()));
    let mut compiler = Compiler::new(Memory::default(), settings);
    let before = resident();
    let began = Instant::now();
    compiler.update(&objects, &Touched::default());
    let mut row = format!("| {apis} | {} |", shown(began.elapsed()));
    settle(&mut compiler, &objects);
    row.push_str(&format!(" {} |", (resident() - before) / apis));
    for (_, change) in CHANGES {
        let mut took: Vec<Duration> = (0..TURNS)
            .map(|turn| {
                let touched = change(&mut objects, turn);
                let began = Instant::now();
                let update = compiler.update(&objects, &touched);
                let took = began.elapsed();
                assert!(!update.is_empty(), "the change makes no difference");
                settle(&mut compiler, &objects);
                took
            })
            .collect();
        took.sort();
        row.push_str(&format!(" {} |", shown(took[TURNS / 2])));
    }
    let mut spec = api(7);
    spec["request"]["path"] = json!("/asked/[x]");
    let asked = AnyObject::Api(object(spec));
    row.push_str(&format!(" {} |", ask(&compiler, &objects, "a7", &asked)));
    let asked = AnyObject::BackendService(object(backend("http://10.2.0.1")));
    row.push_str(&format!(
        " {} |",
        ask(&compiler, &objects, "shared", &asked)
    ));
    // What was answered step by step is what is answered at once.
    let expected = compile(&objects, compiler.memory(), compiler.settings());
    assert!(*compiler.snapshot() == expected.snapshot && *compiler.verdicts() == expected.verdicts);
    row
}

fn ask(compiler: &Compiler, objects: &Objects, of: &str, object: &AnyObject) -> String {
    let name = name(of);
    let request = Request::Write {
        name: &name,
        object,
    };
    let mut took: Vec<Duration> = (0..TURNS)
        .map(|_| {
            let began = Instant::now();
            let admission = compiler.admit(objects, &request);
            assert!(admission.refusals.is_empty(), "{admission:?}");
            began.elapsed()
        })
        .collect();
    took.sort();
    shown(took[TURNS / 2])
}

/// Until nothing is to be decided any more.
fn settle(compiler: &mut Compiler, objects: &Objects) -> Update {
    let mut update = Update {
        unsettled: true,
        ..Update::default()
    };
    while update.unsettled {
        update.extend(compiler.update(objects, &Touched::default()));
    }
    update
}

/// Resident memory, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let number = line.and_then(|it| it.split_whitespace().next());
    number.and_then(|it| it.parse().ok()).unwrap_or(0_usize) * 1024
}

fn shown(took: Duration) -> String {
    match took.as_micros() {
        micros if micros < 10_000 => format!("{micros} µs"),
        micros => format!("{} ms", micros / 1000),
    }
}

fn change_api(objects: &mut Objects, turn: usize) -> Touched {
    let mut spec = api(7);
    spec["description"] = json!(format!("turn {turn}"));
    objects.apis.insert(name("a7"), object(spec));
    Touched::object(ObjectId::new(Kind::Api, &name("a7")))
}

fn change_path(objects: &mut Objects, turn: usize) -> Touched {
    let mut spec = api(8);
    spec["request"]["path"] = json!(format!("/turn{turn}/[x]"));
    objects.apis.insert(name("a8"), object(spec));
    Touched::object(ObjectId::new(Kind::Api, &name("a8")))
}

fn change_address(objects: &mut Objects, service: &str, turn: usize) -> Touched {
    let spec = backend(&format!("http://10.1.0.{turn}"));
    objects.backend_services.insert(name(service), object(spec));
    Touched::object(ObjectId::new(Kind::BackendService, &name(service)))
}

fn change_authorization(objects: &mut Objects, turn: usize) -> Touched {
    let mut spec = authorization(0);
    spec["expiresAt"] = json!(format!("2040-01-01T00:00:{turn:02}Z"));
    objects.authorizations.insert(name("z0"), object(spec));
    Touched::object(ObjectId::new(Kind::Authorization, &name("z0")))
}

fn change_secret(objects: &mut Objects, turn: usize) -> Touched {
    objects
        .secrets
        .insert(name("k1"), secret(1, &format!("turn{turn}")));
    let mut touched = Touched::default();
    touched.secrets.insert(name("k1"));
    touched
}

fn change_variable(objects: &mut Objects, turn: usize) -> Touched {
    let spec = json!({"stageVariables": {"RELEASE": {"v": format!("{turn}")}}});
    objects.groups.insert(name("g0"), object(spec));
    Touched::object(ObjectId::new(Kind::ApiGroup, &name("g0")))
}
