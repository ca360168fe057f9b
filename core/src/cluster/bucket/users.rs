//! The users of a bucket of whom a node keeps anything.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::user_state::{UserActions, UserState};
use crate::id::{SessionId, UserId};

/// The users of whom anything is kept, and for which of them anything is left to do.
#[derive(Debug, Default)]
pub(super) struct Users {
    all: BTreeMap<UserId, UserState>,
    /// Those for whom something is left to do, and perhaps some others. At a beat only these are looked at.
    unsettled: BTreeSet<UserId>,
}

impl Users {
    pub(super) fn get(&self, user: &UserId) -> Option<&UserState> {
        self.all.get(user)
    }

    /// The user, to change it. Then [`Users::settle`] it.
    pub(super) fn touch(&mut self, user: &UserId) -> &mut UserState {
        self.unsettled.insert(user.clone());
        self.all.entry(user.clone()).or_default()
    }

    /// As [`Users::touch`], if anything is kept of the user.
    pub(super) fn touch_known(&mut self, user: &UserId) -> Option<&mut UserState> {
        let state = self.all.get_mut(user)?;
        self.unsettled.insert(user.clone());
        Some(state)
    }

    /// Notes whether anything is left to do for the user, or to keep.
    pub(super) fn settle(&mut self, user: &UserId) {
        let state = self.all.get(user);
        if state.is_none_or(UserState::is_settled) {
            self.unsettled.remove(user);
        }
        if state.is_some_and(UserState::is_idle) {
            self.all.remove(user);
        }
    }

    /// Everybody of whom anything is kept.
    pub(super) fn all(&self) -> impl Iterator<Item = &UserState> {
        self.all.values()
    }

    /// The sessions of this node.
    pub(super) fn own_sessions(&self) -> impl Iterator<Item = SessionId> {
        self.all().flat_map(|state| state.sessions.keys()).copied()
    }

    /// Everybody for whom something is left to do.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = &UserState> {
        self.unsettled.iter().filter_map(|user| self.all.get(user))
    }

    /// Their ids.
    pub(super) fn unsettled_ids(&self) -> Vec<UserId> {
        self.unsettled.iter().cloned().collect()
    }

    /// Another generation is in force.
    pub(super) fn forget(&mut self, told: &mut UserActions) {
        self.all.values_mut().for_each(|state| state.forget(told));
        self.unsettled = self.all.keys().cloned().collect();
    }

    /// All sessions have ended.
    pub(super) fn fence(&mut self, told: &mut UserActions) {
        let Self { all, .. } = core::mem::take(self);
        all.into_values().for_each(|state| state.fence(told));
    }
}
