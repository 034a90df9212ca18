//! A running gateway and its folder: the start, what is said about it, changes, the end.

use std::{fmt::Write as _, path::Path, process::ExitCode, sync::Arc, thread, time::Instant};

use anyhow::Context as _;
use paifang_compiler::Kind;
use paifang_gateway::{Addresses, Applied, Control, Gateway};
use paifang_runtime::{
    log::{self, Format},
    signal::Signals,
};
use paifang_snapshot::wire::Auth;
use paifang_standalone::{Diagnostic, MadeSecret, Outcome, Session, StateUse, Stop, Watch, What};

use crate::{
    echo, listing,
    output::{counted, out, tell},
    route::{self, Listener, Target},
    sign::quoted,
    standalone::{Args, PATIENCE, reachable},
};

/// How many Apis are listed at the start.
const LISTED: usize = 20;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    log::init(Format::Text, "warn")?;
    let state = args
        .state
        .clone()
        .unwrap_or_else(|| Session::default_state(&args.dir));
    let mut session = Session::open(
        &args.dir,
        &StateUse::Keep(state.clone()),
        args.meaning.settings(true),
    )?;
    // From here on nothing that is saved is missed.
    let mut watch = Watch::start(&args.dir);
    let mut outcome = session.load();

    let echo = args
        .echo
        .map(|address| echo::start(address, "--echo=ADDR"))
        .transpose()?;
    let gateway = Gateway::start(args.gateway())?;
    let signals = Signals::listen()?;
    let applied = gateway.apply(&outcome.snapshot);
    let addresses = *gateway.addresses();
    status(&mut outcome, &applied);

    tell(introduction(args, &state, &addresses, &outcome));
    problems(&args.dir, &[], &outcome, &applied);
    made(&outcome.made);
    if let Some(why) = watch.why_polling() {
        tell(format_args!(
            "warning: the system does not tell about changes ({why}); the folder is looked at every 2 s"
        ));
    }
    out(ready(&addresses, echo))?;

    end_on_signal(signals, gateway.control(), watch.stop())?;
    let mut said = outcome.diagnostics;
    while let Some(touched) = watch.wait() {
        if let Some(mut outcome) = session.refresh(&touched) {
            let applied = gateway.apply(&outcome.snapshot);
            status(&mut outcome, &applied);
            changed(&args.dir, &said, &outcome, &applied, watch.noticed());
            said = outcome.diagnostics;
        }
    }
    let drained = gateway.drain();
    match drained.cut {
        0 => tell("ended"),
        cut => tell(format_args!(
            "ended; {} cut at the deadline",
            counted(cut, "connection")
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// The first signal drains, the second does not wait.
fn end_on_signal(signals: Signals, control: Control, stop: Stop) -> anyhow::Result<()> {
    let wait = move || {
        while signals.next_within(PATIENCE).is_none() {}
        tell("ending: requests in flight may finish");
        control.drain();
        stop.stop();
        while signals.next_within(PATIENCE).is_none() {}
        control.force();
    };
    thread::Builder::new()
        .name("end".to_owned())
        .spawn(wait)
        .context("no thread to wait for signals")?;
    Ok(())
}

/// `ready http=127.0.0.1:8080 …`, the one line for programs.
fn ready(addresses: &Addresses, echo: Option<std::net::SocketAddr>) -> String {
    let all = [
        ("http", addresses.http),
        ("https", addresses.https),
        ("internal", addresses.internal),
        ("admin", addresses.admin),
        ("echo", echo),
    ];
    let mut line = "ready".to_owned();
    for (name, address) in all {
        if let Some(address) = address {
            let _ = write!(line, " {name}={address}");
        }
    }
    line.push('\n');
    line
}

fn introduction(args: &Args, state: &Path, addresses: &Addresses, outcome: &Outcome) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Paifang serves {}: {}",
        args.dir.display(),
        objects(outcome)
    );
    let _ = writeln!(text, "  state       {}", state.display());
    let listeners = [
        ("http", "http", addresses.http),
        ("https", "https", addresses.https),
        ("internal", "http", addresses.internal),
        ("admin", "http", addresses.admin),
    ];
    for (name, scheme, address) in listeners {
        if let Some(address) = address {
            let _ = writeln!(text, "  {name:<11} {scheme}://{address}");
        }
    }
    let _ = writeln!(
        text,
        "  backends    on this machine (loopback) are allowed, as they would not be in a cluster"
    );
    if let Some(admin) = args.admin_is_open() {
        let _ = writeln!(
            text,
            "warning: the admin port {admin} has no authentication and is open to other machines"
        );
    }
    text += &apis(args, addresses, outcome);
    text.trim_end().to_owned()
}

fn objects(outcome: &Outcome) -> String {
    let kinds = [
        (Kind::ApiGroup, "group"),
        (Kind::Api, "Api"),
        (Kind::BackendService, "backend service"),
        (Kind::App, "App"),
        (Kind::Authorization, "authorization"),
        (Kind::DomainBinding, "domain"),
    ];
    let counts = kinds.map(|(kind, name)| (outcome.objects(kind), name));
    let said: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| counted(*count, name))
        .collect();
    if said.is_empty() {
        "nothing yet".to_owned()
    } else {
        said.join(", ")
    }
}

/// Each Api with its method and URL, who may call it, and a line that does.
fn apis(args: &Args, addresses: &Addresses, outcome: &Outcome) -> String {
    let published = route::published(&outcome.snapshot);
    let mut text = String::new();
    for stages in published.values().take(LISTED) {
        text.push('\n');
        text += &api(args, addresses, stages);
    }
    if published.len() > LISTED {
        let _ = writeln!(text, "\n  and {} more", published.len() - LISTED);
    }
    text
}

fn api(args: &Args, addresses: &Addresses, stages: &[Target<'_>]) -> String {
    let preferred = stages
        .iter()
        .find(|target| target.stage.as_str() == "RELEASE");
    let Some(target) = preferred.or(stages.first()) else {
        return String::new();
    };
    let names: Vec<&str> = stages.iter().map(|target| target.stage.as_str()).collect();
    let mut text = format!(
        "  {}  in {}, {}\n",
        target.api.name,
        names.join(", "),
        target.auth()
    );
    let listening = |listener| match listener {
        Listener::Http => addresses.http,
        Listener::Https => addresses.https,
        Listener::Internal => addresses.internal,
    };
    let door = target
        .doors()
        .into_iter()
        .find_map(|door| Some((listening(door.listener)?, door)));
    let Some((address, door)) = door else {
        text += "    answers to no name: bind a domain to its group\n";
        return text;
    };
    let scheme = if door.listener == Listener::Https {
        "https"
    } else {
        "http"
    };
    let _ = writeln!(
        text,
        "    {} {scheme}://{}:{}{}",
        target.method(false),
        door.host,
        address.port(),
        route::shown(target.group, &target.api.path)
    );
    let _ = writeln!(text, "    {}", try_it(args, target, &door, address));
    text
}

/// A line to copy: curl where nothing secret is needed, otherwise our own client.
fn try_it(
    args: &Args,
    target: &Target<'_>,
    door: &route::Door,
    address: std::net::SocketAddr,
) -> String {
    let address = reachable(address);
    let simple = target.api.path.parameters().next().is_none() && !target.api.path.has_tail();
    let stage = target.stage.as_str();
    if matches!(target.api.auth, Auth::Anonymous) && simple && door.listener != Listener::Https {
        let method = match target.method(false) {
            "GET" => String::new(),
            method => format!(" -X {method}"),
        };
        let stage = if stage == "RELEASE" {
            String::new()
        } else {
            format!(" -H 'X-Ca-Stage: {stage}'")
        };
        let path = route::shown(target.group, &target.api.path);
        return format!(
            "curl{method}{stage} -H 'Host: {}' {}",
            door.host,
            quoted(&format!("http://{address}{path}"))
        );
    }
    let name = &target.api.name;
    let mut line = format!(
        "paifang call {name} --dir {}",
        quoted(&args.dir.display().to_string())
    );
    for parameter in target.api.path.parameters() {
        let _ = write!(line, " --path {parameter}=VALUE");
    }
    if let Some(state) = &args.state {
        let _ = write!(line, " --state {}", quoted(&state.display().to_string()));
    }
    if stage != "RELEASE" {
        let _ = write!(line, " --stage {stage}");
    }
    let default = crate::call::default_base(door.listener);
    if default.authority != address.to_string() {
        let scheme = if default.tls { "https" } else { "http" };
        let _ = write!(line, " --url {scheme}://{address}");
    }
    if default.tls {
        line += " --cacert FILE";
    }
    line
}

fn changed(
    dir: &Path,
    said: &[Diagnostic],
    outcome: &Outcome,
    applied: &Applied,
    noticed: Instant,
) {
    for change in &outcome.changes {
        tell(change);
    }
    problems(dir, said, outcome, applied);
    made(&outcome.made);
    let took = noticed.elapsed();
    tracing::info!(
        version = applied.version,
        read_us = outcome.took.read.as_micros(),
        compile_us = outcome.took.compile.as_micros(),
        store_us = outcome.took.store.as_micros(),
        total_us = took.as_micros(),
        "change in service"
    );
    if outcome
        .changes
        .iter()
        .any(|change| change.what != What::Refused)
    {
        tell(format_args!("served after {} ms", took.as_millis()));
    } else {
        tell("nothing else is served than before");
    }
}

/// Conditions as a cluster's status would show them, in the log.
fn status(outcome: &mut Outcome, applied: &Applied) {
    for (id, verdict) in &mut outcome.verdicts {
        let verdict = Arc::make_mut(verdict);
        let unloaded = applied.problems.iter().find(|problem| match id.kind {
            Kind::ApiGroup => problem.group == id.name,
            Kind::Api => problem.api.as_ref() == Some(&id.name),
            _ => false,
        });
        match unloaded {
            None => verdict.programmed(true, format!("in service as {}", applied.version)),
            Some(problem) => verdict.programmed(false, &problem.message),
        }
        for condition in verdict.conditions.iter() {
            tracing::debug!(
                object = %id,
                condition = condition.kind.as_str(),
                status = condition.status.as_str(),
                reason = condition.reason,
                message = condition.message,
                "status"
            );
        }
    }
}

/// What is wrong and was not said before.
fn problems(dir: &Path, said: &[Diagnostic], outcome: &Outcome, applied: &Applied) {
    let (old, new): (Vec<_>, Vec<_>) = outcome
        .diagnostics
        .iter()
        .partition(|now| said.contains(now));
    for diagnostic in new {
        tell(listing::line(dir, diagnostic));
    }
    match old.len() {
        0 if outcome.diagnostics.is_empty() && !said.is_empty() => {
            tell("nothing is wrong any more")
        }
        0 => {}
        old => tell(format_args!(
            "still as before: {}; `paifang check {}` lists all",
            counted(old, "problem"),
            dir.display()
        )),
    }
    for problem in &applied.problems {
        let whose = problem
            .api
            .as_ref()
            .or(problem.certificate.as_ref())
            .unwrap_or(&problem.group);
        tell(format_args!(
            "error: the gateway cannot load {whose}: {}",
            problem.message
        ));
    }
}

fn made(made: &[MadeSecret]) {
    for secret in made {
        let path = secret
            .path
            .as_ref()
            .map_or_else(|| "nowhere".to_owned(), |path| path.display().to_string());
        tell(format_args!(
            "made Secret {} for App {}; see it in {path}",
            secret.secret, secret.app
        ));
    }
}
