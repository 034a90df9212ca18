//! What the signatures by themselves cost: a child that does nothing but sign, run twice under callgrind with different counts.
//!
//! Valgrind shows programs a processor without SHA instructions, so hashing is counted apart: its instructions, and how many blocks of
//! 64 bytes they hash. What the gateway does around a signature (choosing and sorting headers, writing them) is in [`crate::backends`].

use std::{hint::black_box, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use paifang_signing::{
    Acs3Parts, FcParts, Key, aws4, oss, sha256_hex, sign_acs3, sign_eventbridge, sign_fc,
    store::{Request, Stamp},
};

use crate::{
    measure::{as_f64, number_after},
    process::run,
};

/// The argument that makes this program a child that only signs.
pub(crate) const SIGN_ONLY: &str = "sign-only";

/// Name and description of each signature.
pub(crate) const KINDS: [(&str, &str); 8] = [
    ("fc2-event", "Function Compute 2.0, event"),
    ("fc2-http", "Function Compute 2.0, HTTP function"),
    (
        "fc3-event",
        "Function Compute 3.0, event of 600 bytes, its body hashed",
    ),
    ("fc3-http", "Function Compute 3.0, HTTP function"),
    ("oss4", "OSS V4, PutObject"),
    ("oss1", "OSS V1, PutObject"),
    ("s3", "S3 (AWS V4), PutObject"),
    ("bus", "EventBridge, PutEvents"),
];

const FEW: usize = 200;
const MANY: usize = 1_200;
/// Bytes whose hashing is counted to learn what a block costs.
const HASHED: usize = 64 << 10;

/// What one signature costs.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    pub(crate) about: &'static str,
    /// Everything, with hashing in software.
    pub(crate) instructions: f64,
    /// Of them those that hash.
    pub(crate) hashing: f64,
    /// SHA blocks, of 64 bytes.
    pub(crate) blocks: f64,
}

/// Counts all kinds.
pub(crate) fn measure() -> Result<Vec<Signature>> {
    // One block more than the bytes for the length, and another for the outer hash of an HMAC.
    let sha256 = cost("sha256")?.1 / as_f64(HASHED / 64 + 1);
    let sha1 = cost("sha1")?.1 / as_f64(HASHED / 64 + 2);
    KINDS
        .iter()
        .map(|(kind, about)| {
            let (instructions, hashing) = cost(kind)?;
            let block = if matches!(*kind, "oss1" | "bus") {
                sha1
            } else {
                sha256
            };
            Ok(Signature {
                about,
                instructions,
                hashing,
                blocks: hashing / block,
            })
        })
        .collect()
}

/// Instructions of one signature, and those of them that hash.
fn cost(kind: &str) -> Result<(f64, f64)> {
    let (few, many) = (count(kind, FEW)?, count(kind, MANY)?);
    let each = |few: f64, many: f64| (many - few) / as_f64(MANY - FEW);
    Ok((each(few.0, many.0), each(few.1, many.1)))
}

fn count(kind: &str, times: usize) -> Result<(f64, f64)> {
    let file = std::env::temp_dir().join(format!("paifang-bench-{}.callgrind", std::process::id()));
    let output = run(Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args([SIGN_ONLY, kind, &times.to_string()]))?;
    let all = number_after(&output, "Collected :").context("callgrind printed no count")?;
    let hashing = hashing(&file)?;
    std::fs::remove_file(&file)?;
    Ok((all, hashing))
}

/// Instructions that hash, in what callgrind wrote.
pub(crate) fn hashing(file: &Path) -> Result<f64> {
    let table = run(Command::new("callgrind_annotate")
        .args(["--threshold=100", "--auto=no"])
        .arg(file))?;
    let counts = table.lines().filter(|line| is_hashing(line));
    Ok(counts
        .filter_map(|line| {
            let count = line.split_whitespace().next()?;
            count.replace(',', "").parse::<f64>().ok()
        })
        // The sum of nothing is -0.
        .fold(0.0, |all, count| all + count))
}

/// Whether a line of callgrind_annotate's table is of a compression function.
fn is_hashing(line: &str) -> bool {
    (line.contains("sha1") || line.contains("sha2")) && line.contains("compress")
}

/// The child's part. The inputs are what a gateway signs of a small request.
pub(crate) fn sign_only(kind: &str, times: usize) -> Result<()> {
    let key = Key::new("benchmark-secret-not-for-production");
    let stamp = Stamp::new(1_795_392_000);
    let oss_key = oss::day_key("benchmark-secret", stamp.day(), "cn-hangzhou");
    let s3_key = aws4::day_key("benchmark-secret", stamp.day(), "us-east-1");
    let body = vec![b'e'; 600];
    let bytes = vec![b'h'; HASHED];
    for _ in 0..times {
        let signature = match kind {
            "fc2-event" => sign_fc(
                &fc2(
                    "/2016-08-15/services/svc.LATEST/functions/hello/invocations",
                    None,
                ),
                ID,
                &key,
            ),
            "fc2-http" => sign_fc(
                &fc2(
                    "/2016-08-15/proxy/svc.LATEST/hello/reports/2026/november.json",
                    Some(&[]),
                ),
                ID,
                &key,
            ),
            "fc3-event" => sign_acs3(&fc3_event(&sha256_hex(&body)), ID, &key),
            "fc3-http" => sign_acs3(&FC3_HTTP, ID, &key),
            "oss4" => oss::sign_v4(&put(&OSS4), ID, &oss_key, &stamp),
            "oss1" => oss::sign_v1(&put(&OSS1), ID, &key),
            "s3" => aws4::sign(&put(&S3), ID, &s3_key, &stamp),
            "bus" => sign_eventbridge(
                "/openapi/putEvents",
                "application/cloudevents-batch+json; charset=utf-8",
                DATE,
                &BUS,
                ID,
                &key,
            ),
            "sha256" => sha256_hex(&bytes),
            "sha1" => key.sign(paifang_signing::Algorithm::HmacSha1, &bytes),
            _ => bail!("unknown signature {kind}"),
        };
        black_box(signature);
    }
    Ok(())
}

const ID: &str = "LTAI0000000000000000TEST";
const DATE: &str = "Mon, 23 Nov 2026 00:00:00 GMT";
const NONCE: &str = "0123ABCD-4567-4000-8000-0123456789AB";

fn fc2<'a>(path: &'a str, query: Option<&'a [(&'a str, &'a str)]>) -> FcParts<'a> {
    FcParts {
        method: "POST",
        content_md5: "",
        content_type: "application/json",
        date: DATE,
        headers: &[("x-fc-invocation-type", "Sync")],
        path,
        query,
    }
}

const FC3_HTTP: Acs3Parts<'static> = Acs3Parts {
    method: "POST",
    path: "/reports/2026/november.json",
    query: &[],
    headers: &[
        ("x-acs-date", "2026-11-23T00:00:00Z"),
        ("content-type", "application/json"),
    ],
    body_hash: "",
};

fn fc3_event(hash: &str) -> Acs3Parts<'_> {
    const HEADERS: &[(&str, &str)] = &[
        ("x-acs-action", "InvokeFunction"),
        ("x-acs-version", "2023-03-30"),
        ("x-acs-signature-nonce", NONCE),
        (
            "x-acs-content-sha256",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        ("x-acs-date", "2026-11-23T00:00:00Z"),
        ("x-fc-invocation-type", "Sync"),
        ("x-fc-log-type", "None"),
        ("accept", "application/json"),
        ("content-type", "application/octet-stream"),
        ("host", "123.cn-hangzhou.fc.aliyuncs.com"),
        ("user-agent", "paifang"),
    ];
    Acs3Parts {
        method: "POST",
        path: "/2023-03-30/functions/hello/invocations",
        query: &[("qualifier", "LATEST")],
        headers: HEADERS,
        body_hash: hash,
    }
}

fn put<'a>(headers: &'a [(&'a str, &'a [u8])]) -> Request<'a> {
    Request {
        method: "PUT",
        bucket: "bench",
        key: "reports/2026/november.json",
        query: &[],
        headers,
    }
}

const OSS4: [(&str, &[u8]); 6] = [
    ("content-length", b"178"),
    ("content-type", b"application/json"),
    ("date", DATE.as_bytes()),
    ("host", b"bench.oss-cn-hangzhou.aliyuncs.com"),
    ("x-oss-content-sha256", b"UNSIGNED-PAYLOAD"),
    ("x-oss-date", b"20261123T000000Z"),
];
const OSS1: [(&str, &[u8]); 4] = [
    ("content-length", b"178"),
    ("content-type", b"application/json"),
    ("date", DATE.as_bytes()),
    ("host", b"bench.oss-cn-hangzhou.aliyuncs.com"),
];
const S3: [(&str, &[u8]); 4] = [
    ("content-type", b"application/json"),
    ("host", b"bench.s3.us-east-1.amazonaws.com"),
    ("x-amz-content-sha256", b"UNSIGNED-PAYLOAD"),
    ("x-amz-date", b"20261123T000000Z"),
];
const BUS: [(&str, &str); 3] = [
    ("x-acs-signature-method", "HMAC-SHA1"),
    ("x-acs-signature-nonce", NONCE),
    ("x-acs-signature-version", "1.0"),
];
