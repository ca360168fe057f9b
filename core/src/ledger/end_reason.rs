//! Why a session lost its slot.

use alloc::boxed::Box;

use crate::id::DisplayName;

/// Why a session lost its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// Another session of its user took the slot. With the names of that session.
    TakenOver(Option<Box<SessionNames>>),
    /// Another session of its device took its place, because the device had as many sessions as it may. With the names of that
    /// session.
    DeviceFull(Option<Box<SessionNames>>),
    /// Another session of its user ended it. With the names of that session, which [`apply`](super::apply()) fills in.
    ByUser(Option<Box<SessionNames>>),
    /// The operator ended it.
    ByOperator,
    /// The operator lowered the limit of the user, and enforced it.
    LimitLowered,
    /// The user may hold no session any more: the operator has enforced a limit of 0.
    Banned,
    /// Its client resumed it on another connection.
    Resumed,
    /// A client resumed it on another connection, as one did a moment before. So two clients have its resume token.
    Contested,
}

impl EndReason {
    /// The names of the session that took the slot or ended the session.
    #[must_use]
    pub fn names(&self) -> Option<&SessionNames> {
        match self {
            Self::TakenOver(names) | Self::DeviceFull(names) | Self::ByUser(names) => names.as_deref(),
            Self::ByOperator | Self::LimitLowered | Self::Banned | Self::Resumed | Self::Contested => None,
        }
    }
}

/// What a session calls itself, for people. At least one of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionNames {
    /// The device, if the client named one.
    pub device: Option<DisplayName>,
    /// The label, if the client gave one.
    pub label: Option<DisplayName>,
}

impl SessionNames {
    /// These names. `None` if there is neither.
    #[must_use]
    pub fn new(device: Option<&DisplayName>, label: Option<&DisplayName>) -> Option<Box<Self>> {
        let is_named = device.is_some() || label.is_some();
        is_named.then(|| Box::new(Self { device: device.cloned(), label: label.cloned() }))
    }

    /// What to call the session: its label, or else its device.
    #[must_use]
    pub fn display_name(&self) -> Option<&DisplayName> {
        self.label.as_ref().or(self.device.as_ref())
    }
}
