//! An application's page (`page.html`) in a real Chromium, against the real server.
//!
//! The page holds a session in each tab, with raw WebSocket calls. The tests do what a person does to it: they open tabs,
//! reload them, duplicate them, pick from a list; and they do to the server what happens to servers.

#![cfg(target_os = "linux")]

mod chromium;
mod tab;
mod relay;
mod site;

mod tabs;
mod in_line;
mod restarts;
mod endings;
mod behind_nginx;
