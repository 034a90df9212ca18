//! `paifang sign`, against the vectors of Ref §1.7.

use serde_json::Value;

use crate::run::{Done, Scratch, finish, paifang, run};

const NONCE: &str = "11111111-2222-3333-4444-555555555555";
const TIME: &str = "1700000000000";

fn sign(args: &[&str]) -> Done {
    finish(
        paifang()
            .arg("sign")
            .args(args)
            .env("PAIFANG_APP_SECRET", "MySecret"),
    )
}

fn signature(done: &Done) -> String {
    assert_eq!(done.code, 0, "{}", done.err);
    let json: Value = serde_json::from_str(&done.out).unwrap();
    let headers = json["headers"].as_array().unwrap();
    let named = headers.iter().find(|header| {
        header["name"]
            .as_str()
            .unwrap()
            .eq_ignore_ascii_case("x-ca-signature")
    });
    named.unwrap()["value"].as_str().unwrap().to_owned()
}

#[test]
fn requests_of_other_clients_are_signed_as_written() {
    let (key, nonce, time) = (
        "203753385",
        format!("NONCE: {NONCE}"),
        format!("TIME: {TIME}"),
    );
    let node = ["x-ca-key", "x-ca-nonce", "x-ca-stage", "x-ca-timestamp"];
    let python = ["X-Ca-Key", "X-Ca-Nonce", "X-Ca-Timestamp"];
    let form = "content-type: application/x-www-form-urlencoded; charset=utf-8";
    let date = "date: Tue, 14 Nov 2023 22:13:20 GMT";
    struct Vector<'v> {
        name: &'v str,
        request: [&'v str; 2],
        body: &'v str,
        headers: Vec<&'v str>,
        list: String,
        stage: &'v str,
        expected: &'v str,
    }
    let list = node.join(",");
    let vectors = [
        Vector {
            name: "V1",
            request: [
                "GET",
                "http://h/web/cloudapi?b=2&a=1&empty=&name=%E5%BC%A0%20%E4%B8%89",
            ],
            body: "",
            headers: vec!["accept: application/json"],
            list: list.clone(),
            stage: "RELEASE",
            expected: "1iTEjTWyh/qdmdYfVO+K0zjsms8T8r2wzBxjOgHcu64=",
        },
        Vector {
            name: "V2",
            request: ["POST", "http://h/http2test/test?param1=test"],
            body: "username=xiaoming&password=123456789",
            headers: vec!["accept: application/json", form],
            list: list.clone(),
            stage: "RELEASE",
            expected: "4eWHZmKE8QDh6k5aE0xnstaMbzPM3UpKX2uBk5qm/q8=",
        },
        Vector {
            name: "V3",
            request: ["POST", "/orders/42"],
            body: "{\"hello\":\"世界\"}",
            headers: vec![
                "accept: application/json",
                "content-type: application/json; charset=utf-8",
                "content-md5: Aulw/A6cvXyhaQxbZTIGCQ==",
            ],
            list,
            stage: "RELEASE",
            expected: "pPl6ektBRH3M503WYFHXmlRL870hUxy/J4IUu4UXFpI=",
        },
        Vector {
            name: "V4",
            request: ["GET", "http://h/p"],
            body: "",
            headers: vec!["accept: application/json", date, "x-biz: abc"],
            list: format!("x-biz,{}", node.join(",")),
            stage: "TEST",
            expected: "mDp0x1mXsYbWzRlKbS/lA0rNgmhFjMp3x2nWlgabdTY=",
        },
        Vector {
            name: "V5",
            request: ["POST", "http://h/http2test/test?param1=test"],
            body: "username=xiaoming&password=123456789",
            headers: vec![
                "Accept: application/json",
                "Content-Type: application/x-www-form-urlencoded",
            ],
            list: python.join(","),
            stage: "",
            expected: "qS9T12KcxjCfIQ5Oqew+ie2+W65zcTmyiGcGTm+Yd8U=",
        },
        Vector {
            name: "V6",
            request: ["POST", "http://h/orders/42"],
            body: "{\"hello\":\"世界\"}",
            headers: vec![
                "Accept: application/json",
                "Content-Type: application/octet-stream",
                "Content-MD5: Aulw/A6cvXyhaQxbZTIGCQ==",
            ],
            list: python.join(","),
            stage: "",
            expected: "Gfm906tGGmyvGlD5XR2xo7POMP+ZwIjUTuUbaeY2vA8=",
        },
        Vector {
            name: "V7",
            request: [
                "POST",
                "http://h/v2/getUserInfo/10000003?sex=boy&tag=t1&tag=t2",
            ],
            body: "name=%E5%BC%A0%E4%B8%89&empty=",
            headers: vec![
                "accept: application/json; charset=utf-8",
                form,
                date,
                "x-ca-signature-method: HmacSHA256",
            ],
            list: "x-ca-nonce,x-ca-timestamp,x-ca-key,x-ca-signature-method,x-ca-stage".to_owned(),
            stage: "PRE",
            expected: "Qs/T0KCiOomoUCROgw5oxv9DG0AZnUfqfRvlCTpkc8Y=",
        },
    ];
    for vector in vectors {
        let mut args: Vec<String> = vector.request.map(str::to_owned).to_vec();
        let mut add = |header: String| args.extend(["-H".to_owned(), header]);
        vector
            .headers
            .iter()
            .for_each(|header| add((*header).to_owned()));
        for name in vector.list.split(',') {
            match name.to_ascii_lowercase().as_str() {
                "x-ca-key" => add(format!("{name}: {key}")),
                "x-ca-nonce" => add(nonce.replace("NONCE", name)),
                "x-ca-timestamp" => add(time.replace("TIME", name)),
                "x-ca-stage" => add(format!("{name}: {}", vector.stage)),
                _ => {}
            }
        }
        add(format!("X-Ca-Signature-Headers: {}", vector.list));
        if !vector.body.is_empty() {
            args.extend(["-d".to_owned(), vector.body.to_owned()]);
        }
        args.extend(["-o".to_owned(), "json".to_owned()]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(signature(&sign(&args)), vector.expected, "{}", vector.name);
    }
}

#[test]
fn our_own_signature_is_that_of_the_java_client() {
    let done = sign(&[
        "post",
        "http://h/orders",
        "--app-key",
        "203753385",
        "--signature-method",
        "HmacSHA1",
        "--stage",
        "TEST",
        "--timestamp",
        TIME,
        "--nonce",
        NONCE,
        "-H",
        "accept: application/json; charset=utf-8",
        "-H",
        "content-type: application/json; charset=utf-8",
        "-H",
        "date: Tue, 14 Nov 2023 22:13:20 GMT",
        "-d",
        "{\"a\":1}",
        "-o",
        "json",
    ]);
    assert_eq!(signature(&done), "d+6ybS3RyXSZGl7fNyKQsCT67Sg=");
}

#[test]
fn text_shows_line_feeds_and_no_secret() {
    let done = sign(&[
        "GET",
        "http://h/p?b=2&a=1",
        "--app-key",
        "203753385",
        "--timestamp",
        TIME,
        "--nonce",
        NONCE,
    ]);
    assert_eq!(done.code, 0, "{}", done.err);
    let (_, string) = done.out.split_once("\nString to sign\n").unwrap();
    assert_eq!(
        string,
        format!(
            "  GET⏎\n  application/json⏎\n  ⏎\n  ⏎\n  ⏎\n  x-ca-key:203753385⏎\n  x-ca-nonce:{NONCE}⏎\n  \
             x-ca-signature-method:HmacSHA256⏎\n  x-ca-timestamp:{TIME}⏎\n  /p?a=1&b=2\n"
        )
    );
    assert!(!done.out.contains("MySecret"));
}

#[test]
fn a_curl_command_is_complete_and_quoted() {
    let done = sign(&[
        "POST",
        "http://h/p?n=it's",
        "--app-key",
        "1",
        "--timestamp",
        TIME,
        "--nonce",
        NONCE,
        "-H",
        "content-type: application/json",
        "-d",
        "{\"it's\":1}",
        "-o",
        "curl",
    ]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(
        done.out.starts_with(
            "curl -X POST 'http://h/p?n=it'\\''s' \\\n  -H 'content-type: application/json' \\\n"
        ),
        "{}",
        done.out
    );
    assert!(
        done.out.ends_with(" \\\n  --data-raw '{\"it'\\''s\":1}'\n"),
        "{}",
        done.out
    );
    assert!(done.out.contains("-H 'x-ca-signature: "), "{}", done.out);
}

#[test]
fn the_answer_of_a_server_is_explained() {
    let ask = |hint: &str| {
        let answer = format!("Invalid Signature, Server StringToSign:`{hint}`");
        sign(&[
            "GET",
            "/p",
            "--app-key",
            "1",
            "--timestamp",
            TIME,
            "--nonce",
            "n",
            "--answer",
            &answer,
        ])
        .out
    };
    let headers =
        format!("x-ca-key:1#x-ca-nonce:n#x-ca-signature-method:HmacSHA256#x-ca-timestamp:{TIME}");
    let said = ask(&format!("GET#*/*####{headers}#/p"));
    assert!(
        said.contains(
            "The first difference is line 2, Accept\n  server: */*\n  ours:   application/json\n"
        ),
        "{said}"
    );
    let said = ask(&format!("GET#application/json####{headers}#/p"));
    assert!(
        said.contains("Both sides signed the same text, so the keys differ"),
        "{said}"
    );
}

#[test]
fn the_secret_comes_from_a_file_a_variable_or_a_folder() {
    let args = [
        "GET",
        "/p",
        "--app-key",
        "203700001",
        "--timestamp",
        TIME,
        "--nonce",
        NONCE,
        "-o",
        "json",
    ];
    let scratch = Scratch::sample("quickstart");
    let file = scratch.dir().join("key");
    std::fs::write(&file, "quickstart-secret-not-for-production\n").unwrap();
    let by_file = finish(
        paifang()
            .arg("sign")
            .args(args)
            .arg("--app-secret-file")
            .arg(&file),
    );
    let by_variable = finish(
        paifang()
            .arg("sign")
            .args(args)
            .env("PAIFANG_APP_SECRET", "quickstart-secret-not-for-production"),
    );
    let by_folder = run([
        "sign",
        "GET",
        "/p",
        "--dir",
        &scratch.at(),
        "--app",
        "mobile",
        "--timestamp",
        TIME,
        "--nonce",
        NONCE,
        "-o",
        "json",
    ]);
    assert_eq!(signature(&by_file), signature(&by_variable));
    assert_eq!(signature(&by_file), signature(&by_folder));
}

#[test]
fn what_is_missing_is_told() {
    for (args, expected) in [
        (
            ["GET", "/p"].as_slice(),
            "error: whose request is it? Give --app-key KEY, or --dir DIR and --app NAME\n",
        ),
        (
            &["GET", "/p", "--app-key", "7"],
            "error: the AppSecret of 7 is missing: give --app-secret-file FILE, or set PAIFANG_APP_SECRET\n",
        ),
        (
            &[
                "GET",
                "/p",
                "--app-key",
                "7",
                "--app-secret-file",
                "/nowhere",
            ],
            "error: --app-secret-file /nowhere: No such file",
        ),
        (
            &["GET", "http://h/a b", "--app-key", "7"],
            "error: http://h/a b is not a URL: ",
        ),
        (
            &["GET", "h/a", "--app-key", "7"],
            "error: h/a is not a URL: ",
        ),
    ] {
        let done = finish(paifang().arg("sign").args(args));
        assert_eq!(done.code, 1, "{args:?}");
        assert!(done.err.starts_with(expected), "{args:?}: {}", done.err);
    }
}
