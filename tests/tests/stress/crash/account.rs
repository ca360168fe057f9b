//! A user and its sessions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use shell::client::{Connection, Error, Url};
use smol::block_on;

/// The limit per user.
pub(super) const LIMIT: u32 = 3;

/// A user and its sessions.
pub(super) struct Account {
    pub(super) user: String,
    pub(super) held: Vec<Connection>,
    /// Maximum number of sessions that were dropped without BYE and that the server may not have noticed yet.
    pub(super) unnoticed: u32,
}

impl Account {
    pub(super) fn new(user: String) -> Self {
        Self { user, held: Vec::new(), unnoticed: 0 }
    }

    /// Authenticates up to the limit and checks the count of each grant. One more must be denied.
    pub(super) fn fill(&mut self, url: &Url) {
        let user = &self.user;
        for number in u32::try_from(self.held.len()).unwrap() + 1..=LIMIT {
            let (connection, connections) =
                sign_in(url, user).unwrap_or_else(|error| panic!("number {number} of {user} is locked out: {error}"));
            assert_eq!(connections, number, "the count of {user} is off");
            self.held.push(connection);
        }
        let one_more = sign_in(url, user).map(|(_, connections)| connections);
        assert!(matches!(one_more, Err(Error::Denied { .. })), "one too many of {user}: {one_more:?}");
    }

    /// Tries to take a slot. The grant or denial must match the sessions that exist.
    pub(super) fn try_acquire(&mut self, url: &Url) -> Result<(), Error> {
        let held = u32::try_from(self.held.len()).unwrap();
        match sign_in(url, &self.user) {
            Ok((connection, connections)) => {
                let most = (held + 1 + self.unnoticed).min(LIMIT);
                assert!((held + 1..=most).contains(&connections), "{connections} beside {held} + {}", self.unnoticed);
                self.held.push(connection);
                self.unnoticed = connections - (held + 1);
                Ok(())
            }
            Err(Error::Denied { .. }) => {
                assert!(held + self.unnoticed >= LIMIT, "refused beside {held} + {}", self.unnoticed);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// A new connection of this user, and the number of connections in the grant.
pub(super) fn sign_in(url: &Url, user: &str) -> Result<(Connection, u32), Error> {
    block_on(async {
        let mut connection = Connection::open(url).await?;
        let connections = connection.authenticate(user).await?.connections;
        Ok((connection, connections))
    })
}
