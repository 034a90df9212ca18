//! `docs/errors.md` lists every code. `UPDATE=1 cargo test -p paifang-proxy --test docs` writes it anew.

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test may panic, and its tables are read once"
)]

use std::{fmt::Write as _, path::Path};

use paifang_proxy::refusal::{Code, Fault};

#[test]
fn every_error_code_is_in_the_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let mut text = String::from(
        "# Error codes\n\n\
         <!-- Written by a test of crates/proxy; edit crates/proxy/src/refusal.rs and run it with UPDATE=1. -->\n\n\
         An answer with `X-Ca-Error-Code` was made by the gateway: the status is the code's digits, the body is empty, and\n\
         `X-Ca-Error-Message` says what was wrong. An answer without it is the backend's. Every answer has `X-Ca-Request-Id`, which is also\n\
         in the access log, where the cause that is nobody's business outside is told as `detail`.\n\n\
         | code | status | whose | meaning |\n| --- | --- | --- | --- |\n",
    );
    for &code in Code::ALL {
        let whose = match code.fault() {
            Fault::Client => "caller",
            Fault::Backend => "backend",
            Fault::Gateway => "gateway",
        };
        writeln!(
            text,
            "| `{}` | {} | {whose} | {} |",
            code.as_str(),
            code.status().as_u16(),
            code.meaning()
        )
        .unwrap();
    }
    text.push_str(
        "\n`I408RT`, `I421MD`, `D502EV` and `D502OS` are Paifang's own: the cloud product documents no code for these cases.\n",
    );
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, text,
        "docs/errors.md is stale: run this test with UPDATE=1"
    );
}
