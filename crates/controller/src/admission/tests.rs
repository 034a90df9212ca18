use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Mutex,
};

use http_body_util::BodyExt as _;
use hyper::client::conn::http1::{SendRequest, handshake};
use paifang_compiler::{AnyObject, Kind, ObjectId, Problem, Reason};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::*;
use crate::pki::testing;

/// Says what it was told to say, and writes down what it was asked.
struct Told {
    says: fn() -> Option<Admission>,
    asked: Mutex<Vec<String>>,
}

impl Judge for Told {
    fn admit(&self, request: Request<'_>) -> Option<Admission> {
        let asked = match request {
            Request::Write { name, object } => {
                let (kind, uid) = match object {
                    AnyObject::ApiGroup(object) => (Kind::ApiGroup, &object.uid),
                    AnyObject::BackendService(object) => (Kind::BackendService, &object.uid),
                    AnyObject::Api(object) => (Kind::Api, &object.uid),
                    AnyObject::App(object) => (Kind::App, &object.uid),
                    AnyObject::Authorization(object) => (Kind::Authorization, &object.uid),
                    AnyObject::DomainBinding(object) => (Kind::DomainBinding, &object.uid),
                };
                let uid = uid.as_deref().unwrap_or("none");
                format!("write {} {uid}", ObjectId::new(kind, name))
            }
            Request::Delete { id } => format!("delete {id}"),
        };
        self.asked.lock().unwrap().push(asked);
        (self.says)()
    }
}

fn says(refusals: Vec<Problem>, warnings: &[&str]) -> Option<Admission> {
    Some(Admission {
        refusals,
        warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
    })
}

fn fine() -> Option<Admission> {
    says(Vec::new(), &[])
}

fn path() -> Problem {
    Problem::new(
        "spec.request.path",
        Reason::InvalidPath,
        "does not begin with /",
        "write /forecast",
    )
}

fn webhook(
    says: fn() -> Option<Admission>,
) -> (Webhook, Arc<Told>, paifang_runtime::metrics::Metrics) {
    let told = Arc::new(Told {
        says,
        asked: Mutex::default(),
    });
    let registry = paifang_runtime::metrics::Metrics::new("paifang", "0.0.0");
    let webhook = Webhook {
        judge: Arc::<Told>::clone(&told),
        metrics: AdmissionMetrics::register(&registry),
        questions: Semaphore::new(MOST_QUESTIONS),
    };
    (webhook, told, registry)
}

fn spec(kind: &str) -> Value {
    match kind {
        "ApiGroup" => json!({}),
        "BackendService" => json!({"type": "Mock", "stages": {"TEST": {"mock": {}}}}),
        "Api" => json!({
            "groupRef": {"name": "g"}, "request": {"method": "GET", "path": "/a"},
            "backend": {"mock": {}}, "stages": {"TEST": {}},
        }),
        "App" => json!({}),
        "Authorization" => {
            json!({"apis": [{"name": "a"}], "apps": [{"name": "b"}], "stage": "TEST"})
        }
        "DomainBinding" => json!({"groupRef": {"name": "g"}, "domain": "a.example.com"}),
        other => panic!("{other}"),
    }
}

fn object(kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "paifang.dev/v1alpha1", "kind": kind,
        "metadata": {
            "namespace": "demo", "name": "a", "uid": "u1", "generation": 2,
            "creationTimestamp": "2026-11-01T10:00:00Z",
            "managedFields": [{"manager": "kubectl", "operation": "Apply"}],
        },
        "spec": spec, "status": {"anything": [1, 2]},
    })
}

fn review(kind: &str, operation: &str, object: Value, old: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "q1", "kind": {"group": "paifang.dev", "version": "v1alpha1", "kind": kind},
            "resource": {"group": "paifang.dev", "version": "v1alpha1", "resource": "x"},
            "name": "a", "namespace": "demo", "operation": operation,
            "userInfo": {"username": "me"}, "object": object, "oldObject": old,
            "dryRun": true, "options": {"kind": "CreateOptions"},
        },
    })
}

async fn post(webhook: &Webhook, body: impl Into<Bytes>) -> (StatusCode, Bytes) {
    let request = HttpRequest::post(PATH)
        .body(Full::new(body.into()))
        .unwrap();
    let response = webhook.respond(request).await;
    let status = response.status();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

/// The `response` of the answer.
async fn ask(webhook: &Webhook, review: &Value) -> Value {
    let (status, body) = post(webhook, review.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let mut answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"]["uid"], "q1");
    answer["response"].take()
}

fn asked(told: &Told) -> Vec<String> {
    std::mem::take(&mut *told.asked.lock().unwrap())
}

#[tokio::test]
async fn every_kind_is_asked_about_with_its_identity() {
    let (webhook, told, metrics) = webhook(fine);
    for kind in Kind::ALL.map(Kind::name) {
        let created = object(kind, spec(kind));
        for review in [
            review(kind, "CREATE", created.clone(), Value::Null),
            review(kind, "UPDATE", created.clone(), object(kind, json!({}))),
            review(kind, "DELETE", Value::Null, created),
        ] {
            let response = ask(&webhook, &review).await;
            assert_eq!(response, json!({"uid": "q1", "allowed": true}), "{kind}");
        }
        assert_eq!(
            asked(&told),
            [
                format!("write {kind} demo/a u1"),
                format!("write {kind} demo/a u1"),
                format!("delete {kind} demo/a"),
            ]
        );
    }
    let text = metrics.text();
    let line =
        "paifang_admission_requests_total{kind=\"Api\",operation=\"delete\",result=\"allowed\"} 1";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("paifang_admission_duration_seconds_count 18"),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_not_asked_about_passes() {
    let (webhook, told, metrics) = webhook(|| says(vec![path()], &[]));
    let api = || object("Api", spec("Api"));
    let mut other_group = review("Api", "CREATE", api(), Value::Null);
    other_group["request"]["kind"]["group"] = json!("example.com");
    let mut status = review("Api", "UPDATE", api(), api());
    status["request"]["subResource"] = json!("status");
    let mut going = review("Api", "UPDATE", api(), object("Api", json!({})));
    going["request"]["object"]["metadata"]["deletionTimestamp"] = json!("2026-11-01T10:00:00Z");
    let mut gone = review("Api", "DELETE", Value::Null, api());
    gone["request"]["oldObject"]["metadata"]["deletionTimestamp"] = json!("2026-11-01T10:00:00Z");
    for review in [
        review("Pod", "CREATE", json!({"spec": 5}), Value::Null),
        review("Api", "CONNECT", api(), Value::Null),
        other_group,
        status,
        going,
        gone,
    ] {
        let response = ask(&webhook, &review).await;
        assert_eq!(response, json!({"uid": "q1", "allowed": true}), "{review}");
    }
    assert!(asked(&told).is_empty());
    let text = metrics.text();
    assert!(
        text.contains("kind=\"other\",operation=\"create\",result=\"unchecked\"} 2"),
        "{text}"
    );
}

#[tokio::test]
async fn refusals_are_told_with_field_and_fix() {
    let (webhook, ..) = webhook(|| says(vec![path()], &["it would take 3 Apis offline"]));
    let review = review("Api", "CREATE", object("Api", spec("Api")), Value::Null);
    assert_eq!(
        ask(&webhook, &review).await,
        json!({
            "uid": "q1", "allowed": false,
            "warnings": ["it would take 3 Apis offline"],
            "status": {
                "status": "Failure", "code": 422, "reason": "Invalid",
                "message": "spec.request.path: does not begin with /; write /forecast",
                "details": {
                    "group": "paifang.dev", "kind": "Api", "name": "a",
                    "causes": [{
                        "reason": "FieldValueInvalid", "field": "spec.request.path",
                        "message": "does not begin with /; write /forecast",
                    }],
                },
            },
        })
    );
}

#[tokio::test]
async fn a_block_forbids() {
    let (webhook, told, _) = webhook(|| {
        let message = "cannot be removed: published Apis go through it";
        says(
            vec![Problem::new("spec.stages", Reason::StageInUse, message, "")],
            &[],
        )
    });
    let review = review(
        "BackendService",
        "DELETE",
        Value::Null,
        object("BackendService", json!({})),
    );
    let response = ask(&webhook, &review).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 403);
    assert_eq!(response["status"]["reason"], "Forbidden");
    assert_eq!(asked(&told), ["delete BackendService demo/a"]);
}

#[tokio::test]
async fn the_object_names_itself_when_the_question_does_not() {
    let (webhook, told, _) = webhook(fine);
    let mut review = review("App", "DELETE", Value::Null, object("App", json!({})));
    // So it is when a whole collection is deleted.
    review["request"]["name"] = json!("");
    ask(&webhook, &review).await;
    assert_eq!(asked(&told), ["delete App demo/a"]);
    review["request"]["oldObject"] = Value::Null;
    let response = ask(&webhook, &review).await;
    assert_eq!(response["allowed"], true);
    assert!(
        response["warnings"][0]
            .as_str()
            .unwrap()
            .contains("no name yet")
    );
}

#[tokio::test]
async fn a_spec_of_another_shape_is_refused_with_its_place() {
    let (webhook, told, _) = webhook(fine);
    let cases = [
        ("request.method", json!(5), "spec.request.method: "),
        ("stages", json!(["TEST"]), "spec.stages: "),
        (
            "request.parameters",
            json!([{"name": "a", "in": "Nowhere", "type": "String"}]),
            "spec.request.parameters[0].in: ",
        ),
    ];
    for (at, value, expected) in cases {
        let mut wrong = spec("Api");
        let mut place = &mut wrong;
        for key in at.split('.') {
            place = &mut place[key];
        }
        *place = value;
        let response = ask(
            &webhook,
            &review("Api", "CREATE", object("Api", wrong), Value::Null),
        )
        .await;
        assert_eq!(response["allowed"], false, "{at}");
        assert_eq!(response["status"]["reason"], "Invalid");
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.starts_with(expected), "{message}");
        assert!(
            message.ends_with("write it as `kubectl explain` shows"),
            "{message}"
        );
    }
    let response = ask(
        &webhook,
        &review(
            "Api",
            "CREATE",
            json!({"metadata": {"name": "a"}}),
            Value::Null,
        ),
    )
    .await;
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("spec: "), "{message}");
    assert!(asked(&told).is_empty());
}

#[tokio::test]
async fn an_edit_that_leaves_the_spec_alone_is_never_refused() {
    let (webhook, ..) = webhook(|| says(vec![path()], &["more"]));
    let api = || object("Api", spec("Api"));
    let mut labelled = api();
    labelled["metadata"]["labels"] = json!({"team": "a"});
    let response = ask(&webhook, &review("Api", "UPDATE", labelled, api())).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(
        response["warnings"],
        json!([
            "spec.request.path: does not begin with /; write /forecast",
            "more"
        ])
    );
}

#[tokio::test]
async fn what_is_told_is_bounded_and_clean() {
    let (webhook, ..) = webhook(|| {
        let problem = |at| {
            Problem::new(
                format!("spec.a[{at}]"),
                Reason::TooMany,
                "b\u{1b}[31m\nc",
                "",
            )
        };
        let mut warnings = vec!["ä".repeat(300), "two\nlines".to_owned()];
        warnings.resize(25, "w".to_owned());
        Some(Admission {
            refusals: (0..50).map(problem).collect(),
            warnings,
        })
    });
    let review = review("Api", "CREATE", object("Api", spec("Api")), Value::Null);
    let response = ask(&webhook, &review).await;
    let message = response["status"]["message"].as_str().unwrap();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 22);
    assert_eq!(lines[0], "50 problems:");
    assert_eq!(lines[1], "- spec.a[0]: b [31m c");
    assert_eq!(lines[21], "… and 30 more");
    assert_eq!(
        response["status"]["details"]["causes"]
            .as_array()
            .unwrap()
            .len(),
        20
    );
    let warnings = response["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 10);
    assert_eq!(warnings[0].as_str().unwrap().chars().count(), 256);
    assert_eq!(warnings[1], "two lines");
    assert_eq!(warnings[9], "… and 16 more warnings");
}

#[tokio::test]
async fn long_problems_leave_room_for_the_count() {
    let (webhook, ..) = webhook(|| {
        let problem = |_| Problem::new("spec", Reason::TooLong, "ä".repeat(4_000), "");
        Some(Admission {
            refusals: (0..9).map(problem).collect(),
            warnings: Vec::new(),
        })
    });
    let review = review("Api", "CREATE", object("Api", spec("Api")), Value::Null);
    let response = ask(&webhook, &review).await;
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.len() <= 4 << 10, "{}", message.len());
    assert!(message.ends_with("… and 6 more"), "{message}");
}

#[tokio::test]
async fn nothing_is_refused_for_our_own_faults() {
    type Says = fn() -> Option<Admission>;
    let cases: [(Says, &str, &str); 2] = [
        (
            || None,
            "paifang-controller is starting; not checked at admission",
            "unchecked",
        ),
        (
            || panic!("oh"),
            "paifang-controller: the check broke off; not checked at admission",
            "failed",
        ),
    ];
    for (says, warning, result) in cases {
        let (webhook, _, metrics) = webhook(says);
        let review = review("Api", "CREATE", object("Api", spec("Api")), Value::Null);
        let response = ask(&webhook, &review).await;
        assert_eq!(
            response,
            json!({"uid": "q1", "allowed": true, "warnings": [warning]})
        );
        assert!(metrics.text().contains(&format!("result=\"{result}\"}} 1")));
    }
    let (webhook, ..) = webhook(fine);
    let mut odd = review("Api", "CREATE", object("Api", spec("Api")), Value::Null);
    odd["request"]["object"]["metadata"]["name"] = json!(["not", "a", "name"]);
    let response = ask(&webhook, &odd).await;
    assert_eq!(response["allowed"], true);
    assert!(
        response["warnings"][0]
            .as_str()
            .unwrap()
            .contains("not understood")
    );
}

#[tokio::test]
async fn a_check_that_takes_too_long_is_not_waited_for() {
    let (webhook, ..) = webhook(|| {
        std::thread::sleep(Duration::from_millis(300));
        fine()
    });
    let review = review("Api", "CREATE", object("Api", spec("Api")), Value::Null);
    let asked = Asked::read(review.to_string().as_bytes());
    assert!(asked.is_ok());
    let soon = Instant::now() + Duration::from_millis(1);
    let answer = webhook
        .answer(review.to_string().into(), soon)
        .await
        .unwrap();
    assert_eq!(answer.refusal, None);
    assert!(answer.warnings[0].contains("took too long"), "{answer:?}");
}

#[test]
fn an_answer_comes_before_the_api_server_gives_up() {
    for (uri, expected) in [
        ("/validate?timeout=2s", 1_800),
        ("/validate?a=b&timeout=5s", 4_500),
        ("/validate?timeout=30s", 8_000),
        ("/validate?timeout=soon", 8_000),
        ("/validate", 8_000),
    ] {
        let patience = patience(&Uri::from_static(uri));
        assert_eq!(patience, Duration::from_millis(expected), "{uri}");
    }
}

#[tokio::test]
async fn what_is_no_question_is_not_answered() {
    let (webhook, ..) = webhook(fine);
    let mut old = review("Api", "CREATE", object("Api", spec("Api")), Value::Null);
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    for (body, expected) in [
        (
            old.to_string(),
            "admission.k8s.io/v1beta1 is not spoken here",
        ),
        ("hello".to_owned(), "not an AdmissionReview"),
        (
            json!({"apiVersion": "admission.k8s.io/v1", "request": {}}).to_string(),
            "not an AdmissionReview",
        ),
    ] {
        let (status, text) = post(&webhook, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains(expected), "{text}");
    }
    let (status, _) = post(&webhook, vec![b' '; LARGEST_BODY + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    for (request, expected) in [
        (HttpRequest::get(PATH), StatusCode::METHOD_NOT_ALLOWED),
        (HttpRequest::post("/other"), StatusCode::NOT_FOUND),
    ] {
        let request = request.body(Full::new(Bytes::new())).unwrap();
        assert_eq!(webhook.respond(request).await.status(), expected);
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// As an API server does, that was told the bundle and the name of the Service.
async fn connect(
    address: SocketAddr,
    bundle: &str,
) -> Result<(Sender, task::JoinHandle<()>), String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from("paifang-webhook.paifang-system.svc").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (sender, driver) = handshake(TokioIo::new(stream)).await.unwrap();
    let driver = task::spawn(async move { drop(driver.await) });
    Ok((sender, driver))
}

async fn call(sender: &mut Sender) -> Result<Value, hyper::Error> {
    let review = review("Api", "CREATE", object("Api", spec("Api")), Value::Null);
    let request = HttpRequest::post(PATH)
        .header(header::HOST, "paifang-webhook.paifang-system.svc")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))
        .unwrap();
    let response = sender.send_request(request).await?;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let body = response.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn over_tls_certificates_are_swapped_under_connections_that_stay_and_the_end_is_clean() {
    let (first, second) = (testing::make(), testing::make());
    let bundle = |made: &testing::Made| made.material().ca_bundle.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (material, receiver) = watch::channel(Arc::new(Material::default()));
    let (stop, stopped) = watch::channel(false);
    let (webhook, told, _) = webhook(fine);
    let server = task::spawn(serve(
        listener,
        receiver,
        webhook.judge,
        webhook.metrics,
        stopped,
    ));

    // Without a certificate nobody is answered, and nobody is turned away.
    let first_bundle = bundle(&first);
    let mut early = task::spawn(async move { connect(address, &first_bundle).await });
    assert!(
        timeout(Duration::from_millis(200), &mut early)
            .await
            .is_err()
    );
    material.send_replace(Arc::new(first.material()));
    let (mut kept, _driver) = early.await.unwrap().unwrap();
    assert_eq!(call(&mut kept).await.unwrap()["response"]["allowed"], true);

    material.send_replace(Arc::new(second.material()));
    let error = connect(address, &bundle(&first))
        .await
        .map(drop)
        .unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let (mut new, new_driver) = connect(address, &bundle(&second)).await.unwrap();
    call(&mut new).await.unwrap();
    call(&mut kept).await.unwrap();
    assert_eq!(asked(&told).len(), 3);

    stop.send_replace(true);
    sleep(Duration::from_millis(200)).await;
    // The API server may not have heard yet.
    call(&mut kept).await.unwrap();
    connect(address, &bundle(&second)).await.map(drop).unwrap();
    timeout(LAME_DUCK + Duration::from_secs(2), server)
        .await
        .unwrap()
        .unwrap();
    timeout(Duration::from_secs(2), new_driver)
        .await
        .unwrap()
        .unwrap();
    assert!(call(&mut new).await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
}
