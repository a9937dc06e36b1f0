//! Logs to standard error, and spans to an OpenTelemetry collector where the standard variable
//! `OTEL_EXPORTER_OTLP_ENDPOINT` names one.

use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// What must be ended before the process ends, so that no span is lost.
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts logging and, where asked for, tracing. `RUST_LOG` filters both; default `info`.
///
/// # Errors
/// When the exporter can't be made, or logging was started before.
pub fn start(service: &'static str) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter).with(lines);
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_none() {
        registry.try_init()?;
        return Ok(Telemetry(None));
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
    let resource = opentelemetry_sdk::Resource::builder().with_service_name(service).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
    registry.with(layer).try_init()?;
    Ok(Telemetry(Some(provider)))
}

impl Telemetry {
    /// Sends what is left.
    pub fn end(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last spans were not taken");
        }
    }
}
