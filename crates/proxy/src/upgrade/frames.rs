//! Where the frames of WebSocket end (RFC 6455 §5.2), as far as it takes to say goodbye between two of them. Nothing is checked and
//! nothing is decoded: bytes that are no frames pass like any others.

/// The longest head: two bytes, eight of length, four of the masking key.
const LONGEST_HEAD: usize = 14;
/// The opcode of a close frame.
const CLOSE: u8 = 8;
/// "An endpoint is going away" (RFC 6455 §7.4.1).
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// Which end of a conversation speaks. What a client says is masked (RFC 6455 §5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    Client,
    Server,
}

/// One direction of a conversation.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; LONGEST_HEAD],
    /// Bytes of the head that were seen.
    have: usize,
    /// Bytes of the payload that were not.
    rest: u64,
    closed: bool,
}

// === impl Frames ===

impl Frames {
    /// Whether no frame has begun that has not ended.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.rest == 0
    }

    /// Whether a close frame has begun: nothing may follow it.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Follows bytes that pass, all of them, or with `to_end` those up to the end of the frame they belong to. Answers how many.
    pub(super) fn follow(&mut self, bytes: &[u8], to_end: bool) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.rest > 0 {
                let here = (bytes.len() - at) as u64;
                let taken = self.rest.min(here);
                self.rest -= taken;
                at += taken as usize;
            } else {
                self.head[self.have] = *byte;
                self.have += 1;
                at += 1;
                self.look_at_head();
            }
            if to_end && self.is_between() {
                break;
            }
        }
        at
    }

    fn look_at_head(&mut self) {
        if self.have < 2 {
            return;
        }
        let (masked, short) = (self.head[1] >> 7, self.head[1] & 0x7f);
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.have < 2 + extended + 4 * usize::from(masked) {
            return;
        }
        let length = self.head[2..2 + extended].iter();
        self.rest = match extended {
            0 => u64::from(short),
            _ => length.fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        self.closed |= self.head[0] & 0x0f == CLOSE;
        self.have = 0;
    }
}

/// The frame by which an end goes away.
pub(super) fn goodbye(from: Speaker) -> Vec<u8> {
    match from {
        Speaker::Server => [[0x80 | CLOSE, 2], GOING_AWAY].concat(),
        Speaker::Client => {
            let key = fastrand::u32(..).to_be_bytes();
            let code = [GOING_AWAY[0] ^ key[0], GOING_AWAY[1] ^ key[1]];
            [&[0x80 | CLOSE, 0x80 | 2][..], &key, &code].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..=125 => bytes.push(mask | length as u8),
            126..=65_535 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        bytes.resize(bytes.len() + length, 0xff);
        bytes
    }

    #[test]
    fn frames_of_every_length_end_where_they_end_however_they_are_cut() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 300, 65_535, 65_536, 70_000] {
                let one = frame(2, length, masked);
                let two = [one.clone(), frame(1, 3, masked)].concat();
                for piece in [1, 7, 1_000, two.len()] {
                    let mut frames = Frames::default();
                    let mut ends = Vec::new();
                    let mut at = 0;
                    for chunk in two.chunks(piece) {
                        let mut chunk = chunk;
                        while !chunk.is_empty() {
                            let taken = frames.follow(chunk, true);
                            at += taken;
                            chunk = &chunk[taken..];
                            if frames.is_between() {
                                ends.push(at);
                            }
                        }
                    }
                    assert_eq!(ends, [one.len(), two.len()], "{length} {masked} {piece}");
                    let mut frames = Frames::default();
                    assert_eq!(frames.follow(&two, false), two.len());
                    assert!(frames.is_between() && !frames.is_closed());
                }
            }
        }
    }

    #[test]
    fn a_goodbye_is_one_frame_that_closes() {
        for from in [Speaker::Client, Speaker::Server] {
            let mut bytes = goodbye(from);
            let mut frames = Frames::default();
            assert_eq!(frames.follow(&bytes, true), bytes.len());
            assert!(frames.is_between() && frames.is_closed());
            if from == Speaker::Client {
                let key: [u8; 4] = bytes[2..6].try_into().unwrap();
                bytes[6] ^= key[0];
                bytes[7] ^= key[1];
            }
            assert_eq!(bytes[bytes.len() - 2..], [0x03, 0xe9]);
        }
    }
}
