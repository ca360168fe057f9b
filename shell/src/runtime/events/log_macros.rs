//! The macros that log an event of the [table](super::table).

/// Logs an event of the table: `log_event!(session_admitted { user: &user, session: display(id) })`.
///
/// The fields are those of the table, in its order; anything else does not compile. A value is what `tracing` takes: a
/// number, a string, or `display(…)`, also in an `Option`. (`tracing` brings `display` into scope.) The field `user` takes a `&UserId`, which
/// [`log_users`](super::logged_user) may hide.
macro_rules! log_event {
    ($event:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {{
        const EVENT: $crate::runtime::events::Event = $crate::runtime::events::table::$event;
        const _: () = assert!(EVENT.has_fields(&[$(stringify!($field)),*]), "these are not the event's fields");
        const _: () = assert!(
            matches!(EVENT.rate, $crate::runtime::events::Rate::Each),
            "this event is limited to one line a second: use log_limited!"
        );
        tracing::event!(
            target: EVENT.target,
            EVENT.level,
            message = EVENT.message,
            event = EVENT.name,
            $($field = $crate::runtime::events::event_value!($field $(, $value)?; $field),)*
        );
    }};
}

/// As [`log_event`], for an event that is logged once a second at most. The first argument is the
/// [`LogRateLimiter`](super::rate_limiter::LogRateLimiter). Values are computed only for a line that is logged.
macro_rules! log_limited {
    ($limiter:expr, $event:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {{
        const EVENT: $crate::runtime::events::Event = $crate::runtime::events::table::$event;
        const _: () = assert!(EVENT.has_fields(&[$(stringify!($field)),*]), "these are not the event's fields");
        const _: () = assert!(
            matches!(EVENT.rate, $crate::runtime::events::Rate::OnePerSecond),
            "each of these events is logged: use log_event!"
        );
        if let Some(suppressed) = $limiter.check(&EVENT) {
            tracing::event!(
                target: EVENT.target,
                EVENT.level,
                message = EVENT.message,
                event = EVENT.name,
                $($field = $crate::runtime::events::event_value!($field $(, $value)?; $field),)*
                suppressed,
            );
        }
    }};
}

/// The value of a field, or of the variable of that name: of `user` as the operator wants users logged, of any other as it
/// is.
macro_rules! event_value {
    (user, $value:expr; $_:ident) => {
        $crate::runtime::events::logged_user::logged_user($value)
    };
    (user; $variable:ident) => {
        $crate::runtime::events::logged_user::logged_user($variable)
    };
    ($field:ident, $value:expr; $_:ident) => {
        $value
    };
    ($field:ident; $variable:ident) => {
        $variable
    };
}

pub(crate) use {event_value, log_event, log_limited};
