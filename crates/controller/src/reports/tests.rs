use std::{net::Ipv4Addr, pin::Pin};

use paifang_snapshot::report::Reported;
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;
use crate::pki::testing::{self, Made};

const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

type Stream = TlsStream<TcpStream>;
type Play = fn(usize, Stream) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A gateway that plays one scene for each connection, and one who follows it.
struct Scene {
    heard: mpsc::Receiver<Heard>,
    tasks: Vec<JoinHandle<()>>,
    material: watch::Sender<Arc<Material>>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Scene {
    async fn start(gateway: &Made, controller: Material, play: Play) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(server_config(gateway));
        let gateway = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for at in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        read_request(&mut stream).await;
                        play(at, stream).await;
                    }
                });
            }
        });
        let (material, receiver) = watch::channel(Arc::new(controller));
        let (sender, heard) = mpsc::channel(8);
        let pod = Pod {
            name: "gw-0".to_owned(),
            uid: "u-0".to_owned(),
            ip: Ipv4Addr::LOCALHOST.into(),
        };
        let follower = tokio::spawn(follow(pod, port, receiver, sender));
        Self {
            heard,
            tasks: vec![gateway, follower],
            material,
        }
    }

    async fn next(&mut self) -> Heard {
        let next = timeout(Duration::from_secs(8), self.heard.recv()).await;
        next.unwrap().unwrap()
    }

    async fn report(&mut self) -> Report {
        match self.next().await {
            Heard::Report { uid, report } => {
                assert_eq!(uid, "u-0");
                report
            }
            Heard::Lost { why, .. } => panic!("lost: {why}"),
        }
    }

    async fn loss(&mut self) -> String {
        match self.next().await {
            Heard::Lost { uid, why } => {
                assert_eq!(uid, "u-0");
                why
            }
            Heard::Report { report, .. } => panic!("not lost: {report:?}"),
        }
    }
}

fn server_config(made: &Made) -> Arc<ServerConfig> {
    let (chain, key, roots) = made.parts("paifang-gateway-tls");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

async fn read_request(stream: &mut Stream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("GET /report HTTP/1.1\r\n"), "{head}");
}

async fn send(stream: &mut Stream, text: &str) {
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    // The other side may have gone; then it shows there.
    let _ = stream.write_all(chunk.as_bytes()).await;
    let _ = stream.flush().await;
}

async fn head(stream: &mut Stream) {
    stream.write_all(HEAD.as_bytes()).await.unwrap();
}

fn line(ready: bool) -> String {
    let state = Reported {
        ready,
        pod: "gw-0".to_owned(),
        instance: "default".to_owned(),
        ..Reported::default()
    };
    state.whole().line()
}

async fn forever(stream: Stream) {
    std::future::pending::<()>().await;
    drop(stream);
}

#[tokio::test]
async fn lines_are_heard_one_by_one_however_they_are_cut() {
    let made = testing::make();
    let mut scene = Scene::start(&made, made.material(), |_, mut stream| {
        Box::pin(async move {
            head(&mut stream).await;
            let (first, second) = (line(false), line(true));
            let (start, end) = second.split_at(7);
            send(&mut stream, &format!("{first}{start}")).await;
            send(&mut stream, end).await;
            send(&mut stream, &first).await;
            forever(stream).await;
        })
    })
    .await;
    assert!(!scene.report().await.ready);
    assert!(scene.report().await.ready);
    assert!(!scene.report().await.ready);
}

#[tokio::test]
async fn silence_is_a_loss_that_is_told_once_and_a_new_stream_ends_it() {
    let made = testing::make();
    let mut scene = Scene::start(&made, made.material(), |at, mut stream| {
        Box::pin(async move {
            // Silent before the head, then after a line, then well.
            match at {
                0 => forever(stream).await,
                1 => {
                    head(&mut stream).await;
                    send(&mut stream, &line(true)).await;
                    // Bytes without a line are silence, too.
                    loop {
                        send(&mut stream, " ").await;
                        sleep(Duration::from_millis(500)).await;
                    }
                }
                _ => {
                    head(&mut stream).await;
                    send(&mut stream, &line(false)).await;
                    forever(stream).await;
                }
            }
        })
    })
    .await;
    let why = scene.loss().await;
    assert!(why.contains("within 3 s"), "{why}");
    assert!(scene.report().await.ready);
    let start = Instant::now();
    let why = scene.loss().await;
    assert_eq!(why, "no line within 3 s");
    let took = start.elapsed();
    assert!((2_900..3_500).contains(&took.as_millis()), "{took:?}");
    assert!(!scene.report().await.ready);
}

#[tokio::test]
async fn what_is_no_report_is_a_loss() {
    let made = testing::make();
    let mut scene = Scene::start(&made, made.material(), |at, mut stream| {
        Box::pin(async move {
            if at == 4 {
                let _ = stream
                    .write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
                    .await;
                return forever(stream).await;
            }
            head(&mut stream).await;
            send(&mut stream, &line(true)).await;
            match at {
                0 => send(&mut stream, "hello\n").await,
                1 => send(&mut stream, &line(true).replace("gw-0", "gw-1")).await,
                2 => send(&mut stream, &"x".repeat(LONGEST_LINE + 1)).await,
                3 => return stream.shutdown().await.unwrap(),
                _ => {}
            }
            forever(stream).await;
        })
    })
    .await;
    for expected in [
        "a line is not a report: ",
        "pod gw-1 answers for gw-0",
        "a line is longer than 1048576 bytes",
        "the stream broke: ",
    ] {
        assert!(scene.report().await.ready);
        let why = scene.loss().await;
        assert!(why.starts_with(expected), "{why:?} is not {expected:?}");
    }
    // The refusal is another try of the same loss: it is not told.
    assert!(scene.report().await.ready);
}

#[tokio::test]
async fn a_long_line_within_the_limit_is_heard() {
    let made = testing::make();
    let mut scene = Scene::start(&made, made.material(), |_, mut stream| {
        Box::pin(async move {
            head(&mut stream).await;
            let zone = "z".repeat(LONGEST_LINE - 1_000);
            let long = line(true).replace("\"ready\"", &format!("\"zone\":\"{zone}\",\"ready\""));
            for part in long.as_bytes().chunks(10_000) {
                send(&mut stream, std::str::from_utf8(part).unwrap()).await;
            }
            forever(stream).await;
        })
    })
    .await;
    assert_eq!(scene.report().await.zone.len(), LONGEST_LINE - 1_000);
}

#[tokio::test]
async fn strangers_are_not_listened_to_until_the_certificate_is_right() {
    let (ours, others) = (testing::make(), testing::make());
    let mut scene = Scene::start(&ours, others.material(), |_, mut stream| {
        Box::pin(async move {
            head(&mut stream).await;
            send(&mut stream, &line(true)).await;
            forever(stream).await;
        })
    })
    .await;
    let why = scene.loss().await;
    assert!(
        why.contains("invalid peer certificate: UnknownIssuer"),
        "{why}"
    );
    scene.material.send_replace(Arc::new(ours.material()));
    assert!(scene.report().await.ready);
}

#[tokio::test]
async fn a_gateway_that_does_not_know_us_is_lost_with_its_reason() {
    let (ours, others) = (testing::make(), testing::make());
    let mut mixed = others.material();
    // We trust it, and it does not trust us.
    mixed.reports = Some(others.client_that_trusts(&ours));
    let mut scene = Scene::start(&ours, mixed, |_, stream| Box::pin(forever(stream))).await;
    let why = scene.loss().await;
    assert!(why.contains("alert"), "{why}");
}

#[tokio::test]
async fn nobody_there_and_no_certificate_are_losses() {
    let made = testing::make();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for (material, expected) in [
        (made.material(), "cannot be reached"),
        (Material::default(), "no certificate to call it with"),
    ] {
        let (_keep, receiver) = watch::channel(Arc::new(material));
        let (sender, mut heard) = mpsc::channel(1);
        let pod = Pod {
            name: "gw-0".to_owned(),
            uid: "u-0".to_owned(),
            ip: Ipv4Addr::LOCALHOST.into(),
        };
        let follower = tokio::spawn(follow(pod, port, receiver, sender));
        match heard.recv().await {
            Some(Heard::Lost { why, .. }) => assert!(why.contains(expected), "{why}"),
            other => panic!("{other:?}"),
        }
        sleep(Duration::from_millis(400)).await;
        assert!(heard.try_recv().is_err(), "told twice");
        follower.abort();
    }
}
