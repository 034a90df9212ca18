//! Change and end: nothing in flight breaks.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use paifang_gateway::{Drain, Settings};

use crate::support::*;

#[test]
fn requests_in_flight_end_before_the_gateway_does() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    let addresses = *gateway.addresses();
    let mut busy = connect(addresses.http);
    busy.write_all(get("/echo/wait").as_bytes()).unwrap();
    let mut idle = connect(addresses.http);
    idle.write_all(get("/mock").as_bytes()).unwrap();
    assert_eq!(read(&mut idle).unwrap().status, 200);
    echo.await_waiting(1);

    let drain = thread::spawn(move || gateway.drain());
    assert!(closes(&mut idle), "an idle connection is closed");
    eventually("no more connections", || {
        std::net::TcpStream::connect(addresses.http.unwrap()).is_err()
    });
    echo.let_go();
    let answer = read(&mut busy).unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "GET /echo/wait ")
    );
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert!(closes(&mut busy));
    assert_eq!(drain.join().unwrap().cut, 0);
}

#[test]
fn a_request_that_crosses_the_beginning_of_a_drain_is_answered() {
    let echo = Echo::start();
    let patient = Settings {
        drain: Drain {
            lame_duck: Duration::ZERO,
            idle: Duration::from_secs(5),
            deadline: Duration::from_secs(10),
        },
        ..settings()
    };
    let gateway = serving(patient, &echo);
    let address = gateway.addresses().http;
    let mut idle = connect(address);
    idle.write_all(get("/mock").as_bytes()).unwrap();
    assert_eq!(read(&mut idle).unwrap().header("connection"), None);
    let drain = thread::spawn(move || gateway.drain());
    eventually("no more connections", || {
        std::net::TcpStream::connect(address.unwrap()).is_err()
    });
    idle.write_all(get("/mock").as_bytes()).unwrap();
    let answer = read(&mut idle).unwrap();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert!(closes(&mut idle));
    assert_eq!(drain.join().unwrap().cut, 0);
}

#[test]
fn what_takes_too_long_is_cut() {
    let echo = Echo::start();
    let short = Settings {
        drain: Drain {
            lame_duck: Duration::ZERO,
            idle: Duration::ZERO,
            deadline: Duration::from_millis(100),
        },
        ..settings()
    };
    let gateway = serving(short, &echo);
    let mut stream = connect(gateway.addresses().http);
    stream.write_all(get("/echo/wait").as_bytes()).unwrap();
    echo.await_waiting(1);
    assert_eq!(gateway.drain().cut, 1);
    assert!(read(&mut stream).is_none());
    echo.let_go();
}

#[test]
fn a_lame_duck_still_serves_and_a_second_signal_ends_it() {
    let echo = Echo::start();
    let lame = Settings {
        drain: Drain {
            lame_duck: Duration::from_secs(600),
            idle: Duration::from_secs(1),
            deadline: Duration::from_secs(600),
        },
        ..settings()
    };
    let gateway = serving(lame, &echo);
    let addresses = *gateway.addresses();
    let control = gateway.control();
    control.drain();
    let ready = ask(addresses.admin, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining\n"));
    assert_eq!(ask(addresses.http, &get("/mock")).status, 200);
    let wait = thread::spawn(move || gateway.wait());
    control.force();
    wait.join().unwrap();
}

#[test]
fn configurations_change_under_load_and_no_request_fails() {
    let echo = Echo::start();
    let gateway = serving(settings(), &echo);
    let address = gateway.addresses().http;
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stream = connect(address);
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(get("/mock").as_bytes()).unwrap();
                    let answer = read(&mut stream).unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut versions = std::collections::BTreeSet::new();
        for change in 0..10 {
            let body = format!("version {change}");
            let applied = gateway.apply(&snapshot(group(
                vec![domain("www.example.com")],
                &body,
                echo.address,
            )));
            assert_eq!(applied.problems, []);
            versions.insert(applied.version);
            assert_eq!(ask(address, &get("/mock")).body, body, "served at once");
            let before = served.load(Ordering::Relaxed);
            eventually("load", || served.load(Ordering::Relaxed) > before + 20);
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(versions.len(), 10);
    });
    let same = snapshot(group(vec![domain("www.example.com")], "x", echo.address));
    assert_eq!(gateway.apply(&same).version, gateway.apply(&same).version);
}
