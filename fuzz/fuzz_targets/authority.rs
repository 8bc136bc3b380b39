//! The authority of a CONNECT: what is read is written back as itself, and another reader of the same line sees the same destination.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mustnot::proxy::request::{Method, parse};

fn read(authority: &[u8]) -> Option<String> {
    let head = [b"CONNECT ", authority, b" HTTP/1.1\r\n\r\n"].concat();
    match parse(&head) {
        Ok(Some(request)) if request.early.is_empty() => match request.method {
            Method::Connect(to) => Some(to.to_string()),
            other => panic!("a CONNECT was read as {other:?}"),
        },
        Ok(_) | Err(_) => None,
    }
}

fuzz_target!(|authority: &[u8]| {
    // with an end of line in it, it would be another head
    if authority.iter().any(|b| matches!(b, b'\r' | b'\n' | b' ')) {
        return;
    }
    let Some(ours) = read(authority) else { return };
    assert_eq!(read(ours.as_bytes()).as_ref(), Some(&ours), "what is written is not read as itself");
    let theirs = http::uri::Authority::try_from(authority).expect("no authority to others");
    let (host, port) = ours.rsplit_once(':').expect("a port");
    assert_eq!(theirs.port().map(|p| p.as_str().to_string()).as_deref(), Some(port), "another port to others");
    // an IPv6 literal has many texts
    if !host.starts_with('[') && !theirs.host().starts_with('[') {
        assert_eq!(theirs.host().trim_end_matches('.').to_ascii_lowercase(), host, "another host to others");
    }
});
