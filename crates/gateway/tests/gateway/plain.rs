//! HTTP/1.1 without TLS: what passes, what is refused, and what a slow client may do.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener},
};

use paifang_gateway::{Connections, Gateway, Settings};

use crate::support::*;

#[test]
fn requests_reach_mock_and_backend_over_one_connection() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    let mut stream = connect(gateway.addresses().http);
    for (request, body) in [
        (get("/mock"), "hello"),
        (get("/echo/a?b=c"), "GET /echo/a?b=c "),
        (
            "POST /echo/a HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 4\r\n\r\nbody".to_owned(),
            "POST /echo/a body",
        ),
        (
            "POST /echo/a HTTP/1.1\r\nHost: www.example.com\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n".to_owned(),
            "POST /echo/a body",
        ),
    ] {
        stream.write_all(request.as_bytes()).unwrap();
        let answer = read(&mut stream).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{answer:?}");
        assert_eq!(answer.header("x-ca-request-id").unwrap().len(), 36);
        assert!(answer.head.contains("\r\nX-Ca-Request-Id: "), "{answer:?}");
    }
}

#[test]
fn networks_are_kept_apart() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    let id = "0123456789abcdef0123456789abcdef";
    let request = |host: &str| format!("GET /mock HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let public = format!("{id}.api.localtest");
    let internal = format!("{id}.internal.localtest");
    let addresses = gateway.addresses();
    assert_eq!(ask(addresses.http, &request(&public)).status, 200);
    assert_eq!(ask(addresses.internal, &request(&internal)).status, 200);
    assert_eq!(
        ask(addresses.http, &request(&internal)).header("x-ca-error-code"),
        Some("A403IN")
    );
    assert_ne!(ask(addresses.internal, &request(&public)).status, 200);
    assert_eq!(
        ask(addresses.http, &request("other.org")).header("x-ca-error-code"),
        Some("I404DO")
    );
}

#[test]
fn pipelined_requests_are_answered_in_order_and_the_one_after_a_refusal_never() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    let mut stream = connect(gateway.addresses().http);
    let ok: String = (0..20)
        .map(|at| {
            format!(
                "POST /echo/{at} HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 2\r\n\r\nhi"
            )
        })
        .collect();
    let bad = "GET /echo/x HTTP/1.1\r\nHost: www.example.com\r\nHost: www.example.com\r\n\r\n";
    stream
        .write_all(format!("{ok}{bad}{}", get("/echo/smuggled")).as_bytes())
        .unwrap();
    for at in 0..20 {
        assert_eq!(
            read(&mut stream).unwrap().body,
            format!("POST /echo/{at} hi")
        );
    }
    let refused = read(&mut stream).unwrap();
    assert_eq!(
        (refused.status, refused.header("x-ca-error-code")),
        (400, Some("I400HD"))
    );
    assert!(closes(&mut stream));
    assert_eq!(echo.seen(), 20);
}

#[test]
fn a_head_may_arrive_byte_by_byte() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    let mut stream = connect(gateway.addresses().http);
    stream.set_nodelay(true).unwrap();
    for byte in "\r\nPOST /echo/a HTTP/1.1\r\nHost: www.example.com\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read(&mut stream).unwrap().body, "POST /echo/a hi");
    stream.write_all(get("/mock").as_bytes()).unwrap();
    assert_eq!(read(&mut stream).unwrap().body, "hello");
}

#[test]
fn what_two_programs_could_understand_differently_is_answered_and_ends_the_connection() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    let head =
        |lines: &str| format!("POST /echo/a HTTP/1.1\r\nHost: www.example.com\r\n{lines}\r\n\r\n");
    let mut refused: Vec<(String, &str)> = vec![
        (
            head("Content-Length: 5\r\nTransfer-Encoding: chunked") + "0\r\n\r\n",
            "I400HD",
        ),
        (
            head("Content-Length: 5\r\nContent-Length: 5") + "hello",
            "I400HD",
        ),
        (head("Content-Length: 5, 5") + "hello", "I400HD"),
        (
            head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked") + "0\r\n\r\n",
            "I400HD",
        ),
        (head("Transfer-Encoding: ,chunked") + "0\r\n\r\n", "I400HD"),
        (head("Transfer-Encoding : chunked") + "0\r\n\r\n", "I400HD"),
        (head("X-A: a\r\n b"), "I400HD"),
        (head("no colon"), "I400HD"),
        (head("X-A: a\0b"), "I400HD"),
        (head("X-A: a\rX-B: b"), "I400HD"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "I400MH"),
        (
            "GET /mock HTTP/1.1\nHost: www.example.com\n\n".to_owned(),
            "I400RU",
        ),
        (
            "GET /mock#x HTTP/1.1\r\nHost: www.example.com\r\n\r\n".to_owned(),
            "I400PH",
        ),
        (
            "GET  /mock HTTP/1.1\r\nHost: www.example.com\r\n\r\n".to_owned(),
            "I400RU",
        ),
        (
            "GET /mock HTTP/1.2\r\nHost: www.example.com\r\n\r\n".to_owned(),
            "I400RU",
        ),
        (
            "TRACE /mock HTTP/1.1\r\nHost: www.example.com\r\n\r\n".to_owned(),
            "I405UM",
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "I405UM"),
        ("garbage\r\n\r\n".to_owned(), "I400RU"),
    ];
    refused.push((head(&format!("X-A: {}", "a".repeat(9_000))), "I413UL"));
    refused.push(("GET /".to_owned() + &"a".repeat(300_000), "I413UL"));
    for (request, code) in refused {
        let mut stream = connect(gateway.addresses().http);
        stream.write_all(request.as_bytes()).unwrap();
        let shown = &request[..request.len().min(120)];
        let answer = read(&mut stream).unwrap_or_else(|| panic!("no answer to {shown:?}"));
        assert_eq!(
            answer.header("x-ca-error-code"),
            Some(code),
            "{shown:?}: {answer:?}"
        );
        assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
        assert!(closes(&mut stream), "{shown:?}");
    }
    assert_eq!(echo.seen(), 0);
}

#[test]
fn a_broken_body_is_answered_and_ends_the_connection() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut stream = connect(gateway.addresses().http);
        let head =
            "POST /echo/a HTTP/1.1\r\nHost: www.example.com\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .unwrap();
        let answer = read(&mut stream).unwrap_or_else(|| panic!("no answer to {body:?}"));
        assert_eq!(
            (answer.status, answer.header("x-ca-error-code")),
            (400, Some("I400BD")),
            "{body:?}: {answer:?}"
        );
        assert!(closes(&mut stream), "{body:?}");
    }
}

#[test]
fn the_answer_to_an_unread_body_can_be_read() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    let mut stream = connect(gateway.addresses().http);
    let length = 200_000;
    let head = format!(
        "POST /nothing HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; length]).unwrap();
    assert_eq!(
        read(&mut stream).unwrap().header("x-ca-error-code"),
        Some("I404NF")
    );
}

#[test]
fn who_sends_nothing_is_let_go_and_who_stops_in_a_head_is_told() {
    let echo = Echo::start();
    let gateway = serving(hasty(), &echo);
    assert!(
        closes(&mut connect(gateway.addresses().http)),
        "nothing sent"
    );

    let mut stream = connect(gateway.addresses().http);
    stream.write_all(get("/mock").as_bytes()).unwrap();
    assert_eq!(read(&mut stream).unwrap().status, 200);
    assert!(closes(&mut stream), "idle");

    let mut stream = connect(gateway.addresses().http);
    stream
        .write_all(b"GET /mock HTTP/1.1\r\nHost: www.")
        .unwrap();
    let answer = read(&mut stream).unwrap();
    assert_eq!(
        (answer.status, answer.header("x-ca-error-code")),
        (408, Some("I408RT"))
    );
    assert!(closes(&mut stream), "after a slow head");
}

#[test]
fn who_stops_in_a_body_is_told() {
    let echo = Echo::start();
    let gateway = serving(hasty(), &echo);
    let mut stream = connect(gateway.addresses().http);
    let head = "POST /echo/a HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).unwrap();
    let answer = read(&mut stream).unwrap();
    assert_eq!(
        (answer.status, answer.header("x-ca-error-code")),
        (408, Some("I408RT")),
        "{answer:?}"
    );
    assert!(closes(&mut stream));
}

#[test]
fn who_ends_in_the_middle_is_told_when_it_can_be() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    for (sent, code) in [
        ("GET /mock HTTP/1.1\r\nHost: www.", "I400RU"),
        (
            "POST /echo/a HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 10\r\n\r\nhalf",
            "I400BD",
        ),
    ] {
        let mut stream = connect(gateway.addresses().http);
        stream.write_all(sent.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = read(&mut stream).unwrap_or_else(|| panic!("no answer to {sent:?}"));
        assert_eq!(
            (answer.status, answer.header("x-ca-error-code")),
            (400, Some(code)),
            "{sent:?}"
        );
        assert!(closes(&mut stream));
    }
    // A client that has said all it wants to say may still wait for the answer.
    let mut stream = connect(gateway.addresses().http);
    stream
        .write_all(get("/echo/half-closed").as_bytes())
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(&mut stream).unwrap().body, "GET /echo/half-closed ");
    assert!(closes(&mut stream));
}

#[test]
fn who_takes_no_answer_is_cut() {
    let echo = Echo::start();
    let gateway = Gateway::start(hasty()).unwrap();
    // More than both ends' socket buffers hold.
    let body = "x".repeat(32 << 20);
    gateway.apply(&snapshot(group(
        vec![domain("www.example.com")],
        &body,
        echo.address,
    )));
    let mut stream = connect(gateway.addresses().http);
    stream.write_all(get("/mock").as_bytes()).unwrap();
    assert!(stream.peek(&mut [0]).unwrap() == 1, "the answer has begun");
    eventually("the connection is given up", || {
        open_connections(&gateway, "http") == 0
    });
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    for at in 0..50 {
        let mut stream = connect(gateway.addresses().http);
        let request =
            "POST /echo/wait HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 5\r\n\r\nhello";
        stream
            .write_all(&request.as_bytes()[..request.len() - at % 20])
            .unwrap();
    }
    echo.let_go();
    eventually("all connections are closed", || {
        open_connections(&gateway, "http") == 0
    });
    assert_eq!(ask(gateway.addresses().http, &get("/mock")).body, "hello");
    assert!(
        ask(gateway.admin(), &get("/metrics"))
            .body
            .contains("paifang_panics_total 0\n")
    );
}

#[test]
fn connections_over_the_limit_are_closed_at_once() {
    let echo = Echo::start();
    let limited = Settings {
        connections: Connections {
            per_listener: 2,
            total: 100,
        },
        ..settings()
    };
    let gateway = serving(limited, &echo);
    let mut inside: Vec<_> = (0..2).map(|_| connect(gateway.addresses().http)).collect();
    for stream in &mut inside {
        stream.write_all(get("/mock").as_bytes()).unwrap();
        assert_eq!(read(stream).unwrap().status, 200);
    }
    let mut outside = connect(gateway.addresses().http);
    let mut byte = [0];
    assert!(matches!(outside.read(&mut byte), Ok(0) | Err(_)));
    let internal =
        "GET /mock HTTP/1.1\r\nHost: 0123456789abcdef0123456789abcdef.internal.localtest\r\n\r\n";
    assert_eq!(ask(gateway.addresses().internal, internal).status, 200);
    drop(inside);
    eventually("room again", || {
        let mut stream = connect(gateway.addresses().http);
        stream.write_all(get("/mock").as_bytes()).is_ok()
            && read(&mut stream).is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_port_in_use_is_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Gateway::start(Settings {
        http: Some(address),
        ..settings()
    })
    .unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        format!(
            "the http listener cannot use {address}: another program listens there; stop it or choose another address"
        )
    );
    let first = Gateway::start(settings()).unwrap();
    let error = Gateway::start(Settings {
        https: first.addresses().https,
        ..settings()
    })
    .unwrap_err();
    assert!(
        format!("{error:#}").starts_with("the https listener cannot use"),
        "{error:#}"
    );
}
