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
{{- if not (hasKey .Values.secrets "DATABASE_URL") }}yes{{ end }}
{{- end }}

{{/* Whether anything is kept in the data directory, and so on a volume: "yes" or nothing. */}}
{{- define "imks.volume" -}}
{{- $files := (.Values.config.attachments | default dict).place | default "local" }}
{{- if and .Values.persistence.enabled (or (include "imks.sqlite" .) (eq $files "local")) }}yes{{ end }}
{{- end }}

{{/* How nodes reach each other: what is configured, else PostgreSQL, so that the old and the new pod of an upgrade do. */}}
{{- define "imks.adapter" -}}
{{- $cluster := .Values.config.cluster | default dict }}
{{- if $cluster.adapter }}{{ $cluster.adapter }}
{{- else if hasKey .Values.secrets "REDIS_URL" }}redis
{{- else if hasKey .Values.secrets "NATS_URL" }}nats
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

{{/* The settings that the chart makes from other values, and these values, as JSON. */}}
{{- define "imks.own" -}}
{{ dict "listen" "service.port" "internal_listen" "internal" "data_dir" "persistence" "tls.cert" "tls.secretName" "tls.key" "tls.secretName" "internal.tls_cert" "internal.secretName" "internal.tls_key" "internal.secretName" "internal.client_ca" "internal.clientCaKey" "webtransport.mode" "webtransport.enabled" "webtransport.listen" "webtransport.enabled" "cluster.address" "ipFamily" "drain.delay" "drain.delaySeconds" "drain.deadline" "drain.deadlineSeconds" | toJson }}
{{- end }}

{{/* Whether a setting is no secret as it stands in `value`: an address of HTTP without a user and a query. "yes" or nothing. */}}
{{- define "imks.open" -}}
{{- $text := kindIs "slice" .value | ternary (join "," .value) (toString .value) }}
{{- if and (regexMatch "(url|endpoint)$" .key) (regexMatch "^(https?://[^@?]*)?$" $text) }}yes{{ end }}
{{- end }}

{{/* What the value config may not have. */}}
{{- define "imks.check.config" -}}
{{- $settings := .Files.Get "files/settings.json" | fromJson }}
{{- $own := set (include "imks.own" . | fromJson) "log.format" "env.IMKS_LOG_FORMAT" }}
{{- $given := dict }}
{{- range $key, $value := .Values.config }}
{{- if kindIs "map" $value }}
{{- $known := false }}
{{- range $name, $_ := $settings.variables }}{{ if hasPrefix (printf "%s." $key) $name }}{{ $known = true }}{{ end }}{{ end }}
{{- if not $known }}{{ fail (printf "config.%s is no section of imks.toml: `imks config init` writes all of them" $key) }}{{ end }}
{{- range $inner, $text := $value }}{{ $_ := set $given (printf "%s.%s" $key $inner) $text }}{{ end }}
{{- else }}{{ $_ := set $given $key $value }}
{{- end }}
{{- end }}
{{- range $key, $value := $given }}
{{- if hasKey $own $key }}{{ fail (printf "config.%s is set by the chart: use the value %s" $key (get $own $key)) }}{{ end }}
{{- if not (hasKey $settings.variables $key) }}{{ fail (printf "config.%s is no setting of imks: `imks config init` writes all of them" $key) }}{{ end }}
{{- if and (has $key $settings.secrets) (not (include "imks.open" (dict "key" $key "value" $value))) }}{{ fail (printf "config.%s is a secret, and config goes into a ConfigMap that many can read: use the value secrets.%s" $key (get $settings.variables $key)) }}{{ end }}
{{- end }}
{{- end }}

{{/* What the value env may not have. */}}
{{- define "imks.check.env" -}}
{{- $settings := .Files.Get "files/settings.json" | fromJson }}
{{- $own := set (include "imks.own" . | fromJson) "cluster.adapter" "config.cluster.adapter" }}
{{- $taken := dict "IMKS_CONFIG" "config" "PORT" "service.port" "POD_IP" "ipFamily" }}
{{- $keys := dict }}
{{- range $key, $name := $settings.variables }}
{{- $_ := set $keys $name $key }}
{{- if hasKey $own $key }}{{ $_ := set $taken $name (get $own $key) }}{{ end }}
{{- if has $key $settings.secrets }}{{ $_ := set $taken (printf "%s_FILE" $name) (printf "secrets.%s" $name) }}{{ end }}
{{- end }}
{{- range $name, $_ := .Values.files }}{{ $_ := set $taken $name (printf "files.%s" $name) }}{{ end }}
{{- range $name, $value := .Values.env }}
{{- if hasKey $taken $name }}{{ fail (printf "%s is set by the chart: use the value %s in place of env.%s" $name (get $taken $name) $name) }}{{ end }}
{{- $key := get $keys $name }}
{{- if has $key $settings.secrets }}
{{- if hasKey $.Values.secrets $name }}{{ fail (printf "%s is there twice: leave out env.%s, or secrets.%s" $name $name $name) }}{{ end }}
{{- if not (include "imks.open" (dict "key" $key "value" $value)) }}{{ fail (printf "env.%s is a secret, and env goes into the Deployment that many can read: use the value secrets.%s" $name $name) }}{{ end }}
{{- end }}
{{- if and (hasPrefix "IMKS_" $name) (not $key) (not (has $name $settings.aliases)) }}{{ fail (printf "env.%s is no setting of imks: `imks check-config --table` lists all of them" $name) }}{{ end }}
{{- end }}
{{- end }}

{{/* What cannot work, said before anything is installed. */}}
{{- define "imks.check" -}}
{{- include "imks.check.config" . }}
{{- include "imks.check.env" . }}
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
{{- end }}
