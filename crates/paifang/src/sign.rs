//! `paifang sign`: the headers and the string to sign of any request, and why a server's string differs.

use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use http::Uri;
use paifang_model::{ObjectName, Redacted};
use paifang_signing::{
    Algorithm, Key, Parts, Scratch, Signed, Signer, Unsigned,
    doctor::{self, Diagnosis, Line},
    is_form,
};
use paifang_snapshot::wire::Proof;
use paifang_standalone::{Session, StateUse};
use serde_json::json;

use crate::{output, route, settings};

/// Show the headers and the string to sign of a request, and explain a mismatch
///
/// Signs as the official clients do: every X-Ca-* header is covered, a time stamp and a nonce are added, and Content-MD5 for a body that
/// is not a form. When X-Ca-Signature-Headers is given with -H, nothing is added: the request is signed exactly as written, to reproduce what another
/// client sent.
///
/// With the answer of a server that refused a signature (its X-Ca-Error-Message), the first line that differs is named, and what usually causes
/// it.
///
/// The AppSecret comes from a file, from the variable PAIFANG_APP_SECRET, or from the Secrets of a folder; never from the command line, where
/// others could read it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  With an App of a folder:
      paifang sign GET 'http://demo.localtest:8080/forecast/hangzhou?days=2' --dir config/quickstart --app mobile
  As a curl command:
      paifang sign GET http://demo.localtest:8080/forecast/hangzhou --dir config/quickstart --app mobile -o curl
  With a key of your own:
      PAIFANG_APP_SECRET=… paifang sign POST http://api.example.com/orders --app-key 203753385 -d '{\"id\":1}' \\
          -H 'Content-Type: application/json'
  Why a server refused it:
      paifang sign GET http://api.example.com/p --app-key 203753385 --app-secret-file key \\
          --answer 'Invalid Signature, Server StringToSign:`GET#*/*####X-Ca-Key:203753385#/p`'")]
pub(crate) struct Args {
    /// Method, as in GET
    method: String,

    /// URL, with its query
    url: String,

    /// Header of the request; repeat for several
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// Body of the request; @FILE reads it from a file, @- from standard input
    #[arg(short, long, value_name = "BODY|@FILE")]
    data: Option<String>,

    /// AppKey, sent as X-Ca-Key
    #[arg(
        long,
        value_name = "KEY",
        help_heading = "Credentials",
        conflicts_with = "app"
    )]
    app_key: Option<String>,

    /// File with the AppSecret, - for standard input [otherwise: the variable PAIFANG_APP_SECRET]
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Credentials",
        conflicts_with = "app"
    )]
    app_secret_file: Option<PathBuf>,

    /// Folder of YAML to take the App from
    #[arg(
        long,
        value_name = "DIR",
        help_heading = "Credentials",
        requires = "app"
    )]
    dir: Option<PathBuf>,

    /// App in the folder, as [namespace/]name
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Credentials",
        requires = "dir"
    )]
    app: Option<String>,

    /// State folder, for credentials that were made for an App [default: .paifang beside DIR]
    #[arg(
        long,
        value_name = "DIR",
        help_heading = "Credentials",
        requires = "dir"
    )]
    state: Option<PathBuf>,

    /// Stage, sent as X-Ca-Stage
    #[arg(long, value_name = "STAGE", help_heading = "Signing")]
    stage: Option<String>,

    /// HmacSHA256 or HmacSHA1
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "HmacSHA256",
        help_heading = "Signing"
    )]
    signature_method: Algorithm,

    /// Also cover this header; repeat for several
    #[arg(long, value_name = "NAME", help_heading = "Signing")]
    sign_header: Vec<String>,

    /// Milliseconds since 1970 instead of now, to reproduce a signature
    #[arg(long, value_name = "MS", help_heading = "Signing")]
    timestamp: Option<u64>,

    /// Nonce instead of a random one, to reproduce a signature
    #[arg(long, value_name = "TEXT", help_heading = "Signing")]
    nonce: Option<String>,

    /// What the server answered in X-Ca-Error-Message; @FILE reads it from a file, @- from standard input
    #[arg(long, value_name = "MESSAGE|@FILE")]
    answer: Option<String>,

    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Headers and string to sign, line feeds shown as ⏎
    Text,
    /// One JSON object
    Json,
    /// A curl command
    Curl,
}

/// A key pair.
pub(crate) struct Pair {
    pub(crate) app_key: String,
    pub(crate) secret: Redacted<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let url = url(&args.url)?;
    let body = args.data.as_deref().map_or(Ok(Vec::new()), content)?;
    let method = args.method.to_ascii_uppercase();
    let request = Unsigned {
        method: &method,
        target: url.path_and_query().map_or("/", |target| target.as_str()),
        headers: &args.headers,
        body: &body,
    };
    let signed = signed(args, &request)?;
    match args.output {
        Format::Text => output::out(text(&signed))?,
        Format::Json => output::out(format!("{:#}\n", as_json(&signed)))?,
        Format::Curl => output::out(curl(
            &method,
            &args.url,
            &signed.headers,
            &body,
            args.data.as_deref(),
        ))?,
    }
    let Some(answer) = &args.answer else {
        return Ok(ExitCode::SUCCESS);
    };
    let hint = String::from_utf8_lossy(&content(answer)?).into_owned();
    let diagnosis = doctor::compare(hint.trim(), &signed.string_to_sign);
    output::out(format!("\n{}", explain(&diagnosis)))?;
    Ok(ExitCode::SUCCESS)
}

fn signed(args: &Args, request: &Unsigned<'_>) -> anyhow::Result<Signed> {
    let given = |name: &str| {
        let named = args
            .headers
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    };
    let pair = pair(args, given("x-ca-key"))?;
    let key = Key::new(pair.secret.expose());
    if let Some(list) = given("x-ca-signature-headers") {
        return as_written(request, list, given("x-ca-signature-method"), &key);
    }
    let also: Vec<&str> = args.sign_header.iter().map(String::as_str).collect();
    let signer = Signer {
        app_key: &pair.app_key,
        key: &key,
        algorithm: args.signature_method,
        stage: args.stage.as_deref(),
        also_sign: &also,
    };
    let timestamp = args.timestamp.unwrap_or_else(now_ms);
    let nonce = args.nonce.clone().map_or_else(nonce, Ok)?;
    signer
        .sign(request, timestamp, &nonce)
        .context("the request cannot be signed")
}

/// Signs what stands there and adds nothing but the signature.
fn as_written(
    request: &Unsigned<'_>,
    list: &str,
    method: Option<&str>,
    key: &Key,
) -> anyhow::Result<Signed> {
    let algorithm =
        Algorithm::from_header(method.map(str::as_bytes)).context("X-Ca-Signature-Method")?;
    let (raw_path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target, None),
    };
    let content_type = request
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let form = content_type.is_some_and(|(_, value)| is_form(value.as_bytes()));
    let parts = Parts {
        method: request.method,
        raw_path,
        query,
        form: form.then_some(request.body),
        headers: request.headers,
    };
    let mut scratch = Scratch::new();
    let text = scratch
        .string_to_sign(&parts, Some(list.as_bytes()))
        .to_vec();
    let mut headers = request.headers.to_vec();
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("x-ca-signature"));
    headers.push(("X-Ca-Signature".to_owned(), key.sign(algorithm, &text)));
    Ok(Signed {
        headers,
        string_to_sign: String::from_utf8_lossy(&text).into_owned(),
    })
}

fn pair(args: &Args, header: Option<&str>) -> anyhow::Result<Pair> {
    if let (Some(dir), Some(app)) = (&args.dir, &args.app) {
        return pair_of_app(dir, args.state.as_deref(), app);
    }
    let app_key = args.app_key.as_deref().or(header);
    let app_key = app_key.ok_or_else(|| {
        anyhow!("whose request is it? Give --app-key KEY, or --dir DIR and --app NAME")
    })?;
    let secret = match &args.app_secret_file {
        Some(path) if path.as_os_str() == "-" => standard_input().and_then(utf8)?,
        Some(path) => fs::read_to_string(path).with_context(|| format!("--app-secret-file {}", path.display()))?,
        None => std::env::var("PAIFANG_APP_SECRET")
            .map_err(|_| anyhow!("the AppSecret of {app_key} is missing: give --app-secret-file FILE, or set PAIFANG_APP_SECRET"))?,
    };
    let secret = secret.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        bail!("the AppSecret of {app_key} is empty");
    }
    Ok(Pair {
        app_key: app_key.to_owned(),
        secret: Redacted::new(secret.to_owned()),
    })
}

fn pair_of_app(dir: &Path, state: Option<&Path>, app: &str) -> anyhow::Result<Pair> {
    let state = state.map_or_else(|| Session::default_state(dir), Path::to_owned);
    let settings = paifang_compiler::Settings::new(settings::check_certificate);
    let mut session = Session::open(dir, &StateUse::Look(state), settings)?;
    let outcome = session.load();
    let name = route::find(app, session.objects().apps.keys(), "App")?;
    key_pair(&outcome.snapshot, name)
}

/// The first key pair of an App that is live.
pub(crate) fn key_pair(
    snapshot: &paifang_snapshot::wire::Snapshot,
    app: &ObjectName,
) -> anyhow::Result<Pair> {
    let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
    let pair = route::credentials(snapshot, app, now).find_map(|proof| match proof {
        Proof::KeyPair {
            app_key,
            app_secret,
        } => Some(Pair {
            app_key: app_key.clone(),
            secret: app_secret.clone(),
        }),
        Proof::AppCode { .. } => None,
    });
    pair.ok_or_else(|| {
        anyhow!("App {app} has no key pair that can be used now: `paifang check` says why")
    })
}

/// A header as curl takes it.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as NAME: VALUE")?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("write it as NAME: VALUE".to_owned());
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// Text, or a file after `@`.
pub(crate) fn content(text: &str) -> anyhow::Result<Vec<u8>> {
    match text.strip_prefix('@') {
        None => Ok(text.as_bytes().to_vec()),
        Some("-") => standard_input(),
        Some(path) => fs::read(path).with_context(|| format!("{path} cannot be read")),
    }
}

fn standard_input() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .context("standard input cannot be read")?;
    Ok(bytes)
}

fn utf8(bytes: Vec<u8>) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|_| anyhow!("the AppSecret is not UTF-8"))
}

/// Only what can stand in a request: anything else must be percent-encoded by who knows what is meant.
fn url(text: &str) -> anyhow::Result<Uri> {
    let uri: Uri = text.parse().map_err(|error| {
        anyhow!("{text} is not a URL: {error}; percent-encode spaces and other special characters")
    })?;
    if uri.scheme().is_none() && !text.starts_with('/') {
        bail!("{text} is not a URL: write http://HOST/PATH, or only the path");
    }
    Ok(uri)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A UUID (version 4), as the official clients send.
pub(crate) fn nonce() -> anyhow::Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("the system has no random numbers: {error}"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn text(signed: &Signed) -> String {
    let mut text = "Headers\n".to_owned();
    for (name, value) in &signed.headers {
        let _ = writeln!(text, "  {name}: {value}");
    }
    text += "\nString to sign\n";
    text += &marked(&signed.string_to_sign);
    text
}

/// Lines with their line feeds visible.
pub(crate) fn marked(string_to_sign: &str) -> String {
    let mut text = String::new();
    for line in string_to_sign.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => writeln!(text, "  {line}⏎"),
            None => writeln!(text, "  {line}"),
        }
        .unwrap_or_default();
    }
    text
}

fn as_json(signed: &Signed) -> serde_json::Value {
    let headers = signed
        .headers
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}));
    json!({"headers": headers.collect::<Vec<_>>(), "stringToSign": signed.string_to_sign})
}

fn curl(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: &[u8],
    data: Option<&str>,
) -> String {
    let mut command = format!("curl -X {method} {}", quoted(url));
    for (name, value) in headers {
        let header = if value.is_empty() {
            format!("{name};")
        } else {
            format!("{name}: {value}")
        };
        let _ = write!(command, " \\\n  -H {}", quoted(&header));
    }
    let _ = match (data, std::str::from_utf8(body)) {
        (None, _) => Ok(()),
        (Some(data), _) if data.starts_with('@') => {
            write!(command, " \\\n  --data-binary {}", quoted(data))
        }
        (Some(_), Ok(text)) => write!(command, " \\\n  --data-raw {}", quoted(text)),
        (Some(_), Err(_)) => Ok(()),
    };
    command.push('\n');
    command
}

/// For a POSIX shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A diagnosis for people.
pub(crate) fn explain(diagnosis: &Diagnosis) -> String {
    let difference = match diagnosis {
        Diagnosis::SameText => {
            return "Both sides signed the same text, so the keys differ: another AppSecret, or another signature method than \
                    X-Ca-Signature-Method says.\n"
                .to_owned();
        }
        Diagnosis::Differs(difference) => difference,
    };
    let shown = |side: &Option<String>| match side.as_deref() {
        None => "(not there)".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.to_owned(),
    };
    format!(
        "The first difference is {}\n  server: {}\n  ours:   {}\n{}\n",
        line_name(&difference.line),
        shown(&difference.server),
        shown(&difference.ours),
        difference.cause
    )
}

fn line_name(line: &Line) -> String {
    match line {
        Line::Method => "line 1, the method".to_owned(),
        Line::Accept => "line 2, Accept".to_owned(),
        Line::ContentMd5 => "line 3, Content-MD5".to_owned(),
        Line::ContentType => "line 4, Content-Type".to_owned(),
        Line::Date => "line 5, Date".to_owned(),
        Line::HeaderNames => "in the names of the signed headers".to_owned(),
        Line::Header(name) => format!("in the signed header {name}"),
        Line::Path => "in the path".to_owned(),
        Line::Parameter(name) => format!("in the parameter {name}"),
        Line::ParameterOrder => "in the order of the parameters".to_owned(),
    }
}
