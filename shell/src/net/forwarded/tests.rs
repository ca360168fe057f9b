use super::*;
use crate::net::trusted_proxies::ProxyNetwork;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn peer(address: &str) -> Peer {
    Peer::of_socket(ip(address), "10.9.9.9:3000".parse().unwrap())
}

fn proxies() -> TrustedProxies {
    ["10.0.0.0/8", "2001:db8::/32"].iter().map(|network| network.parse::<ProxyNetwork>().unwrap()).collect()
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let lines = lines.iter().map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    lines.collect()
}

/// The client of a request from this peer with these lines of one header.
fn client(header: ForwardedHeader, name: &'static str, from: &str, lines: &[&str]) -> ForwardedClient {
    let lines: Vec<_> = lines.iter().map(|&line| (name, line)).collect();
    header.client(&proxies(), &peer(from), &headers(&lines))
}

#[test]
fn x_forwarded_for_counts_only_from_trusted_proxies() {
    for (from, lines, expected) in [
        // An untrusted peer is the client.
        ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
        // Only the last address that is no proxy's: those before it come from the client.
        ("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", &["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2,10.0.0.3 "], "203.0.113.9"),
        ("10.0.0.1", &["1.1.1.1, 203.0.113.9", "10.0.0.2", "10.0.0.3"], "203.0.113.9"),
        // Only proxies: the first of them.
        ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        // Ports and brackets.
        ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", &["[2001:db9::9]:4711"], "2001:db9::9"),
        ("10.0.0.1", &["[2001:db9::9]"], "2001:db9::9"),
        ("10.0.0.1", &["2001:db9::9, 2001:db8::1"], "2001:db9::9"),
        ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
        // An entry that is no address ends the reading.
        ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", &["203.0.113.9, , 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["203.0.113.9, 10.0.0.2:, 10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", &["203.0.113.9\t"], "203.0.113.9"),
        ("10.0.0.1", &["", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", &["203.0.113.9", ""], "10.0.0.1"),
    ] {
        let found = client(ForwardedHeader::XForwardedFor, "x-forwarded-for", from, lines);
        assert_eq!(found.address, ip(expected), "{from}, {lines:?}");
    }
    let trusts_none = ForwardedHeader::XForwardedFor.client(
        &TrustedProxies::default(),
        &peer("10.0.0.1"),
        &headers(&[("x-forwarded-for", "203.0.113.9")]),
    );
    assert_eq!(trusts_none.address, ip("10.0.0.1"));
}

#[test]
fn forwarded_names_the_client_in_every_form() {
    use Scheme::{Http, Https};
    for (from, lines, expected, scheme) in [
        ("192.0.2.1", &["for=203.0.113.9;proto=https"][..], "192.0.2.1", None),
        ("10.0.0.1", &[], "10.0.0.1", None),
        ("10.0.0.1", &["for=203.0.113.9"], "203.0.113.9", None),
        ("10.0.0.1", &["For=203.0.113.9;Proto=HTTPS;by=10.0.0.1;host=x"], "203.0.113.9", Some(Https)),
        ("10.0.0.1", &["proto=http ; for=203.0.113.9"], "203.0.113.9", Some(Http)),
        ("10.0.0.1", &["for=\"203.0.113.9:4711\""], "203.0.113.9", None),
        ("10.0.0.1", &["for=203.0.113.9:4711"], "203.0.113.9", None),
        ("10.0.0.1", &["for=\"[2001:db9::9]\""], "2001:db9::9", None),
        ("10.0.0.1", &["for=\"[2001:db9::9]:4711\";proto=\"wss\""], "2001:db9::9", Some(Https)),
        ("10.0.0.1", &["for=\"[2001:db9::9]:_port\""], "2001:db9::9", None),
        ("10.0.0.1", &["for=\"203.0.113.9:_p\""], "203.0.113.9", None),
        ("10.0.0.1", &["for=\"203.0.113\\.9\""], "203.0.113.9", None),
        // Several elements and lines: the last that is no proxy's.
        (
            "10.0.0.1",
            &["for=1.1.1.1, for=203.0.113.9;proto=https, for=10.0.0.2;proto=http"],
            "203.0.113.9",
            Some(Https),
        ),
        ("10.0.0.1", &["for=1.1.1.1", "for=203.0.113.9;proto=https", "for=10.0.0.2"], "203.0.113.9", Some(Https)),
        ("10.0.0.1", &["for=10.0.0.3,for=\"10.0.0.2\""], "10.0.0.3", None),
        // What is no address ends the reading. Its proxy still says what that client speaks.
        ("10.0.0.1", &["for=1.1.1.1, for=unknown;proto=https"], "10.0.0.1", Some(Https)),
        ("10.0.0.1", &["for=1.1.1.1, for=_hidden, for=10.0.0.2"], "10.0.0.2", None),
        ("10.0.0.1", &["for=1.1.1.1, for=\"_gazonk\""], "10.0.0.1", None),
        ("10.0.0.1", &["for=1.1.1.1, proto=https"], "10.0.0.1", Some(Https)),
        ("10.0.0.1", &["for=1.1.1.1,"], "10.0.0.1", None),
        ("10.0.0.1", &["for=1.1.1.1, for=2.2.2.2;for=3.3.3.3"], "10.0.0.1", None),
        ("10.0.0.1", &["for=1.1.1.1, for"], "10.0.0.1", None),
        ("10.0.0.1", &["for=1.1.1.1, for=\"2.2.2.2"], "10.0.0.1", None),
        ("10.0.0.1", &["for=1.1.1.1, for=\"2.2.2.2\"x"], "10.0.0.1", None),
        // Commas, semicolons and quotes within quotes.
        ("10.0.0.1", &["for=203.0.113.9;ext=\"a, for=1.1.1.1; b\""], "203.0.113.9", None),
        ("10.0.0.1", &[r#"for=203.0.113.9;ext="a\", for=1.1.1.1""#], "203.0.113.9", None),
        ("10.0.0.1", &[r#"ext="a\\", for=203.0.113.9"#], "203.0.113.9", None),
        ("10.0.0.1", &[r#"for=203.0.113.9;ext="a, for=1.1.1.1 \" b""#], "203.0.113.9", None),
        // A client's quote does not hide what the proxy appends.
        ("10.0.0.1", &[r#"for="evil, for="[2001:db9::9]:4711""#], "2001:db9::9", None),
        ("10.0.0.1", &[r#"for="evil, for=203.0.113.9"#], "203.0.113.9", None),
        ("10.0.0.1", &[r#"for="evil\, for=203.0.113.9;proto="https""#], "203.0.113.9", Some(Https)),
    ] {
        let found = client(ForwardedHeader::Forwarded, "forwarded", from, lines);
        assert_eq!(found, ForwardedClient { address: ip(expected), scheme }, "{from}, {lines:?}");
    }
}

#[test]
fn x_real_ip_is_one_address() {
    for (from, lines, expected) in [
        ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &[" 203.0.113.9 "], "203.0.113.9"),
        ("10.0.0.1", &["2001:db9::9"], "2001:db9::9"),
        ("10.0.0.1", &["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "10.0.0.1"),
        ("10.0.0.1", &["10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["unknown"], "10.0.0.1"),
    ] {
        let found = client(ForwardedHeader::XRealIp, "x-real-ip", from, lines);
        assert_eq!(found.address, ip(expected), "{from}, {lines:?}");
    }
}

#[test]
fn only_the_chosen_header_counts() {
    let all = [
        ("x-forwarded-for", "203.0.113.1"),
        ("forwarded", "for=203.0.113.2;proto=http"),
        ("x-real-ip", "203.0.113.3"),
        ("x-forwarded-proto", "https"),
    ];
    use ForwardedHeader::{Forwarded, XForwardedFor, XRealIp};
    for (header, address, scheme) in [
        (XForwardedFor, "203.0.113.1", Scheme::Https),
        (Forwarded, "203.0.113.2", Scheme::Http),
        (XRealIp, "203.0.113.3", Scheme::Https),
    ] {
        let found = header.client(&proxies(), &peer("10.0.0.1"), &headers(&all));
        assert_eq!(found, ForwardedClient { address: ip(address), scheme: Some(scheme) }, "{header:?}");
    }
}

#[test]
fn x_forwarded_proto_must_be_unanimous() {
    for (lines, expected) in [
        (&["https"][..], Some(Scheme::Https)),
        (&["HTTPS, https"], Some(Scheme::Https)),
        (&["wss"], Some(Scheme::Https)),
        (&["http", "ws"], Some(Scheme::Http)),
        (&["https, http"], None),
        (&["https", "http"], None),
        (&["https", ""], None),
        (&["on"], None),
        (&[], None),
    ] {
        let found = client(ForwardedHeader::XForwardedFor, "x-forwarded-proto", "10.0.0.1", lines);
        assert_eq!(found, ForwardedClient { address: ip("10.0.0.1"), scheme: expected }, "{lines:?}");
    }
    let untrusted = client(ForwardedHeader::XForwardedFor, "x-forwarded-proto", "192.0.2.1", &["https"]);
    assert_eq!(untrusted.scheme, None);
}

#[test]
fn proxy_header_goes_before_the_forwarding_header() {
    let lines = headers(&[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "https")]);
    let named = |address, may_name_client| {
        let peer = Peer { address: ip(address), may_name_client, ..peer("10.0.0.1") };
        ForwardedHeader::XForwardedFor.client(&proxies(), &peer, &lines)
    };
    let scheme = Some(Scheme::Https);
    assert_eq!(named("203.0.113.9", true), ForwardedClient { address: ip("203.0.113.9"), scheme });
    assert_eq!(named("10.0.0.2", true).address, ip("198.51.100.1"), "it names another trusted proxy");
    assert_eq!(named("10.0.0.1", false).address, ip("10.0.0.1"), "it names no client");
}
