//! HTTP/2 frames (RFC 9113, 4.1), as far as an attacker needs them.

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// How far an answer may run ahead of its reader.
const WINDOW_BYTES: u32 = 1 << 30;

/// Reset by its caller (RFC 9113, 7).
pub(crate) const CANCEL: [u8; 4] = [0, 0, 0, 8];

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("frames are short")
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// How a connection begins, with windows of a gibibyte: no answer waits for them, and they may still be widened.
pub(crate) fn greeting() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE.
    let mut settings = vec![0, 4];
    settings.extend(WINDOW_BYTES.to_be_bytes());
    bytes.extend(frame(SETTINGS, 0, 0, &settings));
    let rest = WINDOW_BYTES - 65_535;
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &rest.to_be_bytes()));
    bytes
}

/// Whether the first call of a connection was answered or reset by what came.
pub(crate) fn is_answered(mut bytes: &[u8]) -> bool {
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if matches!(head[3], HEADERS | RST_STREAM) && head[5..] == [0, 0, 0, 1] {
            return true;
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    false
}

/// The headers of a gRPC call, each a literal that goes into no table (RFC 7541, 6.2.2).
pub(crate) fn call_headers(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "127.0.0.1"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in usual.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            string(&mut block, text);
        }
    }
    block
}

/// A string that is not compressed: its length with seven bits at first (RFC 7541, 5.1 and 5.2).
fn string(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        block.push(length.to_le_bytes()[0]);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(length.to_le_bytes()[0] | 128);
            length >>= 7;
        }
        block.push(length.to_le_bytes()[0]);
    }
    block.extend(text.as_bytes());
}

/// A gRPC message with its prefix.
pub(crate) fn message(message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = vec![0];
    let length = u32::try_from(message.encoded_len()).expect("messages are short");
    bytes.extend(length.to_be_bytes());
    bytes.extend(message.encode_to_vec());
    bytes
}
