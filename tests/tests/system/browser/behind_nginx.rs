//! The page on the server's own origin, over TLS, behind nginx.

use super::site::RULES;
use super::tab::Profile;
use super::tabs::{pick, reload};
use crate::real_proxies::{ProxiedServer, Proxy};

#[test]
fn tabs_behind_nginx_keep_their_slots() {
    if !Proxy::NginxWithPage.is_installed() {
        return;
    }
    let Some(browser) = Profile::new() else { return };
    let server = ProxiedServer::start(Proxy::NginxWithPage, &[&RULES[..], &["--ping-interval", "1s"]].concat());
    let host = format!("localhost:{}", server.address.port());
    let open = |user: &str, label: &str| {
        browser.open(&format!("https://{host}/page.html#server=wss://{host}/&user={user}&label={label}"))
    };
    pick(|label| open("ada", label));
    reload(|label| open("bob", label));
}
