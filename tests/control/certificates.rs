//! Callers that show a certificate.

use std::path::PathBuf;
use std::time::Duration;

use imks::testing::pb::control::BroadcastRequest;
use imks::testing::pb::control::control_service_client::ControlServiceClient;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::authority::Authority;
use crate::backend::Backend;
use crate::server::Kind;

const SOON: Duration = Duration::from_secs(15);

struct Certificates {
    files: TempDir,
    authority: Authority,
    ca: PathBuf,
}

impl Certificates {
    fn new() -> Self {
        let (files, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let ca = authority.write(&files, "ca");
        Self { files, authority, ca }
    }

    /// A server that knows the caller `shop`.
    async fn server(&self) -> Backend {
        let (cert, key) = self.authority.sign(&self.files, "server");
        Backend::start_with(Kind::Sqlite, |config| {
            let internal = &mut config.internal;
            (internal.cert, internal.key) = (Some(cert), Some(key));
            internal.client_ca = Some(self.ca.clone());
            config.control.callers = vec!["core".into(), "shop".into()];
        })
        .await
    }

    /// A connection that shows this certificate.
    async fn connect(
        &self,
        backend: &Backend,
        shown: Option<(PathBuf, PathBuf)>,
    ) -> Result<ControlServiceClient<Channel>, tonic::transport::Error> {
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(self.ca.clone())))
            .domain_name("localhost");
        if let Some((cert, key)) = shown {
            tls = tls.identity(Identity::from_pem(read(cert), read(key)));
        }
        let url = format!("https://{}", backend.internal_addr());
        let endpoint = Endpoint::from_shared(url)?.tls_config(tls)?;
        Ok(ControlServiceClient::new(endpoint.connect().await?))
    }

    /// The code of a call: a caller that is heard is told that the request is empty.
    async fn code(&self, backend: &Backend, shown: Option<(PathBuf, PathBuf)>) -> Code {
        match self.connect(backend, shown).await {
            Ok(mut client) => client.broadcast(BroadcastRequest::default()).await.unwrap_err().code(),
            Err(_) => Code::Unavailable,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whose_name_is_on_the_list_needs_no_key() {
    let certificates = Certificates::new();
    let backend = certificates.server().await;
    let sign = |name| Some(certificates.authority.sign(&certificates.files, name));
    assert_eq!(certificates.code(&backend, sign("shop")).await, Code::InvalidArgument, "heard");
    assert_eq!(certificates.code(&backend, sign("stranger")).await, Code::Unauthenticated);
    assert_eq!(certificates.code(&backend, None).await, Code::Unauthenticated);
    let foreign = Authority::new().sign(&certificates.files, "shop");
    let foreign = certificates.code(&backend, Some(foreign)).await;
    let is_cut = matches!(foreign, Code::Unavailable | Code::Unknown | Code::Cancelled);
    assert!(is_cut, "nobody vouches for it: {foreign:?}");
    let mut client = certificates.connect(&backend, None).await.unwrap();
    let mut request = tonic::Request::new(BroadcastRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {}", backend.key).parse().unwrap());
    assert_eq!(client.broadcast(request).await.unwrap_err().code(), Code::InvalidArgument, "a key will do");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_authority_is_heard_without_a_restart() {
    let certificates = Certificates::new();
    let backend = certificates.server().await;
    let new = Authority::new();
    let shown = new.sign(&certificates.files, "shop");
    let old_ca = std::fs::read(&certificates.ca).unwrap();
    assert_ne!(certificates.code(&backend, Some(shown.clone())).await, Code::InvalidArgument);
    let both = certificates.files.path().join("both");
    let new_ca = std::fs::read(new.write(&certificates.files, "new")).unwrap();
    std::fs::write(&both, [old_ca, new_ca].concat()).unwrap();
    std::fs::rename(&both, &certificates.ca).unwrap();
    let heard =
        async { while certificates.code(&backend, Some(shown.clone())).await != Code::InvalidArgument {} };
    timeout(SOON, heard).await.expect("the file is read again");
    backend.stop().await;
}
