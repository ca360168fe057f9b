//! The table of all events that the server logs. Its page in the documentation, `docs/log.md`, is drawn from it.
//!
//! To add an event, add an entry, and log it with [`log_event!`](super::log_event), or with
//! [`log_limited!`](super::log_limited) if a client could cause it often.

use tracing::Level;

use super::event::{Event, Rate};

/// Declares a constant for each entry, and the list of all.
macro_rules! events {
    ($($(#[doc = $doc:literal])+ $name:ident: $level:ident, $target:ident, $rate:ident, $message:literal, [$($field:ident),*];)*) => {
        /// Every event, in the order of the documentation.
        pub const EVENTS: &[Event] = &[$($name),*];
        $(
            $(#[doc = $doc])+
            #[expect(non_upper_case_globals, reason = "the name of the event, as it is logged")]
            pub(crate) const $name: Event = Event {
                name: stringify!($name),
                level: Level::$level,
                target: stringify!($target),
                rate: Rate::$rate,
                message: $message,
                fields: &[$(stringify!($field)),*],
                description: concat!($($doc),+),
            };
        )*
    };
}

events! {
    /// The server accepts connections. `node` names this start of the process; session ids begin with it.
    server_listening: INFO, server, Each, "listening", [addresses, data, node, version];
    /// A signal asked the server to stop. Of its connections, `sessions` hold a slot or ask for one.
    server_stopping: INFO, server, Each, "stopping", [connections, sessions];
    /// Some clients did not close their connections in time.
    connections_left: WARN, server, Each, "stopped before every connection had ended", [connections];
    /// The sessions have ended, and the store still has their slots.
    releases_unconfirmed: WARN, server, Each, "the store has not confirmed every release; at the next start these sessions lapse, or linger if resumable", [releases];
    /// The next start finds what it finds after a crash.
    store_not_closed: ERROR, server, Each, "the store did not close in time, left it as it is", [];
    /// The last line of an orderly stop. `dropped_log_lines` were not written, because standard error took none.
    server_stopped: INFO, server, Each, "stopped", [dropped_log_lines];
    /// A second signal came while the server was stopping.
    server_stopped_at_once: WARN, server, Each, "stopped at once by a second signal", [];
    /// The process ends with exit code 70. Please report this.
    part_failed: ERROR, server, Each, "a part of the server has ended, and the server cannot go on; please report this", [part];
    /// The server goes on. Please report this.
    part_restarted: ERROR, server, Each, "a part of the server has ended, and starts again; please report this", [part, has_panicked];
    /// The session's slot is released. Please report this.
    connection_panicked: ERROR, server, Each, "a connection panicked; please report this", [session];
    /// The server runs with fewer threads than `threads` asks for.
    threads_missing: WARN, server, Each, "cannot start a thread", [threads, error];
    /// Someone has set the machine's clock. Deadlines of tokens follow it, grace periods do not.
    clock_corrected: INFO, server, Each, "the wall clock was corrected", [];
    /// Reloading by SIGHUP does not work.
    hangup_not_caught: ERROR, server, Each, "cannot catch SIGHUP", [error];

    /// For example an unknown environment variable.
    configuration_warning: WARN, server, Each, "a warning about the configuration", [warning];
    /// `also_read` were read again, too.
    configuration_reloaded: INFO, server, Each, "the configuration is reloaded", [also_read];
    /// A change that is in force now.
    configuration_changed: INFO, server, Each, "the configuration has changed", [change];
    /// A change that waits for a restart. Each reload repeats it.
    restart_needed: WARN, server, Each, "a change of the configuration needs a restart", [change];
    /// One error of a configuration that was to be reloaded.
    configuration_invalid: ERROR, server, Each, "invalid configuration", [error];
    /// All errors have their lines before this one.
    configuration_kept: ERROR, server, Each, "the configuration is not reloaded, nothing has changed", [];
    /// A reload has removed `tls_cert`.
    tls_switched_off: WARN, server, Each, "TLS is off from now on: the server refuses wss:// clients, and others send unencrypted", [];
    /// Because `allow_open_auth` is set.
    open_auth_exposed: WARN, server, Each, "open authentication beyond this machine: any client that can reach this server can sign in as any user", [];
    /// Who can read them can sign in as their users.
    tokens_unencrypted: WARN, server, Each, "tokens cross the network unencrypted: set tls_cert and tls_key, or use a proxy with TLS and set trusted_proxies", [];
    /// The server verifies tokens, with this many keys. Those of a `provider` are fetched next.
    tokens_required: INFO, server, Each, "users authenticate by tokens", [algorithms, keys, provider];
    /// The file of the keys has changed.
    keys_reloaded: INFO, server, Each, "the keys of tokens have changed and are reloaded", [keys];
    /// The file of the keys has changed, and is invalid.
    keys_invalid: ERROR, server, Each, "the keys of tokens have changed but cannot be used, the old ones stay in force", [error];
    /// A key of a set that the server does not use, and why. Of one set, the first 8 skipped keys are logged.
    key_skipped: WARN, server, Each, "skipped a key of the set", [key_id, reason];
    /// A reader of the set could sign tokens with it. Remove it from the set. Of one set, the first 8 skipped keys are logged.
    secret_skipped: WARN, server, Each, "skipped a secret in a set of public keys", [key_id];
    /// The provider's set is new, and in force. It is fetched again after `next_in`.
    keys_fetched: INFO, server, Each, "fetched the keys of tokens", [url, keys, key_ids, next_in];
    /// The provider's set is as before.
    keys_unchanged: DEBUG, server, Each, "the keys of tokens are unchanged", [url, keys, next_in];
    /// The provider is down, or answers with something else. Logged once a minute while that goes on.
    keys_not_fetched: WARN, server, Each, "cannot fetch the keys of tokens, the last ones stay in force; trying again", [error, failures, seconds, keys, in_force_since];
    /// The same, before any set has come. After the first start: check the URL.
    keys_missing: ERROR, server, Each, "cannot fetch the keys of tokens: until they come, clients are refused with 1013; trying again", [error, failures, seconds];
    /// The provider gives keys again, after this many failed fetches.
    keys_fetched_again: INFO, server, Each, "the keys of tokens can be fetched again", [url, failures, seconds];
    /// A restart while the provider is down would find older keys, or none. Logged for the first of several failures.
    keys_not_saved: WARN, server, Each, "cannot save the keys of tokens", [path, error];
    /// The server waits for its provider.
    saved_keys_unusable: WARN, server, Each, "the saved keys of tokens cannot be used", [path, error];
    /// How many files the process may open, how many connections that leaves room for, and whether the limit was raised.
    open_files_limit: INFO, server, Each, "the limit of open files", [descriptors, hard_limit, max_connections, reason];
    /// The reason says what to do.
    few_connections: WARN, server, Each, "the limit of open files leaves room for few connections", [max_connections, reason];

    /// The connection was beyond `bound`. For a full address: how many connections it has, how many of them are authenticated
    /// and, with tokens, of how many users.
    connection_refused: WARN, server, OnePerSecond, "refused a connection", [bound, reason, connections, authenticated, users, hint];
    /// The user's connections are too many, from all addresses.
    user_connection_refused: WARN, server, OnePerSecond, "refused a connection of a user", [bound, user, client, connections];
    /// The server reads more slowly from a client that causes more work than `bound` allows. `share_percent` is what it has
    /// of `max_work_per_address`.
    client_slowed: WARN, server, OnePerSecond, "an address causes too much work, reading more slowly", [bound, client, share_percent, hint];
    /// The origin of a page, or the host that a request is addressed to, is not allowed.
    request_refused: INFO, server, OnePerSecond, "refused a request that this server is not for", [header, value];
    /// The client left before its handshake had its turn.
    tls_abandoned: DEBUG, server, Each, "left before its TLS handshake", [client_address];
    /// For example, the client does not trust the certificate, or does not speak TLS.
    tls_failed: DEBUG, server, Each, "the TLS handshake failed", [client_address, error];
    /// The client offers subprotocols, and `subprotocols` lists none of them. Browsers then close the connection.
    /// Of a name that is longer than 24 bytes, only the length is logged: some pages put a token there.
    subprotocol_not_selected: INFO, server, OnePerSecond, "selected no subprotocol", [client_address, offered];
    /// With `proxy_protocol`, every connection of a trusted proxy must begin with a PROXY header. Check that the proxy sends
    /// one (`send-proxy` in haproxy, `proxy_protocol` in nginx), or switch `proxy_protocol` off.
    proxy_header_missing: WARN, server, OnePerSecond, "refused a connection of a trusted proxy: it sent no PROXY header. Check the proxy's send-proxy, or switch proxy_protocol off", [client_address];
    /// The same, of a connection that begins with something like a PROXY header.
    proxy_header_invalid: WARN, server, OnePerSecond, "refused a connection of a trusted proxy: its PROXY header is invalid. Check the proxy's send-proxy, or switch proxy_protocol off", [client_address, error];
    /// The connection begins with something else than HTTP or TLS. It may be a PROXY header, which the server only reads with
    /// `proxy_protocol`.
    proxy_header_unexpected: WARN, server, OnePerSecond, "refused a connection of a trusted proxy: if it sends a PROXY header, set proxy_protocol, or switch send-proxy off there", [client_address];
    /// The sender is not in `trusted_proxies`, so the connection counts as its own.
    proxy_header_ignored: INFO, server, OnePerSecond, "ignored the PROXY header of a peer that is no trusted proxy", [client_address];
    /// The sender is not in `trusted_proxies`. The server closes the connection.
    client_proxy_header_invalid: DEBUG, server, Each, "a client sent an invalid PROXY header", [client_address, error];
    /// The process has no more descriptors or memory.
    accept_failed: ERROR, server, Each, "cannot accept connections; new ones wait until resources are free", [error];
    /// Resources are free again.
    accept_resumed: INFO, server, Each, "accepting connections again", [paused_millis];

    /// The user's client is in. `connections` is the number of slots that the user holds now. With `is_resumed` the session
    /// goes on in the slot of a lost connection.
    session_admitted: DEBUG, session, Each, "a session was admitted", [user, session, client_address, connections, is_resumed];
    /// The session waits in line for a slot. Each time it asks again and still waits, there is another such line.
    session_waiting: DEBUG, session, Each, "a session waits in line", [user, session, client_address, place];
    /// The user has reached the limit.
    session_denied: INFO, session, OnePerSecond, "denied a slot: the user has reached the limit", [user, session, client_address];
    /// The reason is what the client is told. If a claim of a token is at fault: its name, and the type of its value.
    credential_refused: INFO, session, OnePerSecond, "authentication failed: invalid credential", [user, session, client_address, reason, claim, found];
    /// The server is overloaded with checks of tokens, or the check takes longer than `store_timeout`.
    credential_not_checked: WARN, session, OnePerSecond, "authentication failed: the credential was not checked in time", [session, client_address];
    /// No keys have come from their provider yet, so nobody knows whether the token is valid. The client should try again.
    credential_undecided: WARN, session, OnePerSecond, "authentication failed: the keys of tokens have not come yet", [session, client_address];
    /// The store did not take the session.
    session_not_stored: WARN, session, OnePerSecond, "authentication failed: the store did not admit the session", [user, session, client_address, reason];
    /// The session goes on with a fresh token.
    session_renewed: DEBUG, session, Each, "a session was renewed", [user, session, client_address];
    /// The fresh token is valid, but not for this session. The session goes on with the token that it has, unless the fresh
    /// one allows the user no session.
    renewal_refused: INFO, session, OnePerSecond, "a session was not renewed", [user, session, client_address, reason];
    /// The session has lost its slot. The reason says to whom, with the name that a client has given its device only if
    /// `log_users` is `plain`. A session that lingered has no `client_address`.
    session_evicted: DEBUG, session, Each, "a session lost its slot", [user, session, client_address, reason];
    /// The client's socket is gone without BYE.
    session_lost: DEBUG, session, Each, "a session's client was lost", [user, session, client_address];
    /// The server closes a connection with this code. Connections that never had a slot have no user.
    session_closed: DEBUG, session, Each, "closing a connection", [user, session, client_address, close_code, reason];
    /// The session gave its slot up, or its place in line.
    slot_released: DEBUG, session, Each, "a slot is released", [user, session];
    /// The session was lost, and its slot waits for its client for the time of `linger`, if the client can resume it.
    slot_lingers: DEBUG, session, Each, "a slot lingers", [user, session];
    /// The session's grace period has ended, or its server is dead and its client cannot resume it. The server notices when it
    /// next looks at the user: when the user signs in, or within about a minute.
    slot_lapsed: DEBUG, session, Each, "a slot has lapsed", [user, session];
    /// The bound is `max_message_bytes`.
    message_too_big: INFO, session, OnePerSecond, "closing a connection: a message is too big", [session, client_address, message_bytes, max_message_bytes];

    /// An operator has set or removed overrides. Those left out are not overridden.
    overrides_set: INFO, server, Each, "the operator set overrides for a user", [user, limit, when_full];
    /// An operator has had the store forget a user.
    user_forgotten: INFO, server, Each, "the operator forgot a user", [user];
    /// An operator has ended sessions of a user. Each has a line of its own at the level debug.
    sessions_ended: INFO, server, Each, "the operator ended sessions", [user, ended];
    /// Something has removed the operator socket.
    operator_socket_bound_again: WARN, server, Each, "the operator socket was gone, and is bound again", [path];
    /// Operators have no way to the server until this works. The server tries again each second.
    operator_socket_failed: ERROR, server, Each, "cannot open the operator socket; trying again", [path, error];
    /// An operator's command was interrupted.
    operator_connection_broke: DEBUG, server, Each, "the connection of an operator broke", [error];

    /// The store is open.
    store_opened: INFO, server, Each, "opened the store", [known_users];
    /// The server admits no session from now on. The health check answers 503 with the same reason.
    admission_stopped: WARN, server, Each, "no session is admitted", [reason, problems];
    /// The server admits sessions again.
    admission_resumed: INFO, server, Each, "sessions are admitted again", [stopped_millis];
    /// A batch of commands was not written. No session is admitted by it, releases are tried again.
    batch_failed: ERROR, server, OnePerSecond, "the store could not write", [reason, error];
    /// The slot stays taken until the release succeeds. The server tries it again.
    release_failed: ERROR, server, OnePerSecond, "a release failed, and will be retried", [error];
    /// The server treats the sessions concerned as lost, and releases what they may hold.
    commit_in_doubt: ERROR, server, OnePerSecond, "a commit failed, and may or may not have been applied", [error];
    /// After this error only opening the file again helps. The server does so at once.
    store_closed: ERROR, server, OnePerSecond, "the store failed, and is opened again", [directory, error];
    /// The store works again.
    store_reopened: WARN, server, OnePerSecond, "the store is open again", [directory];
    /// The server tries again, at least every five seconds.
    store_not_opened: ERROR, server, OnePerSecond, "the store does not open, all commands are rejected", [directory, error];
    /// `live/` could not be read at the start. Sessions that lingered are gone.
    slots_discarded: WARN, server, Each, "the slots of the last server cannot be read, and are discarded", [directory, error];
    /// The last server was killed in the middle of this commit. No client was told of it.
    commit_undone: INFO, server, Each, "a commit that was cut short is undone", [directory];
    /// `live/` is then written with a system call for each page, which is slower. See the setting `live_writes`.
    slots_not_mapped: INFO, server, Each, "the slots are not written through a memory map", [directory, reason];
    /// The server admits no session that needs more room, and applies releases. It tries again every second.
    slots_not_extended: WARN, server, OnePerSecond, "the slots have no room to grow", [directory, error];
    /// There is no room for the file that the server keeps in reserve for releases.
    disk_nearly_full: WARN, server, Each, "the disk is nearly full", [path];
    /// The record stays, because the user may have live sessions.
    record_unreadable: ERROR, server, OnePerSecond, "a user's record cannot be read: the user is rejected until a restart, which ends the user's sessions and discards the record", [user, error];
    /// The path leads to other files, or to none. Repeated every minute.
    data_directory_lost: ERROR, server, Each, "the data is not where this server opened it: no session is admitted. Put the same directory back, or restart the server: it then uses what is there, and knows no users and overrides if that is empty", [path, reason];
    /// The same directory was put back.
    data_directory_back: WARN, server, Each, "the data is where this server opened it again: sessions are admitted", [];
    /// An operator asked for a list.
    sessions_not_listed: ERROR, server, Each, "sessions cannot be listed", [error];
    /// An operator asked for a list.
    users_not_listed: ERROR, server, Each, "users cannot be listed", [error];
    /// Found at the start, in `users/`.
    known_users_lost: WARN, server, Each, "data.mdb is gone or empty: all known users are forgotten", [directory];
    /// More users came than can be written. No decision depends on it.
    users_not_queued: WARN, server, OnePerSecond, "users are not noted as seen: more came than can be written", [dropped];
    /// No decision depends on it.
    users_not_noted: ERROR, server, OnePerSecond, "users are not noted as seen, or not forgotten", [users, error];
    /// No decision depends on it.
    users_without_room: ERROR, server, OnePerSecond, "new users are admitted, but not noted: max_known_users, or nine tenths of the map, are reached", [users];
    /// The server tries again.
    users_unreadable: ERROR, server, OnePerSecond, "the known users cannot be read, no user is forgotten", [error];
    /// A later version of this software may have written it.
    known_user_unreadable: ERROR, server, OnePerSecond, "a known user's record cannot be read and is left alone", [user, error];
    /// Users who were not seen for `forget_after` are deleted.
    users_forgotten: INFO, server, Each, "forgot users who were not seen for long", [forgotten, known_users];
    /// Only with `store = redis`. The server tries again every half second.
    shared_store_lost: WARN, server, Each, "the shared store cannot be reached: nobody is admitted, and sessions end if that lasts as long as node_fence", [store, error];
    /// The connection is there again. Sessions are admitted once all of their servers know them.
    shared_store_back: INFO, server, Each, "the shared store is reached again", [store, lost_millis];
    /// The server may throw slots away to make room for others.
    shared_store_evicts: WARN, server, Each, "the shared store may throw away slots when its memory is full: set its maxmemory-policy to noeviction", [policy];
    /// This server cannot confirm that it runs. If that lasts as long as `node_fence`, its sessions end.
    shared_store_not_replicated: WARN, server, OnePerSecond, "fewer replicas than redis_replicas have what this server has confirmed", [replicas];
    /// Several servers take writes if it is cut off from its replicas and they choose another.
    shared_store_splits: WARN, server, Each, "while this store is cut off from its replicas, it can admit sessions beside the one that takes its place: set redis_replicas, or its min-replicas-to-write and min-replicas-max-lag", [store];
    /// For example for want of memory, or of a right.
    shared_store_refused: ERROR, server, OnePerSecond, "the shared store refuses a request, which is tried again", [error];
    /// A later version of this software may have written it.
    shared_record_unreadable: ERROR, server, OnePerSecond, "a user's record in the shared store cannot be read: the user is rejected", [user, error];
    /// The clients of these `sessions` are cut. Other servers may free their slots now. There are 64 parts.
    node_fenced: ERROR, server, OnePerSecond, "the sessions of a part of the users have ended, because other servers may take this one for dead", [part, sessions, reason];
    /// The server has another id among those that share the store, because its sessions have ended.
    node_renamed: WARN, server, Each, "this server joins the others under another id", [node];
    /// Should the process be killed, the others free its slots only after `node_lease`.
    node_not_noted: ERROR, server, OnePerSecond, "the id of this server cannot be written to its data directory", [path, error];
    /// Other operators do not see this server's name, version and settings in `server nodes` until it succeeds. Nothing else depends on
    /// it. The server tries again every two seconds.
    node_not_described: WARN, server, Each, "what this server says of itself cannot be written to the shared store", [error];
    /// An operator has declared another server dead (`server nodes bury`). Its slots are free at once in as many
    /// parts of the users as `parts` says. In those that `open` counts, they are as soon as this server can say so there.
    node_buried: WARN, server, Each, "the operator declared another server dead", [node, parts, open];
    /// Another server has written the format of its keys meanwhile. This server admits nobody until the format is its own again.
    shared_store_other_format: ERROR, server, Each, "servers of another version use the same keys in the shared store: nobody is admitted", [error];
    /// The operator's command says so, too.
    updates_not_written: ERROR, server, Each, "updates of users are not written", [updates, reason];
    /// The operator's change of them is refused.
    overrides_unreadable: ERROR, server, Each, "a user's overrides cannot be read, and are left alone", [error];
    /// What LMDB says of a failed change.
    users_not_written: ERROR, server, Each, "the known users cannot be written to", [error];
}
