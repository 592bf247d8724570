{{/* What "restricted" of Pod Security asks of a pod; `user` may differ for images of others. */}}
{{- define "posta.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user | default 10001 }}
runAsGroup: {{ .group | default .user | default 10001 }}
fsGroup: {{ .group | default .user | default 10001 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "posta.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
What the sidecars that tell Prometheus of Postgres and NATS have in common. They are not probed: a pod is ready when all
of its containers are, and whoever measures the store must not take it away.
*/}}
{{- define "posta.exporter" -}}
image: {{ .image }}
securityContext:
  {{- include "posta.containerSecurity" . | nindent 2 }}
resources:
  {{- toYaml .resources | nindent 2 }}
{{- end }}

{{/* The label by which a ServiceMonitor finds the Service of a store that has an exporter. */}}
{{- define "posta.scraped" -}}
{{ .exporter.enabled | ternary (dict "posta/metrics" "true") dict | toYaml }}
{{- end }}

{{/* Head of every pod spec of ours. */}}
{{- define "posta.podHead" -}}
serviceAccountName: {{ .account | default (include "posta.serviceAccount" .root) }}
automountServiceAccountToken: false
# Kubernetes would inject POSTA_IMAP_SERVICE_HOST and its kin, which the settings refuse as unknown keys.
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "posta.podSecurity" . | nindent 2 }}
{{- end }}

{{/* Environment of settings: a tree {group: {key: value}} as POSTA_<GROUP>_<KEY>. */}}
{{- define "posta.settings" -}}
{{- range $group, $keys := . }}
{{- if kindIs "map" $keys }}
{{- range $key, $value := $keys }}
- name: POSTA_{{ upper $group }}_{{ upper $key }}
  value: {{ include "posta.word" $value | quote }}
{{- end }}
{{- else }}
- name: POSTA_{{ upper $group }}
  value: {{ include "posta.word" $keys | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Numbers come out of YAML as floats: 52428800 must not become 5.24288e+07. */}}
{{- define "posta.word" -}}
{{- if kindIs "slice" . -}}{{ join "," . }}
{{- else if kindIs "float64" . -}}{{ eq (floor .) . | ternary (int64 .) . }}
{{- else -}}{{ . }}{{- end -}}
{{- end }}

{{- define "posta.databaseEnv" -}}
{{- $database := .Values.database -}}
{{- $secret := $database.existingSecret | default (include "posta.generated" .) -}}
- name: POSTA_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ empty $database.existingSecret | not | ternary $database.existingSecretKey "database-url" }}
{{- if or $database.directUrl $database.existingSecretDirectKey }}
- name: POSTA_DATABASE_DIRECT_URL
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ empty $database.existingSecret | not | ternary $database.existingSecretDirectKey "database-direct-url" }}
{{- end }}
{{- end }}

{{/* A copy to read from, for services alone: migrations and provisioning must see what is so. */}}
{{- define "posta.readOnlyEnv" -}}
{{- $database := .Values.database -}}
{{- if or $database.readOnlyUrl $database.existingSecretReadOnlyKey -}}
- name: POSTA_DATABASE_READ_ONLY_URL
  valueFrom:
    secretKeyRef:
      name: {{ $database.existingSecret | default (include "posta.generated" .) }}
      key: {{ empty $database.existingSecret | ternary "database-read-only-url" $database.existingSecretReadOnlyKey }}
{{- end }}
{{- end }}

{{- define "posta.natsEnv" -}}
- name: POSTA_NATS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.nats.existingSecret | default (include "posta.generated" .) }}
      key: {{ empty .Values.nats.existingSecret | not | ternary .Values.nats.existingSecretKey "nats-url" }}
- name: POSTA_NATS_REPLICAS
  value: {{ .Values.nats.members | quote }}
- name: POSTA_NATS_TRACE_DAYS
  value: {{ .Values.nats.traceDays | quote }}
- name: POSTA_NATS_TRACE_SIZE
  value: {{ .Values.nats.traceSize | quote }}
{{- end }}

{{/* What every process of Posta is told. */}}
{{- define "posta.commonEnv" -}}
- name: POSTA_HOSTNAME
  value: {{ include "posta.hostname" . }}
- name: POSTA_SYNC_PUBLIC_HOSTNAME
  value: {{ include "posta.hostname" . }}
{{ include "posta.databaseEnv" . }}
{{ include "posta.natsEnv" . }}
- name: POSTA_DKIM_KEY_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ .Values.dkim.existingSecret | default (include "posta.generated" .) }}
      key: {{ empty .Values.dkim.existingSecret | ternary "dkim-key-secret" .Values.dkim.existingSecretKey }}
- name: POSTA_SRS_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ .Values.dkim.existingSecret | default (include "posta.generated" .) }}
      key: {{ empty .Values.dkim.existingSecret | ternary "srs-secret" .Values.dkim.existingSecretSrsKey }}
- name: POSTA_SEAL_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ .Values.seal.existingSecret | default (include "posta.generated" .) }}
      key: {{ empty .Values.seal.existingSecret | ternary "seal-secret" .Values.seal.existingSecretKey }}
{{- if and .Values.seal.existingSecret .Values.seal.existingSecretFormerKey }}
- name: POSTA_SEAL_FORMER
  valueFrom:
    secretKeyRef:
      name: {{ .Values.seal.existingSecret }}
      key: {{ .Values.seal.existingSecretFormerKey }}
{{- end }}
{{- end }}

{{/* Waits until the schema is at least what this version was written for: the pod is not started on an older one. */}}
{{- define "posta.schemaCheck" -}}
- name: schema
  image: {{ include "posta.image" (dict "root" .root "name" .image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [python, -m, services.core.store.migrate, --wait]
  env:
    {{- include "posta.databaseEnv" .root | nindent 4 }}
  securityContext:
    {{- include "posta.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 96Mi}
    limits: {memory: 192Mi}
{{- end }}

{{- define "posta.probes" -}}
# The mail ports are never probed, and being alive does not depend on Postgres or NATS: a database that is away must not
# make the kubelet kill what will work again once it is back.
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  timeoutSeconds: 4
  failureThreshold: 2
{{- end }}
