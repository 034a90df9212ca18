//! `paifang call`: finds an Api in a folder, signs a request as one of its Apps, and sends it.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, anyhow, bail};
use paifang_compiler::{Kind, ObjectId, Status};
use paifang_model::{ObjectName, Stage};
use paifang_signing::{Algorithm, Key, Signer, Unsigned, doctor};
use paifang_snapshot::wire::{AppCode, Auth, Proof};
use paifang_standalone::{Outcome, Session, StateUse};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    client::{self, Answer, Base, Call},
    output, route,
    route::{Door, Listener, Target},
    settings,
    sign::{self, marked},
    units::Time,
};

/// Call an Api by name, signed as one of the Apps in the folder
///
/// Finds the Api in the folder, builds its URL from domain, base path and path, signs with the App's key (or sends its AppCode), and
/// prints the answer. Without --app, the first App that is authorized for the Api in the stage is taken. When the signature is refused, the
/// server's string to sign is compared with ours and the difference is explained.
///
/// Exit code: 0 for an answer below 400, 4 for 4xx, 5 for 5xx, 1 when there was no answer, 2 when the command line is wrong.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  An open Api:
      paifang call hello --dir config/quickstart
  Signed, with a path parameter and a query:
      paifang call get-forecast --dir config/quickstart --path city=hangzhou -q days=2
  In another stage, with an AppCode, showing the head of the answer:
      paifang call get-forecast --dir config/quickstart --path city=hangzhou --stage TEST --app-code -i
  Over TLS:
      paifang call catalogue --dir config/07-domain-with-https --url https://127.0.0.1:8443 --cacert config/07-domain-with-https/ca.crt")]
pub(crate) struct Args {
    /// Api in the folder, as [namespace/]name
    api: String,

    /// Folder of YAML
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// State folder, for credentials that were made for an App [default: .paifang beside DIR]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Stage to call
    #[arg(long, value_name = "STAGE", default_value = "RELEASE")]
    stage: Stage,

    /// App to call as, [namespace/]name [default: the first that is authorized]
    #[arg(long, value_name = "NAME", help_heading = "Credentials")]
    app: Option<String>,

    /// Send the App's AppCode instead of a signature
    #[arg(long, help_heading = "Credentials")]
    app_code: bool,

    /// Value of a path parameter; `*` is what follows a path that ends in /*
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Request")]
    path: Vec<(String, String)>,

    /// Query parameter; repeat for several
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Request")]
    query: Vec<(String, String)>,

    /// Header; repeat for several
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = sign::header, help_heading = "Request")]
    headers: Vec<(String, String)>,

    /// Body; @FILE reads it from a file, @- from standard input
    #[arg(
        short,
        long,
        value_name = "BODY|@FILE",
        conflicts_with = "form",
        help_heading = "Request"
    )]
    data: Option<String>,

    /// Field of a form body; repeat for several
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Request")]
    form: Vec<(String, String)>,

    /// Method, for an Api that takes any [default: GET, or POST with a body]
    #[arg(short = 'X', long, value_name = "METHOD", help_heading = "Request")]
    method: Option<String>,

    /// Address of the gateway [default: http://127.0.0.1:8080, or what the Api needs: https://127.0.0.1:8443, http://127.0.0.1:8081]
    #[arg(long, value_name = "URL", help_heading = "Gateway")]
    url: Option<Base>,

    /// Name to call, when the Api answers to several
    #[arg(long, value_name = "NAME", help_heading = "Gateway")]
    host: Option<String>,

    /// PEM file with the issuer of the gateway's certificate [default: the system's roots]
    #[arg(long, value_name = "FILE", help_heading = "Gateway")]
    cacert: Option<PathBuf>,

    /// Longest time for the whole call
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        help_heading = "Gateway"
    )]
    timeout: Time,

    /// Print the head of the answer before its body
    #[arg(short, long)]
    include: bool,

    /// Tell what is sent, and the string to sign
    #[arg(short, long)]
    verbose: bool,
}

/// RFC 3986 §2.3: what needs no encoding anywhere.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request, ready to be sent.
struct Ready {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    string_to_sign: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state = args
        .state
        .clone()
        .unwrap_or_else(|| Session::default_state(&args.dir));
    let settings = paifang_compiler::Settings {
        addresses: paifang_compiler::AddressPolicy {
            loopback: true,
            link_local: true,
        },
        ..paifang_compiler::Settings::new(settings::check_certificate)
    };
    let mut session = Session::open(&args.dir, &StateUse::Look(state), settings)?;
    let outcome = session.load();
    let name = route::find(&args.api, session.objects().apis.keys(), "Api")?;
    let target = target(args, &outcome, name)?;
    let (door, base) = door(args, &target)?;
    let ready = ready(args, &session, &outcome, &target)?;
    if args.verbose {
        output::tell(sent(&ready, &door, &base));
    }
    let answer = client::call(&Call {
        base: &base,
        host: &door.host,
        method: &ready.method,
        target: &ready.target,
        headers: &ready.headers,
        body: &ready.body,
        roots: args.cacert.as_deref(),
        patience: args.timeout.0,
    })?;
    print(args, &answer)?;
    explain(&answer, ready.string_to_sign.as_deref());
    Ok(match answer.status.as_u16() {
        ..400 => ExitCode::SUCCESS,
        400..500 => ExitCode::from(4),
        _ => ExitCode::from(5),
    })
}

fn target<'s>(args: &Args, outcome: &'s Outcome, name: &ObjectName) -> anyhow::Result<Target<'s>> {
    let published = route::published(&outcome.snapshot);
    let stages = published.get(name).map(Vec::as_slice).unwrap_or_default();
    if let Some(target) = stages.iter().find(|target| *target.stage == args.stage) {
        return Ok(target.clone());
    }
    let why = why_offline(outcome, name, &args.stage);
    let others: Vec<&str> = stages.iter().map(|target| target.stage.as_str()).collect();
    let fix = match others.as_slice() {
        [] => "`paifang check` says what is wrong".to_owned(),
        others => format!("it is in {}: choose one with --stage", others.join(", ")),
    };
    bail!("Api {name} is not published in {}{why}; {fix}", args.stage)
}

fn why_offline(outcome: &Outcome, name: &ObjectName, stage: &Stage) -> String {
    let verdict = outcome.verdicts.get(&ObjectId::new(Kind::Api, name));
    let problem = verdict.and_then(|verdict| match &verdict.status {
        Status::Api(api) => api.stages.get(stage)?.problem.clone(),
        _ => None,
    });
    problem.map_or_else(String::new, |problem| format!(" ({})", problem.message))
}

fn door(args: &Args, target: &Target<'_>) -> anyhow::Result<(Door, Base)> {
    let tls = args.url.as_ref().map(|base| base.tls);
    let fits = |door: &Door| {
        tls.is_none_or(|tls| tls == (door.listener == Listener::Https))
            && args.host.as_ref().is_none_or(|host| *host == door.host)
    };
    let doors = target.doors();
    let door = match (doors.iter().find(|door| fits(door)), &args.host) {
        (Some(door), _) => door.clone(),
        // A name under a wildcard, or one that is to be tried.
        (None, Some(host)) => Door {
            host: host.clone(),
            listener: if tls == Some(true) {
                Listener::Https
            } else {
                Listener::Http
            },
        },
        (None, None) => {
            let scheme = if tls == Some(true) {
                "TLS"
            } else {
                "plain HTTP"
            };
            bail!(
                "Api {} answers to no name over {scheme}: choose one with --host, or another --url",
                target.api.name
            )
        }
    };
    let base = args
        .url
        .clone()
        .unwrap_or_else(|| default_base(door.listener));
    Ok((door, base))
}

/// Where `standalone` listens unless it is told otherwise.
pub(crate) fn default_base(listener: Listener) -> Base {
    let (tls, authority) = match listener {
        Listener::Http => (false, "127.0.0.1:8080"),
        Listener::Https => (true, "127.0.0.1:8443"),
        Listener::Internal => (false, "127.0.0.1:8081"),
    };
    Base {
        tls,
        authority: authority.to_owned(),
    }
}

fn ready(
    args: &Args,
    session: &Session,
    outcome: &Outcome,
    target: &Target<'_>,
) -> anyhow::Result<Ready> {
    let (content_type, body) = body(args)?;
    let mut headers = args.headers.clone();
    let has = |headers: &[(String, String)], wanted: &str| {
        headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    if let Some(content_type) = content_type
        && !has(&headers, "content-type")
    {
        headers.push(("content-type".to_owned(), content_type.to_owned()));
    }
    let values = args
        .path
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let path = target.path(&values.collect())?;
    let query = encoded(&args.query);
    let request = Ready {
        method: args
            .method
            .clone()
            .unwrap_or_else(|| target.method(!body.is_empty()).to_owned())
            .to_ascii_uppercase(),
        target: if query.is_empty() {
            path
        } else {
            format!("{path}?{query}")
        },
        headers,
        body,
        string_to_sign: None,
    };
    let signs = match (&target.api.auth, &args.app) {
        (Auth::Anonymous, None) => None,
        (Auth::Anonymous, Some(_)) => Some(Algorithm::HmacSha256),
        (Auth::App(auth), _) if auth.allow_sha256 => Some(Algorithm::HmacSha256),
        (Auth::App(_), _) => Some(Algorithm::HmacSha1),
    };
    let Some(algorithm) = signs else {
        return Ok(open(args, request));
    };
    let app = app(args, session, target)?;
    if args.app_code {
        return with_app_code(args, outcome, target, &app, request);
    }
    let pair = sign::key_pair(&outcome.snapshot, &app)?;
    let key = Key::new(pair.secret.expose());
    let signer = Signer {
        app_key: &pair.app_key,
        key: &key,
        algorithm,
        stage: Some(args.stage.as_str()),
        also_sign: &[],
    };
    let unsigned = Unsigned {
        method: &request.method,
        target: &request.target,
        headers: &request.headers,
        body: &request.body,
    };
    let signed = signer.sign(&unsigned, sign::now_ms(), &sign::nonce()?)?;
    Ok(Ready {
        headers: signed.headers,
        string_to_sign: Some(signed.string_to_sign),
        ..request
    })
}

fn open(args: &Args, mut request: Ready) -> Ready {
    let given = |wanted: &str| {
        request
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    if !given("x-ca-stage") && args.stage.as_str() != Stage::DEFAULT {
        request
            .headers
            .push(("x-ca-stage".to_owned(), args.stage.to_string()));
    }
    request
}

fn with_app_code(
    args: &Args,
    outcome: &Outcome,
    target: &Target<'_>,
    app: &ObjectName,
    request: Ready,
) -> anyhow::Result<Ready> {
    if matches!(&target.api.auth, Auth::App(auth) if auth.app_code == AppCode::Disabled) {
        bail!(
            "Api {} takes no AppCode: leave --app-code out, or set its auth.appCode",
            target.api.name
        );
    }
    let now = i64::try_from(sign::now_ms()).unwrap_or(i64::MAX);
    let code = route::credentials(&outcome.snapshot, app, now).find_map(|proof| match proof {
        Proof::AppCode { app_code } => Some(app_code),
        Proof::KeyPair { .. } => None,
    });
    let code = code.ok_or_else(|| {
        anyhow!(
            "App {app} has no AppCode that can be used now: leave --app-code out to sign instead"
        )
    })?;
    let mut request = open(args, request);
    let value = format!("APPCODE {}", code.expose());
    request.headers.push(("authorization".to_owned(), value));
    Ok(request)
}

fn app(args: &Args, session: &Session, target: &Target<'_>) -> anyhow::Result<ObjectName> {
    if let Some(app) = &args.app {
        return route::find(app, session.objects().apps.keys(), "App").cloned();
    }
    let now = i64::try_from(sign::now_ms()).unwrap_or(i64::MAX);
    let callers = target.callers(now);
    let first = callers.first().copied().cloned();
    first.ok_or_else(|| {
        anyhow!(
            "no App is authorized for Api {} in {}: add an Authorization, or name an App with --app",
            target.api.name,
            target.stage
        )
    })
}

fn body(args: &Args) -> anyhow::Result<(Option<&'static str>, Vec<u8>)> {
    if !args.form.is_empty() {
        let form = encoded(&args.form).into_bytes();
        return Ok((
            Some("application/x-www-form-urlencoded; charset=utf-8"),
            form,
        ));
    }
    let Some(data) = &args.data else {
        return Ok((None, Vec::new()));
    };
    let body = sign::content(data).context("--data")?;
    let content_type = if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok() {
        "application/json; charset=utf-8"
    } else if std::str::from_utf8(&body).is_ok() {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    };
    Ok((Some(content_type), body))
}

fn encoded(pairs: &[(String, String)]) -> String {
    let encode = |text| utf8_percent_encode(text, VALUE).to_string();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    pairs.join("&")
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    if name.is_empty() {
        return Err("write it as NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The request for people; an AppCode is hidden.
fn sent(ready: &Ready, door: &Door, base: &Base) -> String {
    let mut text = format!(
        "> {} {}\n> host: {}  (at {})\n",
        ready.method,
        ready.target,
        door.host,
        base.url()
    );
    for (name, value) in &ready.headers {
        let value = if name == "authorization" {
            "[redacted]"
        } else {
            value
        };
        let _ = writeln!(text, "> {name}: {value}");
    }
    if let Some(string) = &ready.string_to_sign {
        text += "string to sign\n";
        text += &marked(string);
    }
    text
}

fn print(args: &Args, answer: &Answer) -> anyhow::Result<()> {
    if args.include {
        let mut head = format!("{:?} {}\n", http::Version::HTTP_11, answer.status);
        for (name, value) in &answer.headers {
            let _ = writeln!(
                head,
                "{name}: {}",
                String::from_utf8_lossy(value.as_bytes())
            );
        }
        head.push('\n');
        output::out(head)?;
    }
    output::out(&answer.body)?;
    if !answer.body.is_empty() && !answer.body.ends_with(b"\n") {
        output::out("\n")?;
    }
    Ok(())
}

/// Says what a refusal means.
fn explain(answer: &Answer, string_to_sign: Option<&str>) {
    let header = |name: &str| {
        let value = answer.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    if answer.status.as_u16() < 400 {
        return;
    }
    let code = header("x-ca-error-code").unwrap_or_default();
    let message = header("x-ca-error-message").unwrap_or_default();
    output::tell(
        format_args!("{} {code} {message}", answer.status.as_u16())
            .to_string()
            .trim_end(),
    );
    if let (true, Some(ours)) = (code == "A403IS", string_to_sign) {
        output::tell(sign::explain(&doctor::compare(&message, ours)).trim_end());
    }
}
