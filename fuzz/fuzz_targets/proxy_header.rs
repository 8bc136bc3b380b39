//! A PROXY header, version 1 or 2: no bytes make it panic, no beginning of one is one, and what follows it is never looked at.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mustnot::proxy::proxy_header::{may_begin, parse};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((header, length))) = parse(bytes) else { return };
    assert!(may_begin(bytes) && (1..=bytes.len()).contains(&length));
    let whole = &bytes[..length];
    for cut in [0, 1, length / 2, length - 1] {
        assert_eq!(parse(&whole[..cut]), Ok(None), "{cut} of {length} bytes");
    }
    assert_eq!(parse(&[whole, b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"].concat()), Ok(Some((header, length))));
});
