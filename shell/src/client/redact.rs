//! Messages without the secrets in them.

use session_core::protocol::{AuthenticateSuccessDetails, ServerMessage};

/// The message as it is on the wire, without its resume token, which is a secret.
pub(crate) fn redacted_json(reply: &ServerMessage) -> String {
    match reply {
        ServerMessage::AuthenticateSuccessDetailed(admission) => {
            ServerMessage::AuthenticateSuccessDetailed(Box::new(AuthenticateSuccessDetails {
                resume: None,
                ..(**admission).clone()
            }))
            .encode()
        }
        ServerMessage::Hello
        | ServerMessage::HelloDetailed(_)
        | ServerMessage::Pong
        | ServerMessage::EvictedDetailed(_)
        | ServerMessage::ErrorDetailed(_)
        | ServerMessage::AuthenticateSuccess(_)
        | ServerMessage::AuthenticateFailure(_)
        | ServerMessage::AuthenticateFailureDetailed(_)
        | ServerMessage::AuthenticateWaiting(_)
        | ServerMessage::SessionsChanged(_)
        | ServerMessage::ByeSuccess
        | ServerMessage::CheckConnectionsSuccess(_)
        | ServerMessage::ListSessionsSuccess(_)
        | ServerMessage::EndSessionSuccess(_)
        | ServerMessage::Evicted(_)
        | ServerMessage::Error(_) => reply.encode(),
    }
}

/// An unknown message without any `resume` fields.
pub(crate) fn redact_unknown(text: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(mut message) if text.contains("resume") => {
            redact(&mut message);
            message.to_string()
        }
        Ok(_) | Err(_) => text.into(),
    }
}

fn redact(message: &mut serde_json::Value) {
    if let Some(fields) = message.as_object_mut() {
        drop(fields.remove("resume"));
        fields.values_mut().for_each(redact);
    } else if let Some(items) = message.as_array_mut() {
        items.iter_mut().for_each(redact);
    }
}
