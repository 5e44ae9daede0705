//! A registry that asks for a login, and a bucket that lets nobody in.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// Serves until the process ends; gives its address.
pub(crate) fn refusing_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let _ = refuse(connection);
        }
    });
    address
}

fn refuse(mut connection: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            amount => request.extend_from_slice(&buffer[..amount]),
        }
    }
    let is_registry = String::from_utf8_lossy(&request).contains(" /v2/");
    let (status, header, body) = match is_registry {
        true => (
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"images\"\r\n",
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
        ),
        false => (
            "403 Forbidden",
            "",
            r#"{"error":{"code":403,"message":"deployer@example.com does not have storage.objects.list access to the bucket."}}"#,
        ),
    };
    let length = body.len();
    write!(
        connection,
        "HTTP/1.1 {status}\r\n{header}Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
