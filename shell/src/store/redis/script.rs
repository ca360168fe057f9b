//! The scripts that the shared store runs. Each does what [`session_core::cluster::BucketKeys`] does for a request.

/// A script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Beat,
    Bury,
    Open,
    Leave,
    Forget,
    RaiseFloor,
    Read,
    /// A write that admits nobody: slots come back even if the store has no memory left.
    Write,
    /// The same, but refused if the store has no memory left.
    Admit,
    Scan,
    ReadOverrides,
    WriteOverrides,
    RestoreOverrides,
}

impl Script {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; 13] = [
        Self::Beat,
        Self::Bury,
        Self::Open,
        Self::Leave,
        Self::Forget,
        Self::RaiseFloor,
        Self::Read,
        Self::Write,
        Self::Admit,
        Self::Scan,
        Self::ReadOverrides,
        Self::WriteOverrides,
        Self::RestoreOverrides,
    ];

    /// What [`Script::ALL`] has at this place.
    pub(super) const fn number(self) -> usize {
        self as usize
    }

    /// The source.
    pub(super) fn source(self) -> String {
        let (flags, body) = match self {
            Self::Beat => ("allow-oom", include_str!("scripts/beat.lua")),
            Self::Bury => ("allow-oom", include_str!("scripts/bury.lua")),
            Self::Open => ("allow-oom", include_str!("scripts/open.lua")),
            Self::Leave => ("allow-oom", include_str!("scripts/leave.lua")),
            Self::Forget => ("allow-oom", include_str!("scripts/forget.lua")),
            Self::RaiseFloor => ("allow-oom", include_str!("scripts/raise_floor.lua")),
            Self::Read => ("no-writes", include_str!("scripts/read.lua")),
            Self::Write => ("allow-oom", include_str!("scripts/write.lua")),
            Self::Admit => ("", include_str!("scripts/write.lua")),
            Self::Scan => ("no-writes", include_str!("scripts/scan.lua")),
            Self::ReadOverrides => ("no-writes", include_str!("scripts/read_overrides.lua")),
            Self::WriteOverrides => ("", include_str!("scripts/write_overrides.lua")),
            Self::RestoreOverrides => ("allow-oom", include_str!("scripts/restore_overrides.lua")),
        };
        let flags = if flags.is_empty() { String::new() } else { format!(" flags={flags}") };
        let generation = match self {
            Self::Read | Self::Write | Self::Admit | Self::Scan | Self::ReadOverrides => "",
            Self::Beat
            | Self::Bury
            | Self::Open
            | Self::Leave
            | Self::Forget
            | Self::RaiseFloor
            | Self::WriteOverrides
            | Self::RestoreOverrides => include_str!("scripts/generation.lua"),
        };
        format!("#!lua{flags}\n{}{generation}{body}", include_str!("scripts/writes.lua"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_the_place() {
        for (place, script) in Script::ALL.into_iter().enumerate() {
            assert_eq!(script.number(), place);
        }
    }
}
