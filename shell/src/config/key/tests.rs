use super::*;
use crate::config::sample::Sample;

fn key(name: &str) -> &'static Key {
    Sample::keys().iter().find(|key| key.name == name).unwrap()
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

#[test]
fn key_has_a_name_in_every_source() {
    let key = key("may_be_open");
    assert_eq!((&*key.flag, &*key.variable), ("may-be-open", "SESSIONS_MAY_BE_OPEN"));
    assert_eq!((key.group, key.applies, key.shape), ("Access", ReloadMode::AfterRestart, Shape::Switch));
    assert_eq!(key.help, "Accept every client, at any time");
}

#[test]
fn only_lists_are_split() {
    assert_eq!(key("ports").split("80, 443,"), texts(["80", "443", ""]));
    assert_eq!(key("ports").split(" "), texts([]));
    assert_eq!(key("certificate").split("a, b"), texts(["a, b"]));
    assert_eq!(key("certificate").split(""), texts([""]));
}

#[test]
fn values_are_read_in_field_order() {
    let given = [texts(["80", "443"]), texts([]), texts(["true"]), texts([""]), texts(["7"]), texts(["memory"])];
    let read = |given: &[Vec<String>]| Sample::read(&given.iter().map(|texts| &**texts).collect::<Vec<_>>());
    let sample = read(&given).unwrap();
    assert_eq!((&sample.ports[..], sample.origins.len(), sample.may_be_open), (&[80, 443][..], 0, true));
    assert_eq!((&sample.certificate, sample.most.to_string()), (&None, "7".into()));

    let mut wrong = given.clone();
    wrong[0] = texts(["0", "80", "x"]);
    wrong[2] = texts(["maybe"]);
    let invalid_values = read(&wrong).unwrap_err();
    let invalid_values: Vec<_> = invalid_values.iter().map(|(key, invalid)| (key.name, &*invalid.text)).collect();
    assert_eq!(invalid_values, [("ports", "0"), ("ports", "x"), ("may_be_open", "maybe")]);

    let mut other = given.clone();
    (other[0], other[4]) = (texts(["080", "443"]), texts(["unlimited"]));
    assert_eq!(sample.different_keys(&read(&other).unwrap()), ["most"]);
}
