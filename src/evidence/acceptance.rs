//! What this host's kernel made of the reset. Acceptance shows that the sender knew the exact
//! sequence number, nothing more: the kernel checks neither ACK nor timestamps nor hop limit
//! (`tcp_validate_incoming`).

use super::{Case, Evidence, Group, Kind, SequenceFit};
use crate::host::SocketView;

/// The kernel ended the connection.
pub const ACCEPTED: Kind = Kind::remote("kernel_accepted", Group::Origin);
/// The kernel did not, although a connection was there.
pub const REFUSED: Kind = Kind::injected("kernel_refused", Group::Origin);

/// `tcp_receive_reset` fired for the first reset, or did not although it met a full socket.
///
/// False positives of the latter: a genuine abort ahead of lost data, which an exact one follows:
/// silent; events that were lost (the engine then says that it does not know).
///
/// Of a socket that the reset's own addresses do not lead to (this host translates them), only its word
/// that it took one is there, and not which: of several numbers any may have been the one.
#[must_use]
pub fn kernel(case: &Case<'_>) -> Option<Evidence> {
    let first = case.first()?;
    let met = first.socket.as_ref().filter(|s| s.sequence().is_some());
    let state = met.and_then(SocketView::state);
    match case.accepted? {
        true => {
            let seq = first.segment.seq;
            let is_only = || case.from_sender().all(|r| r.segment.seq == seq);
            (state.is_some() || is_only()).then(|| ACCEPTED.found("accepted", "accepted"))
        }
        false => {
            let exact_follows = case.from_sender().any(|r| r.fit == SequenceFit::Exact);
            (state?.is_connection() && !exact_follows).then(|| REFUSED.found("refused", "accepted"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::kernel;
    use crate::evidence::testing::{SENDER_ISN, Scene, name};

    fn met(accepted: Option<bool>) -> Scene {
        let mut scene = Scene::established().socket(|s| s.rcv_nxt = SENDER_ISN.plus(1));
        scene.accepted = accepted;
        scene
    }

    #[test]
    fn the_kernels_word_is_taken_where_there_is_one() {
        assert_eq!(met(Some(true)).check(kernel), name("kernel_accepted"));
        assert_eq!(met(Some(false)).check(kernel), name("kernel_refused"));
        assert_eq!(met(None).check(kernel), None);
    }

    #[test]
    fn without_a_socket_nothing_was_refused() {
        let mut scene = Scene::established();
        scene.accepted = Some(false);
        assert_eq!(scene.check(kernel), None);
    }

    #[test]
    fn a_socket_that_was_not_met_has_taken_the_only_number_that_came() {
        let mut scene = Scene::established();
        scene.accepted = Some(true);
        assert_eq!(scene.check(kernel), name("kernel_accepted"));
        let same = scene.clone().again(100, |_| ());
        assert_eq!(same.check(kernel), name("kernel_accepted"));
        // Somebody guesses: which of them it took, nobody knows.
        let guessed = scene.again(100, |r| r.seq = SENDER_ISN.plus(1));
        assert_eq!(guessed.check(kernel), None);
    }

    #[test]
    fn an_exact_reset_that_follows_explains_the_refusal() {
        let mut scene = Scene::established()
            .again(100_000, |r| r.seq = SENDER_ISN.plus(1))
            .socket(|s| s.rcv_nxt = SENDER_ISN.plus(1));
        scene.accepted = Some(false);
        assert_eq!(scene.check(kernel), None);
    }
}
