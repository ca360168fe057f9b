//! WebSocket frames (RFC 6455 §5.2), as a load needs them: read in place, and written with one mask.

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Whether it ends its message.
    pub(super) is_last: bool,
    pub(super) opcode: Opcode,
    pub(super) payload: &'a [u8],
    /// The length of the frame with its header.
    pub(super) length: usize,
}

/// Much longer than any message of this protocol.
pub(super) const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The mask of every frame. A browser needs a mask that nobody can guess (RFC 6455 §10.3). A load does not: it sends no
/// text of others. The server unmasks all the same.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

const LAST: u8 = 0x80;
const MASKED: u8 = 0x80;

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        match self {
            Self::Continuation | Self::Text | Self::Binary => false,
            Self::Close | Self::Ping | Self::Pong => true,
        }
    }
}

/// The first frame of `bytes`. `None` if it is not whole yet.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn read_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    let is_last = first & LAST != 0;
    let opcode = Opcode::from_bits(first & 0x0f).ok_or("a frame has an unknown opcode")?;
    if first & 0x70 != 0 {
        return Err("a frame has reserved bits");
    }
    if second & MASKED != 0 {
        return Err("a frame of the server has a mask");
    }
    let (header, length) = match second & !MASKED {
        126 => match rest {
            &[a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(&length) => (10, usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX)),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    if opcode.is_control() && (!is_last || length > 125) {
        return Err("a control frame is too long or in fragments");
    }
    if length > MAX_MESSAGE_BYTES {
        return Err("a message is too long");
    }
    let payload = bytes.get(header..header + length);
    Ok(payload.map(|payload| Frame { is_last, opcode, payload, length: header + length }))
}

/// Appends a masked frame that is a whole message of at most 65,535 bytes: its payload is these parts.
pub(super) fn write_frame(opcode: Opcode, parts: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(LAST | opcode.bits());
    match u8::try_from(length) {
        Ok(short @ ..126) => out.push(MASKED | short),
        Ok(_) | Err(_) => {
            out.push(MASKED | 126);
            out.extend(u16::try_from(length).expect("a load sends short messages").to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(parts.iter().copied().flatten().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    use async_tungstenite::tungstenite::protocol::{Message, Role, WebSocket};

    #[test]
    fn frame_is_read_once_it_is_whole() {
        for length in [0, 1, 125, 126, 1000, 65_535, 65_536, MAX_MESSAGE_BYTES] {
            let mut server = WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Server, None);
            let text = "a".repeat(length);
            server.send(Message::text(text.as_str())).expect("a writer");
            let bytes = server.get_ref().get_ref();
            let frame = read_frame(bytes).expect("a frame").expect("a whole frame");
            assert_eq!(
                frame,
                Frame { is_last: true, opcode: Opcode::Text, payload: text.as_bytes(), length: bytes.len() }
            );
            for end in (0..bytes.len().min(12)).chain([bytes.len() - 1]) {
                assert_eq!(read_frame(&bytes[..end]), Ok(None), "{end} of {length}");
            }
        }
    }

    #[test]
    fn broken_frames_are_errors() {
        for bytes in [
            &[0x83, 0][..],
            &[0xc1, 0],
            &[0x81, 0x80, 0, 0, 0, 0],
            &[0x09, 0],
            &[0x89, 126, 0, 126],
            &[0x81, 127, 0, 0, 0, 0, 0, 4, 0, 1],
            &[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert!(read_frame(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn written_frame_is_read_by_a_server() {
        for length in [0, 5, 125, 126, 300] {
            let text = "ä".repeat(length / 2) + &"b".repeat(length % 2);
            let (first, second) = text.as_bytes().split_at(length / 3);
            let mut bytes = Vec::new();
            write_frame(Opcode::Text, &[first, second], &mut bytes);
            let mut server = WebSocket::from_raw_socket(Cursor::new(bytes), Role::Server, None);
            assert_eq!(server.read().expect("a frame"), Message::text(text));
        }
    }
}
