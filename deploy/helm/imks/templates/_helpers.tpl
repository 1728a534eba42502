{{- define "imks.name" -}}
{{- if eq .Release.Name "imks" }}imks{{ else }}{{ printf "%s-imks" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "imks.selector" -}}
app.kubernetes.io/name: imks
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "imks.labels" -}}
{{ include "imks.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Whether there may be more than one pod: "yes" or nothing. */}}
{{- define "imks.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}yes{{ end }}
{{- end }}

{{/* Whether the database is a file of the pod: "yes" or nothing. */}}
{{- define "imks.sqlite" -}}
{{- if not (or (hasKey .Values.secrets "DATABASE_URL") (hasKey .Values.secretEnv "DATABASE_URL")) }}yes{{ end }}
{{- end }}

{{/* Whether anything is kept in the data directory, and so on a volume: "yes" or nothing. */}}
{{- define "imks.volume" -}}
{{- $files := (.Values.config.attachments | default dict).place | default "local" }}
{{- if and .Values.persistence.enabled (or (include "imks.sqlite" .) (eq $files "local")) }}yes{{ end }}
{{- end }}

{{/* How nodes reach each other: what is configured, else PostgreSQL, so that the old and the new pod of an upgrade do. */}}
{{- define "imks.adapter" -}}
{{- $cluster := .Values.config.cluster | default dict }}
{{- $secret := merge (dict) .Values.secrets .Values.secretEnv }}
{{- if $cluster.adapter }}{{ $cluster.adapter }}
{{- else if hasKey $secret "REDIS_URL" }}redis
{{- else if hasKey $secret "NATS_URL" }}nats
{{- else if include "imks.sqlite" . }}local
{{- else }}postgres
{{- end }}
{{- end }}

{{- define "imks.any" -}}
{{- if eq .Values.ipFamily "IPv6" }}[::]{{ else }}0.0.0.0{{ end }}
{{- end }}

{{/* A value of TOML. Helm reads all numbers as fractions. */}}
{{- define "imks.value" -}}
{{- if kindIs "string" . }}{{ . | toJson }}
{{- else if kindIs "slice" . }}{{ . | join "," | toJson }}
{{- else if kindIs "bool" . }}{{ . }}
{{- else }}{{ . | int64 }}
{{- end }}
{{- end }}

{{/* imks.toml: values first, then sections. */}}
{{- define "imks.toml" -}}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ include "imks.value" $value }}
{{- end }}
{{- end }}
{{- range $section, $values := .Values.config }}
{{- if kindIs "map" $values }}

[{{ $section }}]
{{- range $key, $value := $values }}
{{ $key }} = {{ include "imks.value" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What cannot work, said before anything is installed. */}}
{{- define "imks.check" -}}
{{- $config := .Values.config }}
{{- $own := dict "listen" "service.port" "internal_listen" "internal" "data_dir" "persistence" "tls.cert" "tls.secretName" "tls.key" "tls.secretName" "internal.tls_cert" "internal.secretName" "internal.tls_key" "internal.secretName" "internal.client_ca" "internal.clientCaKey" "webtransport.mode" "webtransport.enabled" "webtransport.listen" "webtransport.enabled" "cluster.address" "ipFamily" "drain.delay" "drain.delaySeconds" "drain.deadline" "drain.deadlineSeconds" "log.format" "env" }}
{{- $secret := dict "database.url" "secrets.DATABASE_URL" "token.hmac_secret" "secrets.IMKS_TOKEN_HMAC_SECRET" "auth.secret" "secrets.IMKS_AUTH_SECRET" "s3.secret" "secrets.IMKS_S3_SECRET" "admin.password_hash" "secrets.IMKS_ADMIN_PASSWORD_HASH" "cluster.redis_url" "secrets.REDIS_URL" "cluster.nats_url" "secrets.NATS_URL" "otlp.headers" "secrets.OTEL_EXPORTER_OTLP_HEADERS" "webhook.secret" "secretEnv.IMKS_WEBHOOK_SECRET" "events.secret" "secretEnv.IMKS_EVENTS_SECRET" }}
{{- range $key, $value := $config }}
{{- $keys := list $key }}
{{- if kindIs "map" $value }}{{ $keys = list }}{{ range $inner, $_ := $value }}{{ $keys = append $keys (printf "%s.%s" $key $inner) }}{{ end }}{{ end }}
{{- range $keys }}
{{- if hasKey $own . }}{{ fail (printf "config.%s is set by the chart: use the value %s" . (get $own .)) }}{{ end }}
{{- if hasKey $secret . }}{{ fail (printf "config.%s is a secret, and config goes into a ConfigMap that many can read: use the value %s" . (get $secret .)) }}{{ end }}
{{- end }}
{{- end }}
{{- $several := include "imks.several" . }}
{{- $sqlite := include "imks.sqlite" . }}
{{- if and $several $sqlite }}{{ fail "several pods need PostgreSQL: set secrets.DATABASE_URL, or replicas to 1 and autoscaling.enabled to false; one SQLite file belongs to one server" }}{{ end }}
{{- if and $sqlite (not .Values.persistence.enabled) }}{{ fail "without PostgreSQL all messages are in the data directory, and would be gone with the pod: set persistence.enabled, or secrets.DATABASE_URL" }}{{ end }}
{{- if and $several (eq (include "imks.adapter" .) "local") }}{{ fail "config.cluster.adapter is local, with which several pods do not hear each other: leave it out, or choose postgres, redis or nats" }}{{ end }}
{{- $files := (.Values.config.attachments | default dict).place | default "local" }}
{{- if and $several (eq $files "local") (not (and .Values.persistence.enabled (eq .Values.persistence.accessMode "ReadWriteMany"))) }}{{ fail "attached files are in the data directory, which several pods must share: set config.attachments.place to s3 or off, or persistence.accessMode to ReadWriteMany" }}{{ end }}
{{- if and .Values.webtransport.enabled (not .Values.tls.secretName) }}{{ fail "webtransport.enabled needs a certificate: set tls.secretName" }}{{ end }}
{{- if and .Values.internal.clientCaKey (not .Values.internal.secretName) }}{{ fail "internal.clientCaKey is a key of the Secret internal.secretName: set that too" }}{{ end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}{{ fail "ingress.enabled needs a name: set ingress.host" }}{{ end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}{{ fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" }}{{ end }}
{{- range $name, $_ := merge (dict) .Values.env .Values.secretEnv }}
{{- if has $name (list "IMKS_LISTEN" "IMKS_INTERNAL_LISTEN" "IMKS_DATA_DIR" "IMKS_CONFIG" "IMKS_CLUSTER_ADDRESS" "IMKS_DRAIN_DELAY" "IMKS_DRAIN_DEADLINE" "PORT") }}{{ fail (printf "%s is set by the chart" $name) }}{{ end }}
{{- end }}
{{- end }}
