//! The signature vectors: made with the official SDKs (Ref §1.7, V1 to V8 and V10; V9 is in `backend`), and one of the
//! PyPI client `aliyun-api-gateway-python` 0.1.0. Each verifies as it stands, in the string that the SDK signed, and no
//! longer once any one of its elements is changed.

use paifang_signing::{Algorithm, Key, Parts, Scratch, content_md5, verify};

const SECRET: &str = "MySecret";
const NONCE: &str = "11111111-2222-3333-4444-555555555555";
const STAMP: &str = "1700000000000";
const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
const JSON_UTF8: &str = "application/json; charset=utf-8";
const FORM_UTF8: &str = "application/x-www-form-urlencoded; charset=utf-8";
const NODE_LIST: &str = "x-ca-key,x-ca-nonce,x-ca-stage,x-ca-timestamp";
const PYTHON_LIST: &str = "X-Ca-Key,X-Ca-Nonce,X-Ca-Timestamp";
const JAVA_LIST: &str = "x-ca-nonce,x-ca-timestamp,x-ca-key,x-ca-signature-method,x-ca-stage";

#[derive(Clone)]
struct Vector {
    name: &'static str,
    secret: &'static str,
    algorithm: Algorithm,
    method: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    form: Option<&'static str>,
    headers: Vec<(&'static str, String)>,
    list: &'static str,
    /// The string that the SDK signed, `⏎` for a line feed.
    string: &'static str,
    signature: String,
}

fn headers(values: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    values
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect()
}

fn node(stage: &'static str, more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let common = [
        ("accept", "application/json"),
        ("x-ca-key", "203753385"),
        ("x-ca-nonce", NONCE),
        ("x-ca-stage", stage),
        ("x-ca-timestamp", STAMP),
    ];
    headers(&[&common[..], more].concat())
}

fn python(more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let common = [
        ("Accept", "application/json"),
        ("X-Ca-Key", "203753385"),
        ("X-Ca-Nonce", NONCE),
        ("X-Ca-Timestamp", STAMP),
    ];
    headers(&[&common[..], more].concat())
}

fn java(method: &'static str, more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let common = [
        ("accept", JSON_UTF8),
        ("ca_version", "1.1.2"),
        ("date", DATE),
        ("user-agent", "ALIYUN-ANDROID-DEMO"),
        ("x-ca-key", "203753385"),
        ("x-ca-nonce", NONCE),
        ("x-ca-signature-method", method),
        ("x-ca-timestamp", STAMP),
    ];
    headers(&[&common[..], more].concat())
}

fn vectors() -> Vec<Vector> {
    let plain = Vector {
        name: "",
        secret: SECRET,
        algorithm: Algorithm::HmacSha256,
        method: "POST",
        path: "",
        query: None,
        form: None,
        headers: vec![],
        list: NODE_LIST,
        string: "",
        signature: String::new(),
    };
    vec![
        Vector {
            name: "V1 Node GET, query with Chinese, a space and an empty value",
            method: "GET",
            path: "/web/cloudapi",
            query: Some("b=2&a=1&empty=&name=%E5%BC%A0%20%E4%B8%89"),
            headers: node("RELEASE", &[]),
            string: "GET⏎application/json⏎⏎⏎⏎x-ca-key:203753385⏎x-ca-nonce:11111111-2222-3333-4444-555555555555⏎\
                     x-ca-stage:RELEASE⏎x-ca-timestamp:1700000000000⏎/web/cloudapi?a=1&b=2&empty&name=张 三",
            signature: "1iTEjTWyh/qdmdYfVO+K0zjsms8T8r2wzBxjOgHcu64=".into(),
            ..plain.clone()
        },
        Vector {
            name: "V2 Node POST form with a query parameter",
            path: "/http2test/test",
            query: Some("param1=test"),
            form: Some("username=xiaoming&password=123456789"),
            headers: node("RELEASE", &[("content-type", FORM_UTF8)]),
            string: "POST⏎application/json⏎⏎application/x-www-form-urlencoded; charset=utf-8⏎⏎x-ca-key:203753385⏎\
                     x-ca-nonce:11111111-2222-3333-4444-555555555555⏎x-ca-stage:RELEASE⏎x-ca-timestamp:1700000000000⏎\
                     /http2test/test?param1=test&password=123456789&username=xiaoming",
            signature: "4eWHZmKE8QDh6k5aE0xnstaMbzPM3UpKX2uBk5qm/q8=".into(),
            ..plain.clone()
        },
        Vector {
            name: "V3 Node POST JSON with Content-MD5",
            path: "/orders/42",
            headers: node(
                "RELEASE",
                &[
                    ("content-type", JSON_UTF8),
                    (
                        "content-md5",
                        &content_md5(r#"{"hello":"世界"}"#.as_bytes()),
                    ),
                ],
            ),
            string: "POST⏎application/json⏎Aulw/A6cvXyhaQxbZTIGCQ==⏎application/json; charset=utf-8⏎⏎\
                     x-ca-key:203753385⏎x-ca-nonce:11111111-2222-3333-4444-555555555555⏎x-ca-stage:RELEASE⏎\
                     x-ca-timestamp:1700000000000⏎/orders/42",
            signature: "pPl6ektBRH3M503WYFHXmlRL870hUxy/J4IUu4UXFpI=".into(),
            ..plain.clone()
        },
        Vector {
            name: "V4 Node GET with Date, another stage and a custom signed header",
            method: "GET",
            path: "/p",
            headers: node("TEST", &[("date", DATE), ("x-biz", "abc")]),
            list: "x-biz,x-ca-key,x-ca-nonce,x-ca-stage,x-ca-timestamp",
            string: "GET⏎application/json⏎⏎⏎Tue, 14 Nov 2023 22:13:20 GMT⏎x-biz:abc⏎x-ca-key:203753385⏎\
                     x-ca-nonce:11111111-2222-3333-4444-555555555555⏎x-ca-stage:TEST⏎x-ca-timestamp:1700000000000⏎/p",
            signature: "mDp0x1mXsYbWzRlKbS/lA0rNgmhFjMp3x2nWlgabdTY=".into(),
            ..plain.clone()
        },
        Vector {
            name: "V5 Python POST form, capitalised header names",
            path: "/http2test/test",
            query: Some("param1=test"),
            form: Some("username=xiaoming&password=123456789"),
            headers: python(&[("Content-Type", "application/x-www-form-urlencoded")]),
            list: PYTHON_LIST,
            string: "POST⏎application/json⏎⏎application/x-www-form-urlencoded⏎⏎X-Ca-Key:203753385⏎\
                     X-Ca-Nonce:11111111-2222-3333-4444-555555555555⏎X-Ca-Timestamp:1700000000000⏎\
                     /http2test/test?param1=test&password=123456789&username=xiaoming",
            signature: "qS9T12KcxjCfIQ5Oqew+ie2+W65zcTmyiGcGTm+Yd8U=".into(),
            ..plain.clone()
        },
        Vector {
            name: "V6 Python POST binary",
            path: "/orders/42",
            headers: python(&[
                ("Content-Type", "application/octet-stream"),
                (
                    "Content-MD5",
                    &content_md5(r#"{"hello":"世界"}"#.as_bytes()),
                ),
            ]),
            list: PYTHON_LIST,
            string: "POST⏎application/json⏎Aulw/A6cvXyhaQxbZTIGCQ==⏎application/octet-stream⏎⏎X-Ca-Key:203753385⏎\
                     X-Ca-Nonce:11111111-2222-3333-4444-555555555555⏎X-Ca-Timestamp:1700000000000⏎/orders/42",
            signature: "Gfm906tGGmyvGlD5XR2xo7POMP+ZwIjUTuUbaeY2vA8=".into(),
            ..plain.clone()
        },
        Vector {
            name: "V7 Java path parameter, repeated query key, empty form value, unsorted list",
            path: "/v2/getUserInfo/10000003",
            query: Some("sex=boy&tag=t1&tag=t2"),
            form: Some("name=%E5%BC%A0%E4%B8%89&empty="),
            headers: java(
                "HmacSHA256",
                &[("content-type", FORM_UTF8), ("x-ca-stage", "PRE")],
            ),
            list: JAVA_LIST,
            string: "POST⏎application/json; charset=utf-8⏎⏎application/x-www-form-urlencoded; charset=utf-8⏎\
                     Tue, 14 Nov 2023 22:13:20 GMT⏎x-ca-key:203753385⏎\
                     x-ca-nonce:11111111-2222-3333-4444-555555555555⏎x-ca-signature-method:HmacSHA256⏎\
                     x-ca-stage:PRE⏎x-ca-timestamp:1700000000000⏎/v2/getUserInfo/10000003?empty&name=张三&sex=boy&tag=t1",
            signature: "Qs/T0KCiOomoUCROgw5oxv9DG0AZnUfqfRvlCTpkc8Y=".into(),
            ..plain.clone()
        },
        Vector {
            name: "V8 Java JSON, HmacSHA1",
            algorithm: Algorithm::HmacSha1,
            path: "/orders",
            headers: java(
                "HmacSHA1",
                &[
                    ("content-type", JSON_UTF8),
                    ("content-md5", &content_md5(br#"{"a":1}"#)),
                    ("x-ca-stage", "TEST"),
                ],
            ),
            list: JAVA_LIST,
            string: "POST⏎application/json; charset=utf-8⏎u2y1xo30ZSlByvZSo2by2A==⏎application/json; charset=utf-8⏎\
                     Tue, 14 Nov 2023 22:13:20 GMT⏎x-ca-key:203753385⏎\
                     x-ca-nonce:11111111-2222-3333-4444-555555555555⏎x-ca-signature-method:HmacSHA1⏎x-ca-stage:TEST⏎\
                     x-ca-timestamp:1700000000000⏎/orders",
            signature: "d+6ybS3RyXSZGl7fNyKQsCT67Sg=".into(),
            ..plain.clone()
        },
        Vector {
            name: "V10 Java non-ASCII path and a space",
            method: "GET",
            path: "/users/%E5%BC%A0%E4%B8%89/a%20b",
            form: Some(""),
            headers: java("HmacSHA256", &[("content-type", FORM_UTF8)]),
            list: "x-ca-nonce,x-ca-timestamp,x-ca-key,x-ca-signature-method",
            string: "GET⏎application/json; charset=utf-8⏎⏎application/x-www-form-urlencoded; charset=utf-8⏎\
                     Tue, 14 Nov 2023 22:13:20 GMT⏎x-ca-key:203753385⏎\
                     x-ca-nonce:11111111-2222-3333-4444-555555555555⏎x-ca-signature-method:HmacSHA256⏎\
                     x-ca-timestamp:1700000000000⏎/users/张三/a b",
            signature: "+u6Zgyd9M5yhRNvzfW+SZj6aDAyQGvxDI/hBoR5fPjo=".into(),
            ..plain.clone()
        },
        aliyun_api_gateway_python(plain),
    ]
}

/// The frozen-clock vector of the PyPI client, with the secret of the sample credentials.
fn aliyun_api_gateway_python(plain: Vector) -> Vector {
    Vector {
        name: "aliyun-api-gateway-python 0.1.0 GET",
        secret: PYTHON_PACKAGE_SECRET,
        method: "GET",
        path: "/t/get",
        query: Some("b=2&a=%E4%B8%AD+x&e="),
        headers: headers(&[
            ("Accept", "application/json"),
            ("X-Ca-Key", "203000000"),
            ("X-Ca-Nonce", "11111111-1111-4111-8111-111111111111"),
            ("X-Ca-Signature-Method", "HmacSHA256"),
            ("X-Ca-Timestamp", "1795392000000"),
        ]),
        list: "X-Ca-Key,X-Ca-Nonce,X-Ca-Signature-Method,X-Ca-Timestamp",
        string: "GET⏎application/json⏎⏎⏎⏎X-Ca-Key:203000000⏎X-Ca-Nonce:11111111-1111-4111-8111-111111111111⏎\
                 X-Ca-Signature-Method:HmacSHA256⏎X-Ca-Timestamp:1795392000000⏎/t/get?a=中 x&b=2&e",
        signature: "Zue74fvvwWQ2VUeKOo86Zh0fLXJaocH51KwUaPoRB3Y=".into(),
        ..plain
    }
}

const PYTHON_PACKAGE_SECRET: &str = "SECRET0000TEST";

fn verifies(vector: &Vector) -> Result<(), String> {
    let parts = Parts {
        method: vector.method,
        raw_path: vector.path,
        query: vector.query,
        form: vector.form.map(str::as_bytes),
        headers: &vector.headers[..],
    };
    let (key, list) = (Key::new(vector.secret), Some(vector.list.as_bytes()));
    let mut scratch = Scratch::new();
    verify(
        &parts,
        vector.signature.as_bytes(),
        list,
        vector.algorithm,
        &key,
        &mut scratch,
    )
    .map_err(|mismatch| mismatch.hint())
}

fn string_to_sign(vector: &Vector) -> String {
    let forged = Vector {
        signature: String::new(),
        ..vector.clone()
    };
    verifies(&forged)
        .expect_err("no signature verifies nothing")
        .trim_matches('`')
        .replace('#', "\n")
}

#[test]
fn every_vector_verifies() {
    assert_eq!(vectors().len(), 10);
    for vector in vectors() {
        assert_eq!(
            string_to_sign(&vector),
            vector.string.replace('⏎', "\n"),
            "{}",
            vector.name
        );
        assert_eq!(verifies(&vector), Ok(()), "{}", vector.name);
    }
}

#[test]
fn no_vector_verifies_with_any_element_changed() {
    for vector in vectors() {
        let mut changed = tampered(&vector);
        changed.extend(tampered_headers(&vector));
        for (element, tampered) in changed {
            assert!(
                verifies(&tampered).is_err(),
                "{} with another {element}",
                vector.name
            );
        }
    }
}

/// One change to each element but the headers.
fn tampered(vector: &Vector) -> Vec<(String, Vector)> {
    let with = |element: &str, change: fn(&mut Vector)| {
        let mut tampered = vector.clone();
        change(&mut tampered);
        (element.to_owned(), tampered)
    };
    let mut changes = vec![
        with("method", |v| v.method = "PUT"),
        with("path", |v| v.path = "/other"),
        with("extra query parameter", |v| v.query = Some("zz=1")),
        with("extra form parameter", |v| v.form = Some("zz=1")),
        with("secret", |v| v.secret = "MySecres"),
        with("signature", |v| v.signature.replace_range(..1, "A")),
        with("shorter list", |v| {
            v.list = v.list.split_once(',').expect("several names").1
        }),
        with("longer list", |v| v.list = "x-ca-key,x-more"),
        with("case of the list", |v| {
            v.list = if v.list.contains("x-ca") {
                PYTHON_LIST
            } else {
                NODE_LIST
            }
        }),
        with("algorithm", |v| {
            v.algorithm = match v.algorithm {
                Algorithm::HmacSha1 => Algorithm::HmacSha256,
                Algorithm::HmacSha256 => Algorithm::HmacSha1,
            }
        }),
    ];
    if vector.query.is_some() {
        changes.push(with("query dropped", |v| v.query = None));
    }
    if vector.form.is_some_and(|form| !form.is_empty()) {
        changes.push(with("form dropped", |v| v.form = None));
    }
    changes
}

/// Each signed header changed, and each dropped.
fn tampered_headers(vector: &Vector) -> Vec<(String, Vector)> {
    let fixed = ["accept", "content-md5", "content-type", "date"];
    let mut changes = Vec::new();
    for (index, (name, value)) in vector.headers.iter().enumerate() {
        let lower = name.to_ascii_lowercase();
        let signed = fixed.contains(&lower.as_str())
            || vector
                .list
                .to_ascii_lowercase()
                .split(',')
                .any(|l| l == lower);
        if signed {
            let mut changed = vector.clone();
            changed.headers[index].1 = format!("{value}x");
            changes.push((format!("value of {name}"), changed));
            let mut dropped = vector.clone();
            dropped.headers.remove(index);
            changes.push((format!("missing {name}"), dropped));
        }
    }
    changes
}

#[test]
fn headers_that_are_not_signed_may_change() {
    for mut vector in vectors() {
        vector.headers.push(("x-forwarded-for", "192.0.2.1".into()));
        vector
            .headers
            .retain(|(name, _)| !["ca_version", "user-agent"].contains(name));
        assert_eq!(verifies(&vector), Ok(()), "{}", vector.name);
    }
}
