//! The internal listener of a server or a core: metrics and health for operators, the calls of back ends over gRPC and
//! HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::INSTRUMENTS;
use crate::background;
use crate::config::Config;
use crate::control::directory::DirectoryApi;
use crate::control::{Control, ControlService, Listeners};
use crate::error::Cause;
use crate::http::health::{Health, Readiness};
use crate::http::{self, Audience, internal, listener};
use crate::pb::control::DESCRIPTORS;
use crate::{ImksError, ImksResult};

/// Starts the housekeeping of the calls, and the listener, if one is configured.
pub(super) fn start(
    config: &Config,
    health: &Arc<Health>,
    control: &Control,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ImksResult<Option<SocketAddr>> {
    let (calls, gate) = (control.clone(), control.gate().clone());
    tasks.spawn(background::keep("calls", stop.clone(), move |stop| calls.clone().run(stop)));
    tasks.spawn(background::keep("callers", stop.clone(), move |stop| gate.clone().run(stop)));
    let Some(address) = config.internal_listen else { return Ok(None) };
    let socket = listener::bind(address)?;
    let mut router = http::router(Audience::Operators, health.clone(), INSTRUMENTS);
    if config.control.listeners != Listeners::Off {
        router = router.merge(http::control::routes(control));
    }
    let (reporter, health_service) = health_reporter();
    let health = health.clone();
    let reporting = move |stop| report(health.clone(), reporter.clone(), stop);
    tasks.spawn(background::keep("grpc_health", stop.clone(), reporting));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| ImksError::Task(Cause::new(error)))?;
    let grpc =
        Routes::new(ControlService::new(control.clone())).add_service(health_service).add_service(reflection);
    serve(config, socket, router, grpc, tasks, stop).map(Some)
}

/// Starts the internal listener of a core on `socket`: health and metrics for operators, the directory for back ends.
/// Returns its address.
pub(crate) fn start_core(
    config: &Config,
    socket: TcpListener,
    health: &Arc<Health>,
    api: &DirectoryApi,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ImksResult<SocketAddr> {
    let mut router = http::router(Audience::Operators, health.clone(), INSTRUMENTS);
    if config.control.listeners != Listeners::Off {
        router = router.merge(http::directory::routes(api));
    }
    serve(config, socket, router, Routes::default(), tasks, stop)
}

/// Serves on the socket with the certificates of the internal listener, and returns its address.
fn serve(
    config: &Config,
    socket: TcpListener,
    router: Router,
    grpc: Routes,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ImksResult<SocketAddr> {
    let tls = config.internal.open(&config.tls)?;
    if let Some(tls) = &tls {
        tls.watch(tasks, stop);
    }
    let address = socket.local_addr().map_err(ImksError::io("reading the internal address"))?;
    let routes = internal::routes(router, grpc.into_axum_router(), &config.http);
    // Connections are counted apart, so that clients cannot keep operators out.
    let connections = listener::Connections::default();
    let limits = listener::Config { tls: None, connections, ..config.http.clone() };
    let serving = internal::serve(socket, limits, tls, routes, tasks.clone(), stop.clone());
    tasks.spawn(background::essential("internal", serving));
    Ok(address)
}

/// Tells `grpc.health.v1` whether the server is ready, until `stop`.
async fn report(health: Arc<Health>, reporter: HealthReporter, stop: CancellationToken) {
    loop {
        let status = match health.readiness().await {
            Readiness::Ready => ServingStatus::Serving,
            Readiness::Draining | Readiness::Unavailable => ServingStatus::NotServing,
        };
        for service in ["", SERVICE] {
            reporter.set_service_status(service, status).await;
        }
        if stop.run_until_cancelled(sleep(REPORT)).await.is_none() {
            return;
        }
    }
}

const SERVICE: &str = "imks.v1.ControlService";
const REPORT: Duration = Duration::from_secs(1);
