//! From a failed call or an ICMP error to an outcome: here, and nowhere else.

use std::io;

use nix::errno::Errno;

use crate::observation::{Evidence, Icmp, Outcome};

/// ICMP "destination unreachable" (RFC 792).
const ICMP_UNREACHABLE: u8 = 3;
/// ICMPv6 "destination unreachable" (RFC 4443 section 3.1).
const ICMP6_UNREACHABLE: u8 = 1;

/// What an ICMP error from someone else means for a connection attempt (RFC 792, RFC 1812 section 5.2.7.1, RFC 4443).
/// One that this host sent itself is a local error, whatever it says.
pub fn of_icmp(icmp: &Icmp, ipv6: bool) -> Outcome {
    if icmp.ours {
        return Outcome::LocalError;
    }
    match (ipv6, icmp.kind, icmp.code) {
        (false, ICMP_UNREACHABLE, 3) | (true, ICMP6_UNREACHABLE, 4) => Outcome::Refused,
        (false, ICMP_UNREACHABLE, 9 | 10 | 13) | (true, ICMP6_UNREACHABLE, 1 | 5 | 6) => Outcome::Prohibited,
        _ => Outcome::Unreachable,
    }
}

/// What a failed connection attempt without an ICMP error in the queue means. Only what the other side alone can
/// cause is its doing; the rest is ours: no route, no address, no permission, no descriptor.
pub fn of_connect(error: &io::Error) -> Outcome {
    match errno(error) {
        Some(Errno::ECONNREFUSED) => Outcome::Refused,
        Some(Errno::ECONNRESET) => Outcome::Reset,
        Some(Errno::ETIMEDOUT) => Outcome::Timeout,
        _ => Outcome::LocalError,
    }
}

/// What a failed read or write on an established connection means.
pub fn of_exchange(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => Outcome::Reset,
        io::ErrorKind::UnexpectedEof => Outcome::Closed,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Outcome::Mute,
        _ => Outcome::LocalError,
    }
}

/// What a failed handshake or read on a TLS stream means (RFC 8446 section 6); alert and error go into the evidence.
/// A server that speaks TLS without a version or parameter in common still has let us in this far.
pub fn of_tls(error: &io::Error, evidence: &mut Evidence) -> Outcome {
    let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
        return of_exchange(error);
    };
    evidence.tls_error = Some(tls.to_string());
    match tls {
        rustls::Error::AlertReceived(alert) => {
            evidence.tls_alert = Some(alert_name(*alert));
            Outcome::TlsRefused
        }
        rustls::Error::InvalidMessage(_) => Outcome::NotTls,
        _ => Outcome::TlsUntrusted,
    }
}

/// An alert's name as RFC 8446 section 6 writes it.
pub fn alert_name(alert: rustls::AlertDescription) -> String {
    snake_case(&format!("{alert:?}"))
}

/// `CertificateRequired` as RFC 8446 writes it: `certificate_required`.
fn snake_case(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    let mut after_lower = false;
    for c in camel.chars() {
        if c.is_ascii_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = c.is_ascii_lowercase();
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// The errno's name and meaning, for evidence.
pub fn name(error: &io::Error) -> String {
    errno(error).map_or_else(|| error.to_string(), |e| format!("{e:?}"))
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_other_side_can_block() {
        let ours = [
            Errno::ENETUNREACH,
            Errno::EHOSTUNREACH,
            Errno::EACCES,
            Errno::EPERM,
            Errno::EINVAL,
            Errno::EADDRNOTAVAIL,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOBUFS,
            Errno::ENOMEM,
            Errno::EAFNOSUPPORT,
        ];
        for errno in ours {
            assert_eq!(of_connect(&io::Error::from(errno)), Outcome::LocalError, "{errno}");
        }
        assert_eq!(of_connect(&io::Error::from(Errno::ECONNREFUSED)), Outcome::Refused);
    }

    #[test]
    fn alerts_are_named_as_the_rfc_names_them() {
        for (debug, name) in
            [("CertificateRequired", "certificate_required"), ("UnknownCA", "unknown_ca"), ("HandshakeFailure", "handshake_failure")]
        {
            assert_eq!(snake_case(debug), name);
        }
    }

    #[test]
    fn icmp_codes_cell_by_cell() {
        let of = |kind, code, ipv6, ours| of_icmp(&Icmp { kind, code, sender: None, ours, soft: false }, ipv6);
        for code in 0..=15 {
            let expected = match code {
                3 => Outcome::Refused,
                9 | 10 | 13 => Outcome::Prohibited,
                _ => Outcome::Unreachable,
            };
            assert_eq!(of(3, code, false, false), expected, "3/{code}");
            assert_eq!(of(3, code, false, true), Outcome::LocalError, "our own 3/{code}");
        }
        for code in 0..=7 {
            let expected = match code {
                4 => Outcome::Refused,
                1 | 5 | 6 => Outcome::Prohibited,
                _ => Outcome::Unreachable,
            };
            assert_eq!(of(1, code, true, false), expected, "v6 1/{code}");
        }
        assert_eq!(of(11, 0, false, false), Outcome::Unreachable);
        assert_eq!(of(3, 0, true, false), Outcome::Unreachable);
    }
}
