//! A request head: no bytes make it panic, no beginning of a head is a head, and what follows it is never looked at.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mustnot::proxy::request::parse;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(request)) = parse(bytes) else { return };
    let length = bytes.len() - request.early.len();
    let (head, early) = bytes.split_at(length);
    assert_eq!(early, request.early, "what follows is passed on as it came");
    assert!(!matches!(parse(&head[..length - 1]), Ok(Some(_))), "a head that is not whole");
    let again = parse(&[head, b"GET http://169.254.169.254/ HTTP/1.1\r\n\r\n"].concat()).expect("the same head").expect("the same head");
    assert_eq!(format!("{:?}", again.method), format!("{:?}", request.method), "what follows changed what was read");
});
