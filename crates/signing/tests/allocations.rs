//! Verifying with a warm [`Scratch`] allocates nothing, whether the signature is right or wrong.

use paifang_signing::{Algorithm, Key, Parts, Scratch, verify};

const LIST: &[u8] = b"x-ca-key,x-ca-nonce,x-ca-stage,x-ca-timestamp";

type Request = (
    Parts<'static, [(&'static str, &'static str)]>,
    &'static [u8],
);

fn requests() -> [Request; 3] {
    const HEADERS: &[(&str, &str)] = &[
        ("accept", "application/json"),
        (
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        ),
        ("x-ca-key", "203753385"),
        ("x-ca-nonce", "11111111-2222-3333-4444-555555555555"),
        ("x-ca-stage", "RELEASE"),
        ("x-ca-timestamp", "1700000000000"),
    ];
    let get = Parts {
        method: "GET",
        raw_path: "/a",
        query: Some("a=1&b=2"),
        form: None,
        headers: HEADERS,
    };
    // Every reading differs from every other, and the signature is wrong: the most work there is.
    let worst = Parts {
        method: "POST",
        raw_path: "/%E5%BC%A0",
        query: Some("k=%E5%BC%A0+1&a=1&empty&b=2"),
        form: Some(b"k=form&z=%20"),
        headers: HEADERS,
    };
    let node = Parts {
        method: "POST",
        raw_path: "/http2test/test",
        query: Some("param1=test"),
        form: Some(b"username=xiaoming&password=123456789"),
        headers: HEADERS,
    };
    [
        (get, b""),
        (worst, b"1iTEjTWyh/qdmdYfVO+K0zjsms8T8r2wzBxjOgHcu64="),
        (node, b"4eWHZmKE8QDh6k5aE0xnstaMbzPM3UpKX2uBk5qm/q8="),
    ]
}

fn verify_all(key: &Key, scratch: &mut Scratch) -> usize {
    let verified = requests().map(|(parts, signature)| {
        let lists = [LIST, b"X-Ca-Key,x-ca-nonce"];
        let verifies = |list| {
            verify(
                &parts,
                signature,
                Some(list),
                Algorithm::HmacSha256,
                key,
                &mut *scratch,
            )
            .is_ok()
        };
        lists.map(verifies)
    });
    verified
        .into_iter()
        .flatten()
        .filter(|verified| *verified)
        .count()
}

#[test]
fn a_warm_scratch_allocates_nothing() {
    let (key, mut scratch) = (Key::new("MySecret"), Scratch::new());
    let cold = allocation_counter::measure(|| assert_eq!(verify_all(&key, &mut scratch), 1));
    assert!(cold.count_total > 0, "the counter counts");
    let warm = allocation_counter::measure(|| assert_eq!(verify_all(&key, &mut scratch), 1));
    assert_eq!(warm.count_total, 0);
}
