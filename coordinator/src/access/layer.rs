//! Authentication and authorisation of every call, before any service sees it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use coord_proto::tls::PeerCertificate;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::{Layer, Service};
use tracing::debug;

use super::{Access, Identity, Permission, Shown, refusal};

/// Wraps services so that only calls that are allowed reach them. These find who calls in the
/// request's extensions: an `Arc<Identity>`.
#[derive(Clone)]
pub(crate) struct AccessLayer(pub(crate) Access);

impl<S> Layer<S> for AccessLayer {
    type Service = Guarded<S>;

    fn layer(&self, service: S) -> Guarded<S> {
        Guarded { access: self.0.clone(), service }
    }
}

/// A service behind the check.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    access: Access,
    service: S,
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        // The service that was asked whether it is ready is the one that is called.
        let fresh = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, fresh);
        let access = self.access.clone();
        // What the check needs; a request isn't to be shared with other threads.
        let (path, shown) = (request.uri().path().to_owned(), shown(&request));
        Box::pin(async move {
            match admit(&access, &path, &shown).await {
                Ok(identity) => {
                    request.headers_mut().remove(AUTHORIZATION);
                    request.extensions_mut().insert(identity);
                    service.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// Who makes a call, if they may.
async fn admit(access: &Access, path: &str, shown: &Shown) -> Result<Arc<Identity>, Status> {
    let identity = access
        .identify(shown)
        .await
        .map_err(|why| refusal::unauthenticated(path, &why, &access.expected()))?;
    match Permission::of_path(path) {
        Some(permission) if permission.allows(&identity) => {
            debug!(who = identity.name(), call = permission.call, "a call");
            Ok(identity)
        }
        permission => Err(refusal::forbidden(path, &identity, permission)),
    }
}

/// What a caller shows of itself. A token is shown for this call, a certificate for all of a
/// connection: the token counts, so that a connection may carry the calls of several. Several
/// authorizations could be read in several ways.
fn shown(request: &Request<Body>) -> Shown {
    let mut all = request.headers().get_all(AUTHORIZATION).iter();
    let (first, second) = (all.next(), all.next());
    match (first, second) {
        (None, _) => match PeerCertificate::of(request.extensions()) {
            Some(certificate) => Shown::Certificate(certificate.workload()),
            None => Shown::Nothing,
        },
        (Some(value), None) => bearer(value.as_bytes()).map_or(Shown::Malformed, Shown::Bearer),
        (Some(_), Some(_)) => Shown::Malformed,
    }
}

/// The token in `Bearer <token>`.
fn bearer(value: &[u8]) -> Option<String> {
    const SCHEME: &str = "bearer ";
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, token) = text.split_at_checked(SCHEME.len())?;
    let token = token.trim();
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case(SCHEME) && plain).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::access::{NewToken, Role};

    /// Access by tokens, with one for each role; in that order.
    fn guarded() -> (tempfile::TempDir, Access, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let made: Vec<NewToken> =
            Role::ALL.iter().map(|role| NewToken::new(role.name(), &[*role]).unwrap()).collect();
        let lines: Vec<&str> = made.iter().map(|new| new.line.as_str()).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let access = Access::requiring().tokens(&path).unwrap().build();
        (folder, access, made.iter().map(|new| new.token.expose().to_owned()).collect())
    }

    async fn code(access: &Access, path: &str, authorization: &[&str]) -> (Code, String) {
        let reached = tower::service_fn(|request: Request<Body>| async move {
            assert!(request.extensions().get::<Arc<Identity>>().is_some());
            assert!(request.headers().get(AUTHORIZATION).is_none());
            Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
        });
        let mut request = Request::builder().uri(path);
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = AccessLayer(access.clone()).layer(reached).call(request).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        (status.code(), status.message().to_owned())
    }

    #[tokio::test]
    async fn every_role_is_let_through_where_the_table_says_so_and_nowhere_else() {
        let (_folder, access, tokens) = guarded();
        for permission in Permission::ALL.iter().filter(|permission| !permission.call.contains(' ')) {
            let path = format!("/coord.v1.{}", permission.call.replace('.', "/"));
            for (role, token) in Role::ALL.iter().zip(&tokens) {
                let (code, message) = code(&access, &path, &[&format!("Bearer {token}")]).await;
                let expected =
                    if permission.roles.contains(role) { Code::Ok } else { Code::PermissionDenied };
                assert_eq!(code, expected, "{role} {path}: {message}");
                assert!(!message.contains(token));
            }
        }
    }

    #[tokio::test]
    async fn without_a_token_or_with_a_wrong_one_nobody_is_let_through() {
        let (_folder, access, tokens) = guarded();
        let token = &tokens[5];
        let path = "/coord.v1.Control/Info";
        let good = format!("Bearer {token}");
        for authorization in [
            vec![],
            vec![""],
            vec!["Bearer"],
            vec!["Bearer "],
            vec!["Basic YTpi"],
            vec![token.as_str()],
            vec!["Bearer wrong"],
            vec![&good[..good.len() - 1]],
            vec![&good, &good],
            vec!["Bearer a b"],
        ] {
            let (code, message) = code(&access, path, &authorization).await;
            assert_eq!(code, Code::Unauthenticated, "{authorization:?}");
            assert!(!message.contains(&token[9..]), "{message}");
        }
        assert_eq!(code(&access, path, &[&format!("bearer  {token}")]).await.0, Code::Ok);
        assert_eq!(code(&access, "/x.Y/Z", &[]).await.0, Code::Unauthenticated);
        assert_eq!(code(&access, "/x.Y/Z", &[&good]).await.0, Code::Unimplemented);
    }

    #[tokio::test]
    async fn who_trusts_lets_everybody_do_everything_that_there_is() {
        for permission in Permission::ALL.iter().filter(|permission| !permission.call.contains(' ')) {
            let path = format!("/coord.v1.{}", permission.call.replace('.', "/"));
            assert_eq!(code(&Access::trusting(), &path, &[]).await.0, Code::Ok);
        }
        assert_eq!(code(&Access::trusting(), "/coord.v1.Control/Nope", &[]).await.0, Code::Unimplemented);
    }
}
