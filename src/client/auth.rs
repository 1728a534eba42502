//! The credentials of a client: fixed ones, or a provider that is asked before every attempt to join a namespace.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, Value};

use super::core::Credentials;
use super::error::ClientError;
use crate::error::{Cause, ImksError};

/// What a client says about itself when it joins a namespace.
#[derive(Clone, Default)]
pub(crate) enum Auth {
    #[default]
    Nothing,
    Fixed(Map<String, Value>),
    Provider(Arc<Provider>),
}

type Provider = dyn Fn(&str) -> BoxFuture<'static, Credentials> + Send + Sync;

/// Any error of a provider of credentials.
pub type ProviderError = Box<dyn Error + Send + Sync>;

impl Auth {
    /// Creates credentials that are the same for every attempt.
    pub(crate) fn fixed(auth: &impl Serialize) -> Result<Self, ClientError> {
        object(auth).map(Self::Fixed).map_err(|error| ClientError::Config(format!("auth: {error}")))
    }

    /// Creates credentials that `provide` returns for a namespace, whenever it is joined.
    pub(crate) fn provider<F, R, T>(provide: F) -> Self
    where
        F: Fn(&str) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, ProviderError>> + Send + 'static,
        T: Serialize,
    {
        Self::Provider(Arc::new(move |namespace: &str| {
            // It is called in the task of the client, which must survive it.
            let providing = catch_unwind(AssertUnwindSafe(|| provide(namespace)));
            Box::pin(async move {
                let failed =
                    |error: ProviderError| ClientError::AuthenticationFailed(Arc::new(Cause::new(error)));
                let panicked = || failed("the provider panicked".into());
                let providing = AssertUnwindSafe(providing.map_err(|_| panicked())?);
                let auth = providing.catch_unwind().await.map_err(|_| panicked())?.map_err(failed)?;
                Ok(Some(object(&auth).map_err(|error| failed(error.into()))?))
            })
        }))
    }

    /// Whether a later attempt may have other credentials.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self, Self::Provider(_))
    }

    /// Returns the credentials for a namespace.
    pub(crate) fn ask(&self, namespace: &str) -> BoxFuture<'static, Credentials> {
        match self {
            Self::Nothing => Box::pin(std::future::ready(Ok(None))),
            Self::Fixed(auth) => Box::pin(std::future::ready(Ok(Some(auth.clone())))),
            Self::Provider(provide) => provide(namespace),
        }
    }
}

/// Credentials are never shown.
impl fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Fixed(_) => "Fixed",
            Self::Provider(_) => "Provider",
        })
    }
}

fn object(auth: &impl Serialize) -> Result<Map<String, Value>, ImksError> {
    match serde_json::to_value(auth).map_err(ImksError::EngineSerialization)? {
        Value::Object(map) => Ok(map),
        _ => Err(ImksError::InvalidPayload("credentials must be an object".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use super::*;

    type Provided = Result<Value, ProviderError>;

    fn panics() -> Provided {
        panic!("in its future")
    }

    #[tokio::test]
    async fn a_provider_that_fails_or_panics_gives_no_credentials() {
        let providers = [
            Auth::provider(|_| -> Ready<Provided> { panic!("before there is a future") }),
            Auth::provider(|_| async { panics() }),
            Auth::provider(|_| ready(Provided::Err("no".into()))),
            Auth::provider(|_| ready(Provided::Ok(Value::Null))),
        ];
        for provider in providers {
            let failed = provider.ask("/").await;
            assert!(matches!(failed, Err(ClientError::AuthenticationFailed(_))), "{failed:?}");
        }
    }
}
