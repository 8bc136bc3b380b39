//! The entrance: from a listener to a place, by way of a PROXY header where one must be.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::door::{Door, Entry};
use super::limit::{self, Place};
use super::policy::Heard;
use super::proxy_header::{self, Header};
use super::reason::Reason;
use super::{Caller, Core, Share, answer, attend, stats, tunnel};
use crate::target::fold_mapped;

/// Accepts until the proxy closes; then takes in who is in the backlog already, whom closing would reset.
pub(super) async fn accept(mut door: Door, held: &Share) {
    let life = &held.core.life;
    let mut closing = pin!(life.closing(|| held.core.rules().drain));
    loop {
        let entry = tokio::select! {
            biased;
            () = &mut closing => break,
            entry = door.next(life) => entry,
        };
        match entry {
            Entry::Guest(stream, peer) => admit(stream, peer, held),
            Entry::Last(stream, peer) => {
                let caller = Caller::new(peer, &held.core);
                turn_away(&stream, &caller, &held.core, caller.no_room());
            }
        }
    }
    while let Some((stream, peer)) = door.next_now() {
        admit(stream, peer, held);
    }
}

/// Finds out who calls, and seats them.
fn admit(stream: TcpStream, peer: SocketAddr, held: &Share) {
    let caller = Caller::new(peer, &held.core);
    if !caller.rules.believes(caller.peer.ip()) {
        return seat(stream, caller, held);
    }
    match held.core.seats.unnamed() {
        Some(place) => {
            let held = held.clone();
            tokio::spawn(async move {
                if let Some((stream, caller)) = introduce(stream, caller, place, &held).await {
                    seat(stream, caller, &held);
                }
            });
        }
        None => turn_away(&stream, &caller, &held.core, caller.no_room()),
    }
}

/// Finds a place for the connection and serves it; one for which there is not even standing room is closed at once.
fn seat(stream: TcpStream, caller: Caller, held: &Share) {
    match held.core.seats.place(caller.client.ip(), caller.is_stranger()) {
        Some(place) => {
            // as it is: an `async` block around it would hold all of this twice, for as long as the tunnel stands
            tokio::spawn(attend(stream, caller, place, held.clone()));
        }
        None if caller.is_stranger() => turn_away(&stream, &caller, &held.core, Reason::Source),
        None => turn_away(&stream, &caller, &held.core, Reason::Limit),
    }
}

/// Says no as far as it can be said without waiting.
fn turn_away(stream: &TcpStream, caller: &Caller, core: &Core, reason: Reason) {
    core.decided(caller, &Heard::Nothing, reason, None);
    answer::refuse_at_once(stream, reason);
}

/// Hears the PROXY header, and with it who calls; nothing, where the connection has ended with that.
async fn introduce(mut stream: TcpStream, mut caller: Caller, place: Place, held: &Share) -> Option<(TcpStream, Caller)> {
    let _open = stats::Counted::new(&held.core.stats.connections);
    let mut cut = held.cut.clone();
    let named = tokio::select! {
        named = name(&mut stream, &mut caller, &held.core) => named,
        _ = cut.wait_for(|cut| *cut) => {
            tunnel::reset(&stream);
            None
        }
    };
    drop(place);
    named.map(|()| (stream, caller))
}

async fn name(stream: &mut TcpStream, caller: &mut Caller, core: &Core) -> Option<()> {
    match proxy_header::read(stream, proxy_header::TIMEOUT).await {
        Ok(Header::Proxied { source, .. }) => caller.client = folded(source),
        Ok(Header::Local) => {}
        Err(malformed) if malformed.silent => return None,
        Err(malformed) => {
            core.decided(caller, &Heard::Malformed(malformed), Reason::ProxyHeader, None);
            answer::refuse(stream, Reason::ProxyHeader).await;
            return None;
        }
    }
    // Who calls for itself, by LOCAL or (as HAProxy does in version 1) by its own address and port, is judged as anybody is. But its
    // health check ends without a word, and is no request that would have to be refused.
    if caller.client == caller.peer && caller.is_stranger() {
        let looked = timeout(limit::STANDING_TIMEOUT, stream.peek(&mut [0])).await;
        if matches!(looked, Ok(Ok(0) | Err(_))) {
            return None;
        }
    }
    Some(())
}

impl Caller {
    fn new(peer: SocketAddr, core: &Arc<Core>) -> Caller {
        let peer = folded(peer);
        Caller { client: peer, peer, accepted: Instant::now(), rules: core.rules() }
    }

    /// Why one is refused who has not yet said a word: of a client behind a balancer nothing is known but that there is no room.
    fn no_room(&self) -> Reason {
        let judged = !self.rules.believes(self.peer.ip()) && self.is_stranger();
        if judged { Reason::Source } else { Reason::Limit }
    }

    fn is_stranger(&self) -> bool {
        self.rules.policy.source(self.client.ip()).is_none()
    }
}

/// IPv4 as such, and no scope: one address has one text.
fn folded(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(fold_mapped(address.ip()), address.port())
}
