//! `paifang echo` alone: it says where it listens, answers with what it received, and ends when told to.

use crate::run::{Running, finish, paifang};

#[test]
fn it_answers_with_what_it_received_and_ends_when_told_to() {
    let mut command = paifang();
    command.args(["echo", "--listen", "127.0.0.1:0"]);
    let echo = Running::of(command);
    let address = echo.addresses["echo"].as_str();

    let (status, body) = echo.get_at(address, "a.test", "/x%20y?b=2&a=1");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        (&body["method"], &body["path"], &body["query"]),
        (&"GET".into(), &"/x%20y".into(), &"b=2&a=1".into())
    );
    assert_eq!(body["headers"]["host"][0], "a.test");

    let second = finish(paifang().args(["echo", "--listen", address]));
    assert_eq!(second.code, 1);
    assert!(
        second.err.contains(&format!(
            "the echo server cannot listen on {address}: choose another address with --listen ADDR"
        )),
        "{}",
        second.err
    );
    assert_eq!(echo.end(), 0);
}
