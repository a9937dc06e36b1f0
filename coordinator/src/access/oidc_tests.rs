use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://idp.example/";
const AUDIENCE: &str = "coordctl";

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa(number: usize) -> RsaKeyPair {
    let keys = [&include_bytes!("testdata/rsa-1.der")[..], &include_bytes!("testdata/rsa-2.der")[..]];
    RsaKeyPair::from_der(keys[number]).unwrap()
}

fn ec() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap()
}

fn rsa_jwk(key: &RsaKeyPair, id: &str) -> Value {
    let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
    json!({ "kty": "RSA", "kid": id, "use": "sig", "alg": "RS256",
        "n": text(&public.n), "e": text(&public.e) })
}

fn ec_jwk(key: &EcdsaKeyPair, id: &str) -> Value {
    let point = key.public_key().as_ref();
    json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": text(&point[1..33]), "y": text(&point[33..]) })
}

fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", text(header.to_string().as_bytes()), text(claims.to_string().as_bytes()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", text(&signature))
}

fn with_rsa(key: &RsaKeyPair, id: &str, claims: &Value) -> String {
    signed(&json!({ "alg": "RS256", "kid": id }), claims, |message| {
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    })
}

fn with_ec(key: &EcdsaKeyPair, id: &str, claims: &Value) -> String {
    signed(&json!({ "alg": "ES256", "kid": id }), claims, |message| {
        key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    })
}

fn now() -> i64 {
    jsonwebtoken::get_current_timestamp() as i64
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": [AUDIENCE, "other"], "sub": "auth0|ann", "exp": now() + 600,
        "nbf": now() - 5, "roles": ["planner", "viewer", "boss"] })
}

fn changed(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().shift_remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn config(jwks: &str) -> OidcConfig {
    OidcConfig {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        jwks: jwks.to_owned(),
        authority: None,
        roles_claim: "roles".to_owned(),
    }
}

/// A provider whose keys are in a file.
fn with_file(keys: &[Value]) -> (tempfile::TempDir, Oidc) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    let oidc = Oidc::open(config(path.to_str().unwrap())).unwrap();
    (folder, oidc)
}

async fn refused(oidc: &Oidc, token: &str) -> String {
    match oidc.identify(token).await {
        Err(Unproven::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tokens_that_are_signed_by_a_published_key_prove_name_and_roles() {
    let (rsa, ec) = (rsa(0), ec());
    let (_folder, oidc) = with_file(&[rsa_jwk(&rsa, "r"), ec_jwk(&ec, "e")]);
    for token in [with_rsa(&rsa, "r", &claims()), with_ec(&ec, "e", &claims())] {
        let ann = oidc.identify(&token).await.unwrap();
        assert_eq!((ann.name(), ann.proof()), ("auth0|ann", Proof::Oidc));
        assert_eq!(ann.roles().iter().copied().collect::<Vec<_>>(), [Role::Viewer, Role::Planner]);
    }
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused_with_the_reason() {
    let rsa = rsa(0);
    let (_folder, oidc) = with_file(&[rsa_jwk(&rsa, "r")]);
    for (claims, why) in [
        (changed("exp", json!(now() - 31)), "has expired"),
        (changed("exp", Value::Null), "claim `exp` is missing"),
        (changed("exp", json!("tomorrow")), "claim `exp` is missing or malformed"),
        (changed("nbf", json!(now() + 60)), "isn't valid yet"),
        (changed("nbf", json!("now")), "claim `nbf` is missing or malformed"),
        (changed("aud", json!("other")), "for another audience"),
        (changed("aud", json!([])), "for another audience"),
        (changed("aud", Value::Null), "claim `aud` is missing"),
        (changed("iss", json!("https://idp.example")), "from another issuer"),
        (changed("iss", Value::Null), "claim `iss` is missing"),
        (changed("sub", Value::Null), "claim `sub` is missing"),
        (changed("sub", json!("a b\n")), "claim `sub` is missing or malformed"),
    ] {
        let said = refused(&oidc, &with_rsa(&rsa, "r", &claims)).await;
        assert!(said.contains(why), "{claims}: {said}");
    }
    for (claims, roles) in [
        (changed("roles", Value::Null), 0),
        (changed("roles", json!(7)), 0),
        (changed("roles", json!("planner admin")), 2),
        (changed("exp", json!(now() - 10)), 2),
        (changed("nbf", Value::Null), 2),
    ] {
        let known = oidc.identify(&with_rsa(&rsa, "r", &claims)).await.unwrap();
        assert_eq!(known.roles().len(), roles, "{claims}");
    }
}

#[tokio::test]
async fn wrong_keys_and_wrong_signatures_are_refused() {
    let (ours, theirs) = (rsa(0), rsa(1));
    let (_folder, oidc) = with_file(&[rsa_jwk(&ours, "r"), rsa_jwk(&ours, "s")]);
    let token = with_rsa(&ours, "r", &claims());
    assert!(refused(&oidc, &with_rsa(&theirs, "r", &claims())).await.contains("signature is wrong"));
    assert!(refused(&oidc, &with_rsa(&ours, "x", &claims())).await.contains("doesn't publish"));
    let parts: Vec<&str> = token.split('.').collect();
    let other = text(changed("sub", json!("root")).to_string().as_bytes());
    let forged = format!("{}.{other}.{}", parts[0], parts[2]);
    assert!(refused(&oidc, &forged).await.contains("signature is wrong"));
    for bad in ["a.b.c", "..", &format!("{}.{}.", parts[0], parts[1]), &"x.".repeat(20_000)] {
        let said = refused(&oidc, bad).await;
        assert!(said.contains("malformed") || said.contains("signature is wrong"), "{said}");
    }
    let anonymous = signed(&json!({ "alg": "RS256" }), &claims(), |_| vec![0; 256]);
    assert!(refused(&oidc, &anonymous).await.contains("doesn't publish"), "which of the two keys?");
}

#[tokio::test]
async fn no_other_algorithm_is_taken_whatever_the_token_says() {
    let (rsa, ec) = (rsa(0), ec());
    let (_folder, oidc) = with_file(&[rsa_jwk(&rsa, "r"), ec_jwk(&ec, "e")]);
    let none = signed(&json!({ "alg": "none", "kid": "r" }), &claims(), |_| Vec::new());
    assert!(refused(&oidc, &none).await.contains("malformed"));
    // The public key, passed off as a shared secret.
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, rsa.public().as_ref());
    let hmac = signed(&json!({ "alg": "HS256", "kid": "r" }), &claims(), |message| {
        ring::hmac::sign(&secret, message).as_ref().to_vec()
    });
    assert!(refused(&oidc, &hmac).await.contains("algorithm"));
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    for (alg, kid) in [("ES256", "r"), ("RS256", "e"), ("RS512", "r"), ("PS256", "r"), ("EdDSA", "e")] {
        let token = signed(&header(alg, kid), &claims(), |_| vec![1; 64]);
        assert!(refused(&oidc, &token).await.contains("algorithm"), "{alg} {kid}");
    }
    let other_curve = signed(&header("ES384", "e"), &claims(), |_| vec![1; 96]);
    assert!(refused(&oidc, &other_curve).await.contains("signature is wrong"));
}

#[tokio::test]
async fn roles_are_found_in_claims_within_claims() {
    let rsa = rsa(0);
    let (_folder, mut oidc) = with_file(&[rsa_jwk(&rsa, "r")]);
    let mut nested = changed("realm_access", json!({ "roles": ["admin"] }));
    nested["https://x.example/roles"] = json!(["worker"]);
    let token = with_rsa(&rsa, "r", &nested);
    for (path, expected) in [
        ("realm_access.roles", vec![Role::Admin]),
        ("https://x.example/roles", vec![Role::Worker]),
        ("a.b", vec![]),
    ] {
        path.clone_into(&mut oidc.config.roles_claim);
        let known = oidc.identify(&token).await.unwrap();
        assert_eq!(known.roles().iter().copied().collect::<Vec<_>>(), expected, "{path}");
    }
}

#[test]
fn key_sets_that_can_not_be_used_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let place = path.to_str().unwrap();
    assert!(matches!(Oidc::open(config(place)), Err(JwksError::File(_))));
    let secret = json!({ "keys": [{ "kty": "oct", "kid": "s", "k": "c2VjcmV0" }] }).to_string();
    let twice = json!({ "keys": [rsa_jwk(&rsa(0), "r"), rsa_jwk(&rsa(1), "r")] }).to_string();
    let mut for_encryption = rsa_jwk(&rsa(0), "r");
    for_encryption["use"] = json!("enc");
    let for_encryption = json!({ "keys": [for_encryption] }).to_string();
    for bad in ["", "{}", r#"{"keys":[]}"#, &secret, &twice, &for_encryption] {
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(Oidc::open(config(place)), Err(JwksError::File(_))), "{bad}");
    }
    for address in ["http://idp.example/keys", "http://10.0.0.1/keys", "ftp://idp.example/keys"] {
        assert!(matches!(Oidc::open(config(address)), Err(JwksError::Insecure(_))), "{address}");
    }
}

/// A provider on this machine that answers with whatever its keys are now, and counts.
struct Provider {
    address: String,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/keys", listener.local_addr().unwrap());
        let (keys, asked) = (Arc::new(Mutex::new(keys)), Arc::new(AtomicUsize::new(0)));
        let provider = Self { address, keys: keys.clone(), asked: asked.clone() };
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                asked.fetch_add(1, Ordering::SeqCst);
                let body = json!({ "keys": *keys.lock().unwrap() }).to_string();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
                let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        provider
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_address_are_fetched_and_an_unknown_one_has_them_fetched_once() {
    let (first, second) = (rsa(0), rsa(1));
    let provider = Provider::start(vec![rsa_jwk(&first, "1")]);
    let oidc = Oidc::open(config(&provider.address)).unwrap();
    // The first one to ask waits for the keys.
    assert!(oidc.identify(&with_rsa(&first, "1", &claims())).await.is_ok());
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
    *provider.keys.lock().unwrap() = vec![rsa_jwk(&second, "2")];
    let rotated = with_rsa(&second, "2", &claims());
    for _ in 0..20 {
        assert!(refused(&oidc, &rotated).await.contains("doesn't publish"), "too soon after the last fetch");
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
    oidc.keys.forget_when_fetched().await;
    let (a, b) = tokio::join!(oidc.identify(&rotated), oidc.identify(&rotated));
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(provider.asked.load(Ordering::SeqCst), 2);
    assert!(refused(&oidc, &with_rsa(&first, "1", &claims())).await.contains("doesn't publish"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_away_leaves_the_keys_of_before() {
    let first = rsa(0);
    let provider = Provider::start(vec![rsa_jwk(&first, "1")]);
    let oidc = Oidc::open(config(&provider.address)).unwrap();
    let token = with_rsa(&first, "1", &claims());
    assert!(oidc.identify(&token).await.is_ok());
    provider.keys.lock().unwrap().clear();
    oidc.keys.forget_when_fetched().await;
    assert!(refused(&oidc, &with_rsa(&first, "9", &claims())).await.contains("doesn't publish"));
    assert_eq!(provider.asked.load(Ordering::SeqCst), 2);
    assert!(oidc.identify(&token).await.is_ok());
}
