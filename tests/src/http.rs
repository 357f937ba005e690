//! Just enough HTTP to download from the relay without an HTTP library's opinion between it and the test.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// GET by HTTP/1.0, which has no chunks: the body is what comes until the end. Status and body.
///
/// # Panics
/// When there is no HTTP answer.
pub async fn get(authority: &str, path: &str) -> (u16, Vec<u8>) {
    let (status, _, body) = get_with_headers(authority, path).await;
    (status, body)
}

/// As [`get`], with the response's headers as one text, in lower case.
///
/// # Panics
/// When there is no HTTP answer.
pub async fn get_with_headers(authority: &str, path: &str) -> (u16, String, Vec<u8>) {
    let mut connection = TcpStream::connect(authority)
        .await
        .expect("the relay accepts connections");
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("the relay reads requests");
    let mut answer = Vec::new();
    connection
        .read_to_end(&mut answer)
        .await
        .expect("the relay answers");
    let head_end = memchr::memmem::find(&answer, b"\r\n\r\n").expect("an answer has a head");
    let body = answer.split_off(head_end + 4);
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("an answer has a status");
    (status, head, body)
}
