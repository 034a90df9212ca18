//! Access log, metrics, admin pages.

use std::{io::Write as _, sync::Arc, time::Duration};

use paifang_gateway::{AccessLog, Gateway, Settings};
use paifang_model::Redacted;
use paifang_snapshot::wire::{App, Apps, Certificate, Credential, FORMAT, Proof};
use serde_json::Value;

use crate::support::*;

fn admin(gateway: &Gateway, path: &str) -> Answer {
    ask(
        gateway.admin(),
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
    )
}

#[test]
fn every_request_has_a_line_and_no_line_a_secret() {
    let echo = Echo::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let logged = Settings {
        access_log: AccessLog::File(path.clone()),
        ..settings()
    };
    let gateway = serving(logged, &echo);
    let address = gateway.addresses().http;
    let good = ask(
        address,
        "GET /echo/a%22b?AppCode=secret1 HTTP/1.1\r\nHost: www.example.com\r\nAuthorization: APPCODE secret2\r\n\r\n",
    );
    let refused = ask(
        address,
        "GET /nothing HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
    );
    let garbage = ask(address, "garbage secret3\r\n\r\n");
    gateway.drain();

    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    let line = |answer: &Answer| {
        let id = answer.header("x-ca-request-id").unwrap();
        lines.iter().find(|line| line["request_id"] == id).unwrap()
    };
    let good = line(&good);
    for (key, value) in [
        ("client_ip", "127.0.0.1"),
        ("method", "GET"),
        ("path", "/echo/a%22b"),
        ("host", "www.example.com"),
        ("protocol", "HTTP/1.1"),
        ("group", "ns/group"),
        ("api", "ns/echo"),
        ("stage", "RELEASE"),
        ("backend", "echo"),
    ] {
        assert_eq!(good[key], value, "{good}");
    }
    assert_eq!(
        (&good["status"], &good["release"], &good["attempts"]),
        (&200.into(), &3.into(), &1.into())
    );
    assert_eq!((&good["tls"], &good["cut"]), (&false.into(), &false.into()));
    assert_eq!(good["upstream"], echo.address.to_string());
    assert!(good["total_ms"].as_f64().unwrap() >= good["upstream_ms"].as_f64().unwrap());
    assert!(good["sent_bytes"].as_u64().unwrap() > 0);
    let time = good["time"].as_str().unwrap();
    assert!(
        time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T',
        "{time}"
    );
    let refused = line(&refused);
    assert_eq!(
        (&refused["status"], &refused["error_code"]),
        (&404.into(), &"I404NF".into())
    );
    assert_eq!(refused.get("upstream"), None);
    let garbage = line(&garbage);
    assert_eq!(
        (&garbage["status"], &garbage["error_code"]),
        (&400.into(), &"I400RU".into())
    );
    assert_eq!(garbage.get("path"), None);
}

#[test]
fn requests_and_connections_are_counted() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    for path in ["/mock", "/echo/a", "/nothing"] {
        ask(gateway.addresses().http, &get(path));
    }
    ask(gateway.addresses().http, "garbage\r\n\r\n");
    eventually("connections are closed", || {
        admin(&gateway, "/metrics")
            .body
            .contains("connections_open{listener=\"http\"} 0\n")
    });
    let text = admin(&gateway, "/metrics").body;
    for line in [
        "paifang_requests_total{group=\"ns/group\",class=\"2xx\"} 2\n",
        "paifang_requests_total{group=\"ns/group\",class=\"4xx\"} 1\n",
        "paifang_requests_total{group=\"unknown\",class=\"4xx\"} 1\n",
        "paifang_refusals_total{code=\"I404NF\"} 1\n",
        "paifang_refusals_total{code=\"I400RU\"} 1\n",
        "paifang_request_duration_seconds_count 4\n",
        "paifang_backend_duration_seconds_count{type=\"HTTP\"} 1\n",
        "paifang_backend_requests_total{backend=\"echo\",stage=\"RELEASE\",type=\"HTTP\",class=\"2xx\"} 1\n",
        "paifang_backend_attempts_total{backend=\"echo\",stage=\"RELEASE\",type=\"HTTP\"} 1\n",
        "paifang_backend_connections_total{backend=\"echo\",stage=\"RELEASE\",type=\"HTTP\"} 1\n",
        "paifang_backend_wait_seconds_total{backend=\"echo\",stage=\"RELEASE\",type=\"HTTP\"} ",
        "paifang_connections_total{listener=\"http\"} 4\n",
        "paifang_config_loads_total{result=\"ok\"} 1\n",
        "paifang_groups 1\n",
        "paifang_routes 2\n",
        "paifang_panics_total 0\n",
        "paifang_nonces 0\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn ready_begins_with_the_first_configuration() {
    let echo = Echo::start();
    let gateway = Gateway::start(settings()).unwrap();
    assert_eq!(admin(&gateway, "/livez").status, 200);
    let unready = admin(&gateway, "/readyz");
    assert_eq!(
        (unready.status, unready.body.as_str()),
        (503, "the first configuration is not loaded\n")
    );
    // A Service may send to it all the same, when its container was just started again. To say that nobody is at home would be wrong.
    let mut early = connect(gateway.addresses().http);
    early.write_all(get("/mock").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    gateway.apply(&snapshot(group(
        vec![domain("www.example.com")],
        "hello",
        echo.address,
    )));
    assert_eq!(admin(&gateway, "/readyz").status, 200);
    assert_eq!(read(&mut early).unwrap().status, 200);
    assert_eq!(ask(gateway.addresses().http, &get("/mock")).status, 200);
}

#[test]
fn an_end_before_the_first_configuration_waits_for_nobody() {
    let gateway = Gateway::start(settings()).unwrap();
    let mut early = connect(gateway.addresses().http);
    early.write_all(get("/mock").as_bytes()).unwrap();
    assert_eq!(gateway.drain().cut, 0);
    assert!(read(&mut early).is_none(), "it was not answered");
}

#[test]
fn the_dump_says_what_serves_and_no_secret() {
    let echo = Echo::start();
    let gateway = Gateway::start(settings()).unwrap();
    let mut snapshot = snapshot(group(
        vec![domain("www.example.com")],
        "planted-in-a-body",
        echo.address,
    ));
    snapshot.apps = Arc::new(Apps {
        format: FORMAT,
        apps: vec![App {
            name: name("app"),
            id: 7,
            disabled: false,
        }],
    });
    let credential = |proof| Credential {
        app: name("app"),
        name: "default".to_owned(),
        not_before_ms: None,
        expires_at_ms: None,
        proof,
    };
    snapshot.credentials = Arc::new(vec![
        credential(Proof::KeyPair {
            app_key: "planted-key".to_owned(),
            app_secret: Redacted::new("planted-secret".to_owned()),
        }),
        credential(Proof::AppCode {
            app_code: Redacted::new("planted-code".to_owned()),
        }),
    ]);
    let certificate = Certificate {
        key: Some(Redacted::new("planted-pem".to_owned())),
        ..Certificate::default()
    };
    snapshot.certificates = Arc::new([(name("cert"), certificate)].into());
    let applied = gateway.apply(&snapshot);

    let text = admin(&gateway, "/config").body;
    assert!(!text.contains("planted"), "{text}");
    assert!(!format!("{gateway:?} {applied:?} {snapshot:?}").contains("planted-secret"));
    assert!(!admin(&gateway, "/metrics").body.contains("planted"));
    let dump: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(dump["version"], applied.version);
    assert_eq!(dump["apps"], 1);
    assert_eq!(dump["groups"][0]["name"], "ns/group");
    assert_eq!(dump["groups"][0]["domains"][0]["host"], "www.example.com");
    let routes = &dump["groups"][0]["routes"];
    assert_eq!(
        (&routes[0]["api"], &routes[0]["release"], &routes[0]["hash"]),
        (&"ns/echo".into(), &3.into(), &"cafe".into())
    );
    assert_eq!(routes[0]["address"], format!("http://{}", echo.address));
    assert_eq!(routes[1]["address"], "mock 200");
}
