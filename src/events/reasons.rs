//! Reset reasons by name, and the shape of the tracepoint that gives them, both from the running
//! kernel's BTF: the numbers and the arguments differ between versions.

use libbpf_rs::btf::{Btf, types};

use crate::host::ResetReason;

/// The running kernel's `enum sk_rst_reason`; empty before Linux 6.10.
#[derive(Debug, Clone, Default)]
pub struct Reasons(Vec<ResetReason>);

impl Reasons {
    /// The reason of that number; `None` on kernels that give none.
    #[must_use]
    pub fn reason(&self, number: u32) -> Option<ResetReason> {
        if self.0.is_empty() {
            return None;
        }
        let index = usize::try_from(number).ok()?;
        let other = || ResetReason::Other(u16::try_from(number).unwrap_or(u16::MAX));
        Some(self.0.get(index).copied().unwrap_or_else(other))
    }

    /// Reads the names; empty when this kernel has no such enum.
    #[must_use]
    pub fn of_kernel(btf: &Btf<'_>) -> Self {
        let Some(names) = btf.type_by_name::<types::Enum<'_>>("sk_rst_reason") else {
            return Self::default();
        };
        let mut reasons = Vec::new();
        for member in names.iter() {
            let Ok(index) = usize::try_from(member.value) else {
                continue;
            };
            let Some(name) = member.name.and_then(|name| name.to_str()) else {
                continue;
            };
            // Subsystem flags live far above; the reasons themselves are dense from 0.
            if index >= 256 {
                continue;
            }
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            while reasons.len() <= index {
                reasons.push(ResetReason::Other(
                    u16::try_from(reasons.len()).unwrap_or(u16::MAX),
                ));
            }
            if let Some(slot) = reasons.get_mut(index) {
                *slot = ResetReason::from_kernel_name(name, number);
            }
        }
        Self(reasons)
    }
}

/// How many arguments a tracepoint has; `None` when the kernel does not have it.
#[must_use]
pub fn tracepoint_arguments(btf: &Btf<'_>, name: &str) -> Option<usize> {
    let typedef = btf.type_by_name::<types::Typedef<'_>>(&format!("btf_trace_{name}"))?;
    let prototype = typedef.next_type()?.next_type()?;
    let prototype = types::FuncProto::try_from(prototype).ok()?;
    // The first is the tracepoint's own data.
    prototype.len().checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::Reasons;
    use crate::host::{KnownReason, ResetReason};

    #[test]
    fn a_number_beyond_the_names_stays_a_number() {
        let reasons = Reasons(vec![ResetReason::Known(KnownReason::NotSpecified)]);
        assert_eq!(
            reasons.reason(0),
            Some(ResetReason::Known(KnownReason::NotSpecified))
        );
        assert_eq!(reasons.reason(70_000), Some(ResetReason::Other(u16::MAX)));
        assert_eq!(
            Reasons::default().reason(0),
            None,
            "a kernel without reasons"
        );
    }
}
