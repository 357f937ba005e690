//! Logging in by a login provider, and everything that can be wrong with what comes back from one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge_support;
mod oidc_support;

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use edge_support::{Answer, Edge, FRIEND, SOON};
use millstream_relay::auth::Role;
use oidc_support::{MockProvider, SECRET, Signature, basic, now_unix};
use openidconnect::url::Url;
use serde_json::{Value, json};

const LOGIN: &str = "/api/login/oidc";
const CALLBACK: &str = "/api/login/oidc/callback";
const LIST: &str = "/millstream.v1.LogService/ListStreams";

/// What a browser sends with the request to which the provider's page led it.
const FROM_PROVIDER: &str = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n";

const PEOPLE: &str = "[[people]]\nclaims = { groups = \"ops\" }\nrole = \"admin\"\n\
                      [[people]]\nclaims = { groups = \"ci\", email = \"*@example.com\" }\nrole = \"operator\"\n\
                      scope = \"team=web\"\n";

/// A relay with a provider.
struct Place {
    provider: MockProvider,
    edge: Edge,
}

/// A login that was begun in a browser.
struct Begun {
    url: Url,
    /// The cookie that binds it to the browser.
    cookie: String,
}

impl Begun {
    fn state(&self) -> String {
        self.url
            .query_pairs()
            .find(|(name, _)| name == "state")
            .unwrap()
            .1
            .into_owned()
    }
}

impl Place {
    async fn new() -> Self {
        let provider = MockProvider::start().await;
        let edge = Edge::start_with_file(&format!("{}{PEOPLE}", provider.table())).await;
        Self { provider, edge }
    }

    async fn try_begin(&self, to: &str) -> Answer {
        let headers = format!("content-type: application/json\r\n{}", self.edge.own_page());
        let body = json!({ "to": to }).to_string();
        self.edge.send("POST", LOGIN, &headers, body.as_bytes()).await
    }

    async fn begin(&self, to: &str) -> Begun {
        let answer = self.try_begin(to).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json: Value = serde_json::from_slice(&answer.body).unwrap();
        Begun {
            url: json["url"].as_str().unwrap().parse().unwrap(),
            cookie: answer.headers.cookie("millstream-login").unwrap().to_owned(),
        }
    }

    /// The browser comes back with this query.
    async fn come_back(&self, query: &str, cookies: &str) -> Answer {
        let headers = format!("{FROM_PROVIDER}cookie: {cookies}\r\n");
        self.edge
            .send("GET", &format!("{CALLBACK}?{query}"), &headers, b"")
            .await
    }

    async fn finish(&self, begun: &Begun) -> Answer {
        let code = self.provider.log_in(&begun.url);
        let query = format!("code={code}&state={}", begun.state());
        self.come_back(&query, &begun.cookie).await
    }

    async fn log_in(&self) -> Answer {
        let begun = self.begin("/").await;
        self.finish(&begun).await
    }

    /// What the relay tells a browser with these cookies about itself.
    async fn session(&self, cookies: &str) -> Value {
        let headers = format!("{}cookie: {cookies}\r\n", self.edge.own_page());
        let answer = self.edge.send("GET", "/api/session", &headers, b"").await;
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The sentence on the login page after a login that failed.
    async fn problem(&self, answer: &Answer) -> String {
        assert_eq!(answer.status, 303, "{}", answer.text());
        assert_eq!(answer.headers.cookie("millstream-session"), None);
        let cookie = answer.headers.cookie("millstream-problem").unwrap();
        let session = self.session(cookie).await;
        assert_eq!(session["login_needed"], true);
        session["problem"].as_str().unwrap().to_owned()
    }

    /// The gRPC status of a call of the page; empty: admitted.
    async fn call(&self, cookie: &str) -> String {
        let headers = format!(
            "content-type: application/grpc-web+proto\r\n{}cookie: {cookie}\r\n",
            self.edge.own_page()
        );
        let answer = self.edge.send("POST", LIST, &headers, &[0; 5]).await;
        answer.headers.get("grpc-status").to_owned()
    }
}

fn session_cookie(answer: &Answer) -> String {
    let cookie = answer.headers.cookie("millstream-session");
    cookie.expect("somebody is logged in").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_at_the_provider_becomes_a_session_with_the_rights_of_the_first_rule() {
    let place = Place::new().await;
    let admin = place.edge.token(Role::Admin, "").await;
    let before = place.session("a=b").await;
    assert_eq!(before["login_needed"], true, "who configures logins wants them");
    assert_eq!(before["provider"], "Example");

    let begun = place.begin("/streams/7?x=y#L12").await;
    let asked: HashMap<_, _> = begun.url.query_pairs().into_owned().collect();
    assert_eq!(asked["scope"], "openid email");
    assert_eq!(
        asked["redirect_uri"],
        format!("http://{}{CALLBACK}", place.edge.address())
    );
    for (name, least) in [("state", 43), ("nonce", 43), ("code_challenge", 43)] {
        assert!(asked[name].len() >= least, "{name}: {}", asked[name]);
    }
    let answer = place.try_begin("/").await;
    let bound = answer.headers.all("set-cookie").join("\n");
    for words in ["HttpOnly", "Secure", "SameSite=Lax", "Max-Age=600"] {
        assert!(bound.contains(words), "{bound}");
    }

    let answer = place.finish(&begun).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.headers.get("location"), "/streams/7?x=y#L12");
    assert_eq!(answer.headers.get("cache-control"), "no-store");
    assert_eq!(answer.headers.get("referrer-policy"), "no-referrer");
    let set = answer.headers.all("set-cookie").join("\n");
    let session = set.lines().find(|cookie| cookie.contains("-session=")).unwrap();
    for words in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        assert!(session.contains(words), "{session}");
    }
    let max_age = session
        .split("Max-Age=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    assert!(
        (500..=600).contains(&max_age.parse::<u32>().unwrap()),
        "as long as the ID token: {session}"
    );
    assert_eq!(answer.headers.cookie("millstream-login"), None, "{set}");

    let cookie = session_cookie(&answer);
    let user = place.session(&cookie).await["user"].clone();
    let name = format!("ann@example.com (248289761001 at {})", place.provider.issuer());
    assert_eq!(
        user,
        json!({ "name": name, "role": "operator", "scope": "team=web", "can_log_out": true })
    );
    assert_eq!(place.call(&cookie).await, "");
    let headers = format!("{}cookie: {cookie}\r\n", place.edge.own_page());
    assert_eq!(
        place.edge.send("GET", "/metrics", &headers, b"").await.status,
        403,
        "the scope holds"
    );
    place.edge.send("DELETE", "/api/session", &headers, b"").await;
    assert_eq!(place.call(&cookie).await, "16");

    let audit = place.edge.audit_with(&admin, "\"event\":\"logout\"").await;
    assert!(
        audit.contains(&format!("{{\"event\":\"login\",\"who\":\"{name}\"")),
        "{audit}"
    );
    assert!(
        audit.contains("claims") || audit.contains("groups ops: admin"),
        "how it began: {audit}"
    );
    let secret = cookie.split('=').nth(1).unwrap();
    for secret in [&asked["state"], &asked["nonce"], secret, "code-0", "access_token"] {
        assert!(!audit.contains(secret), "{secret} is in {audit}");
    }
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_comes_back_works_twice() {
    let place = Place::new().await;
    let begun = place.begin("/").await;
    let code = place.provider.log_in(&begun.url);
    let query = format!("code={code}&state={}", begun.state());
    session_cookie(&place.come_back(&query, &begun.cookie).await);
    // The whole answer once more.
    let again = place.come_back(&query, &begun.cookie).await;
    assert!(place.problem(&again).await.contains("begin again"));
    assert_eq!(
        place.provider.set().token_calls.len(),
        1,
        "the provider is not even asked"
    );
    // The code with a login of its own.
    let other = place.begin("/").await;
    let query = format!("code={code}&state={}", other.state());
    let again = place.come_back(&query, &other.cookie).await;
    assert!(place.problem(&again).await.contains("did not confirm"));
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_finished_by_the_browser_that_began_it_and_no_other() {
    let place = Place::new().await;
    let admin = place.edge.token(Role::Admin, "").await;
    let (mine, theirs) = (place.begin("/").await, place.begin("/").await);
    let code = place.provider.log_in(&mine.url);
    for (state, cookie) in [
        ("wrong".to_owned(), &mine.cookie),
        (String::new(), &mine.cookie),
        (theirs.state(), &mine.cookie),
        (mine.state(), &theirs.cookie),
        (mine.state(), &"millstream-login=".to_owned()),
        (mine.state(), &"other=1".to_owned()),
    ] {
        let answer = place
            .come_back(&format!("code={code}&state={state}"), cookie)
            .await;
        assert!(
            place.problem(&answer).await.contains("begin again"),
            "{state} {cookie}"
        );
        assert_eq!(answer.headers.get("location"), "/");
    }
    for query in ["", "code=x", "state=a&state=b", "%ff=%ff&state=%ff%ff"] {
        let answer = place.come_back(query, &mine.cookie).await;
        assert!(place.problem(&answer).await.contains("begin again"), "{query}");
    }
    assert!(place.provider.set().token_calls.is_empty());
    let audit = place.edge.audit_with(&admin, "another browser").await;
    assert!(audit.contains("state is not known"), "{audit}");
    // None of that took the login from the one who began it.
    let query = format!("code={code}&state={}", mine.state());
    session_cookie(&place.come_back(&query, &mine.cookie).await);
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_did_not_say_about_this_login_is_not_believed() {
    let place = Place::new().await;
    let admin = place.edge.token(Role::Admin, "").await;
    for (claims, why) in [
        (json!({ "nonce": "of another login" }), "nonce"),
        (json!({ "nonce": null }), "nonce"),
        (json!({ "aud": "another client" }), "audiences"),
        (json!({ "aud": ["millstream", "another client"] }), "audience"),
        (json!({ "aud": null }), "audience"),
        (json!({ "azp": "another client" }), "another client"),
        (json!({ "iss": "https://evil.example" }), "issuer"),
        (json!({ "exp": now_unix() - 1 }), "expired"),
        (json!({ "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" }), "access token"),
        (json!({ "sub": null }), "not redeemed"),
    ] {
        place.provider.set().claims = claims.clone();
        let problem = place.problem(&place.log_in().await).await;
        assert!(
            problem.contains("cannot be verified") || problem.contains("did not confirm"),
            "{claims}: {problem}"
        );
        let audit = place.edge.audit_with(&admin, why).await;
        assert!(!audit.contains("\"event\":\"login\""), "{claims}: {audit}");
    }
    place.provider.set().claims = json!({});
    for (signature, why) in [
        (Signature::None, "No signature found"),
        (Signature::OtherKey, "Crypto error"),
        (Signature::Shared, "Disallowed signature algorithm"),
    ] {
        place.provider.set().signature = signature;
        place.problem(&place.log_in().await).await;
        place.edge.audit_with(&admin, why).await;
    }
    place.provider.set().signature = Signature::Good;
    place.provider.set().gives_id_token = false;
    place.problem(&place.log_in().await).await;
    place.edge.audit_with(&admin, "no ID token").await;
    place.provider.set().gives_id_token = true;

    let begun = place.begin("/").await;
    let code = place.provider.log_in(&begun.url);
    let query = format!("code={code}&state={}&iss=https://evil.example", begun.state());
    place.problem(&place.come_back(&query, &begun.cookie).await).await;
    place.edge.audit_with(&admin, "of another issuer").await;

    session_cookie(&place.log_in().await);
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_no_rule_is_about_is_not_let_in_and_told_so() {
    let place = Place::new().await;
    let admin = place.edge.token(Role::Admin, "").await;
    place.provider.set().userinfo = json!({ "sub": "248289761001" });
    for claims in [
        json!({ "groups": ["web"] }),
        json!({ "groups": null }),
        json!({ "email": "ann@elsewhere.example" }),
        json!({ "email_verified": false }),
        json!({ "email_verified": null }),
    ] {
        place.provider.set().claims = claims.clone();
        let problem = place.problem(&place.log_in().await).await;
        assert!(
            problem.contains("no rule of this relay lets") && problem.contains("248289761001"),
            "{claims}: {problem}"
        );
    }
    let audit = place.edge.audit_with(&admin, "groups: web;").await;
    assert!(!audit.contains("\"event\":\"login\""), "{audit}");
    // A name is text, and what it is not allowed to hold is not in it.
    place.provider.set().claims = json!({ "sub": "x\u{1b}[31m<script>", "groups": [] });
    let problem = place.problem(&place.log_in().await).await;
    assert!(problem.contains("x??31m?script?"), "{problem}");
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_id_token_does_not_say_is_asked_of_the_provider_about_the_same_person() {
    let place = Place::new().await;
    place.provider.set().claims = json!({ "email": null, "email_verified": null, "groups": null });
    place.provider.set().userinfo = json!({
        "sub": "248289761001", "email": "ann@example.com", "email_verified": true, "groups": ["ci"],
    });
    let cookie = session_cookie(&place.log_in().await);
    assert_eq!(place.session(&cookie).await["user"]["role"], "operator");
    // About somebody else.
    place.provider.set().userinfo["sub"] = "another".into();
    assert!(
        place
            .problem(&place.log_in().await)
            .await
            .contains("cannot be verified")
    );
    // What is signed counts more; and an address is verified by whoever gave it.
    place.provider.set().userinfo["sub"] = "248289761001".into();
    place.provider.set().claims =
        json!({ "email": "eve@example.com", "email_verified": null, "groups": null });
    assert!(place.problem(&place.log_in().await).await.contains("no rule"));
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_leads_back_to_the_relays_own_pages_only() {
    let place = Place::new().await;
    for elsewhere in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "/.//evil.example",
        "javascript:alert(1)",
        "/a\r\nx-evil: 1",
        "/api/streams/1/raw",
        "",
    ] {
        let begun = place.begin(elsewhere).await;
        let answer = place.finish(&begun).await;
        assert_eq!(answer.headers.get("location"), "/", "{elsewhere:?}");
        assert_eq!(answer.headers.get("x-evil"), "");
    }
    // The name under which the relay was called decides nothing where it could be anybody's.
    let headers = "content-type: application/json\r\norigin: http://evil.example\r\n";
    let request = format!(
        "POST {LOGIN} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\ncontent-length: 10\r\n{headers}\r\n{{\"to\":\"/\"}}"
    );
    let answer = place.edge.speak(&request).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_begun_by_the_relays_own_page_and_no_other() {
    let place = Place::new().await;
    for foreign in [
        "origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n".to_owned(),
        "origin: null\r\n".to_owned(),
        // It may call with a token, and has no business with people.
        format!("origin: {FRIEND}\r\nsec-fetch-site: cross-site\r\n"),
        // No browser's page at all.
        String::new(),
    ] {
        let headers = format!("content-type: application/json\r\n{foreign}");
        let answer = place.edge.send("POST", LOGIN, &headers, b"{\"to\":\"/\"}").await;
        assert_eq!(answer.status, 403, "{foreign}");
        assert_eq!(answer.headers.get("set-cookie"), "");
    }
    for (kind, body) in [
        ("text/plain", "{\"to\":\"/\"}"),
        ("application/json", "{}"),
        ("application/json", "x"),
    ] {
        let headers = format!("content-type: {kind}\r\n{}", place.edge.own_page());
        let answer = place.edge.send("POST", LOGIN, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{kind} {body}");
    }
    assert_eq!(place.edge.get(LOGIN).await.status, 404);
    // A relay that knows no provider.
    let bare = Edge::asking().await;
    let headers = format!("content-type: application/json\r\n{}", bare.own_page());
    let answer = bare.send("POST", LOGIN, &headers, b"{\"to\":\"/\"}").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert_eq!(bare.get(CALLBACK).await.status, 404);
    bare.relay.stop().await;
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_keeps_nobody_else_waiting_and_is_used_once_it_is_there() {
    let provider = MockProvider::start().await;
    provider.set().is_down = true;
    let edge = Edge::start_with_file(&format!("{}{PEOPLE}", provider.table())).await;
    let place = Place { provider, edge };
    let admin = place.edge.token(Role::Admin, "").await;
    let headers = format!("authorization: Bearer {admin}\r\n");
    assert_eq!(
        place.edge.send("GET", "/metrics", &headers, b"").await.status,
        200
    );
    let answer = place.try_begin("/").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("Example does not answer") && answer.text().contains("token"),
        "{}",
        answer.text()
    );
    assert_eq!(place.edge.get("/readyz").await.status, 200);

    place.provider.set().is_down = false;
    let began = Instant::now();
    while place.try_begin("/").await.status != 200 {
        assert!(began.elapsed() < SOON, "the provider is not asked again");
    }
    // It goes while a person is there.
    let begun = place.begin("/").await;
    let code = place.provider.log_in(&begun.url);
    place.provider.set().is_down = true;
    let query = format!("code={code}&state={}", begun.state());
    let answer = place.come_back(&query, &begun.cookie).await;
    assert!(place.problem(&answer).await.contains("did not confirm"));
    place.provider.set().is_down = false;
    session_cookie(&place.log_in().await);
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_refuses_is_said_in_its_own_word_and_no_more() {
    let place = Place::new().await;
    for (query, words) in [
        ("error=access_denied", "access_denied"),
        ("error=%3Cb%3Ex%0d%0ay", "?b?x??y"),
        ("code=", "no code"),
        ("x=y", "no code"),
    ] {
        let begun = place.begin("/streams/7").await;
        let query = format!("{query}&error_description=call+0123456&state={}", begun.state());
        let answer = place.come_back(&query, &begun.cookie).await;
        assert_eq!(answer.headers.get("location"), "/streams/7");
        let problem = place.problem(&answer).await;
        assert!(
            problem.contains(words) && !problem.contains("0123456"),
            "{query}: {problem}"
        );
    }
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_of_the_provider_is_learned_when_it_is_first_used() {
    let place = Place::new().await;
    session_cookie(&place.log_in().await);
    place.provider.rotate_key();
    session_cookie(&place.log_in().await);
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_id_token_and_cuts_what_runs() {
    let place = Place::new().await;
    place.provider.set().claims = json!({ "exp": now_unix() + 6 });
    let cookie = session_cookie(&place.log_in().await);
    let headers = format!(
        "content-type: application/grpc-web+proto\r\n{}cookie: {cookie}\r\n",
        place.edge.own_page()
    );
    let watch = "/millstream.v1.LogService/Watch";
    let mut watch = place.edge.open("POST", watch, &headers, &[0; 5]).await;
    assert_eq!(watch.headers.get("grpc-status"), "", "it runs");
    let mut last = Vec::new();
    while let Some(chunk) = watch.chunk().await {
        last = chunk;
    }
    let last = String::from_utf8_lossy(&last).into_owned();
    assert!(last.contains("grpc-status:16"), "{last}");
    assert_eq!(place.call(&cookie).await, "16");
    assert_eq!(place.session(&cookie).await["login_needed"], true);
    place.edge.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_secret_shows_it_to_the_provider_and_to_nobody_else() {
    let provider = MockProvider::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let table = provider.table();
    let edge = Edge::start_with_file(&format!(
        "{table}client_secret_file = {:?}\n{PEOPLE}",
        file.to_str().unwrap()
    ))
    .await;
    let place = Place { provider, edge };
    let admin = place.edge.token(Role::Admin, "").await;
    session_cookie(&place.log_in().await);
    let calls = std::mem::take(&mut place.provider.set().token_calls);
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].0, basic());
    assert!(!calls[0].1.contains("secret"), "{}", calls[0].1);
    // Who knows the secret still cannot say who people are.
    place.provider.set().signature = Signature::Shared;
    place.problem(&place.log_in().await).await;
    let audit = place
        .edge
        .audit_with(&admin, "Disallowed signature algorithm")
        .await;
    assert!(!audit.contains(SECRET), "{audit}");
    place.edge.relay.stop().await;
}
