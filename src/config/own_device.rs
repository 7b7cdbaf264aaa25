//! `--own-device` and `[[own_device]]`: what the user says about a device of his own, judged. No I/O.

use std::fmt;

use serde::Deserialize;

use crate::engine::{Device, IpIdMode};
use crate::wire::Mac;

/// Why this is no device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceError {
    /// It has no name, or one that no log can hold.
    Name,
    /// Not `key=value`, or no such key.
    Key(String),
    /// The value of that key cannot be meant.
    Value(&'static str, String),
    /// Neither MAC nor hop limit: it would lend its name to every forged reset.
    TooVague,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("a device needs a name, without control characters"),
            Self::Key(text) => write!(
                f,
                "{text:?}: not one of mac=, hop-limit=, ip-id=, address= (NAME=KEY=VALUE,KEY=VALUE)"
            ),
            Self::Value("mac", text) => write!(f, "mac {text:?}: not six bytes in hexadecimal"),
            Self::Value("hop-limit", text) => write!(
                f,
                "hop-limit {text:?}: not a number or a range such as 60-64, 0 to 255"
            ),
            Self::Value("ip-id", text) => write!(f, "ip-id {text:?}: not zero, counter or any"),
            Self::Value(key, text) => write!(f, "{key} {text:?}: not an address or network"),
            Self::TooVague => f.write_str(
                "needs mac or hop-limit: without them every forged reset would bear its name",
            ),
        }
    }
}

/// One `[[own_device]]` of a configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileDevice {
    pub(super) name: String,
    mac: Option<String>,
    hop_limit: Option<HopLimit>,
    ip_id: Option<String>,
    addresses: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum HopLimit {
    One(u8),
    Range(String),
}

impl FileDevice {
    /// The device that is meant.
    ///
    /// # Errors
    ///
    /// [`DeviceError`].
    pub fn resolve(self) -> Result<Device, DeviceError> {
        let mut device = named(&self.name)?;
        if let Some(mac) = &self.mac {
            set(&mut device, "mac", mac)?;
        }
        match &self.hop_limit {
            Some(HopLimit::One(one)) => device.hop_limit = Some((*one, *one)),
            Some(HopLimit::Range(range)) => set(&mut device, "hop-limit", range)?,
            None => {}
        }
        if let Some(mode) = &self.ip_id {
            set(&mut device, "ip-id", mode)?;
        }
        for address in &self.addresses {
            set(&mut device, "address", address)?;
        }
        checked(device)
    }
}

/// `NAME=KEY=VALUE[,KEY=VALUE…]`, as typed.
///
/// # Errors
///
/// [`DeviceError`].
pub fn parse(text: &str) -> Result<Device, DeviceError> {
    let (name, rest) = text.split_once('=').unwrap_or((text, ""));
    let mut device = named(name)?;
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| DeviceError::Key(part.to_owned()))?;
        set(&mut device, key, value)?;
    }
    checked(device)
}

fn named(name: &str) -> Result<Device, DeviceError> {
    if name.trim().is_empty() || name.contains(char::is_control) {
        return Err(DeviceError::Name);
    }
    Ok(Device {
        name: name.to_owned(),
        mac: None,
        hop_limit: None,
        ip_id: IpIdMode::Any,
        speaks_for: Vec::new(),
    })
}

fn checked(device: Device) -> Result<Device, DeviceError> {
    if device.mac.is_none() && device.hop_limit.is_none() {
        return Err(DeviceError::TooVague);
    }
    Ok(device)
}

fn set(device: &mut Device, key: &str, value: &str) -> Result<(), DeviceError> {
    let wrong = |key| DeviceError::Value(key, value.to_owned());
    match key {
        "mac" => device.mac = Some(mac(value).ok_or_else(|| wrong("mac"))?),
        "hop-limit" | "hop_limit" => {
            device.hop_limit = Some(range(value).ok_or_else(|| wrong("hop-limit"))?);
        }
        "ip-id" | "ip_id" => {
            device.ip_id = match value {
                "any" => IpIdMode::Any,
                "zero" => IpIdMode::Zero,
                "counter" => IpIdMode::Counter,
                _ => return Err(wrong("ip-id")),
            };
        }
        "address" => device
            .speaks_for
            .push(value.parse().map_err(|_| wrong("address"))?),
        _ => return Err(DeviceError::Key(format!("{key}={value}"))),
    }
    Ok(())
}

fn range(text: &str) -> Option<(u8, u8)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (low <= high).then_some((low, high))
}

/// Six bytes, with colons as most tools print them or dashes as records do.
fn mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| matches!(part.len(), 1 | 2))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

#[cfg(test)]
mod tests {
    use super::{DeviceError, FileDevice, parse};
    use crate::engine::IpIdMode;
    use crate::wire::Mac;

    #[test]
    fn a_device_says_the_same_typed_and_in_a_file() {
        let typed = parse(
            "fw 1=mac=02:00:00:00:00:0a,hop-limit=60-64,ip-id=zero,address=10.0.0.0/8,address=::1",
        )
        .unwrap();
        assert_eq!(typed.name, "fw 1");
        assert_eq!(typed.mac, Some(Mac([2, 0, 0, 0, 0, 10])));
        assert_eq!(
            (typed.hop_limit, typed.ip_id),
            (Some((60, 64)), IpIdMode::Zero)
        );
        assert_eq!(typed.speaks_for.len(), 2);
        let text = "name = \"fw 1\"\nmac = \"02-00-00-00-00-0A\"\nhop_limit = \"60-64\"\n\
                    ip_id = \"zero\"\naddresses = [\"10.0.0.0/8\", \"::1\"]\n";
        let file: FileDevice = toml::from_str(text).unwrap();
        assert_eq!(file.resolve().unwrap(), typed);
        let one: FileDevice = toml::from_str("name = \"a\"\nhop_limit = 61").unwrap();
        assert_eq!(one.resolve().unwrap().hop_limit, Some((61, 61)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "fw=mac=02:00:00:00:00",
            "fw=mac=02:00:00:00:00:0a:0b",
            "fw=mac=+2:00:00:00:00:0a0",
            "fw=hop-limit=64-60",
            "fw=hop-limit=256",
            "fw=hop-limit=1,ip-id=odd",
            "fw=hop-limit=1,address=10.0.0.1/8",
            "fw=hop-limit=1,color=red",
            "fw=hop-limit",
            "=hop-limit=1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("fw"), Err(DeviceError::TooVague));
        assert_eq!(parse("fw=ip-id=zero"), Err(DeviceError::TooVague));
    }
}
