//! The guard in front of the HTTP library: what it lets pass the library understands in the same way, however the bytes
//! were cut into pieces on their way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use paifang_proxy::clean::wire::{Verdict, Wire};

const MAX_HEAD: usize = 8 << 10;

// The first byte says how many of the next are sizes of pieces; what follows is the connection's bytes.
fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else { return };
    let (cuts, bytes) = rest.split_at(usize::from(count).min(rest.len()));
    let whole = passed(bytes, &mut std::iter::empty());
    let pieces = passed(bytes, &mut cuts.iter().map(|&c| usize::from(c) + 1));
    assert_eq!(whole.refused, pieces.refused, "cutting the bytes changed the answer");
    if !whole.refused {
        assert_eq!(whole.messages, pieces.messages, "cutting the bytes moved a boundary");
    }
    // A refusal may come earlier or later within a message, but never lets one more message through.
    let complete = |of: &Passed| of.messages.len();
    assert_eq!(complete(&whole), complete(&pieces));

    for &(from, to) in &whole.messages {
        let message = &bytes[from..to];
        let mut headers = [httparse::EMPTY_HEADER; 4096];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(message) {
            Ok(httparse::Status::Complete(head)) => {
                let names = |name: &str| request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
                assert_eq!(names("host"), 1);
                assert!(names("content-length") + names("transfer-encoding") <= 1);
                let length = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
                if let Some(length) = length {
                    let said: usize = std::str::from_utf8(length.value).expect("digits").trim().parse().expect("a number");
                    assert_eq!(said, message.len() - head, "the body is not as long as it says");
                } else if names("transfer-encoding") == 0 {
                    assert_eq!(message.len(), head, "a body that nothing announced");
                } else {
                    assert!(message[head..].ends_with(b"\r\n"));
                }
            }
            other => panic!("the library does not read as one message what passed: {other:?}"),
        }
    }
});

#[derive(Debug, PartialEq)]
struct Passed {
    /// Where each complete message begins and ends.
    messages: Vec<(usize, usize)>,
    refused: bool,
}

/// Shows `bytes` in pieces of the given sizes (the rest at once).
fn passed(bytes: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> Passed {
    let mut wire = Wire::new(MAX_HEAD);
    let (mut shown, mut done, mut begun) = (0, 0, 0);
    let mut found = Passed { messages: Vec::new(), refused: false };
    while shown < bytes.len() {
        shown = sizes.next().map_or(bytes.len(), |size| (shown + size).min(bytes.len()));
        loop {
            match wire.inspect(&bytes[done..shown]) {
                Verdict::Pass(0) => panic!("passing nothing is not progress"),
                Verdict::Pass(count) => {
                    done += count;
                    assert!(done <= shown, "passed what it was not shown");
                    if wire.between_requests() {
                        found.messages.push((begun, done));
                        begun = done;
                    }
                }
                Verdict::More => break,
                Verdict::Refuse(_) => {
                    found.refused = true;
                    return found;
                }
            }
        }
    }
    found
}
