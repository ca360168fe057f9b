//! A store in Redis or Valkey, which several servers share. The decisions are those of [`session_core::cluster`].

mod script;
mod value;
mod command;
mod reply;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod oracle;
