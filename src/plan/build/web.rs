//! `[web]`: where it listens, whom it lets in, and whether its files can be used.

use std::path::PathBuf;

use crate::config::{At, Context, Place, Web};
use crate::web::Settings;
use crate::web::settings::Files;

/// What the section means; none where there is none, or something is wrong in it, which is noted.
pub(super) fn web(written: Option<&Web>, context: &Context<'_>) -> Option<Settings> {
    let written = written?;
    let before = context.problems();
    let tls = tls(written, context);
    let listen = written.listen.as_ref()?;
    let settings = Settings { listen: listen.value, tls, users: written.basic_auth.clone() };
    if context.problems() > before {
        return None;
    }
    if !settings.is_local() && settings.is_open() {
        let message = format!(
            "{} is open to every host that can reach it: what is guarded, how, and what is open; write basic_auth or client_ca_file, \
             or \"127.0.0.1:{}\" with a web server in front",
            listen.value,
            listen.value.port()
        );
        context.hint(&listen.place, message);
    } else if !settings.is_local() && settings.tls.is_none() {
        context.hint(&listen.place, "passwords and answers go over the network in plain text; write cert_file and key_file");
    }
    Some(settings)
}

fn tls(written: &Web, context: &Context<'_>) -> Option<Files> {
    let alone = |here: &At<String>, other: &str| {
        if !context.has_problem_at(&format!("web.{other}")) {
            context.wrong(&here.place, format!("stands alone; write {other} too"));
        }
    };
    let (cert, key) = match (&written.cert_file, &written.key_file) {
        (Some(cert), Some(key)) => (cert, key),
        (Some(cert), None) => {
            alone(cert, "key_file");
            return None;
        }
        (None, Some(key)) => {
            alone(key, "cert_file");
            return None;
        }
        (None, None) => {
            if let Some(ca) = &written.client_ca_file {
                context.wrong(&ca.place, "clients show certificates over TLS alone; write cert_file and key_file too");
            }
            return None;
        }
    };
    let path = |file: &At<String>| -> PathBuf { context.base_dir.join(&file.value) };
    let files = Files { cert_file: path(cert), key_file: path(key), client_ca_file: written.client_ca_file.as_ref().map(path) };
    let before = context.problems();
    for file in [Some(cert), Some(key), written.client_ca_file.as_ref()].into_iter().flatten() {
        if !path(file).is_file() {
            let why = if path(file).exists() { "is not a file" } else { "does not exist" };
            context.wrong(&file.place, format!("{} {why}; relative names start where the configuration lies", path(file).display()));
        }
    }
    if context.problems() > before {
        return None;
    }
    if let Err((at_fault, why)) = files.load() {
        let place: &Place = match at_fault {
            "key_file" => &key.place,
            "client_ca_file" => written.client_ca_file.as_ref().map_or(&cert.place, |ca| &ca.place),
            _ => &cert.place,
        };
        context.wrong(place, why);
        return None;
    }
    Some(files)
}
