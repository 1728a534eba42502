//! The alerts of Prometheus. Each has a section in docs/operations.md that says what to do.

/// An alert.
pub(super) struct Alert {
    pub(super) name: &'static str,
    /// What is true while it should be raised.
    pub(super) expr: &'static str,
    /// How long it must be true.
    wait: &'static str,
    /// `critical`: clients notice, somebody must look now; `warning`: somebody should look today.
    severity: &'static str,
    summary: &'static str,
}

pub(super) static ALERTS: &[Alert] = &[
    Alert {
        name: "ImksAbsent",
        expr: "absent(imks_build_info)",
        wait: "5m",
        severity: "critical",
        summary: "No imks node is scraped",
    },
    Alert {
        name: "ImksConnectsHeld",
        expr: "imks_connects_held > 0",
        wait: "2m",
        severity: "critical",
        summary: "{{ $labels.instance }} cannot sign clients in: its database or its core does not answer",
    },
    Alert {
        name: "ImksWritesFail",
        expr: "sum by (job, instance) (rate(imks_append_problems_total{kind=\"failed\"}[5m])) > 0",
        wait: "2m",
        severity: "critical",
        summary: "Messages cannot be stored on {{ $labels.instance }}",
    },
    Alert {
        name: "ImksWritesRefused",
        expr: "sum by (job, instance) (rate(imks_append_problems_total{kind=\"refused\"}[5m])) > 0",
        wait: "5m",
        severity: "warning",
        summary: "{{ $labels.instance }} gets more messages than its database takes",
    },
    Alert {
        name: "ImksCommitsSlow",
        expr: "histogram_quantile(0.99, sum by (job, instance, le) (rate(imks_append_commit_seconds_bucket[5m]))) > 0.5",
        wait: "10m",
        severity: "warning",
        summary: "One transaction in a hundred takes over 0.5 s on {{ $labels.instance }}",
    },
    Alert {
        name: "ImksEventsFail",
        expr: "sum by (job, instance) (rate(imks_event_errors_total{kind=\"failed\"}[5m])) > 0.01 * sum by (job, instance) (rate(imks_event_duration_seconds_count[5m]))",
        wait: "5m",
        severity: "critical",
        summary: "More than 1 % of the events on {{ $labels.instance }} fail",
    },
    Alert {
        name: "ImksEventsSlow",
        expr: "histogram_quantile(0.99, sum by (job, instance, le) (rate(imks_event_duration_seconds_bucket[5m]))) > 1",
        wait: "10m",
        severity: "warning",
        summary: "One event in a hundred takes over 1 s on {{ $labels.instance }}",
    },
    Alert {
        name: "ImksHandlerPanics",
        expr: "increase(imks_handler_panics_total[10m]) > 0",
        wait: "0s",
        severity: "warning",
        summary: "A handler panicked on {{ $labels.instance }}: a fault of imks",
    },
    Alert {
        name: "ImksTaskPanics",
        expr: "sum by (job, instance) (increase(imks_task_panics_total[10m])) > 0",
        wait: "0s",
        severity: "warning",
        summary: "A background task panicked on {{ $labels.instance }}: a fault of imks",
    },
    Alert {
        name: "ImksSlowConsumers",
        expr: "sum by (job, instance) (rate(imks_sessions_closed_total{reason=\"slow_consumer\"}[10m])) > 0.1",
        wait: "10m",
        severity: "warning",
        summary: "{{ $labels.instance }} closes clients that read too slowly, more than one in ten seconds",
    },
    Alert {
        name: "ImksConnectionsRefused",
        expr: "rate(imks_http_connections_refused_total[5m]) > 0 or rate(imks_http_accept_failures_total[5m]) > 0",
        wait: "2m",
        severity: "critical",
        summary: "{{ $labels.instance }} has no room for new connections",
    },
    Alert {
        name: "ImksBrokerLost",
        expr: "imks_bus_up == 0 and on (job, instance) sum by (job, instance) (increase(imks_bus_reconnects_total[5m])) > 0",
        wait: "1m",
        severity: "critical",
        summary: "{{ $labels.instance }} does not reach the broker: its clients get messages of other nodes late",
    },
    Alert {
        name: "ImksNodesUnheard",
        expr: "imks_bus_unheard_nodes > 0",
        wait: "1m",
        severity: "critical",
        summary: "{{ $labels.instance }} shares its database with nodes that do not hear it",
    },
    Alert {
        name: "ImksBusDrops",
        expr: "sum by (job, instance, reason) (rate(imks_bus_messages_dropped_total[5m])) > 0",
        wait: "10m",
        severity: "warning",
        summary: "Messages between nodes are dropped on {{ $labels.instance }}: {{ $labels.reason }}",
    },
    Alert {
        name: "ImksNodeUnreachable",
        expr: "sum by (job, instance) (rate(imks_not_forwarded_requests_total{reason=\"unreachable\"}[5m])) > 0",
        wait: "10m",
        severity: "warning",
        summary: "{{ $labels.instance }} does not reach another node that lives",
    },
    Alert {
        name: "ImksCoreFails",
        expr: "sum by (job, instance) (rate(imks_core_calls_total{outcome=\"failed\"}[5m])) > 0.05 * sum by (job, instance) (rate(imks_core_calls_total[5m]))",
        wait: "5m",
        severity: "critical",
        summary: "More than 5 % of the calls of {{ $labels.instance }} to the core fail",
    },
    Alert {
        name: "ImksKeysStale",
        expr: "increase(imks_key_refreshes_total{outcome=\"failed\"}[30m]) > 3",
        wait: "0s",
        severity: "warning",
        summary: "{{ $labels.instance }} cannot read the keys that sign tokens",
    },
    Alert {
        name: "ImksLoginHookFails",
        expr: "sum by (job, instance) (rate(imks_login_hook_calls_total{outcome=\"failed\"}[5m])) > 0",
        wait: "5m",
        severity: "critical",
        summary: "The login hook gives {{ $labels.instance }} no usable answers",
    },
    Alert {
        name: "ImksCertificateEnds",
        expr: "(imks_tls_not_after_timestamp_seconds > 0 and imks_tls_not_after_timestamp_seconds - time() < 3 * 86400) or (imks_internal_tls_not_after_timestamp_seconds > 0 and imks_internal_tls_not_after_timestamp_seconds - time() < 3 * 86400)",
        wait: "1h",
        severity: "warning",
        summary: "A certificate of {{ $labels.instance }} ends in less than three days",
    },
    Alert {
        name: "ImksDeadLetters",
        expr: "max by (job) (imks_webhook_dead_letters) > 0",
        wait: "10m",
        severity: "warning",
        summary: "Events for webhooks wait as dead letters",
    },
    Alert {
        name: "ImksWebhookDisabled",
        expr: "max by (job) (imks_webhook_disabled) > 0",
        wait: "10m",
        severity: "warning",
        summary: "A receiver of webhooks is disabled: it answered that it is gone",
    },
    Alert {
        name: "ImksWebhooksLate",
        expr: "max by (job) (imks_webhook_lag_seconds) > 60",
        wait: "5m",
        severity: "warning",
        summary: "A receiver of webhooks is more than a minute behind",
    },
    Alert {
        name: "ImksFeedHeldBack",
        expr: "max by (job) (imks_feed_held_back_seconds) > 60",
        wait: "5m",
        severity: "warning",
        summary: "The feed stands still behind an open transaction",
    },
    Alert {
        name: "ImksOutboxWaits",
        expr: "min by (job) (min_over_time(imks_outbox_messages_waiting[10m])) > 0",
        wait: "5m",
        severity: "warning",
        summary: "Messages of imks.publish have waited for ten minutes",
    },
    Alert {
        name: "ImksOutboxFails",
        expr: "sum by (job) (increase(imks_outbox_messages_total{kind=\"failed\"}[10m])) > 0",
        wait: "0s",
        severity: "warning",
        summary: "Messages of imks.publish failed for good",
    },
    Alert {
        name: "ImksApplicationFails",
        expr: "sum by (job, instance) (rate(imks_app_events_total{outcome=\"failed\"}[5m])) > 0.05 * sum by (job, instance) (rate(imks_app_events_total[5m]))",
        wait: "5m",
        severity: "warning",
        summary: "Your application does not answer more than 5 % of the events that {{ $labels.instance }} sends it",
    },
    Alert {
        name: "ImksExportFails",
        expr: "sum by (job, instance) (rate(imks_otlp_exports_total{outcome=\"failed\"}[10m])) > 0",
        wait: "15m",
        severity: "warning",
        summary: "{{ $labels.instance }} cannot send its metrics to the collector",
    },
];

/// Returns the rules as Prometheus reads them. A text in JSON is one in YAML.
pub(super) fn yaml() -> String {
    let mut text = String::from(HEAD);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    for alert in ALERTS {
        let Alert { name, expr, wait, severity, summary } = alert;
        let runbook = format!("docs/operations.md#{}", name.to_ascii_lowercase());
        text.push_str(&format!(
            "      - alert: {name}\n        expr: {}\n        for: {wait}\n        labels:\n          severity: {severity}\n        \
             annotations:\n          summary: {}\n          runbook: {}\n",
            quoted(expr),
            quoted(summary),
            quoted(&runbook),
        ));
    }
    text
}

const HEAD: &str = "\
# Alerts on the metrics of imks, for Prometheus. What to do about each: docs/operations.md, \"Alerts\".
# Written by `IMKS_UPDATE_DOCS=1 cargo test --lib monitoring`.
groups:
  - name: imks
    rules:
";
