//! A squid.conf: whatever stands in it, it is read and judged.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mustnot::squid::lint::{Setting, lint};
use mustnot::squid::read::Files;

struct NoFiles;

impl Files for NoFiles {
    fn read(&self, path: &str) -> Result<String, String> {
        Err(format!("{path} is not here"))
    }

    fn glob(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

fuzz_target!(|text: &str| {
    let setting = Setting { behind_load_balancer: text.len() % 2 == 0, stop_timeout: Duration::from_secs(30) };
    let _ = lint("squid.conf", text, &NoFiles, setting);
});
