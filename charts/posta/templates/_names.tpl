{{- define "posta.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "posta.domain" -}}
{{- required "domain is not set: --set domain=example.org" .Values.domain -}}
{{- end }}

{{- define "posta.hostname" -}}
{{- .Values.hostname | default (printf "mail.%s" (include "posta.domain" .)) -}}
{{- end }}

{{/* Labels of an object; `component` is the service or part it belongs to. */}}
{{- define "posta.labels" -}}
{{ include "posta.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: posta
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "posta.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* Name, labels and annotations: the metadata of an object of `component`, with further `annotations`. */}}
{{- define "posta.metadata" -}}
name: {{ printf "%s%s" (include "posta.fullname" .root) (not .name | ternary "" (printf "-%s" (.name | default ""))) }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "posta.labels" (dict "root" .root "component" .component) | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "posta.image" -}}
{{- $image := .root.Values.image -}}
{{- printf "%s%s/%s:%s" $image.registry $image.repository .name ($image.tag | default .root.Chart.AppVersion) -}}
{{- end }}

{{- define "posta.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "posta.fullname" .) "default") -}}
{{- end }}

{{- define "posta.generated" -}}
{{ include "posta.fullname" . }}-generated
{{- end }}

{{- define "posta.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "posta.fullname" .)) -}}
{{- end }}

{{/* True where Postgres runs in this release. */}}
{{- define "posta.ownPostgres" -}}
{{- if and .Values.postgres.enabled (not .Values.database.url) (not .Values.database.existingSecret) -}}true{{- end -}}
{{- end }}

{{- define "posta.ownNats" -}}
{{- if and .Values.nats.enabled (not .Values.nats.url) (not .Values.nats.existingSecret) -}}true{{- end -}}
{{- end }}

{{- define "posta.clientNames" -}}
{{- $domain := include "posta.domain" . -}}
{{- concat (list (include "posta.hostname" .) (printf "autoconfig.%s" $domain) (printf "autodiscover.%s" $domain)) (.Values.mtaSts.enabled | ternary (list (printf "mta-sts.%s" $domain)) list) .Values.tls.extraNames | uniq | toJson -}}
{{- end }}
