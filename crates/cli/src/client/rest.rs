//! Signed calls of the REST API: one call, one connection.

use std::io::{Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use fulmar_protocol::signing::Signer;
use serde_json::Value;

use super::connect::connect;
use super::{Failure, Target};

/// Largest answer that is read: a listing of some hundred thousand channels.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
const HEADERS_MAX: usize = 64;

/// Calls `path` (below `/apps/ID`) and answers the JSON of a 200.
pub fn call(target: &Target, method: &str, path: &str, params: &[(&str, &str)], body: &[u8]) -> Result<Value, Failure> {
    let path = format!("/apps/{}{path}", target.app.id);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let query = Signer::of(&target.app).sign_request(method, &path, params, body, now);
    let mut request = format!(
        "{method} {}{path}?{query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: application/json\r\n\
         User-Agent: fulmar/{}\r\n",
        target.path_prefix,
        target.authority(),
        env!("CARGO_PKG_VERSION"),
    )
    .into_bytes();
    if !body.is_empty() {
        request.extend(format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()).as_bytes());
    }
    request.extend(b"\r\n");
    request.extend(body);

    let (status, body) = exchange(target, &request)?;
    judge(target, status, &body)
}

/// The query for these parameters, escaped, with its question mark; nothing for none.
pub fn query(params: &[(&str, &str)]) -> String {
    let escaped = |text: &str| -> String {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    let pair = |(name, value): &(&str, &str)| format!("{}={}", escaped(name), escaped(value));
    let pairs: Vec<String> = params.iter().map(pair).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// One whole request, and the status and body of its answer.
pub fn exchange(target: &Target, request: &[u8]) -> Result<(u16, Vec<u8>), Failure> {
    let mut stream = connect(target)?;
    let lost = |e: std::io::Error| format!("the connection to {} broke: {e}", target.authority());
    stream.write_all(request).and_then(|()| stream.flush()).map_err(lost)?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
        // Some TLS servers close without saying so; whether the answer is whole is seen from its own length.
        Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => return Err(lost(e).into()),
        _ => {}
    }
    Ok(parse(&answer).ok_or_else(|| format!("{} does not answer in HTTP", target.authority()))?)
}

fn judge(target: &Target, status: u16, body: &[u8]) -> Result<Value, Failure> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    match status {
        200 => serde_json::from_slice(body).map_err(|_| format!("the answer is not JSON: {text}").into()),
        401 | 404 if !target.app_named => Err(format!("{status}: {text}{}", target.app_hint()).into()),
        _ => Err(format!("{status}: {text}").into()),
    }
}

/// Status and body of a whole answer; `None` when it is not one.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else { return None };
    let header = |name: &str| {
        let found = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let rest = answer.get(length..)?;
    let body = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        unchunk(rest)?
    } else if let Some(length) = header("content-length") {
        rest.get(..length.parse().ok()?)?.to_vec()
    } else {
        rest.to_vec()
    };
    Some((head.code?, body))
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((head, size)) = httparse::parse_chunk_size(rest).ok()? else { return None };
        let size = usize::try_from(size).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend(rest.get(head..head.checked_add(size)?)?);
        rest = rest.get(head + size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-12
    #[test]
    fn an_answer_is_read_whole_however_its_length_is_told() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}extra", Some((200, "{}"))),
            ("HTTP/1.1 200 OK\r\n\r\n{\"a\":1}", Some((200, "{\"a\":1}"))),
            (
                "HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
                Some((400, "abcd")),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", None),
            ("HTTP/1.1 200 OK\r\nContent-Le", None),
            ("SSH-2.0-x\r\n", None),
            ("", None),
        ] {
            let read = parse(answer.as_bytes());
            let expected = expected.map(|(status, body): (u16, &str)| (status, body.as_bytes().to_vec()));
            assert_eq!(read, expected, "{answer:?}");
        }
    }
}
