//! Numbers, addresses and times of day as text, at the end of a buffer. The same digits as those of
//! `Display`, for a tenth of the work: a record holds a hundred of them, and a capture may hold a
//! hundred thousand records. All that is written here is ASCII.

use std::fmt::{self, Display, Write};
use std::net::{IpAddr, Ipv4Addr};

use crate::flow::Endpoint;
use crate::time::SECOND;
use crate::wire::Mac;

/// Seconds of a day; UTC as POSIX counts it has no leap seconds.
const DAY: u64 = 86_400;

/// The digit of a number below ten; of a larger one, its last.
const fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

/// Whatever shows itself.
pub fn shown(out: &mut Vec<u8>, value: impl Display) {
    // Writing to memory cannot fail.
    let _ = write!(Text(out), "{value}");
}

/// A buffer as `fmt` writes to it.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The end of a text of at most `N` bytes, of which `len` count. As many bytes are always copied, which
/// takes no call, and cut off again.
#[inline(always)]
fn append<const N: usize>(out: &mut Vec<u8>, text: [u8; N], len: usize) {
    let whole = out.len() + len.min(N);
    out.extend_from_slice(&text);
    out.truncate(whole);
}

/// The digits of every number below a hundred.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0_u8;
    while number < 100 {
        pairs[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    pairs
};

/// The two last digits of a number.
#[inline]
fn pair(number: u32) -> [u8; 2] {
    PAIRS[(number % 100) as usize]
}

/// The text of a number below a thousand.
#[derive(Clone, Copy)]
struct Short {
    /// As many digits as it has, and what does not count.
    digits: [u8; 4],
    /// Three digits, with zeros in front.
    padded: [u8; 3],
    len: u8,
}

/// The numbers below a thousand: a hop limit is one of them, and a port or a window two.
static SHORT: [Short; 1000] = {
    let nothing = Short {
        digits: [b'0'; 4],
        padded: [b'0'; 3],
        len: 1,
    };
    let mut texts = [nothing; 1000];
    let mut at = 0;
    while at < texts.len() {
        let number = at as u64;
        let [hundreds, tens, ones] = [digit(number / 100), digit(number / 10), digit(number)];
        let (digits, len) = match number {
            100.. => ([hundreds, tens, ones, b' '], 3),
            10.. => ([tens, ones, b' ', b' '], 2),
            _ => ([ones, b' ', b' ', b' '], 1),
        };
        texts[at] = Short {
            digits,
            padded: [hundreds, tens, ones],
            len,
        };
        at += 1;
    }
    texts
};

/// The text of the three last digits of a number.
#[inline(always)]
fn short(number: u64) -> &'static Short {
    &SHORT[(number % 1000) as usize]
}

/// A number in decimal.
#[inline]
pub fn decimal(out: &mut Vec<u8>, number: u64) {
    // Most are that short, and stay without a call.
    if number < 1_000 {
        let Short { digits, len, .. } = short(number);
        append(out, *digits, usize::from(*len));
    } else {
        longer(out, number);
    }
}

/// One of a thousand and more.
#[inline(never)]
fn longer(out: &mut Vec<u8>, number: u64) {
    // Few pieces of known length, which are copied without a call.
    if number < 1_000_000 {
        below_a_million(out, number);
        return;
    }
    let top = number / 1_000_000;
    match top {
        0..1_000_000 => below_a_million(out, top),
        _ => longer(out, top),
    }
    let [a, b, c] = short(number / 1_000).padded;
    let [d, e, f] = short(number).padded;
    out.extend_from_slice(&[a, b, c, d, e, f]);
}

#[inline(always)]
fn below_a_million(out: &mut Vec<u8>, number: u64) {
    let (Short { digits, len, .. }, rest) = match number {
        0..1_000 => (short(number), None),
        _ => (short(number / 1_000), Some(short(number).padded)),
    };
    append(out, *digits, usize::from(*len));
    if let Some(rest) = rest {
        out.extend_from_slice(&rest);
    }
}

/// A number with its sign.
#[inline]
pub fn signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    decimal(out, number.unsigned_abs());
}

/// So many of the last digits of a number, zeros in front where it has fewer.
#[inline]
fn padded<const N: usize>(number: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    // Divisions of 32 bits take half the time, and nothing here has more than nine digits.
    let mut rest = u32::try_from(number).unwrap_or(u32::MAX);
    for places in digits.rchunks_mut(2) {
        let [tens, ones] = pair(rest);
        match places {
            [high, low] => (*high, *low) = (tens, ones),
            [low] => *low = ones,
            _ => {}
        }
        rest /= 100;
    }
    digits
}

/// The nine last digits of a number below 2^32.
#[inline]
fn nine(number: u64) -> [u8; 9] {
    let [a, b, c] = short(number / 1_000_000).padded;
    let [d, e, f] = short(number / 1_000).padded;
    let [g, h, i] = short(number).padded;
    [a, b, c, d, e, f, g, h, i]
}

/// `number` over ten to the power of `places`, without zeros at its end, but with a digit behind the
/// point: the shortest text that a reader takes for the same fraction.
pub fn fraction(out: &mut Vec<u8>, number: i64, places: u8) {
    if number < 0 {
        out.push(b'-');
    }
    let size = number.unsigned_abs();
    // Those that records have, by divisors that are known beforehand, which takes a tenth of the time.
    match places {
        2 => point(out, size / 100, &padded::<2>(size % 100)),
        4 => point(out, size / 10_000, &padded::<4>(size % 10_000)),
        _ => {
            let scale = 10_u64.pow(u32::from(places));
            let rest = padded::<9>(size % scale);
            let kept = rest.len().saturating_sub(usize::from(places));
            point(out, size / scale, rest.get(kept..).unwrap_or_default());
        }
    }
}

/// A whole number and the digits behind its point, without zeros at their end.
#[inline]
fn point(out: &mut Vec<u8>, whole: u64, digits: &[u8]) {
    decimal(out, whole);
    let last = digits.iter().rposition(|digit| *digit != b'0').unwrap_or(0);
    out.push(b'.');
    match digits.get(..=last) {
        Some(digits) => digits.iter().for_each(|digit| out.push(*digit)),
        None => out.push(b'0'),
    }
}

/// The text of every octet with a point behind it, and how long it is.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut number = 0_u8;
    loop {
        let [hundreds, tens, ones] = [number / 100, number / 10 % 10, number % 10];
        octets[number as usize] = match number {
            100.. => ([b'0' + hundreds, b'0' + tens, b'0' + ones, b'.'], 4),
            10.. => ([b'0' + tens, b'0' + ones, b'.', b'.'], 3),
            _ => ([b'0' + ones, b'.', b'.', b'.'], 2),
        };
        if number == u8::MAX {
            break octets;
        }
        number += 1;
    }
};

#[inline]
fn v4(out: &mut Vec<u8>, address: Ipv4Addr) {
    let (mut text, mut len) = ([b'.'; 16], 0);
    for octet in address.octets() {
        let (digits, more) = OCTETS[usize::from(octet)];
        if let Some((_, rest)) = text.split_at_mut_checked(len)
            && let Some(place) = rest.first_chunk_mut()
        {
            *place = digits;
        }
        len += usize::from(more);
    }
    // Without the last point.
    append(out, text, len - 1);
}

/// An address.
pub fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => v4(out, address),
        IpAddr::V6(address) => shown(out, address),
    }
}

/// An address and a port, as `SocketAddr` shows them: `192.0.2.7:443`, `[2001:db8::7]:443`.
pub fn endpoint(out: &mut Vec<u8>, endpoint: Endpoint) {
    match endpoint.address {
        IpAddr::V4(address) => v4(out, address),
        IpAddr::V6(address) => shown(out, format_args!("[{address}]")),
    }
    out.push(b':');
    decimal(out, u64::from(endpoint.port));
}

/// Every octet in two hexadecimal digits.
static HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut texts = [[b'0'; 2]; 256];
    let mut octet = 0;
    while octet < texts.len() {
        texts[octet] = [DIGITS[octet >> 4], DIGITS[octet & 15]];
        octet += 1;
    }
    texts
};

/// An Ethernet address, as [`Mac`] shows itself.
pub fn mac(out: &mut Vec<u8>, mac: Mac) {
    let [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]] =
        mac.0.map(|octet| HEX[usize::from(octet)]);
    let dash = b'-';
    out.extend_from_slice(&[
        a, b, dash, c, d, dash, e, f, dash, g, h, dash, i, j, dash, k, l,
    ]);
}

/// The time that was written last, kept for those that follow: those of one record are nearly all of one
/// second, and half of them the same.
#[derive(Debug, Clone, Copy)]
pub struct Second {
    nanos: u64,
    seconds: u64,
    text: [u8; 30],
}

impl Default for Second {
    fn default() -> Self {
        Self {
            nanos: 0,
            seconds: 0,
            text: *b"1970-01-01T00:00:00.000000000Z",
        }
    }
}

impl Second {
    /// Nanoseconds since 1970, UTC, as RFC 3339 in UTC with nine digits: `2023-11-14T22:13:20.000000000Z`.
    #[inline]
    pub fn time(&mut self, out: &mut Vec<u8>, nanos: u64) {
        if nanos != self.nanos {
            self.keep(nanos);
        }
        out.extend_from_slice(&self.text);
    }

    fn keep(&mut self, nanos: u64) {
        let seconds = nanos / SECOND;
        if let Some((whole, rest)) = self.text.split_first_chunk_mut::<20>() {
            if seconds != self.seconds {
                *whole = to_the_point(seconds);
            }
            if let Some(places) = rest.first_chunk_mut::<9>() {
                *places = nine(nanos % SECOND);
            }
        }
        (self.nanos, self.seconds) = (nanos, seconds);
    }
}

/// Seconds since 1970 as the first part of a time, up to its point.
fn to_the_point(seconds: u64) -> [u8; 20] {
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;
    let [y0, y1, y2, y3] = padded::<4>(year);
    let [mo0, mo1] = padded::<2>(month);
    let [d0, d1] = padded::<2>(day);
    let [h0, h1] = padded::<2>(second / 3600);
    let [mi0, mi1] = padded::<2>(second / 60 % 60);
    let [s0, s1] = padded::<2>(second % 60);
    [
        y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1, b'T', h0, h1, b':', mi0, mi1, b':', s0, s1,
        b'.',
    ]
}

/// Year, month and day of the day with that number since 1970, in the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`). Years begin
/// in March there, so that the leap day is a year's last.
const fn date(days: u64) -> (u64, u64, u64) {
    // From the first of March of the year 0; eras of 400 years have this many days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, of_month)
}

/// What was written as text. All that this program writes into such buffers is UTF-8; should it not be, what is
/// odd is replaced and nothing is lost.
pub fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::{Second, address, decimal, endpoint, fraction, into_text, mac, signed};
    use crate::flow::Endpoint;
    use crate::wire::Mac;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        into_text(out)
    }

    /// Numbers of every length, from a fixed start.
    fn numbers() -> impl Iterator<Item = u64> {
        let mut state = 1_u64;
        (0..64).flat_map(move |shift| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            [state >> shift, 1 << shift, (1 << shift) - 1]
        })
    }

    #[test]
    fn numbers_are_those_of_display() {
        for number in numbers().chain([0, u64::MAX]) {
            assert_eq!(text(|out| decimal(out, number)), number.to_string());
            let number = number.cast_signed();
            assert_eq!(text(|out| signed(out, number)), number.to_string());
        }
    }

    #[test]
    fn fractions_are_the_shortest_that_mean_the_same() {
        for number in numbers().map(|number| (number >> 14).cast_signed()) {
            for (places, scale) in [(2, 100.0), (4, 10_000.0)] {
                for number in [number, -number] {
                    let meant = serde_json::Number::from_f64(number as f64 / scale + 0.0).unwrap();
                    let shown = text(|out| fraction(out, number, places));
                    assert_eq!(shown, meant.to_string(), "{number} {places}");
                }
            }
        }
        assert_eq!(text(|out| fraction(out, -7, 0)), "-7.0");
    }

    #[test]
    fn addresses_are_those_of_display() {
        for number in numbers() {
            let bytes = number.to_be_bytes();
            let [a, b, c, d, e, f, g, h] = bytes;
            let known = Mac([a, c, e, f, g, h]);
            assert_eq!(text(|out| mac(out, known)), known.to_string());
            let v4 = IpAddr::from([e, f, g, h]);
            let v6 = IpAddr::from([a, b, 0, 0, 0, 0, c, 0, 0, 0, d, e, 0, 0, 0, h]);
            for ip in [v4, v6] {
                assert_eq!(text(|out| address(out, ip)), ip.to_string());
                let port = u16::from_be_bytes([g, h]);
                let end = Endpoint { address: ip, port };
                let meant = SocketAddr::new(ip, port).to_string();
                assert_eq!(text(|out| endpoint(out, end)), meant);
            }
        }
    }

    #[test]
    fn times_are_those_of_a_calendar() {
        let mut kept = Second::default();
        let mut time = |out: &mut Vec<u8>, nanos| kept.time(out, nanos);
        // The days around each leap day and century, and others.
        let days = (0..212_000_u64).filter(|day| day % 7 == 3 || day % 365 < 3);
        for nanos in days.map(|day| day * 86_400 * 1_000_000_000 + day * 400_000_000_123) {
            let meant = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap();
            assert_eq!(text(|out| time(out, nanos)), format!("{meant:.9}"));
        }
        let last = text(|out| time(out, u64::MAX));
        assert_eq!(last, "2554-07-21T23:34:33.709551615Z");
        // The same again, of the same second, and of the second before.
        for (nanos, meant) in [
            (u64::MAX, "33.709551615"),
            (u64::MAX - 9_551_610, "33.700000005"),
            (u64::MAX - 709_551_616, "32.999999999"),
        ] {
            let shown = text(|out| time(out, nanos));
            assert_eq!(shown, format!("2554-07-21T23:34:{meant}Z"));
        }
    }
}
