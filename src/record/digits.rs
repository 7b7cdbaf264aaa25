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

/// A number in decimal.
pub fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number with its sign.
pub fn signed(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// So many of the last digits of a number, zeros in front where it has fewer.
fn padded<const N: usize>(number: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    // Divisions of 32 bits take half the time, and nothing here has more than nine digits.
    let mut rest = u32::try_from(number).unwrap_or(u32::MAX);
    for place in digits.iter_mut().rev() {
        *place = digit(u64::from(rest % 10));
        rest /= 10;
    }
    digits
}

/// `number` over ten to the power of `places`, without zeros at its end, but with a digit behind the
/// point: the shortest text that a reader takes for the same fraction.
pub fn fraction(out: &mut Vec<u8>, number: i64, places: u8) {
    let scale = 10_u64.pow(u32::from(places.max(1)));
    let number = if places == 0 {
        number.saturating_mul(10)
    } else {
        number
    };
    let (size, mut left) = (number.unsigned_abs(), scale / 10);
    if number < 0 {
        out.push(b'-');
    }
    decimal(out, size / scale);
    out.push(b'.');
    let mut rest = size % scale;
    loop {
        out.push(digit(rest / left.max(1)));
        rest %= left.max(1);
        left /= 10;
        if rest == 0 || left == 0 {
            return;
        }
    }
}

fn octet(out: &mut Vec<u8>, octet: u8) {
    let number = u64::from(octet);
    let [hundreds, tens, ones] = padded::<3>(number);
    match octet {
        100.. => out.extend_from_slice(&[hundreds, tens, ones]),
        10.. => out.extend_from_slice(&[tens, ones]),
        _ => out.push(ones),
    }
}

fn v4(out: &mut Vec<u8>, address: Ipv4Addr) {
    let [a, b, c, d] = address.octets();
    octet(out, a);
    for next in [b, c, d] {
        out.push(b'.');
        octet(out, next);
    }
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

/// An Ethernet address, as [`Mac`] shows itself.
pub fn mac(out: &mut Vec<u8>, mac: Mac) {
    const fn hex(nibble: u8) -> u8 {
        match nibble {
            0..10 => b'0' + nibble,
            _ => b'A' + (nibble - 10),
        }
    }
    let mut text = [b'-'; 17];
    for (place, octet) in text.chunks_mut(3).zip(mac.0) {
        if let [high, low, ..] = place {
            (*high, *low) = (hex(octet >> 4), hex(octet & 15));
        }
    }
    out.extend_from_slice(&text);
}

/// Nanoseconds since 1970, UTC, as RFC 3339 in UTC with nine digits: `2023-11-14T22:13:20.000000000Z`.
pub fn time(out: &mut Vec<u8>, nanos: u64) {
    let (seconds, rest) = (nanos / SECOND, nanos % SECOND);
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;
    let [y0, y1, y2, y3] = padded::<4>(year);
    let [mo0, mo1] = padded::<2>(month);
    let [d0, d1] = padded::<2>(day);
    let [h0, h1] = padded::<2>(second / 3600);
    let [mi0, mi1] = padded::<2>(second / 60 % 60);
    let [s0, s1] = padded::<2>(second % 60);
    out.extend_from_slice(&[
        y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1, b'T', h0, h1, b':', mi0, mi1, b':', s0, s1,
        b'.',
    ]);
    out.extend_from_slice(&padded::<9>(rest));
    out.push(b'Z');
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

    use super::{address, decimal, endpoint, fraction, into_text, mac, signed, time};
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
        // The days around each leap day and century, and others.
        let days = (0..212_000_u64).filter(|day| day % 7 == 3 || day % 365 < 3);
        for nanos in days.map(|day| day * 86_400 * 1_000_000_000 + day * 400_000_000_123) {
            let meant = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap();
            assert_eq!(text(|out| time(out, nanos)), format!("{meant:.9}"));
        }
        assert!(text(|out| time(out, u64::MAX)).starts_with("2554-07-21T23:34:33.709551615Z"));
    }
}
