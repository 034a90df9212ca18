//! The encoding traps of the official clients (Ref §1.6), a row each. Signatures of rows that name a client were made
//! by running that client: npm `aliyun-api-gateway` 1.1.6 against a local listener, PyPI `aliyun-api-gateway-sign` 1.0.4
//! with its clock and UUID pinned. A row without one signs the given string itself.

use paifang_signing::{Algorithm, Key, Parts, Scratch, verify};

const SECRET: &str = "MySecret";
const FORM: &str = "application/x-www-form-urlencoded";
const FORM_UTF8: &str = "application/x-www-form-urlencoded; charset=utf-8";
const NODE: &str = "x-ca-key,x-ca-nonce,x-ca-stage,x-ca-timestamp";
const PYTHON: &str = "X-Ca-Key,X-Ca-Nonce,X-Ca-Timestamp";
const HEADERS: [(&str, &str); 5] = [
    ("accept", "application/json"),
    ("x-ca-key", "203753385"),
    ("x-ca-nonce", "11111111-2222-3333-4444-555555555555"),
    ("x-ca-stage", "RELEASE"),
    ("x-ca-timestamp", "1700000000000"),
];

/// What is sent, beside [`HEADERS`].
struct Sent {
    method: &'static str,
    target: &'static str,
    content_type: Option<&'static str>,
    body: Option<&'static str>,
    list: &'static str,
}

const GET: Sent = Sent {
    method: "GET",
    target: "/t",
    content_type: None,
    body: None,
    list: NODE,
};
const POST: Sent = Sent {
    method: "POST",
    target: "/t",
    content_type: Some(FORM_UTF8),
    body: None,
    list: NODE,
};
const PYTHON_GET: Sent = Sent {
    content_type: Some("application/json"),
    list: PYTHON,
    ..GET
};
const PYTHON_POST: Sent = Sent {
    content_type: Some(FORM),
    list: PYTHON,
    ..POST
};

impl Sent {
    /// The server's hint if the signature is refused.
    fn verify(&self, signature: &str) -> Result<(), String> {
        let (raw_path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target, None),
        };
        let mut headers = HEADERS.to_vec();
        headers.extend(self.content_type.map(|value| ("content-type", value)));
        let form = self.body.map(str::as_bytes);
        let parts = Parts {
            method: self.method,
            raw_path,
            query,
            form,
            headers: &headers[..],
        };
        let (key, list) = (Key::new(SECRET), Some(self.list.as_bytes()));
        verify(
            &parts,
            signature.as_bytes(),
            list,
            Algorithm::HmacSha256,
            &key,
            &mut Scratch::new(),
        )
        .map_err(|mismatch| mismatch.hint())
    }

    /// The signature over this request with another path and parameters, as a client might write them.
    fn signed_as(&self, resource: &str) -> String {
        let hint = self.verify("").expect_err("no signature verifies nothing");
        let (head, _) = hint
            .trim_matches('`')
            .split_once("#/")
            .expect("a path begins with /");
        Key::new(SECRET).sign(
            Algorithm::HmacSha256,
            format!("{}\n{resource}", head.replace('#', "\n")),
        )
    }
}

/// A trap, what a client sent, its signature (or what it signed), and whether a gateway accepts it.
type Row = (&'static str, Sent, Signature, bool);

enum Signature {
    Made(&'static str),
    Over(&'static str),
}
use Signature::{Made, Over};

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    vec![
        ("Node signs an encoded path as it stands", Sent { target: "/users/%E5%BC%A0/a%20b?x=1", ..GET },
            Made("VqCAMQa/qPdAHO7inC+4aNiFMOxf+zio6lk1JgVEQ+Y="), true),
        ("Java signs the path decoded", Sent { target: "/users/%E5%BC%A0/a%20b?x=1", ..GET }, Over("/users/张/a b?x=1"), true),
        ("a path decoded twice", Sent { target: "/a%2541", ..GET }, Over("/aA"), false),
        ("an encoded slash decoded", Sent { target: "/a%2Fb", ..GET }, Over("/a/b"), false),
        ("Node: a name in query and form, the form's value", Sent { target: "/t?k=query", body: Some("k=form"), ..POST },
            Made("Oc4g74hqOEBxBesANoH56eZlLtE/B29V81fg2lar/cA="), true),
        ("the same with an encoded path", Sent { target: "/users/%E5%BC%A0?k=query&o=1", body: Some("k=form"), ..POST },
            Made("9Q7X3F+I2QwMQeY7qQkcib1lzuQtnoSI6908k1VmNB8="), true),
        ("a name in query and form, the query's value", Sent { target: "/t?k=query", body: Some("k=form"), ..POST },
            Over("/t?k=query"), true),
        ("a name in query and form, both values", Sent { target: "/t?k=query", body: Some("k=form"), ..POST },
            Over("/t?k=query&k=form"), false),
        ("Node joins repeated values by a comma", Sent { target: "/t?a=1&a=2", ..GET },
            Made("h3B7J9TYYGNi5hddyBgkqbTEnysBX+bdkpMmtMJ1sEE="), false),
        ("the first of repeated values", Sent { target: "/t?a=1&a=2", ..GET }, Over("/t?a=1"), true),
        ("Node decodes each value once", Sent { target: "/t?b=x%2By&a=%2525", ..GET },
            Made("JTbw3NqiPIJqn+sNPh13VoEq34Klq0UrbRF/OzwUtEQ="), true),
        ("a carrier turns that %2B into +", Sent { target: "/t?b=x+y&a=%2525", ..GET },
            Made("JTbw3NqiPIJqn+sNPh13VoEq34Klq0UrbRF/OzwUtEQ="), false),
        ("a carrier decodes that %2525", Sent { target: "/t?b=x%2By&a=%25", ..GET },
            Made("JTbw3NqiPIJqn+sNPh13VoEq34Klq0UrbRF/OzwUtEQ="), false),
        ("Java writes a space as +", Sent { target: "/t?a=x+y", ..GET }, Over("/t?a=x y"), true),
        ("Python signs path and query as they stand", Sent { target: "/t/%E4%B8%AD?q=%E4%B8%AD+x&b=2&e=", ..PYTHON_GET },
            Made("1RFr7RHyDHd8jmBLO1IsUajhHFk+mcb1xWabv80bvo0="), true),
        ("only the demo's spelling may sign a query so", Sent { target: "/t?q=%E4%B8%AD", ..GET }, Over("/t?q=%E4%B8%AD"), false),
        ("a Python-like client that decodes", Sent { target: "/t?q=%E4%B8%AD+x", ..PYTHON_GET }, Over("/t?q=中 x"), true),
        ("Python sends the query's pairs again in the form", Sent { target: "/t?q=%E4%B8%AD+x&z=9",
            body: Some("name=%E5%BC%A0+%E4%B8%89&z=form&q=%25E4%25B8%25AD%2Bx"), ..PYTHON_POST },
            Made("IW8NdeS6r+AbHk+LbuaKN8FhydWXU3nyLynHK7MPyts="), true),
        ("Python cuts a value at its second =", Sent { target: "/t?token=YWI=&b=2", ..PYTHON_GET },
            Made("+x6EB+VaEcK6s1Z1SbriyDnnwl2KRkVoz+IGSqheDfg="), false),
        ("Java GET with a form type and no body", Sent { content_type: Some(FORM_UTF8), body: Some(""), ..GET }, Over("/t"), true),
        ("GET without Content-Type", GET, Over("/t"), true),
        ("an empty value, name alone", Sent { target: "/t?a=&b", ..GET }, Over("/t?a&b"), true),
        ("an empty value with its =", Sent { target: "/t?a=", ..GET }, Over("/t?a="), false),
        ("a query that is only a question mark", Sent { target: "/t?", ..GET }, Over("/t"), true),
        ("a bare name is decoded in the query", Sent { target: "/t?%61", ..GET }, Over("/t?a"), true),
        ("a bare name stands as it is in a form", Sent { body: Some("%61"), ..POST }, Over("/t?%61"), true),
        ("names separated by a colon", Sent { list: "x-ca-key:x-ca-nonce", ..GET },
            Made("1iTEjTWyh/qdmdYfVO+K0zjsms8T8r2wzBxjOgHcu64="), false),
    ]
}

#[test]
fn each_trap_is_met_as_documented() {
    for (trap, sent, signature, accepted) in rows() {
        let signature = match signature {
            Made(signature) => signature.to_owned(),
            Over(resource) => sent.signed_as(resource),
        };
        let verified = sent.verify(&signature);
        assert_eq!(verified.is_ok(), accepted, "{trap}: {verified:?}");
    }
}

#[test]
fn accept_added_after_signing_is_refused_and_shown() {
    let key = Key::new(SECRET);
    let signature = key.sign(Algorithm::HmacSha256, "GET\n\n\n\n\n/t");
    let headers: &[(&str, &str)] = &[("Accept", "*/*")];
    let parts = Parts {
        method: "GET",
        raw_path: "/t",
        query: None,
        form: None,
        headers,
    };
    let mut scratch = Scratch::new();
    let refused = verify(
        &parts,
        signature.as_bytes(),
        None,
        Algorithm::HmacSha256,
        &key,
        &mut scratch,
    );
    assert_eq!(refused.unwrap_err().hint(), "`GET#*/*####/t`");
}

#[test]
fn header_values_count_as_their_bytes() {
    // The Java client writes UTF-8 bytes through an ISO-8859-1 string: on the wire they are UTF-8 again.
    let key = Key::new(SECRET);
    let signature = key.sign(Algorithm::HmacSha256, "GET\n\n\n\n\nx-ca-name:张三\n/t");
    let headers: &[(&str, &[u8])] = &[("x-ca-name", "张三".as_bytes())];
    let parts = Parts {
        method: "GET",
        raw_path: "/t",
        query: None,
        form: None,
        headers,
    };
    let list = Some(&b"x-ca-name"[..]);
    let verified = verify(
        &parts,
        signature.as_bytes(),
        list,
        Algorithm::HmacSha256,
        &key,
        &mut Scratch::new(),
    )
    .is_ok();
    assert!(verified);
}
