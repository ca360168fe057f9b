//! A person's browser, with its tabs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::waiting::TIMEOUT;

use super::chromium::Chromium;

/// A browser context: tabs that share nothing with those of other tests. They close when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Profile(Arc<Context>);

struct Context {
    browser: Arc<Chromium>,
    id: String,
}

/// A tab. It stays open when it is dropped.
pub(super) struct Tab {
    profile: Profile,
    target: String,
    session: String,
}

/// A session, as other sessions of its user see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listed {
    pub(super) label: String,
    /// It tells a slot that goes on from one that begins anew.
    pub(super) slot: String,
    /// As the protocol has it, in milliseconds.
    pub(super) since: u64,
    pub(super) state: String,
}

impl Profile {
    /// `None` if no browser is installed, and none is required.
    pub(super) fn new() -> Option<Self> {
        let browser = Chromium::shared()?;
        let context = browser.call(None, "Target.createBrowserContext", &json!({})).unwrap();
        let id = context["browserContextId"].as_str().unwrap().to_owned();
        Some(Self(Arc::new(Context { browser, id })))
    }

    /// Opens a page in a new tab. The page may have a certificate that the browser does not know.
    pub(super) fn open(&self, url: &str) -> Tab {
        let parameters = json!({ "url": "about:blank", "browserContextId": self.0.id });
        let target = self.0.browser.call(None, "Target.createTarget", &parameters).unwrap();
        let tab = self.attach(target["targetId"].as_str().unwrap());
        tab.command("Security.setIgnoreCertificateErrors", &json!({ "ignore": true }));
        tab.command("Page.navigate", &json!({ "url": url }));
        tab
    }

    fn attach(&self, target: &str) -> Tab {
        let parameters = json!({ "targetId": target, "flatten": true });
        let session = self.0.browser.call(None, "Target.attachToTarget", &parameters).unwrap();
        let session = session["sessionId"].as_str().unwrap().to_owned();
        Tab { profile: self.clone(), target: target.to_owned(), session }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if !thread::panicking() {
            let parameters = json!({ "browserContextId": self.id });
            self.browser.call(None, "Target.disposeBrowserContext", &parameters).unwrap();
        }
    }
}

impl Tab {
    /// Waits until the page says that it is in, and returns its grant.
    pub(super) fn expect_in(&self) -> Value {
        self.wait_until("!globalThis.isOld && page.state === 'in'");
        self.value("page.grant")
    }

    /// Waits until the page has lost its connection, and is in again. Returns its grant.
    pub(super) fn expect_return(&self) -> Value {
        self.wait_until("page.closes.length > 0 && page.state === 'in'");
        self.value("page.grant")
    }

    /// As [`Tab::expect_out`], after the session was ended: checks why, as the page was told.
    pub(super) fn expect_evicted(&self, code: &str, words: &str) {
        assert_eq!(self.expect_out(), [4409]);
        let evicted = self.value("page.evicted");
        assert_eq!((&evicted["code"], &evicted["payload"]), (&json!(code), &json!(words)));
    }

    /// Waits until the page is out, and does not come back by itself. Returns the codes of all closes that it saw.
    pub(super) fn expect_out(&self) -> Vec<u64> {
        self.wait_until("page.state === 'out'");
        self.closes()
    }

    /// The close codes that the page saw since it was loaded.
    pub(super) fn closes(&self) -> Vec<u64> {
        self.value("page.closes").as_array().unwrap().iter().map(|code| code.as_u64().unwrap()).collect()
    }

    /// Checks that no connection of the page was closed since it was loaded.
    pub(super) fn expect_undisturbed(&self) {
        assert!(self.closes().is_empty(), "{}", self.journal());
    }

    /// The sessions of the user, by label.
    pub(super) fn sessions(&self) -> Vec<Listed> {
        let listed = |session: &Value| Listed {
            label: session["label"].as_str().unwrap().to_owned(),
            slot: session["slot"].as_str().unwrap().to_owned(),
            since: session["since"].as_u64().unwrap(),
            state: session["state"].as_str().unwrap().to_owned(),
        };
        let mut sessions: Vec<_> = self.value("list()").as_array().unwrap().iter().map(listed).collect();
        sessions.sort();
        sessions
    }

    /// Waits until the session with this label is in this state.
    pub(super) fn wait_until_listed(&self, label: &str, state: &str) {
        let is_it = format!("(session) => session.label === '{label}' && session.state === '{state}'");
        self.wait_until(&format!("list().then((all) => all.some({is_it}))"));
    }

    /// Waits until the page shows who holds the slots, and returns their labels.
    pub(super) fn expect_picker(&self) -> Vec<String> {
        self.wait_until("document.querySelectorAll('#sessions button').length > 0");
        let shown =
            self.value("[...document.querySelectorAll('#sessions button')].map((button) => button.textContent)");
        shown.as_array().unwrap().iter().map(|label| label.as_str().unwrap().to_owned()).collect()
    }

    /// Clicks on the session with this label.
    pub(super) fn pick(&self, label: &str) {
        let buttons = "[...document.querySelectorAll('#sessions button')]";
        self.run(&format!("{buttons}.find((button) => button.textContent === '{label}').click()"));
    }

    /// Loads the page anew. Returns when the old one is gone.
    pub(super) fn reload(&self) {
        self.start_reload();
        self.wait_until("!globalThis.isOld");
    }

    /// As [`Tab::reload`], without a wait.
    pub(super) fn start_reload(&self) {
        self.run("globalThis.isOld = true");
        self.command("Page.reload", &json!({}));
    }

    /// Opens the same page in another tab that begins with a copy of this one's sessionStorage, as a duplicated tab does.
    pub(super) fn duplicate(&self) -> Self {
        self.run("void window.open(location.href)");
        let browser = &self.profile.0.browser;
        let mut copy = None;
        wait(
            || {
                let targets = browser.call(None, "Target.getTargets", &json!({})).unwrap();
                let targets = targets["targetInfos"].as_array().unwrap().clone();
                copy = targets.into_iter().find(|target| target["openerId"] == self.target.as_str());
                copy.is_some()
            },
            || "the tab was not duplicated".into(),
        );
        self.profile.attach(copy.unwrap()["targetId"].as_str().unwrap())
    }

    /// Has Chromium freeze the tab, as it does with tabs that nobody has looked at for long: nothing in it runs any more.
    pub(super) fn freeze(&self) {
        self.command("Page.setWebLifecycleState", &json!({ "state": "frozen" }));
    }

    /// Ends that.
    pub(super) fn wake(&self) {
        self.command("Page.setWebLifecycleState", &json!({ "state": "active" }));
    }

    /// Closes the tab.
    pub(super) fn close(self) {
        self.profile.0.browser.call(None, "Target.closeTarget", &json!({ "targetId": self.target })).unwrap();
    }

    /// Waits until this holds in the page.
    pub(super) fn wait_until(&self, condition: &str) {
        wait(
            // Between two pages it can be asked nothing.
            || self.evaluate(condition).is_ok_and(|value| value == true),
            || format!("timed out waiting until {condition}\n{}", self.journal()),
        );
    }

    /// The value of an expression in the page. Waits for it if it is a promise.
    pub(super) fn value(&self, expression: &str) -> Value {
        self.evaluate(expression).unwrap_or_else(|error| panic!("{expression}: {error}\n{}", self.journal()))
    }

    /// Runs this in the page.
    pub(super) fn run(&self, code: &str) {
        self.value(&format!("{{ {code} }}"));
    }

    fn evaluate(&self, expression: &str) -> Result<Value, String> {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true });
        let mut answer = self.profile.0.browser.call(Some(&self.session), "Runtime.evaluate", &parameters)?;
        match answer.get("exceptionDetails") {
            Some(exception) => Err(exception.to_string()),
            None => Ok(answer["result"]["value"].take()),
        }
    }

    fn command(&self, method: &str, parameters: &Value) {
        self.profile.0.browser.call(Some(&self.session), method, parameters).unwrap();
    }

    /// What happened in the page, for a test that fails.
    fn journal(&self) -> String {
        let journal = self.evaluate("location.href + '\\n' + page.journal.join('\\n')");
        journal.map_or_else(|error| error, |text| text.as_str().unwrap_or("there is no page").to_owned())
    }
}

fn wait(mut is_so: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TIMEOUT, "{}", otherwise());
        // Each question costs the browser some work.
        thread::sleep(Duration::from_millis(20));
    }
}
