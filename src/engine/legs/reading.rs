//! What a turn says of an end that a process made: which leg's reset it passes on, and how sure that
//! is. Two questions, two numbers: where both neighbors were reset themselves, that some reset went on
//! is sure though nobody can tell which. Refuses where an orderly close explains it as well.
//!
//! The numbers are of two sets of runs of `scripts/live` (the pool's play and all plays, 8 at once, on two
//! CPUs), held against HAProxy's own log; the rules were made by the first, those in brackets are of the
//! second. What depends on the order of two ends is of 48 further runs, 42 of them with one repeat and so more at a time.
//! docs/record.md has the table of another set, of other seeds, with the sensor that has these rules.

use super::ending::{Leg, Passed};
use super::turn::{End, Turn};
use crate::time::MICROSECOND;

/// No other neighbor fits, whatever the distance: 281 of 282 (1,000 of 1,000).
const UNRIVALED: f32 = 0.99;

/// The same where a pool lent the connection: 301 of 301 (293 of 293). A real pool lends more at a time
/// than the lab's, hence less.
const LENT: f32 = 0.95;

/// No pair by the whole turn's reading, since the thread was interrupted for long between the two: 42 of
/// 42 (22 of 22).
const INTERRUPTED: f32 = 0.9;

/// The other neighbor was reset too, and the whole turn's reading takes this one: 63 of 67 (66 of 68).
const RIVALED: f32 = 0.9;

/// One of two: 10 of 10 times it was one of them (12 of 12).
const EITHER: f32 = 0.5;

/// An orderly close explains it as well, by the pool's doing both times: 3 of 3 (3 of 3), too few to say more.
const LENT_RIVALED: f32 = 0.85;

/// The same where none of the two would be lent, and the process is known to end them in this order: 6 of 6, too few to say
/// more. Where its order is not known: 8 of 21 by whatever margin, so that nothing is said.
const BESIDE_A_CLOSE: f32 = 0.7;

/// The margin below which two readings of a turn are alike: what a CPU takes for one close more or less.
const ALIKE_NS: u64 = 10 * MICROSECOND;

/// The margin from which on a reading is sure beside an orderly close that would be lent, 350 of 350, or where the process
/// ends the two in its usual order, 202 of 202. It is also what a lent leg costs more than another (`turn::LENT_NS`): below,
/// nothing but that decides.
const CLEAR_NS: u64 = 400 * MICROSECOND;

/// A neighbor is another's for sure from this margin on, so that an end without partner looks elsewhere.
const TAKEN_NS: u64 = 100 * MICROSECOND;

/// What an end passes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) leg: Leg,
    /// That it is this leg's reset.
    pub(super) named: f32,
    /// As likely as `leg`.
    pub(super) rival: Option<Leg>,
    /// That it is a reset of either.
    pub(super) passed_on: f32,
}

impl Reading {
    /// Of a leg that has no rival.
    pub(super) fn sure(leg: Leg, confidence: f32) -> Self {
        Self {
            leg,
            named: confidence,
            rival: None,
            passed_on: confidence,
        }
    }

    fn either(leg: Leg, rival: Leg, passed_on: f32) -> Self {
        Self {
            leg,
            named: EITHER,
            rival: Some(rival),
            passed_on,
        }
    }

    /// What the end at that place of a turn passes on; `None`: nothing, or it may as well not.
    pub(super) fn of(turn: &Turn, at: usize) -> Option<Self> {
        match turn.pair_of(at) {
            Some((other, margin)) => Self::of_pair(turn, at, other, margin),
            None => Self::of_lone(turn, at),
        }
    }

    fn of_pair(turn: &Turn, at: usize, other: usize, margin: u64) -> Option<Self> {
        let leg = leg_at(turn, other)?;
        let is_lent = turn.fitting(at).any(|fits| fits == (other, true));
        let alone = if is_lent { LENT } else { UNRIVALED };
        let Some((rival, is_rival_lent)) = turn.fitting(at).find(|(place, _)| *place != other)
        else {
            return Some(Self::sure(leg, alone));
        };
        let Some(rival) = leg_at(turn, rival) else {
            let is_usual = turn.is_usual(at, other) == Some(true);
            return beside_a_close(is_lent, is_rival_lent, is_usual, margin)
                .map(|confidence| Self::sure(leg, confidence));
        };
        let only_for_the_loan = is_rival_lent && !is_lent && margin < CLEAR_NS;
        if margin < ALIKE_NS || only_for_the_loan {
            return Some(Self::either(leg, rival, alone));
        }
        Some(Self {
            named: RIVALED,
            ..Self::sure(leg, alone)
        })
    }

    fn of_lone(turn: &Turn, at: usize) -> Option<Self> {
        let is_free = |place: usize| {
            let margin = turn.pair_of(place).map(|(_, margin)| margin);
            margin.is_none_or(|margin| margin < TAKEN_NS)
        };
        let mut free = turn
            .fitting(at)
            .map(|(place, _)| place)
            .filter(|place| is_free(*place));
        let leg = leg_at(turn, free.next()?)?;
        match free.next() {
            None => Some(Self::sure(leg, INTERRUPTED)),
            Some(rival) => Some(Self::either(leg, leg_at(turn, rival)?, LENT)),
        }
    }
}

/// How sure a pair with a leg is where an orderly close stands on the other side; `None`: the loan alone
/// speaks for the close, and that is enough, or no more than time speaks for the leg.
fn beside_a_close(is_lent: bool, is_rival_lent: bool, is_usual: bool, margin: u64) -> Option<f32> {
    match (is_lent, is_rival_lent) {
        (true, true) => Some(LENT_RIVALED),
        (true, false) => None,
        (false, false) if margin < ALIKE_NS || !is_usual => None,
        _ if margin < ALIKE_NS => Some(EITHER),
        _ if margin >= CLEAR_NS => Some(UNRIVALED),
        (false, true) => Some(RIVALED),
        (false, false) => Some(BESIDE_A_CLOSE),
    }
}

fn leg_at(turn: &Turn, at: usize) -> Option<Leg> {
    match turn.end(at)? {
        End::Leg(leg) => Some(*leg),
        End::Passed { .. } => None,
    }
}

/// How the process ended the other connection of the leg at that place: the one end that passes this leg's
/// reset on and no other's. Whether by a reset, which, and how sure that is.
pub(super) fn answer_to(turn: &Turn, at: usize) -> Option<(bool, Passed, f32)> {
    let own = leg_at(turn, at)?.own();
    let pair = turn.pair_of(at).map(|(other, _)| other);
    let candidates = turn
        .fitting(at)
        .map(|(place, _)| place)
        .filter(|place| pair.is_none_or(|pair| pair == *place));
    let mut answers = candidates.filter_map(|place| {
        let End::Passed { by_reset, passed } = *turn.end(place)? else {
            return None;
        };
        let reading = Reading::of(turn, place)?;
        // Of two orderly closes beside a leg, the farther one was right in none of six.
        let is_likely = by_reset || reading.named > BESIDE_A_CLOSE;
        let is_ours = reading.leg.own() == own && reading.rival.is_none() && is_likely;
        is_ours.then_some((by_reset, passed, reading.named))
    });
    let answer = answers.next()?;
    answers.next().is_none().then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{PROXY, at, connection, key, leg, sent};
    use super::super::{Call, Leg, Passed};
    use super::{Reading, UNRIVALED, answer_to};
    use crate::engine::legs::habit::{First, Habits};
    use crate::engine::legs::turn::{End, Turn};

    /// The proxy resets its upstream's connection, which began at that time, all in microseconds.
    fn upstream(port: u16, us: u64, began: u64) -> End {
        End::Passed {
            by_reset: true,
            passed: Passed {
                began: Some(at(began)),
                ..sent(port, us, PROXY)
            },
        }
    }

    /// A client whose reset came at 60, whose connection began at `began`.
    fn client(port: u16, closed: u64, began: u64) -> End {
        End::Leg(Leg {
            began: Some(at(began)),
            ..leg(port, 60, closed, PROXY)
        })
    }

    /// A client that closed in order.
    fn closing(port: u16, us: u64, began: u64) -> End {
        let End::Passed { passed, .. } = upstream(port, us, began) else {
            unreachable!()
        };
        End::Passed {
            by_reset: false,
            passed: Passed {
                is_outbound: Some(false),
                ..passed
            },
        }
    }

    fn turn(ends: &[End]) -> Turn {
        let call = Call {
            process: PROXY,
            time: at(100),
        };
        Turn::of(&call, ends.iter().copied(), &Habits::default())
    }

    /// The same where the process is known to end this leg of two first, when its client's was reset.
    fn reading_by(ends: &[End], port: u16, first: First) -> Option<Reading> {
        let lone = turn(&[client(1, 100, 3), upstream(11, 140, 20)]);
        let (service, _) = lone.order_at(0).unwrap();
        let mut habits = Habits::default();
        (0..8).for_each(|_| habits.note(service, first));
        let call = Call {
            process: PROXY,
            time: at(100),
        };
        let turn = Turn::of(&call, ends.iter().copied(), &habits);
        Reading::of(&turn, turn.place_of(&connection(port))?)
    }

    fn reading(ends: &[End], port: u16) -> Option<Reading> {
        let turn = turn(ends);
        Reading::of(&turn, turn.place_of(&connection(port))?)
    }

    #[test]
    fn a_lent_connection_that_nothing_else_explains_is_passed_on_however_late() {
        // The CPU was taken away for 3 ms between the two, and the reset was told as local.
        for late in [110, 360, 800, 4_000] {
            let found = reading(&[upstream(11, 100, 5), client(1, late, 10)], 11).unwrap();
            assert_eq!(found.leg.key, key(1), "{late}");
            assert!(found.rival.is_none() && found.passed_on >= 0.9);
        }
        assert!(reading(&[upstream(11, 100, 5), client(1, 20_000, 10)], 11).is_none());
    }

    #[test]
    fn between_two_legs_that_were_reset_it_is_passed_on_and_no_one_is_named_surely() {
        // The older client fits without a loan; the true one was lent the connection, 13 us away.
        let contested = [client(1, 72, 3), upstream(11, 100, 5), client(2, 113, 10)];
        let found = reading(&contested, 11).unwrap();
        assert!(found.passed_on > 0.9, "{found:?}");
        assert_eq!(found.named, 0.5);
        let either = [found.leg.key, found.rival.unwrap().key];
        assert!(either.contains(&key(1)) && either.contains(&key(2)));
        // Nobody's record names the other as its answer.
        let turn = turn(&contested);
        for port in [1, 2] {
            assert!(answer_to(&turn, turn.place_of(&connection(port)).unwrap()).is_none());
        }
    }

    #[test]
    fn two_legs_as_far_on_either_side_are_a_toss_up_too() {
        let equal = [client(1, 80, 3), upstream(11, 100, 5), client(2, 120, 3)];
        let found = reading(&equal, 11).unwrap();
        assert!(found.rival.is_some() && found.passed_on > 0.9);
        let nearer = [client(1, 40, 3), upstream(11, 100, 5), client(2, 120, 3)];
        let found = reading(&nearer, 11).unwrap();
        assert!(found.rival.is_none() && found.leg.key == key(2));
        assert!(found.named < found.passed_on, "{found:?}");
    }

    #[test]
    fn an_orderly_close_that_explains_it_as_well_leaves_it_local() {
        let lent = [closing(1, 40, 3), upstream(11, 100, 5), client(2, 110, 10)];
        assert!(reading(&lent, 11).is_none_or(|found| found.passed_on < 0.9));
        // Out of reach of any pair, with a leg and an orderly close as far.
        let late = [
            closing(1, 95, 3),
            upstream(11, 2_000, 5),
            client(2, 4_000, 10),
        ];
        assert!(reading(&late, 11).is_none());
        let near = [closing(1, 40, 3), upstream(11, 100, 5), client(2, 120, 3)];
        assert!(reading(&near, 11).is_none());
        let usual = reading_by(&near, 11, First::Upstream).unwrap();
        assert!(usual.leg.key == key(2) && usual.passed_on < 0.9);
    }

    #[test]
    fn what_a_process_never_ends_in_that_order_is_no_pair_however_near() {
        // The thread was interrupted for 0.5 ms after it had closed the client's leg in order.
        let late = [closing(1, 100, 3), upstream(11, 600, 5), client(2, 646, 3)];
        assert!(reading(&late, 11).is_none());
        assert!(reading_by(&late, 11, First::Client).is_none());
        let usual = reading_by(&late, 11, First::Upstream).unwrap();
        assert_eq!((usual.leg.key, usual.named), (key(2), UNRIVALED));
        // Of two legs that were reset, it is the one that comes as usual.
        let either = [client(1, 72, 3), upstream(11, 100, 5), client(2, 113, 3)];
        for (first, port) in [(First::Client, 1), (First::Upstream, 2)] {
            let found = reading_by(&either, 11, first).unwrap();
            assert!(found.leg.key == key(port) && found.rival.is_none());
            assert!(found.named > 0.9, "{found:?}");
        }
    }

    #[test]
    fn an_orderly_close_that_another_one_explains_as_well_is_no_answer() {
        let own = |us| match upstream(11, us, 5) {
            End::Passed { passed, .. } => End::Passed {
                by_reset: false,
                passed,
            },
            End::Leg(_) => unreachable!(),
        };
        let row = [closing(1, 100, 3), own(600), client(2, 646, 3)];
        assert!(answer_to(&turn(&row), 2).is_none());
        let alone = [own(600), client(2, 646, 3)];
        assert!(answer_to(&turn(&alone), 1).is_some());
    }

    #[test]
    fn a_leg_that_has_its_own_partner_explains_no_other_reset() {
        let taken = [
            upstream(12, 70, 20),
            client(1, 90, 3),
            upstream(11, 1_500, 20),
        ];
        assert!(reading(&taken, 11).is_none());
        assert_eq!(reading(&taken, 12).unwrap().leg.key, key(1));
    }

    #[test]
    fn a_turn_that_was_interrupted_between_two_legs_pairs_them_less_surely() {
        let late = reading(&[client(1, 100, 3), upstream(11, 1_500, 20)], 11).unwrap();
        let soon = reading(&[client(1, 100, 3), upstream(11, 140, 20)], 11).unwrap();
        assert!(late.named < soon.named && late.leg.key == key(1));
        let turn = turn(&[client(1, 100, 3), upstream(11, 1_500, 20)]);
        let (by_reset, passed, sure) = answer_to(&turn, 0).unwrap();
        assert_eq!((by_reset, passed.key, sure), (true, key(11), late.named));
    }
}
