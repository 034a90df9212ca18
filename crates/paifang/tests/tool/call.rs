//! `paifang call`, against a running gateway.

use serde_json::Value;

use crate::run::{Running, Scratch, run};

const HOST: &str = "demo.localtest";

fn echo(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn apis_are_called_by_name() {
    let (scratch, gateway) = Running::with_echo("quickstart", &[]);
    gateway.says("served after");

    let open = gateway.call(&scratch, "hello", []);
    assert_eq!(
        (open.code, open.out.as_str(), open.err.as_str()),
        (0, "{\"hello\":\"world\"}\n", "")
    );

    let signed = gateway.call(
        &scratch,
        "default/get-forecast",
        [
            "--path",
            "city=杭州 /?",
            "-q",
            "days=2",
            "-H",
            "units: metric",
        ],
    );
    assert_eq!(signed.code, 0, "{}", signed.err);
    let echoed = echo(&signed.out);
    assert_eq!(
        (&echoed["path"], &echoed["headers"]["host"][0]),
        (&"/v1/forecast".into(), &"forecast.example.com".into())
    );

    let code = gateway.call(
        &scratch,
        "get-forecast",
        ["--path", "city=x", "--app-code", "--stage", "TEST"],
    );
    assert_eq!(
        echo(&code.out)["headers"]["host"][0],
        "forecast-test.example.com",
        "{}",
        code.err
    );

    let form = gateway.call(
        &scratch,
        "report-weather",
        ["--form", "a=b c&d", "--form", "e=", "--app", "mobile"],
    );
    assert_eq!(echo(&form.out)["body"], "a=b%20c%26d&e=", "{}", form.err);

    let json = gateway.call(&scratch, "report-weather", ["-d", "{\"a\":1}"]);
    assert_eq!(
        echo(&json.out)["headers"]["content-type"][0],
        "application/json; charset=utf-8",
        "{}",
        json.err
    );

    let head = gateway.call(&scratch, "hello", ["-i"]);
    assert!(
        head.out.starts_with("HTTP/1.1 200 OK\n") && head.out.contains("x-ca-request-id: "),
        "{}",
        head.out
    );
    assert_eq!(gateway.get(HOST, "/hello").0, 200);
}

#[test]
fn binary_bodies_come_back_as_base64() {
    let (scratch, gateway) = Running::with_echo("quickstart", &[]);
    gateway.says("served after");
    let file = scratch.dir().join("body");
    std::fs::write(&file, [0xff, 0, 1]).unwrap();
    let done = gateway.call(
        &scratch,
        "report-weather",
        ["-d", &format!("@{}", file.display())],
    );
    let echoed = echo(&done.out);
    assert_eq!(echoed["bodyBase64"], "/wAB", "{}", done.err);
    assert!(echoed.get("body").is_none());
}

#[test]
fn refusals_have_their_code_and_their_reason() {
    let (scratch, gateway) = Running::with_echo("quickstart", &[]);
    gateway.says("served after");
    let refused = gateway.call(
        &scratch,
        "get-forecast",
        ["--path", "city=x", "-q", "days=99"],
    );
    assert_eq!(refused.code, 4);
    assert!(refused.err.starts_with("400 I400IP "), "{}", refused.err);

    // Our folder has another secret than the gateway's.
    let other = Scratch::sample("quickstart");
    other.edit(
        "app.yaml",
        "quickstart-secret-not-for-production",
        "another-secret-than-the-gateway-has",
    );
    let wrong = gateway.call(&other, "get-forecast", ["--path", "city=x"]);
    assert_eq!(wrong.code, 4);
    assert!(
        wrong.err.starts_with("403 A403IS Invalid Signature"),
        "{}",
        wrong.err
    );
    assert!(
        wrong
            .err
            .contains("Both sides signed the same text, so the keys differ"),
        "{}",
        wrong.err
    );
    assert!(!wrong.err.contains("another-secret"), "{}", wrong.err);
}

#[test]
fn what_is_sent_is_told_without_secrets() {
    let (scratch, gateway) = Running::with_echo("quickstart", &[]);
    gateway.says("served after");
    let signed = gateway.call(&scratch, "get-forecast", ["--path", "city=x", "-v"]);
    assert!(
        signed
            .err
            .starts_with("> GET /forecast/x\n> host: demo.localtest  (at http://"),
        "{}",
        signed.err
    );
    assert!(
        signed.err.contains("string to sign\n  GET⏎\n"),
        "{}",
        signed.err
    );
    let code = gateway.call(
        &scratch,
        "get-forecast",
        ["--path", "city=x", "-v", "--app-code"],
    );
    assert!(
        code.err.contains("> authorization: [redacted]\n"),
        "{}",
        code.err
    );
    assert!(!code.err.contains("0123456789abcdef"), "{}", code.err);
}

#[test]
fn tls_is_verified_for_the_domain() {
    let (scratch, gateway) = Running::with_echo("07-domain-with-https", &[]);
    gateway.says("served after");
    let url = format!("https://{}", gateway.addresses["https"]);
    let (dir, ca) = (scratch.at(), scratch.dir().join("ca.crt"));
    let done = run([
        "call",
        "catalogue",
        "--dir",
        &dir,
        "--url",
        &url,
        "--cacert",
        ca.to_str().unwrap(),
    ]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(echo(&done.out)["path"], "/catalogue");
    let unknown = run(["call", "catalogue", "--dir", &dir, "--url", &url]);
    assert_eq!(unknown.code, 1);
    assert!(
        unknown
            .err
            .contains("name the issuer of its certificate with --cacert"),
        "{}",
        unknown.err
    );
}

#[test]
fn what_cannot_be_called_is_told() {
    let scratch = Scratch::sample("quickstart");
    let dir = scratch.at();
    let call = |args: &[&str]| {
        crate::run::finish(crate::run::paifang().arg("call").args(args).args([
            "--dir",
            &dir,
            "--url",
            "http://127.0.0.1:1",
        ]))
    };
    for (args, expected) in [
        (
            ["forecast"].as_slice(),
            "error: there is no Api `forecast`; there is get-forecast, hello, report-weather\n",
        ),
        (
            &["hello", "--stage", "PRE"],
            "error: Api default/hello is not published in PRE; it is in RELEASE, TEST: choose one with --stage\n",
        ),
        (
            &["get-forecast"],
            "error: the path /forecast/[city] needs city: add --path city=VALUE\n",
        ),
        (
            &["get-forecast", "--path", "city=x", "--path", "town=y"],
            "error: --path town: the path /forecast/[city] has no such parameter\n",
        ),
        (
            &["get-forecast", "--path", "city=x", "--app", "web"],
            "error: there is no App `web`; there is mobile\n",
        ),
        (
            &["hello"],
            "error: nobody listens at http://127.0.0.1:1: start `paifang standalone`, or name the gateway with --url",
        ),
    ] {
        let done = call(args);
        assert_eq!(done.code, 1, "{args:?}: {}", done.err);
        assert!(done.err.starts_with(expected), "{args:?}: {}", done.err);
    }
}
